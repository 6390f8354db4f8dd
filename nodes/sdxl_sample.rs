//! SDXLSample.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Lane, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sampling::SdxlSampling;
use crate::values::{Latent, Model};

/// Draws a prompt with an SDXL model: GuidedSDXLSample without guidance.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SdxlSample(pub SdxlSampling);

sockets! {
    pub struct SdxlSampleInputs {
        /// The model that draws.
        pub model: Arc<Model> = ["sdxl"],
    }
}

outputs! {
    pub struct SdxlSampleOutputs {
        /// The picture as a latent; Decode makes it visible.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for SdxlSample {
    const TYPE: &'static str = "SDXLSample";
    const VERSION: u32 = 2;
    const LANE: Lane = Lane::Device;

    type Inputs = SdxlSampleInputs;
    type Outputs = SdxlSampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.0.sampling.faults()
    }

    fn run(&self, inputs: SdxlSampleInputs, cx: &Context) -> anyhow::Result<SdxlSampleOutputs> {
        Ok(SdxlSampleOutputs { latent: Arc::new(self.0.run(&inputs.model, &[], cx)?) })
    }
}
