//! BoundedAttention.

use std::sync::Arc;

use lsregen_diffusion::guidance;
use lsregen_engine::{Context, Links, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Layout, Phrases, SamplingNeeds};

/// Guides each object's words and the pixels of its box to be attended from inside the box (Bounded Attention).
///
/// It uses cross-attention and self-attention together, which keeps objects of one kind apart. The prompt of the sampling
/// must contain the phrases of the layout in the same words. By default the guidance acts as published: γ from 18 to 5, up
/// to five times in each of the first 30 % of the steps, until the distance is 0.2. The gradient goes through the network,
/// twice.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct BoundedAttention {
    /// Resolution of the attention maps that are used: the number of latent pixels along each side of one map pixel. By
    /// default the one whose maps are nearest to the published 16 × 16, which is 4 for Stable Diffusion at 512 × 512.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub downscale: Option<u32>,
    /// γ, the strength, where the schedule's factor is 1. `auto` follows the size of each box.
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
        /// Phrases in boxes. The prompt must contain the phrases.
        pub layout: Arc<Layout>,
    }
}

impl GuidanceNode for BoundedAttention {
    const TYPE: &'static str = "BoundedAttention";
    const VERSION: u32 = 1;

    type Inputs = BoundedAttentionInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        Phrases::empty_error(links).into_iter().collect()
    }

    fn needs(&self, links: &Links) -> SamplingNeeds {
        SamplingNeeds { phrases: Phrases::of_layout(links), downscale: self.downscale, ..SamplingNeeds::default() }
    }

    fn guidance(&self, inputs: BoundedAttentionInputs, _: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(guidance::BoundedAttentionGuidance {
            layout: inputs.layout.0.clone(),
            downscale: self.downscale.map(|n| n as usize),
            settings: self.params.resolve_unmasked(
                self.scale,
                guidance::BoundedAttentionGuidance::defaults(),
                &inputs.layout,
            ),
        }))
    }
}
