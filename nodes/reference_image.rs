//! ReferenceImage.

use std::sync::Arc;

use lsregen_diffusion::guidance::ReferenceGuidance;
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guidance_params::{self, GuidanceOutputs, GuidanceParams, Strength};
use crate::values::{Image, Layout};

/// Draws a sampling towards a picture, which gets its noise by chance and not by an inversion (SDEdit).
///
/// Any picture will do, of any size: it is fitted to the sampling's. With `strength: 1` the sampling starts from the
/// picture at the last guided step, which is image-to-image. In the first tenth of the steps, unless told otherwise.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct ReferenceImage {
    /// How far the latent moves to the reference in a guided step: 0 is no guidance, 1 puts the reference in its place.
    /// `auto`, with boxes, is 0.75 in a box of a usual size, more in smaller boxes, less in larger ones.
    #[serde(default = "guidance_params::default_strength")]
    #[schemars(extend("minimum" = 0.0, "maximum" = 1.0))]
    pub strength: Strength,
    /// Whether the picture gets the noise that the sampling starts from; else another, made from the same seed. Mixing two
    /// independent noises shrinks their spread (to 0.71 at `strength: 0.5`); a shared one keeps it.
    #[serde(default)]
    pub shared_noise: bool,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

sockets! {
    pub struct ReferenceImageInputs {
        /// The picture.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
        pub layout: Option<Arc<Layout>>,
    }
}

impl Node for ReferenceImage {
    const TYPE: &'static str = "ReferenceImage";
    const VERSION: u32 = 1;

    type Inputs = ReferenceImageInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.params.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("strength", self.strength, links).into_iter().collect()
    }

    fn run(&self, inputs: ReferenceImageInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let spec = ReferenceGuidance {
            picture: inputs.image.0.clone(),
            shared_noise: self.shared_noise,
            settings: self.params.resolve_weight(self.strength, inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
