//! SDXLSample.

use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Declaration, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sampling::sample;
use crate::params::sampling::SdxlSampling;
use crate::params::source::SOCKETS;
use crate::values::{Image, Latent, Model, declared};

/// Generates an image from a prompt with an SDXL model: GuidedSDXLSample without guidance.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SdxlSample(pub SdxlSampling);

sockets! {
    pub struct SdxlSampleInputs {
        /// The model that samples.
        pub model: Arc<Model> = ["sdxl", "playground", "sdxl-refiner"],
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
    pub struct SdxlSampleOutputs {
        /// The image as a latent; Decode converts it to an image.
        pub latent: Arc<Latent> = model,
    }
}

impl Node for SdxlSample {
    const TYPE: &'static str = "SDXLSample";
    const VERSION: u32 = 3;
    const LANE: Lane = Lane::Device;

    type Inputs = SdxlSampleInputs;
    type Outputs = SdxlSampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.0.errors()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let errors = self.0.image_guidance.errors(links, SOCKETS, self.0.sampling.size(links));
        errors.into_iter().chain(self.0.sampling.link_errors(links, None)).collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("latent", Some(self.0.sampling.image(links)))
    }

    fn run(&self, inputs: SdxlSampleInputs, cx: &Context) -> anyhow::Result<SdxlSampleOutputs> {
        let images = [inputs.image.as_deref(), inputs.mask.as_deref()];
        let latent = inputs.latent.as_deref();
        let settings = self.0.settings(&inputs.model, &[], latent, images)?;
        let count = self.0.sampling.batch.images(latent)?;
        Ok(SdxlSampleOutputs { latent: Arc::new(sample(&inputs.model, &settings, count, &[], cx)?) })
    }
}
