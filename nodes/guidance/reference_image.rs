//! ReferenceImage.

use std::sync::Arc;

use lsregen_diffusion::guidance::ReferenceGuidance;
use lsregen_engine::{Context, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::guidance::{GuidanceParams, Strength, default_strength};
use crate::values::{Guidance, Image, Layout};

/// Guides the sampling towards an image that gets its noise from the seed instead of an inversion (SDEdit).
///
/// The image may have any size; it is resized to the sampling's. With `strength: 1` the sampling starts from the image at
/// the last guided step, which is image-to-image. By default the guidance acts in the first tenth of the steps.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct ReferenceImage {
    /// How far the latent moves towards the image in a guided step: 0 is no guidance, 1 replaces the latent. `auto`, with
    /// boxes, is 0.75 in a box of average size, more in smaller boxes and less in larger ones.
    #[serde(default = "default_strength")]
    #[schemars(extend("minimum" = 0.0, "maximum" = 1.0))]
    pub strength: Strength,
    /// Whether the image gets the noise that the sampling starts from; otherwise it gets the next noise of the same seed.
    /// Mixing two independent noises shrinks their spread (to 0.71 at `strength: 0.5`); a shared one keeps it.
    #[serde(default)]
    pub shared_noise: bool,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

sockets! {
    pub struct ReferenceImageInputs {
        /// The image.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
    }
}

impl GuidanceNode for ReferenceImage {
    const TYPE: &'static str = "ReferenceImage";
    const VERSION: u32 = 1;
    const STRENGTH: &str = "strength";

    type Inputs = ReferenceImageInputs;

    fn strength(&self) -> Strength {
        self.strength
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn guidance(&self, inputs: ReferenceImageInputs, _: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(ReferenceGuidance {
            picture: inputs.image.tensor()?,
            shared_noise: self.shared_noise,
            settings: self.params.resolve_weight(self.strength, inputs.layout.as_deref()),
        }))
    }
}
