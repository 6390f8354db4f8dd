//! ClipText.

use std::sync::Arc;

use lsregen_diffusion::guidance::{ClipGoal, ClipGuidance, Metric};
use lsregen_engine::{CheckContext, Context, FetchProgress, FileRef, Lane, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::named_clip::NamedClip;
use crate::values::Layout;

/// Draws the predicted picture to what a text says, as a CLIP understands both.
///
/// CLIP looks at the middle of a picture that is no square. The gradient goes through CLIP, the decoder and the network.
/// Unless told otherwise it acts in the first 60 % of the steps, scaled as FreeDoM scales it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct ClipText {
    /// What the picture is to show.
    #[schemars(length(min = 1))]
    pub text: String,
    /// The CLIP that looks: `shapes/clip`, the small one of coloured shapes that is built in; or a folder in transformers'
    /// layout (`config.json`, `model.safetensors`, tokenizer, `preprocessor_config.json`): by its path from the graph file,
    /// by its name in a folder of models (`--models-dir`), or on the Hugging Face hub, such as
    /// `hf:openai/clip-vit-base-patch16`, which a run downloads first. What is drawn must be of the kind that it knows.
    #[schemars(length(min = 1))]
    pub clip: String,
    /// By what both embeddings, of length 1, are compared.
    #[serde(default = "distance")]
    pub distance: Metric,
    /// γ: how strongly. With `normalise: freedom` the share of what classifier-free guidance adds. `auto` follows the size of
    /// each box.
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
    pub struct ClipTextInputs {
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
        pub layout: Option<Arc<Layout>>,
    }
}

impl Node for ClipText {
    const TYPE: &'static str = "ClipText";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;

    type Inputs = ClipTextInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        let mut faults = self.params.faults();
        faults.extend(NamedClip(&self.clip).faults(cx, |_| vec![]));
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

    fn run(&self, inputs: ClipTextInputs, cx: &Context) -> anyhow::Result<GuidanceOutputs> {
        let spec = ClipGuidance {
            clip: NamedClip(&self.clip).load(cx)?,
            goal: ClipGoal::Text(self.text.clone()),
            metric: self.distance,
            settings: self.params.resolve(self.scale, ClipGuidance::defaults(), inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
