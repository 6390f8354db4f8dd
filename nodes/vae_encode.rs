//! VAEEncode.

use std::sync::Arc;

use lsregen_diffusion::models::bands::BandOptions;
use lsregen_engine::{Context, Lane, Node, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::{on_layer, raise};
use crate::values::{Image, Latent, Model};

/// Compresses a picture into the latent space of a model's autoencoder.
///
/// The latent is the mean of the autoencoder's distribution, so that the same picture always gives the same latent.
/// Large pictures are worked through in bands of rows, as by Decode.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaeEncode {}

sockets! {
    pub struct VaeEncodeInputs {
        /// The model whose autoencoder encodes.
        pub model: Arc<Model>,
        /// The picture; its width and height must be multiples of 8.
        pub image: Arc<Image>,
    }
}

outputs! {
    pub struct VaeEncodeOutputs {
        /// The latent, an eighth of the picture's size.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for VaeEncode {
    const TYPE: &'static str = "VAEEncode";
    const VERSION: u32 = 2;
    const LANE: Lane = Lane::Device;

    type Inputs = VaeEncodeInputs;
    type Outputs = VaeEncodeOutputs;

    fn run(&self, inputs: VaeEncodeInputs, cx: &Context) -> anyhow::Result<VaeEncodeOutputs> {
        cx.cancel().check()?;
        let model = &inputs.model.0;
        let (width, height) = inputs.image.size()?;
        let step = model.info.size_step;
        anyhow::ensure!(
            width % step == 0 && height % step == 0,
            "a picture of {width}×{height} cannot be encoded: its sides must be multiples of {step}; resize it before, \
             with Upsample"
        );
        let x = inputs.image.0.to_device(model.device()).map_err(|error| raise(error.into()))?;
        let work = BandOptions { on_step: &on_layer(cx), ..BandOptions::default() };
        let z = model.vae().and_then(|vae| vae.encode_with(&x, &work)).map_err(raise)?;
        Ok(VaeEncodeOutputs { latent: Arc::new(Latent { z, family: Some(model.info.family) }) })
    }
}
