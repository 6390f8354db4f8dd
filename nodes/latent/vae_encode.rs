//! VAEEncode.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Declaration, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::autoencoder::encoded;
use crate::host::bridge::on_layer;
use crate::values::{Image, ImageInfo, Latent, LatentNoise, Model, declared};

/// Encodes an image to a latent with a model's autoencoder.
///
/// The latent is the mean of the autoencoder's distribution, so that one image always gives the same latent. Large images
/// are encoded in bands of rows, as in Decode.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaeEncode {}

sockets! {
    pub struct VaeEncodeInputs {
        /// The model whose autoencoder encodes.
        pub model: Arc<Model>,
        /// The image, or a batch of them; width and height must be multiples of 8.
        pub image: Arc<Image>,
    }
}

outputs! {
    pub struct VaeEncodeOutputs {
        /// The latent, an eighth of the size of the image; for a batch of images, a batch of latents.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for VaeEncode {
    const TYPE: &'static str = "VAEEncode";
    const VERSION: u32 = 2;
    const LANE: Lane = Lane::Device;

    type Inputs = VaeEncodeInputs;
    type Outputs = VaeEncodeOutputs;

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let size = ImageInfo::of(links, "image").size;
        size.and_then(|size| size.step_error(links, "image")).into_iter().collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("latent", Some(ImageInfo { noise: LatentNoise::None, ..ImageInfo::of(links, "image") }))
    }

    fn run(&self, inputs: VaeEncodeInputs, cx: &Context) -> anyhow::Result<VaeEncodeOutputs> {
        cx.cancel().check()?;
        let model = &inputs.model.0;
        let (width, height) = inputs.image.size()?;
        let step = model.info.size_step;
        anyhow::ensure!(
            width % step == 0 && height % step == 0,
            "an image of {width}×{height} cannot be encoded: its sides must be multiples of {step}; resize it with Upsample \
             first"
        );
        let on_layer = on_layer(cx, inputs.image.count());
        Ok(VaeEncodeOutputs { latent: Arc::new(encoded(&inputs.image, &inputs.model, cx, &on_layer)?) })
    }
}
