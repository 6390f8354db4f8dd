//! Style.

use std::sync::Arc;

use lsregen_diffusion::guidance::StyleGuidance;
use lsregen_engine::{CheckContext, Context, FetchProgress, FileRef, Lane, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::named_clip::NamedClip;

use crate::values::{Image, Layout};

/// Draws the textures and colours of the predicted picture to those of another one, wherever they are.
///
/// Compared are Gram matrices of what one of CLIP's first layers makes of the patches, as FreeDoM has it. Any picture will
/// do, of any size; of one that is no square CLIP looks at the middle. The gradient goes through CLIP, the decoder and the
/// network. Unless told otherwise it acts from 30 % to 70 % of the steps, three times a step with fresh noise between, scaled
/// as FreeDoM scales it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Style {
    /// The CLIP that looks: `shapes/clip`, the small one of coloured shapes that is built in; or a folder in transformers'
    /// layout (`config.json`, `model.safetensors`, tokenizer, `preprocessor_config.json`): by its path from the graph file,
    /// by its name in a folder of models (`--models-dir`), or on the Hugging Face hub, such as
    /// `hf:openai/clip-vit-base-patch16`, which a run downloads first. What is drawn must be of the kind that it knows.
    #[schemars(length(min = 1))]
    pub clip: String,
    /// The layer of CLIP's picture encoder whose textures count, from 1. Later layers see more of what is shown, and less of
    /// how.
    #[serde(default = "layer")]
    #[schemars(range(min = 1))]
    pub layer: u32,
    /// γ: how strongly. With `normalise: freedom` the share of what classifier-free guidance adds. `auto` follows the size of
    /// each box.
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
        /// The picture whose style is wanted.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
        pub layout: Option<Arc<Layout>>,
    }
}

impl Node for Style {
    const TYPE: &'static str = "Style";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;

    type Inputs = StyleInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        let mut faults = self.params.faults();
        faults.extend(NamedClip(&self.clip).faults(cx, |clip| {
            let layers = clip.config.vision.num_hidden_layers;
            if self.layer as usize <= layers {
                return vec![];
            }
            let what = format!("{} has {layers} layers, and none of number {}", self.clip, self.layer);
            vec![NodeError::new("layer", what).help("FreeDoM's, the third, is the default")]
        }));
        faults
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        NamedClip(&self.clip).files(cx)
    }

    fn fetch(&self, cx: &CheckContext, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError> {
        NamedClip(&self.clip).fetch(cx, progress)
    }

    fn fingerprint(&self) -> Option<String> {
        NamedClip(&self.clip).fingerprint()
    }

    fn run(&self, inputs: StyleInputs, cx: &Context) -> anyhow::Result<GuidanceOutputs> {
        let spec = StyleGuidance {
            clip: NamedClip(&self.clip).load(cx)?,
            layer: self.layer as usize,
            picture: inputs.image.0.clone(),
            settings: self.params.resolve(self.scale, StyleGuidance::defaults(), inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
