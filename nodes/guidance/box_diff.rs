//! BoxDiff.

use std::sync::Arc;

use lsregen_diffusion::guidance;
use lsregen_engine::{Context, Links, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::defaults;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{BoxNeed, Guidance, Layout, Phrases, SamplingNeeds};

/// Guides the attention of each object's words into its box (BoxDiff).
///
/// The prompt of the sampling must contain the phrases of the layout in the same words. By default the guidance acts as
/// published: γ = 20, falling, in the first half of the steps, with three refined steps among them. The gradient goes
/// through the network. Large images of SDXL need much memory for it: see docs/guidance.md.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct BoxDiff {
    /// Resolution of the attention maps that are used: the number of latent pixels along each side of one map pixel. By
    /// default the one whose maps are nearest to the published 16 × 16, which is 4 for Stable Diffusion at 512 × 512.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub downscale: Option<u32>,
    /// Whether three steps are refined, at the start, at one fifth and at two fifths of the run: up to 20 updates by the
    /// object that is farthest from its box.
    #[serde(default = "defaults::yes")]
    pub refine: bool,
    /// γ, the strength, where the schedule's factor is 1. `auto` follows the size of each box.
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
        /// Phrases in boxes. The prompt must contain the phrases.
        pub layout: Arc<Layout>,
    }
}

impl GuidanceNode for BoxDiff {
    const TYPE: &'static str = "BoxDiff";
    const VERSION: u32 = 2;

    type Inputs = BoxDiffInputs;

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
        let boxes = Phrases::boxes_of_layout(links).into_iter().map(|bounds| (BoxNeed::Outside, bounds));
        SamplingNeeds {
            phrases: Phrases::of_layout(links),
            downscale: self.downscale,
            boxes: boxes.collect(),
            ..SamplingNeeds::default()
        }
    }

    fn guidance(&self, inputs: BoxDiffInputs, _: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(guidance::BoxDiffGuidance {
            layout: inputs.layout.0.clone(),
            downscale: self.downscale.map(|n| n as usize),
            refined: if self.refine { guidance::BoxDiffGuidance::REFINED.to_vec() } else { vec![] },
            refinements: guidance::BoxDiffGuidance::REFINEMENTS,
            settings: self.params.resolve_unmasked(self.scale, guidance::BoxDiffGuidance::defaults(), &inputs.layout),
        }))
    }
}
