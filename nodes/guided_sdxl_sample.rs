//! GuidedSDXLSample.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Invert;
use crate::invert::Mode;
use crate::sampling::{Sampling, SdxlSampling, phrase_faults};
use crate::values::{Guidance, Latent, Model};

/// Draws a prompt with an SDXL model while guidance nudges the latent, step by step.
///
/// With Invert's guidance this is the second half of LSReGen. Several guidances act one after another in each step, in
/// the order of the list; with none the node is SDXLSample.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct GuidedSdxlSample(pub SdxlSampling);

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

impl GuidedSdxlSample {
    /// The fault of a guidance that was made for another sampling than this.
    fn apart(&self, index: usize, name: &str, invert: &Invert) -> Option<NodeError> {
        let SdxlSampling { sampling, prompt_2, original_size, target_size, crop, .. } = &self.0;
        let Sampling { steps, sampler, prompt, .. } = sampling;
        let place = format!("guidance/{index}");
        if (invert.steps, invert.sampler) != (*steps, *sampler) {
            let message = format!(
                "the guidance of `{name}` is for {} steps of {}, and this samples {steps} steps of {}",
                invert.steps,
                invert.sampler.name(),
                sampler.name()
            );
            return Some(NodeError::new(place, message).help(
                "give both the same `steps` and the same `sampler`: a guidance acts at the timesteps it was made for",
            ));
        }
        // Another prompt may be wanted. One that is the same in its first half alone is forgotten in the other.
        let second = |prompt_2: &Option<String>| prompt_2.clone().unwrap_or_else(|| prompt.clone());
        let told = [
            ("prompt_2", invert.prompt == *prompt && second(&invert.prompt_2) != second(prompt_2)),
            ("original_size", invert.original_size != *original_size),
            ("target_size", invert.target_size != *target_size),
            ("crop", invert.crop != *crop),
        ];
        let others: Vec<_> = told.iter().filter(|(_, differs)| *differs).map(|(name, _)| format!("`{name}`")).collect();
        if others.is_empty() || invert.mode == Mode::Noise {
            return None;
        }
        let others = others.join(" and ");
        let message = format!("the guidance of `{name}` was inverted under another {others} than this samples with");
        Some(NodeError::new(place, message).help(format!("give both the same {others}, or leave them out of both")))
    }
}

impl Node for GuidedSdxlSample {
    const TYPE: &'static str = "GuidedSDXLSample";
    const VERSION: u32 = 2;
    const LANE: Lane = Lane::Device;

    type Inputs = GuidedSdxlSampleInputs;
    type Outputs = GuidedSdxlSampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.0.sampling.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let inverted = links.to::<Invert>("guidance");
        let apart = inverted.filter_map(|(link, invert)| self.apart(link.index, link.name, invert));
        apart.chain(phrase_faults(&self.0.sampling.prompt, links)).collect()
    }

    fn run(&self, inputs: GuidedSdxlSampleInputs, cx: &Context) -> anyhow::Result<GuidedSdxlSampleOutputs> {
        Ok(GuidedSdxlSampleOutputs { latent: Arc::new(self.0.run(&inputs.model, &inputs.guidance, cx)?) })
    }
}
