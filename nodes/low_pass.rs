//! LowPass.

use std::sync::Arc;

use lsregen_diffusion::guidance::{GuidanceSettings, LowPassGuidance, Metric, Window};
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::values::{Image, Layout};

/// Draws the coarse part of a sampling to that of a picture, and leaves the fine part free (ILVR).
///
/// What is coarse is the mean of each block of `factor` × `factor` latent pixels, of 8 × 8 pixels each. Any picture will
/// do, of any size. With `scale: 0.5` the picture's coarse part takes the place of the sampling's, as ILVR has it, in
/// the first half of the steps, unless told otherwise.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct LowPass {
    /// Side of a block in latent pixels. The larger, the freer the picture.
    #[serde(default = "factor")]
    #[schemars(range(min = 1, max = 1024))]
    pub factor: u32,
    /// γ: 0.5 puts the picture's coarse part in the place of the sampling's, less moves towards it. `auto` follows the
    /// size of each box.
    #[serde(default = "scale")]
    pub scale: Strength,
    /// By what the coarse parts are compared.
    #[serde(default)]
    pub distance: Metric,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

fn factor() -> u32 {
    4
}

fn defaults() -> GuidanceSettings {
    GuidanceSettings { scale: 0.5, window: Window::first(0.5), ..GuidanceSettings::default() }
}

fn scale() -> Strength {
    Strength::Number(defaults().scale)
}

sockets! {
    pub struct LowPassInputs {
        /// The picture.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
        pub layout: Option<Arc<Layout>>,
    }
}

impl Node for LowPass {
    const TYPE: &'static str = "LowPass";
    const VERSION: u32 = 1;

    type Inputs = LowPassInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.params.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn run(&self, inputs: LowPassInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let spec = LowPassGuidance {
            picture: inputs.image.0.clone(),
            factor: self.factor as usize,
            metric: self.distance,
            settings: self.params.resolve(self.scale, defaults(), inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
