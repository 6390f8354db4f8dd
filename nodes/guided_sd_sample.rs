//! GuidedSDSample.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sampling::{Sampling, phrase_faults, sample};
use crate::values::{Guidance, Latent, Model};

/// Draws a prompt with a Stable Diffusion 1 model while guidance nudges the latent, step by step.
///
/// BoxDiff and layout-guidance were made for such models. A GLIGEN model is one as well, here without its boxes. Several
/// guidances act one after another in each step, in the order of the list; with none this is plain sampling.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct GuidedSdSample {
    /// What every sampling is told.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// Scale of classifier-free guidance: how closely the picture follows the prompt. 1 is none, and twice as fast; large
    /// values overshoot colours. Stable Diffusion 1 is at its best near 7.5.
    #[serde(default = "cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
}

fn cfg() -> f64 {
    7.5
}

sockets! {
    pub struct GuidedSdSampleInputs {
        /// The model that draws.
        pub model: Arc<Model> = ["sd1", "gligen"],
        /// What nudges the latent; may be empty.
        pub guidance: Vec<Arc<Guidance>>,
    }
}

outputs! {
    pub struct GuidedSdSampleOutputs {
        /// The picture as a latent; Decode makes it visible.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for GuidedSdSample {
    const TYPE: &'static str = "GuidedSDSample";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Device;

    type Inputs = GuidedSdSampleInputs;
    type Outputs = GuidedSdSampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.sampling.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        phrase_faults(&self.sampling.prompt, links)
    }

    fn run(&self, inputs: GuidedSdSampleInputs, cx: &Context) -> anyhow::Result<GuidedSdSampleOutputs> {
        let settings = self.sampling.settings(&inputs.model, self.cfg, &inputs.guidance)?;
        Ok(GuidedSdSampleOutputs { latent: Arc::new(sample(&inputs.model, &settings, &inputs.guidance, cx)?) })
    }
}
