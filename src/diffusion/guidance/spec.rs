//! Guidance specs, and the sampling run that they are bound to.

use std::fmt;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{BoundGuidance, Distance, Extractor, FeatureSpace, GuidanceSettings};
use crate::Result;
use crate::models::Model;
use crate::models::prompt::Prompt;
use crate::noise::Generator;
use crate::sampler::Sampler;

/// Makes the guidances of a run: of one size, one prompt, one model.
///
/// `Debug` shows its parameters: the pipeline logs them with each sampling.
pub trait GuidanceSpec: fmt::Debug + Send + Sync {
    /// One guidance, or a few that belong together and act one after another.
    ///
    /// Errors if it cannot guide this run, saying what of the run does not fit it.
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>>;

    /// Memory that it holds.
    fn bytes(&self) -> usize {
        0
    }
}

/// What is to be sampled.
pub struct SamplingRun<'a> {
    /// The model that samples.
    pub model: &'a Model,
    /// The prompt.
    pub prompt: &'a Prompt,
    /// Timesteps and schedule.
    pub sampler: &'a Sampler,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Of the run's noise.
    pub seed: u64,
}

impl SamplingRun<'_> {
    /// Height and width of the latent.
    pub fn latent_size(&self) -> (usize, usize) {
        let step = self.model.info.size_step;
        (self.height / step, self.width / step)
    }

    /// Where the run is computed.
    pub fn device(&self) -> &Device {
        self.model.device()
    }

    /// What shows the predicted picture.
    pub fn image_space(&self) -> Result<FeatureSpace> {
        Ok(FeatureSpace::Image(self.model.vae()?))
    }

    /// A picture (1, 3, H, W) in [-1, 1] of any size in the run's size, on its device.
    pub fn fitted(&self, picture: &Tensor) -> Result<Tensor> {
        let picture = picture.to_device(self.device())?;
        let (_, _, h, w) = picture.dims4()?;
        if (h, w) == (self.height, self.width) {
            return Ok(picture);
        }
        let resized = crate::image::resize(&picture, self.height, self.width, crate::image::Resampling::Bicubic)?;
        Ok(resized.clamp(-1f32, 1f32)?)
    }

    /// Unit noise in the latent's shape: the first of the run's seed, which the run starts from, or the one after it.
    pub fn noise(&self, first: bool) -> Result<Tensor> {
        let (h, w) = self.latent_size();
        let shape = [1, self.model.blueprint().unet.0.in_channels, h, w];
        let mut generator = Generator::new(self.seed);
        if !first {
            generator.randn(&shape, &Device::Cpu)?;
        }
        generator.randn(&shape, self.device())
    }

    /// Returns a guidance of this run, with the mask of its settings' region.
    pub fn bound(
        &self,
        extractor: impl Extractor + 'static,
        distance: Arc<dyn Distance>,
        space: FeatureSpace,
        settings: &GuidanceSettings,
    ) -> Result<BoundGuidance> {
        self.bound_by(Arc::new(extractor), distance, space, settings)
    }

    /// [`SamplingRun::bound`] by an extractor that several share.
    pub fn bound_by(
        &self,
        extractor: Arc<dyn Extractor>,
        distance: Arc<dyn Distance>,
        space: FeatureSpace,
        settings: &GuidanceSettings,
    ) -> Result<BoundGuidance> {
        let (h, w) = self.latent_size();
        let mask = settings.region.weights(h, w, f32::INFINITY, self.device())?;
        Ok(BoundGuidance { extractor, distance, space, settings: settings.clone(), mask })
    }
}
