//! LSReGen's extractor: the latent itself, drawn to the inverted latent of a reference picture.

use std::sync::Arc;

use candle_core::Tensor;

use crate::Result;
use crate::guidance::{Distance, Extractor, Guidance, Moment, SquaredL2, Window};
use crate::inversion::Trajectory;

/// feat(z) = z, target_t = z̄_t.
pub struct Inversion {
    /// z̄_t.
    pub trajectory: Arc<Trajectory>,
}

impl Inversion {
    /// LSReGen's guidance with strength w = 2γ: z ← (1−w) z + w z̄_t.
    pub fn guidance(trajectory: Arc<Trajectory>, w: f64, window: Window, mask: Option<Tensor>) -> Guidance {
        Guidance {
            extractor: Arc::new(Inversion { trajectory }),
            distance: Arc::new(SquaredL2),
            scale: w / 2.0,
            window,
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

    /// In closed form: the feature is the latent, so ∇_z D is the distance's own gradient.
    fn gradient(&self, z: &Tensor, distance: &dyn Distance, at: &Moment) -> Result<Tensor> {
        distance.gradient(z, &self.target(at)?)
    }
}
