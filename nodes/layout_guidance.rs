//! LayoutGuidance.

use std::sync::Arc;

use lsregen_diffusion::guidance;
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::values::Layout;

/// Draws most of the attention of each object's words into its box (layout-guidance).
///
/// The sampling's prompt must have the phrases of the layout in the same words. Unless told otherwise it acts as published:
/// γ = 30 by the share of noise, up to five times in each of the first fifth of the steps, until the energy is 0.2 once.
/// The gradient goes through the network.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct LayoutGuidance {
    /// γ at its full. `auto` follows the size of each box.
    #[serde(default = "scale")]
    #[schemars(extend("minimum" = 0.0))]
    pub scale: Strength,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

fn scale() -> Strength {
    Strength::Number(guidance::LayoutGuidance::defaults().scale)
}

sockets! {
    pub struct LayoutGuidanceInputs {
        /// Phrases that the prompt has too, in their boxes.
        pub layout: Arc<Layout>,
    }
}

impl Node for LayoutGuidance {
    const TYPE: &'static str = "LayoutGuidance";
    const VERSION: u32 = 1;

    type Inputs = LayoutGuidanceInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.params.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn run(&self, inputs: LayoutGuidanceInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let spec = guidance::LayoutGuidance {
            layout: inputs.layout.0.clone(),
            settings: self.params.resolve_unmasked(self.scale, guidance::LayoutGuidance::defaults(), &inputs.layout),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
