//! Segmentation.

use std::sync::Arc;

use lsregen_diffusion::guidance::segmentation::{ColouredPhrase, SegmentationGuidance};
use lsregen_engine::{CheckContext, Context, Links, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::colour;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Image, Layout, SamplingNeeds};

/// Guides the attention of words into the regions of a colour-coded map.
///
/// The prompt of the sampling must contain the phrases of the regions in the same words. The map may have any size.
/// Pixels that match none of the colours are background. By default the guidance acts up to three times in each of the
/// first 40 % of the steps, by the share of noise. The gradient goes through the network.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Segmentation {
    /// The regions of the map.
    pub regions: Vec<SegmentationRegion>,
    /// The largest difference between a pixel's colour and its region's, in each channel, where the full range is 1. If
    /// several regions match, the pixel belongs to the one with the nearest colour.
    #[serde(default = "tolerance")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub tolerance: f64,
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

/// A region of a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct SegmentationRegion {
    /// The content of the region, in words that the prompt also contains.
    #[schemars(length(min = 1))]
    pub phrase: String,
    /// Its colour in the map, as `"#rrggbb"`.
    pub colour: String,
}

fn tolerance() -> f64 {
    0.1
}

fn scale() -> Strength {
    Strength::Number(SegmentationGuidance::defaults().scale)
}

sockets! {
    pub struct SegmentationInputs {
        /// The map: an image of flat colours.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
    }
}

impl GuidanceNode for Segmentation {
    const TYPE: &'static str = "Segmentation";
    const VERSION: u32 = 1;

    type Inputs = SegmentationInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn needs(&self, _: &Links) -> SamplingNeeds {
        let phrases = self.regions.iter().map(|region| region.phrase.clone()).collect();
        SamplingNeeds { phrases, downscale: self.downscale, ..SamplingNeeds::default() }
    }

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        let mut errors = vec![];
        if self.regions.is_empty() {
            errors
                .push(NodeError::new("regions", "`regions` is empty").help("give at least one phrase and its colour"));
        }
        for (i, region) in self.regions.iter().enumerate() {
            if region.phrase.trim().is_empty() {
                let error = NodeError::new(format!("regions/{i}/phrase"), "the phrase is empty");
                errors.push(error.help("name the object in the region, in words of the prompt"));
            }
            let path = format!("regions/{i}/colour");
            errors.extend(colour::error(path.clone(), &region.colour));
            let same = |other: &SegmentationRegion| other.colour.eq_ignore_ascii_case(&region.colour);
            if let Some(j) = self.regions[..i].iter().position(same) {
                let message = format!("this region has the same colour as region {j}");
                errors.push(NodeError::new(path, message).help("give each region its own colour"));
            }
        }
        errors
    }

    fn guidance(&self, inputs: SegmentationInputs, _: &Context) -> anyhow::Result<Guidance> {
        let region =
            |r: &SegmentationRegion| Ok(ColouredPhrase { phrase: r.phrase.clone(), colour: colour::parse(&r.colour)? });
        Ok(Guidance::new(SegmentationGuidance {
            map: inputs.image.tensor()?,
            regions: self.regions.iter().map(region).collect::<anyhow::Result<_>>()?,
            tolerance: self.tolerance as f32,
            downscale: self.downscale.map(|n| n as usize),
            settings: self.params.resolve(self.scale, SegmentationGuidance::defaults(), inputs.layout.as_deref()),
        }))
    }
}
