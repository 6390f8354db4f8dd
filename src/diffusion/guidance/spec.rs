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

/// A guidance that is not yet bound to a sampling run.
///
/// `Debug` shows its parameters: the pipeline logs them with each sampling.
pub trait GuidanceSpec: fmt::Debug + Send + Sync {
    /// Binds to a run: returns one guidance, or a few that act one after another.
    ///
    /// # Errors
    /// If it cannot guide this run. The error says what does not fit.
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>>;

    /// Returns the bytes of memory that it uses.
    fn bytes(&self) -> usize {
        0
    }
}

/// A sampling run, before its first step.
pub struct SamplingRun<'a> {
    /// The model that samples.
    pub model: &'a Model,
    /// The prompt.
    pub prompt: &'a Prompt,
    /// Its timesteps and noise schedule.
    pub sampler: &'a Sampler,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Seed of its noise.
    pub seed: u64,
}

impl SamplingRun<'_> {
    /// Returns height and width of the latent.
    pub fn latent_size(&self) -> (usize, usize) {
        let step = self.model.info.size_step;
        (self.height / step, self.width / step)
    }

    /// Returns the device of the run.
    pub fn device(&self) -> &Device {
        self.model.device()
    }

    /// Returns the space of the predicted image, which is decoded in at least f32.
    pub fn image_space(&self) -> Result<FeatureSpace> {
        Ok(FeatureSpace::Image(self.model.wide_vae()?))
    }

    /// Resizes an image (1, 3, H, W) in [-1, 1] to the run's size, on its device.
    pub fn fitted(&self, picture: &Tensor) -> Result<Tensor> {
        let picture = picture.to_device(self.device())?;
        let (_, _, h, w) = picture.dims4()?;
        if (h, w) == (self.height, self.width) {
            return Ok(picture);
        }
        let resized = crate::image::resize(&picture, self.height, self.width, crate::image::Resampling::Bicubic)?;
        Ok(resized.clamp(-1f32, 1f32)?)
    }

    /// Returns unit noise in the shape of the latent: the first of the run's seed, from which the run starts, or the next.
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

    /// [`SamplingRun::bound`] with an extractor that several guidances share.
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
