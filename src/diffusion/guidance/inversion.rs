//! LSReGen's extractor: the latent itself, drawn to the inverted latent of a reference picture.

use std::sync::Arc;

use candle_core::Tensor;

use super::{Acting, Extractor, Guidance, Guide, Moment, Run, SquaredL2, View};
use crate::Result;
use crate::inversion::Trajectory;

/// feat(z) = z, target_t = z̄_t.
pub struct Inversion {
    /// z̄_t.
    pub trajectory: Arc<Trajectory>,
}

impl Inversion {
    /// LSReGen's guidance: z ← (1−w) z + w z̄_t with the strength w = 2γ.
    pub fn guidance(trajectory: Arc<Trajectory>, acting: Acting, mask: Option<Tensor>) -> Guidance {
        Guidance {
            extractor: Arc::new(Inversion { trajectory }),
            distance: Arc::new(SquaredL2),
            view: View::Latent,
            acting,
            mask,
        }
    }
}

impl Extractor for Inversion {
    fn name(&self) -> &str {
        "inversion"
    }

    fn feat(&self, z: &Tensor, _: &Moment) -> Result<Tensor> {
        Ok(z.clone())
    }

    fn target(&self, at: &Moment) -> Result<Tensor> {
        Ok(self.trajectory.at(at.t)?.clone())
    }

    fn is_identity(&self) -> bool {
        true
    }
}

/// Guidance towards a reference whose noisy latents are known.
#[derive(Debug)]
pub struct Inverted {
    /// z̄_t.
    pub trajectory: Arc<Trajectory>,
    /// How it acts; its strength is w = 2γ.
    pub acting: Acting,
}

impl Guide for Inverted {
    fn prepare(&self, run: &Run) -> Result<Vec<Guidance>> {
        let (h, w) = run.latent_size();
        // No cell is moved past its target.
        let strength = 2.0 * self.acting.scale as f32;
        let most = if strength > 0.0 { 1.0 / strength } else { f32::INFINITY };
        let mask = self.acting.region.weights(h, w, most, run.device())?;
        let trajectory = Arc::new(self.trajectory.to_device(run.device())?);
        Ok(vec![Inversion::guidance(trajectory, self.acting.clone(), mask)])
    }

    fn bytes(&self) -> usize {
        self.trajectory.bytes()
    }
}
