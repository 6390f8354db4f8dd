//! Style.

use std::sync::Arc;

use lsregen_diffusion::guidance::StyleGuidance;
use lsregen_engine::{CheckContext, Context, Lane, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::clip::ClipPath;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Image, Layout};

/// Guides the sampling towards the textures and colours of another image, wherever they are in it.
///
/// It compares Gram matrices of the patches after one of CLIP's first layers, as FreeDoM does. The image may have any
/// size. If the image is not square, CLIP sees only its centre. The gradient goes through CLIP, the decoder and the
/// network. By default the guidance acts from 30 % to 70 % of the steps, three times a step with fresh noise between,
/// normalised as in FreeDoM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Style {
    /// The CLIP model: `shapes/clip`, the built-in one, which knows coloured shapes only; or a folder in transformers'
    /// layout (`config.json`, `model.safetensors`, tokenizer, `preprocessor_config.json`). Named by its path from the
    /// graph file, by its name in a folder of models (`--models-dir`), or on the Hugging Face hub, such as
    /// `hf:openai/clip-vit-base-patch16`, which a run downloads first. It must have been trained on images of the kind
    /// that you sample.
    #[schemars(length(min = 1))]
    pub clip: String,
    /// The layer of CLIP's image encoder whose textures are compared, from 1. Later layers describe more of the content and
    /// less of the style.
    #[serde(default = "layer")]
    #[schemars(range(min = 1))]
    pub layer: u32,
    /// γ, the strength. With `normalise: freedom` it is a share of classifier-free guidance's correction. `auto` follows the size
    /// of each box.
    #[serde(default = "scale")]
    #[schemars(extend("minimum" = 0.0))]
    pub scale: Strength,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

fn layer() -> u32 {
    StyleGuidance::LAYER as u32
}

fn scale() -> Strength {
    Strength::Number(StyleGuidance::defaults().scale)
}

sockets! {
    pub struct StyleInputs {
        /// The image whose style is the target.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
    }
}

impl GuidanceNode for Style {
    const TYPE: &'static str = "Style";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;

    type Inputs = StyleInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn clip(&self) -> Option<ClipPath<'_>> {
        Some(ClipPath(&self.clip))
    }

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        match ClipPath(&self.clip).vision_layers(cx) {
            Some(layers) if self.layer as usize > layers => {
                let message = format!("{} has {layers} layers, but `layer` is {}", self.clip, self.layer);
                vec![NodeError::new("layer", message).help("leave `layer` out: FreeDoM's, the third, is the default")]
            }
            _ => vec![],
        }
    }

    fn guidance(&self, inputs: StyleInputs, cx: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(StyleGuidance {
            clip: ClipPath(&self.clip).load(cx)?,
            layer: self.layer as usize,
            picture: inputs.image.tensor()?,
            settings: self.params.resolve(self.scale, StyleGuidance::defaults(), inputs.layout.as_deref()),
        }))
    }
}
