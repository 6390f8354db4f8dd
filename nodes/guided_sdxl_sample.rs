//! GuidedSDXLSample.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Fault, Lane, Node, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
        pub latent: Arc<Latent>,
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

    fn run(&self, inputs: GuidedSdxlSampleInputs, cx: &Context) -> anyhow::Result<GuidedSdxlSampleOutputs> {
        Ok(GuidedSdxlSampleOutputs { latent: Arc::new(self.0.run(&inputs.model, &inputs.guidance, cx)?) })
    }
}
