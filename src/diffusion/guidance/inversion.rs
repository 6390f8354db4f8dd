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
    /// LSReGen's guidance with strength w = 2γ: z ← (1−w) z + w z̄_t, whatever `acting` says of γ.
    pub fn guidance(trajectory: Arc<Trajectory>, w: f64, acting: Acting, mask: Option<Tensor>) -> Guidance {
        Guidance {
            extractor: Arc::new(Inversion { trajectory }),
            distance: Arc::new(SquaredL2),
            view: View::Latent,
            acting: Acting { scale: w / 2.0, ..acting },
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
pub struct Inverted {
    /// z̄_t.
    pub trajectory: Arc<Trajectory>,
    /// w.
    pub strength: f64,
    /// When and where it acts; its scale is the strength's.
    pub acting: Acting,
}

impl Guide for Inverted {
    fn prepare(&self, run: &Run) -> Result<Vec<Guidance>> {
        let (h, w) = run.latent_size();
        // No cell is moved past its target.
        let most = if self.strength > 0.0 { 1.0 / self.strength as f32 } else { f32::INFINITY };
        let mask = self.acting.region.weights(h, w, most, run.device())?;
        let trajectory = Arc::new(self.trajectory.to_device(run.device())?);
        Ok(vec![Inversion::guidance(trajectory, self.strength, self.acting.clone(), mask)])
    }

    fn bytes(&self) -> usize {
        self.trajectory.bytes()
    }
}
