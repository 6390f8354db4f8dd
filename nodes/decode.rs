//! Decode.

use std::sync::Arc;

use lsregen_diffusion::candle_core::{DType, Device, Tensor};
use lsregen_diffusion::models::bands::BandOptions;
use lsregen_engine::{Context, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::{on_layer, raise};
use crate::values::{Image, Latent, Model, latent_faults};

/// Makes a picture of a latent, by a model's autoencoder.
///
/// Large pictures are worked through in bands of rows, which saves memory and leaves no trace: the picture is that of the
/// whole latent at once. In f32 it takes about 1 kB a pixel (3 GB for 1920×1440) beside the model, and half of that in
/// half precision.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decode {}

sockets! {
    pub struct DecodeInputs {
        /// The model whose autoencoder decodes: one of the family that made the latent.
        pub model: Arc<Model>,
        /// The latent.
        pub latent: Arc<Latent>,
    }
}

outputs! {
    pub struct DecodeOutputs {
        /// The picture, eight times the latent's size.
        pub image: Arc<Image>,
    }
}

impl Node for Decode {
    const TYPE: &'static str = "Decode";
    const VERSION: u32 = 2;
    const LANE: Lane = Lane::Device;

    type Inputs = DecodeInputs;
    type Outputs = DecodeOutputs;

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        latent_faults(links)
    }

    fn run(&self, inputs: DecodeInputs, cx: &Context) -> anyhow::Result<DecodeOutputs> {
        cx.cancel().check()?;
        let z = inputs.latent.of(&inputs.model)?;
        let work = BandOptions { on_step: &on_layer(cx), ..BandOptions::default() };
        Ok(DecodeOutputs { image: Arc::new(Image::decoded(&inputs.model, z, &work).map_err(raise)?) })
    }
}

impl Image {
    /// The picture of a latent (1, C, h, w).
    pub(crate) fn decoded(model: &Model, z: &Tensor, work: &BandOptions) -> lsregen_diffusion::Result<Image> {
        let z = z.to_device(model.0.device())?;
        let x = model.0.vae()?.decode_with(&z, work)?.clamp(-1f64, 1f64)?;
        Ok(Image(x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?))
    }
}
