//! Segmentation.

use std::sync::Arc;

use lsregen_diffusion::guidance::segmentation::{ColouredPhrase, SegmentationGuidance};
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::options;
use crate::values::{Image, Layout};

/// Draws the attention of words into the regions of a colour-coded map.
///
/// The sampling's prompt must have the phrases of the regions in the same words. The map may have any size; what has none
/// of the colours is ground. Unless told otherwise it acts up to three times in each of the first 40 % of the steps, by the
/// share of noise. The gradient goes through the network.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Segmentation {
    /// The regions of the map.
    pub regions: Vec<Region>,
    /// How far a pixel's colour may be from its region's, in each channel, 1 being all of it. Of several regions the nearest
    /// counts.
    #[serde(default = "tolerance")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub tolerance: f64,
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

/// A region of a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Region {
    /// What stands in it, in words that the prompt has too.
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
        /// The map: a picture of flat colours.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
        pub layout: Option<Arc<Layout>>,
    }
}

impl Node for Segmentation {
    const TYPE: &'static str = "Segmentation";
    const VERSION: u32 = 1;

    type Inputs = SegmentationInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        let mut faults = self.params.faults();
        if self.regions.is_empty() {
            faults
                .push(NodeError::new("regions", "there is no region").help("give at least one phrase and its colour"));
        }
        for (i, region) in self.regions.iter().enumerate() {
            faults.extend(options::colour_fault(format!("regions/{i}/colour"), &region.colour));
            if let Some(j) =
                self.regions[..i].iter().position(|other| other.colour.eq_ignore_ascii_case(&region.colour))
            {
                let message = format!("this region has the colour of region {j}");
                faults.push(NodeError::new(format!("regions/{i}/colour"), message).help("give each region its own"));
            }
        }
        faults
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn run(&self, inputs: SegmentationInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let region = |r: &Region| Ok(ColouredPhrase { phrase: r.phrase.clone(), colour: options::colour(&r.colour)? });
        let spec = SegmentationGuidance {
            map: inputs.image.0.clone(),
            regions: self.regions.iter().map(region).collect::<anyhow::Result<_>>()?,
            tolerance: self.tolerance as f32,
            downscale: self.downscale.map(|n| n as usize),
            settings: self.params.resolve(self.scale, SegmentationGuidance::defaults(), inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
