//! ClipImage.

use std::sync::Arc;

use lsregen_diffusion::guidance::{ClipGoal, ClipGuidance, Metric};
use lsregen_engine::{Context, Lane, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::clip::ClipPath;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Image, Layout};

/// Guides the sampling towards the content of another image, by a CLIP model. The content may be anywhere in the image.
///
/// The image may have any size. If the image is not square, CLIP sees only its centre. The gradient goes through CLIP,
/// the decoder and the network. By default the guidance acts in the first 60 % of the steps, normalised as in FreeDoM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct ClipImage {
    /// The CLIP model: `shapes/clip`, the built-in one, which knows coloured shapes only; or a folder in transformers'
    /// layout (`config.json`, `model.safetensors`, tokenizer, `preprocessor_config.json`). Named by its path from the
    /// graph file, by its name in a folder of models (`--models-dir`), or on the Hugging Face hub, such as
    /// `hf:openai/clip-vit-base-patch16`, which a run downloads first. It must have been trained on images of the kind
    /// that you sample.
    #[schemars(length(min = 1))]
    pub clip: String,
    /// The distance between the two embeddings, which have length 1.
    #[serde(default = "distance")]
    pub distance: Metric,
    /// γ, the strength. With `normalise: freedom` it is a share of classifier-free guidance's correction. `auto` follows the size
    /// of each box.
    #[serde(default = "scale")]
    #[schemars(extend("minimum" = 0.0))]
    pub scale: Strength,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

fn distance() -> Metric {
    Metric::Cosine
}

fn scale() -> Strength {
    Strength::Number(ClipGuidance::defaults().scale)
}

sockets! {
    pub struct ClipImageInputs {
        /// The image whose content is the target.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
    }
}

impl GuidanceNode for ClipImage {
    const TYPE: &'static str = "ClipImage";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;

    type Inputs = ClipImageInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn clip(&self) -> Option<ClipPath<'_>> {
        Some(ClipPath(&self.clip))
    }

    fn guidance(&self, inputs: ClipImageInputs, cx: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(ClipGuidance {
            clip: ClipPath(&self.clip).load(cx)?,
            goal: ClipGoal::Picture(inputs.image.tensor()?),
            metric: self.distance,
            settings: self.params.resolve(self.scale, ClipGuidance::defaults(), inputs.layout.as_deref()),
        }))
    }
}
