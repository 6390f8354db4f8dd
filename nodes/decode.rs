//! Decode.

use std::sync::Arc;

use lsregen_diffusion::candle_core::{DType, Device, Tensor};
use lsregen_engine::{Context, Fault, Lane, Links, Node, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::raise;
use crate::values::{Image, Latent, Model, latent_faults};

/// Makes a picture of a latent, by a model's autoencoder.
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
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Device;

    type Inputs = DecodeInputs;
    type Outputs = DecodeOutputs;

    fn check_links(&self, links: &Links) -> Vec<Fault> {
        latent_faults(links)
    }

    fn run(&self, inputs: DecodeInputs, cx: &Context) -> anyhow::Result<DecodeOutputs> {
        cx.cancel().check()?;
        let z = inputs.latent.of(&inputs.model)?;
        Ok(DecodeOutputs { image: Arc::new(Image::decoded(&inputs.model, z).map_err(raise)?) })
    }
}

impl Image {
    /// The picture of a latent (1, C, h, w).
    pub(crate) fn decoded(model: &Model, z: &Tensor) -> lsregen_diffusion::Result<Image> {
        let z = z.to_device(model.0.device())?;
        let x = model.0.vae()?.decode(&z)?.clamp(-1f64, 1f64)?;
        Ok(Image(x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?))
    }
}
