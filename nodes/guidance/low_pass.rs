//! LowPass.

use std::sync::Arc;

use lsregen_diffusion::guidance::{GuidanceSettings, LowPassGuidance, Metric, Window};
use lsregen_engine::{Context, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Image, Layout};

/// Guides the sampling towards the coarse part of an image, and leaves the fine part free (ILVR).
///
/// The coarse part is the mean of each block of `factor` × `factor` latent pixels, each of 8 × 8 pixels. The image may have
/// any size. By default, with `scale: 0.5`, the coarse part of the image replaces that of the sampling in the first half of
/// the steps, as in ILVR.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct LowPass {
    /// Side of a block in latent pixels. A larger block leaves the sampling freer.
    #[serde(default = "factor")]
    #[schemars(range(min = 1, max = 1024))]
    pub factor: u32,
    /// γ, the strength: 0.5 replaces the sampling's coarse part with the image's, and smaller values move it towards
    /// the image's. `auto` follows the size of each box.
    #[serde(default = "scale")]
    pub scale: Strength,
    /// The distance between the two coarse parts.
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
        /// The image.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
    }
}

impl GuidanceNode for LowPass {
    const TYPE: &'static str = "LowPass";
    const VERSION: u32 = 1;

    type Inputs = LowPassInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn guidance(&self, inputs: LowPassInputs, _: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(LowPassGuidance {
            picture: inputs.image.tensor()?,
            factor: self.factor as usize,
            metric: self.distance,
            settings: self.params.resolve(self.scale, defaults(), inputs.layout.as_deref()),
        }))
    }
}
