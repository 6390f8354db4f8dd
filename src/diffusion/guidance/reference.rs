//! Guides the latent towards the noised latent of a reference image, without an inversion.
//!
//! Meng et al., SDEdit: z̄_t = √ᾱ_t z̄_0 + √(1−ᾱ_t) ε with one ε for all t. With w = 1 up to a step it is image-to-image
//! started there; with DemoFusion's schedule over the whole run it is its skip residual (Du et al.).

use std::sync::Arc;

use candle_core::Tensor;

use super::{BoundGuidance, GuidanceSettings, GuidanceSpec, InversionGuidance, SamplingRun};
use crate::{Result, inversion};

/// Guidance towards an image.
#[derive(Debug)]
pub struct ReferenceGuidance {
    /// (1, 3, H, W) in [-1, 1], of any size.
    pub picture: Tensor,
    /// Whether ε is the noise from which the run starts; otherwise it is the next of its seed.
    pub shared_noise: bool,
    /// How it acts; its strength is w = 2γ.
    pub settings: GuidanceSettings,
}

impl GuidanceSpec for ReferenceGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let z0 = run.model.vae()?.encode(&run.fitted(&self.picture)?)?;
        let keep = self.settings.window.steps(run.sampler.timesteps()).end;
        let trajectory = Arc::new(inversion::noise(&z0, run.sampler, &run.noise(self.shared_noise)?, keep)?);
        InversionGuidance { trajectory, settings: self.settings.clone() }.bind(run)
    }

    fn bytes(&self) -> usize {
        self.picture.elem_count() * self.picture.dtype().size_in_bytes()
    }
}
