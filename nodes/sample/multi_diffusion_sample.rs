//! MultiDiffusionSample.

use std::sync::Arc;

use lsregen_diffusion::models::prompt::Prompt;
use lsregen_diffusion::pipeline::{self, RegionPrompts};
use lsregen_engine::{CheckContext, Context, Declaration, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sampling::specs;
use crate::host::bridge::raise;
use crate::host::preview::on_step_with_previews;
use crate::params::defaults;
use crate::params::sampling::Sampling;
use crate::params::source::{ImageGuidance, SOCKETS};
use crate::values::{Guidance, Image, Latent, Layout, Model, declared, seeds};

/// Generates an image from one prompt for each box of a layout and one for the rest, in one sampling (MultiDiffusion).
///
/// It needs no model trained on layouts and no gradient, but a network call for each box in each step. Guidances may act as
/// well.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct MultiDiffusionSample {
    /// The parameters of every sampling. The prompt is that of the area outside all boxes.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// Scale of classifier-free guidance: how closely the image follows the prompts.
    #[serde(default = "defaults::sdxl_cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
    /// The prompt of a box, where `{phrase}` stands for its phrase: `{phrase} on sand`.
    #[serde(default = "region_prompt")]
    pub region_prompt: String,
    /// Share of the steps, from the first on, in which a box has a plain background around it, so that its object is
    /// complete and inside the box.
    #[serde(default = "bootstrap")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub bootstrap: f64,
    /// The guidance by an image.
    #[serde(flatten)]
    pub image_guidance: ImageGuidance,
}

fn region_prompt() -> String {
    "{phrase}".into()
}

fn bootstrap() -> f64 {
    0.4
}

sockets! {
    pub struct MultiDiffusionSampleInputs {
        /// The model that samples.
        pub model: Arc<Model>,
        /// The boxes and their phrases.
        pub layout: Arc<Layout>,
        /// The guidances; may be empty.
        pub guidance: Vec<Arc<Guidance>>,
        /// A latent to start from: an image of VAEEncode, of which `denoise` says how much is regenerated, or what another
        /// sampling left (`leftover_noise`). Without it, the sampling starts from noise.
        pub latent: Option<Arc<Latent>>,
        /// For an inpainting model, the image of which a part is regenerated; for an InstructPix2Pix model, the image that the
        /// prompts say how to edit. Other models take none.
        pub image: Option<Arc<Image>>,
        /// For an inpainting model: white where the image is regenerated, black where it is kept. A pixel counts as white if
        /// the mean of its channels is at least one half. The mask has the size of `image`.
        pub mask: Option<Arc<Image>>,
    }
}

outputs! {
    pub struct MultiDiffusionSampleOutputs {
        /// The image as a latent; Decode converts it to an image.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for MultiDiffusionSample {
    const TYPE: &'static str = "MultiDiffusionSample";
    const VERSION: u32 = 3;
    const LANE: Lane = Lane::Device;

    type Inputs = MultiDiffusionSampleInputs;
    type Outputs = MultiDiffusionSampleOutputs;

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

    fn run(&self, inputs: MultiDiffusionSampleInputs, cx: &Context) -> anyhow::Result<MultiDiffusionSampleOutputs> {
        cx.cancel().check()?;
        let model = &inputs.model.0;
        let source = self.image_guidance.source([inputs.image.as_deref(), inputs.mask.as_deref()])?;
        let latent = inputs.latent.as_deref();
        let settings = self.sampling.settings(&inputs.model, self.cfg, &inputs.guidance, latent, source)?;
        let prompt = |phrase: &str| Prompt { text: self.region_prompt.replace("{phrase}", phrase), text_2: None };
        let regions = inputs.layout.0.iter().map(|object| (prompt(&object.phrase), object.bounds)).collect();
        let prompts = RegionPrompts { regions, bootstrap: self.bootstrap };
        let specs = specs(&inputs.guidance, cx);
        let count = self.sampling.batch.images(latent)?;
        let on_step = on_step_with_previews(cx, &inputs.model, count);
        let z = pipeline::sample_regions(model, &settings, count, &prompts, &specs, &on_step).map_err(raise)?;
        let latent = Latent { z, family: Some(model.info.family), seeds: seeds(settings.seed, count) };
        Ok(MultiDiffusionSampleOutputs { latent: Arc::new(latent) })
    }
}
