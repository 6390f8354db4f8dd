//! GuidedSDSample.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Declaration, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sampling::sample;
use crate::params::sampling::Sampling;
use crate::params::source::{ImageGuidance, SOCKETS};
use crate::values::{Guidance, Image, Latent, Model, declared};

/// Generates an image from a prompt with a Stable Diffusion 1 or 2 model, under guidance.
///
/// BoxDiff and layout-guidance were made for Stable Diffusion 1. A GLIGEN model works too; this node does not use its boxes.
/// Several guidances act one after another in each step, in the order of the list. Without guidance this is plain
/// sampling.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct GuidedSdSample {
    /// The parameters of every sampling.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// Scale of classifier-free guidance: how closely the image follows the prompt. 1 or less disables it and is twice as fast;
    /// large values oversaturate colours. Stable Diffusion is at its best near 7.5, its turbo models at 1.
    #[serde(default = "cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
    /// The guidance by an image.
    #[serde(flatten)]
    pub image_guidance: ImageGuidance,
}

fn cfg() -> f64 {
    7.5
}

sockets! {
    pub struct GuidedSdSampleInputs {
        /// The model that samples.
        pub model: Arc<Model> = ["sd1", "sd2", "gligen"],
        /// The guidances; may be empty.
        pub guidance: Vec<Arc<Guidance>>,
        /// A latent to start from: an image of VAEEncode, of which `denoise` says how much is regenerated, or what another
        /// sampling left (`leftover_noise`). Without it, the sampling starts from noise.
        pub latent: Option<Arc<Latent>>,
        /// For an inpainting model, the image of which a part is regenerated; for an InstructPix2Pix model, the image that the
        /// prompt says how to edit. Other models take none.
        pub image: Option<Arc<Image>>,
        /// For an inpainting model: white where the image is regenerated, black where it is kept. A pixel counts as white if
        /// the mean of its channels is at least one half. The mask has the size of `image`.
        pub mask: Option<Arc<Image>>,
    }
}

outputs! {
    pub struct GuidedSdSampleOutputs {
        /// The image as a latent; Decode converts it to an image.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for GuidedSdSample {
    const TYPE: &'static str = "GuidedSDSample";
    const VERSION: u32 = 3;
    const LANE: Lane = Lane::Device;

    type Inputs = GuidedSdSampleInputs;
    type Outputs = GuidedSdSampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.sampling.errors(self.cfg)
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let errors = self.image_guidance.errors(links, SOCKETS, self.sampling.size(links));
        errors.into_iter().chain(self.sampling.link_errors(links, None)).collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("latent", Some(self.sampling.image(links)))
    }

    fn run(&self, inputs: GuidedSdSampleInputs, cx: &Context) -> anyhow::Result<GuidedSdSampleOutputs> {
        let source = self.image_guidance.source([inputs.image.as_deref(), inputs.mask.as_deref()])?;
        let latent = inputs.latent.as_deref();
        let settings = self.sampling.settings(&inputs.model, self.cfg, &inputs.guidance, latent, source)?;
        let count = self.sampling.batch.images(latent)?;
        Ok(GuidedSdSampleOutputs { latent: Arc::new(sample(&inputs.model, &settings, count, &inputs.guidance, cx)?) })
    }
}
