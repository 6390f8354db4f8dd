//! MultiDiffusionSample.

use std::sync::Arc;

use lsregen_diffusion::models::prompt::Prompt;
use lsregen_diffusion::pipeline::{self, RegionPrompts};
use lsregen_engine::{CheckContext, Context, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::raise;
use crate::defaults;
use crate::preview::on_step_with_previews;
use crate::sampling::{Sampling, phrase_faults, specs};
use crate::values::{Guidance, Latent, Layout, Model};

/// Draws each box of a layout by its own phrase, and the rest by the prompt, all at once (MultiDiffusion).
///
/// Needs no trained layout and no gradient, but a network call for each box in each step. Guidances may act as well.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct MultiDiffusionSample {
    /// What every sampling is told. The prompt is that of what is in no box.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// Scale of classifier-free guidance: how closely the picture follows the prompts.
    #[serde(default = "defaults::sdxl_cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
    /// The prompt of a box, with its phrase in the place of `{phrase}`: `{phrase} on sand`.
    #[serde(default = "region_prompt")]
    pub region_prompt: String,
    /// Share of the steps, from the first on, in which a box sees a plain ground around it, so that its object is drawn
    /// whole and inside.
    #[serde(default = "bootstrap")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub bootstrap: f64,
}

fn region_prompt() -> String {
    "{phrase}".into()
}

fn bootstrap() -> f64 {
    0.4
}

sockets! {
    pub struct MultiDiffusionSampleInputs {
        /// The model that draws.
        pub model: Arc<Model>,
        /// The boxes and their phrases.
        pub layout: Arc<Layout>,
        /// What nudges the latent besides; may be empty.
        pub guidance: Vec<Arc<Guidance>>,
    }
}

outputs! {
    pub struct MultiDiffusionSampleOutputs {
        /// The picture as a latent; Decode makes it visible.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for MultiDiffusionSample {
    const TYPE: &'static str = "MultiDiffusionSample";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Device;

    type Inputs = MultiDiffusionSampleInputs;
    type Outputs = MultiDiffusionSampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.sampling.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        phrase_faults(&self.sampling.prompt, links)
    }

    fn run(&self, inputs: MultiDiffusionSampleInputs, cx: &Context) -> anyhow::Result<MultiDiffusionSampleOutputs> {
        cx.cancel().check()?;
        let model = &inputs.model.0;
        let settings = self.sampling.settings(&inputs.model, self.cfg, &inputs.guidance)?;
        let prompt = |phrase: &str| Prompt { text: self.region_prompt.replace("{phrase}", phrase), text_2: None };
        let regions = inputs.layout.0.iter().map(|object| (prompt(&object.phrase), object.bounds)).collect();
        let prompts = RegionPrompts { regions, bootstrap: self.bootstrap };
        let specs = specs(&inputs.guidance, cx);
        let on_step = on_step_with_previews(cx, &inputs.model);
        let z = pipeline::sample_regions(model, &settings, &prompts, &specs, &on_step).map_err(raise)?;
        Ok(MultiDiffusionSampleOutputs { latent: Arc::new(Latent { z, family: Some(model.info.family) }) })
    }
}
