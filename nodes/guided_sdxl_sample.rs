//! GuidedSDXLSample.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Fault, Lane, Links, Node, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Invert;
use crate::sampling::Sampling;
use crate::values::{Guidance, Latent, Model};

/// Draws a prompt with an SDXL model while guidance nudges the latent, step by step.
///
/// With Invert's guidance this is the second half of LSReGen. Several guidances act one after another in each step, in
/// the order of the list; with none the node is SDXLSample.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct GuidedSdxlSample(pub Sampling);

sockets! {
    pub struct GuidedSdxlSampleInputs {
        /// The model that draws.
        pub model: Arc<Model> = ["sdxl"],
        /// What nudges the latent; may be empty.
        pub guidance: Vec<Arc<Guidance>>,
    }
}

outputs! {
    pub struct GuidedSdxlSampleOutputs {
        /// The picture as a latent; Decode makes it visible.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for GuidedSdxlSample {
    const TYPE: &'static str = "GuidedSDXLSample";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Device;

    type Inputs = GuidedSdxlSampleInputs;
    type Outputs = GuidedSdxlSampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<Fault> {
        self.0.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<Fault> {
        let (steps, sampler) = (self.0.steps, self.0.sampler);
        let apart =
            links.to::<Invert>("guidance").filter(|(_, invert)| (invert.steps, invert.sampler) != (steps, sampler));
        apart
            .map(|(link, invert)| {
                let message = format!(
                    "the guidance of `{}` is for {} steps of {}, and this samples {steps} steps of {}",
                    link.name,
                    invert.steps,
                    invert.sampler.name(),
                    sampler.name()
                );
                Fault::new(format!("guidance/{}", link.index), message)
                    .help("give both the same `steps` and the same `sampler`: a guidance acts at the timesteps it was made for")
            })
            .collect()
    }

    fn run(&self, inputs: GuidedSdxlSampleInputs, cx: &Context) -> anyhow::Result<GuidedSdxlSampleOutputs> {
        Ok(GuidedSdxlSampleOutputs { latent: Arc::new(self.0.run(&inputs.model, &inputs.guidance, cx)?) })
    }
}
