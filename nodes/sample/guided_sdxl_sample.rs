//! GuidedSDXLSample.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Declaration, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sampling::sample;
use crate::params::sampling::SdxlSampling;
use crate::values::{Guidance, Latent, Model, declared, sampling_errors};

/// Generates an image from a prompt with an SDXL model, under guidance.
///
/// With the guidance of Invert this is the second half of LSReGen. Several guidances act one after another in each
/// step, in the order of the list. Without guidance the node does the same as SDXLSample.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct GuidedSdxlSample(pub SdxlSampling);

sockets! {
    pub struct GuidedSdxlSampleInputs {
        /// The model that samples.
        pub model: Arc<Model> = ["sdxl", "playground", "sdxl-refiner"],
        /// The guidances; may be empty.
        pub guidance: Vec<Arc<Guidance>>,
        /// A latent to start from: an image of VAEEncode, of which `denoise` says how much is drawn anew, or what another
        /// sampling left (`leftover_noise`). Without it, the sampling starts from noise.
        pub latent: Option<Arc<Latent>>,
    }
}

outputs! {
    pub struct GuidedSdxlSampleOutputs {
        /// The image as a latent; Decode converts it to an image.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for GuidedSdxlSample {
    const TYPE: &'static str = "GuidedSDXLSample";
    const VERSION: u32 = 4;
    const LANE: Lane = Lane::Device;

    type Inputs = GuidedSdxlSampleInputs;
    type Outputs = GuidedSdxlSampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.0.errors()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let errors = self.0.sampling.link_errors(links, Some(&self.0.conditioning()));
        sampling_errors(links).into_iter().chain(errors).collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("latent", Some(self.0.sampling.image(links)))
    }

    fn run(&self, inputs: GuidedSdxlSampleInputs, cx: &Context) -> anyhow::Result<GuidedSdxlSampleOutputs> {
        let settings = self.0.settings(&inputs.model, &inputs.guidance, inputs.latent.as_deref())?;
        Ok(GuidedSdxlSampleOutputs { latent: Arc::new(sample(&inputs.model, &settings, &inputs.guidance, cx)?) })
    }
}
