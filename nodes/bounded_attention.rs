//! BoundedAttention.

use std::sync::Arc;

use lsregen_diffusion::guidance;
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::values::Layout;

/// Draws each object's words, and the pixels of its box, to be seen from inside its box (Bounded Attention's guidance).
///
/// Cross-attention and self-attention together: objects of one kind stay apart. The sampling's prompt must have the phrases
/// of the layout in the same words. Unless told otherwise it acts as published: γ from 18 to 5, up to five times in each of
/// the first 30 % of the steps, until the distance is 0.2. The gradient goes through the network, twice.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct BoundedAttention {
    /// The resolution whose attention counts: latent pixels a side of one pixel of the map. By default the one that gives maps
    /// nearest to the published 16 × 16, which is 4 for Stable Diffusion at 512 × 512.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub downscale: Option<u32>,
    /// γ at its full. `auto` follows the size of each box.
    #[serde(default = "scale")]
    #[schemars(extend("minimum" = 0.0))]
    pub scale: Strength,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

fn scale() -> Strength {
    Strength::Number(guidance::BoundedAttentionGuidance::defaults().scale)
}

sockets! {
    pub struct BoundedAttentionInputs {
        /// Phrases that the prompt has too, in their boxes.
        pub layout: Arc<Layout>,
    }
}

impl Node for BoundedAttention {
    const TYPE: &'static str = "BoundedAttention";
    const VERSION: u32 = 1;

    type Inputs = BoundedAttentionInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.params.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn run(&self, inputs: BoundedAttentionInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let spec = guidance::BoundedAttentionGuidance {
            layout: inputs.layout.0.clone(),
            downscale: self.downscale.map(|n| n as usize),
            settings: self.params.resolve_unmasked(
                self.scale,
                guidance::BoundedAttentionGuidance::defaults(),
                &inputs.layout,
            ),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
