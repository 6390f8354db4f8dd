//! Decode.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Declaration, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::autoencoder::decoded;
use crate::host::bridge::on_layer;
use crate::params::leftover::noisy_warning;
use crate::values::{Image, ImageInfo, Latent, LatentNoise, Model, declared, latent_errors};

/// Decodes a latent to an image with a model's autoencoder.
///
/// Large images are decoded in bands of rows. This saves memory and does not change the result. In addition to the
/// model, decoding takes about 1 kB per pixel in f32 (3 GB for 1920×1440), and half of that in half precision. The latents of
/// a batch are decoded one after another, which takes the memory of one, and 12 bytes per pixel for each image.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decode {}

sockets! {
    pub struct DecodeInputs {
        /// The model whose autoencoder decodes: one of the family that made the latent.
        pub model: Arc<Model>,
        /// The latent, or a batch of them.
        pub latent: Arc<Latent>,
    }
}

outputs! {
    pub struct DecodeOutputs {
        /// The image, eight times the size of the latent; for a batch of latents, a batch of images.
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
        latent_errors(links).into_iter().chain(noisy_warning(links, "latent")).collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("image", Some(ImageInfo { noise: LatentNoise::default(), ..ImageInfo::of(links, "latent") }))
    }

    fn run(&self, inputs: DecodeInputs, cx: &Context) -> anyhow::Result<DecodeOutputs> {
        let on_layer = on_layer(cx, inputs.latent.count());
        Ok(DecodeOutputs { image: Arc::new(decoded(&inputs.latent, &inputs.model, cx, &on_layer)?) })
    }
}
