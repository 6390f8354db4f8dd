//! LayoutGuidance.

use std::sync::Arc;

use lsregen_diffusion::guidance;
use lsregen_engine::{Context, Links, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Layout, Phrases, SamplingNeeds};

/// Guides most of the attention of each object's words into its box (layout-guidance).
///
/// The prompt of the sampling must contain the phrases of the layout in the same words. By default the guidance acts as
/// published: γ = 30 by the share of noise, up to five times in each of the first fifth of the steps, until the energy
/// has been at most 0.2 once. The gradient goes through the network.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct LayoutGuidance {
    /// γ, the strength, where the schedule's factor is 1. `auto` follows the size of each box.
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
        /// Phrases in boxes. The prompt must contain the phrases.
        pub layout: Arc<Layout>,
    }
}

impl GuidanceNode for LayoutGuidance {
    const TYPE: &'static str = "LayoutGuidance";
    const VERSION: u32 = 1;

    type Inputs = LayoutGuidanceInputs;

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
        SamplingNeeds { phrases: Phrases::of_layout(links), ..SamplingNeeds::default() }
    }

    fn guidance(&self, inputs: LayoutGuidanceInputs, _: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(guidance::LayoutGuidance {
            layout: inputs.layout.0.clone(),
            settings: self.params.resolve_unmasked(self.scale, guidance::LayoutGuidance::defaults(), &inputs.layout),
        }))
    }
}
