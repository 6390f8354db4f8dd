//! BoxDiff.

use std::sync::Arc;

use lsregen_diffusion::guidance;
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::defaults;
use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::values::Layout;

/// Draws the attention of each object's words into its box (BoxDiff).
///
/// The sampling's prompt must have the phrases of the layout in the same words. Unless told otherwise it acts as published:
/// γ = 20, falling, in the first half of the steps, with three refined steps before. The gradient goes through the network.
/// Large pictures of SDXL need much memory for it: see docs/guidance.md.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct BoxDiff {
    /// The resolution whose attention counts: latent pixels a side of one pixel of the map. By default the one that gives maps
    /// nearest to the published 16 × 16, which is 4 for Stable Diffusion at 512 × 512.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub downscale: Option<u32>,
    /// Whether the first step, that at a fifth and that at two fifths of the run are refined: updated, up to 20 times, by
    /// the object that is farthest from its box.
    #[serde(default = "defaults::yes")]
    pub refine: bool,
    /// γ at its full. `auto` follows the size of each box.
    #[serde(default = "scale")]
    #[schemars(extend("minimum" = 0.0))]
    pub scale: Strength,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

fn scale() -> Strength {
    Strength::Number(guidance::BoxDiffGuidance::defaults().scale)
}

sockets! {
    pub struct BoxDiffInputs {
        /// Phrases that the prompt has too, in their boxes.
        pub layout: Arc<Layout>,
    }
}

impl Node for BoxDiff {
    const TYPE: &'static str = "BoxDiff";
    const VERSION: u32 = 2;

    type Inputs = BoxDiffInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.params.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn run(&self, inputs: BoxDiffInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let spec = guidance::BoxDiffGuidance {
            layout: inputs.layout.0.clone(),
            downscale: self.downscale.map(|n| n as usize),
            refined: if self.refine { guidance::BoxDiffGuidance::REFINED.to_vec() } else { vec![] },
            refinements: guidance::BoxDiffGuidance::REFINEMENTS,
            settings: self.params.resolve_unmasked(self.scale, guidance::BoxDiffGuidance::defaults(), &inputs.layout),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
