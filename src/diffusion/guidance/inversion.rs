//! LSReGen's extractor: guides the latent itself towards the inverted latent of a reference image.

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    BoundGuidance, Extractor, FeatureSpace, GuidanceSettings, GuidanceSpec, SamplingRun, SquaredL2, StepContext,
};
use crate::Result;
use crate::inversion::Trajectory;

/// feat(z) = z, target_t = z̄_t.
pub struct Inversion {
    /// z̄_t.
    pub trajectory: Arc<Trajectory>,
}

impl Inversion {
    /// Returns LSReGen's guidance: z ← (1−w) z + w z̄_t with the strength w = 2γ (the paper, §3.3).
    pub fn bound(trajectory: Arc<Trajectory>, settings: GuidanceSettings, mask: Option<Tensor>) -> BoundGuidance {
        BoundGuidance {
            extractor: Arc::new(Inversion { trajectory }),
            distance: Arc::new(SquaredL2),
            space: FeatureSpace::Latent,
            settings,
            mask,
        }
    }
}

impl Extractor for Inversion {
    fn name(&self) -> &str {
        "inversion"
    }

    fn feat(&self, z: &Tensor, _: &StepContext) -> Result<Tensor> {
        Ok(z.clone())
    }

    fn target(&self, at: &StepContext) -> Result<Tensor> {
        Ok(self.trajectory.at(at.t)?.clone())
    }

    fn is_identity(&self) -> bool {
        true
    }
}

/// Guidance towards a reference whose noisy latents are given.
#[derive(Debug)]
pub struct InversionGuidance {
    /// z̄_t.
    pub trajectory: Arc<Trajectory>,
    /// How it acts; its strength is w = 2γ.
    pub settings: GuidanceSettings,
}

impl GuidanceSpec for InversionGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let (h, w) = run.latent_size();
        // No cell moves past its target: w ≤ 1.
        let strength = 2.0 * self.settings.scale as f32;
        let most = if strength > 0.0 { 1.0 / strength } else { f32::INFINITY };
        let mask = self.settings.region.weights(h, w, most, run.device())?;
        let trajectory = Arc::new(self.trajectory.to_device(run.device())?);
        Ok(vec![Inversion::bound(trajectory, self.settings.clone(), mask)])
    }

    fn bytes(&self) -> usize {
        self.trajectory.bytes()
    }
}
