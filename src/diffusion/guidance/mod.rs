//! The backward guidance framework: z̃_t = z_t − γ ∇D, D = distance(feat(z_t), target_t) (the paper, §3.2).
//!
//! An [`Extractor`] supplies the feature and its ideal value, a [`Distance`] how far apart they are and its gradient;
//! a [`Guidance`] says how strongly, when and where they act. The update comes before the network is called.

mod distance;
mod inversion;

pub use distance::{Distance, SquaredL2};
pub use inversion::Inversion;

use std::sync::Arc;

use candle_core::{DType, Tensor, Var};

use crate::{Error, Result};

/// Where a sampling run stands.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Number of the step, from 0.
    pub step: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Timestep.
    pub t: f64,
    /// ᾱ_t.
    pub alpha_bar: f64,
}

/// A feature of the latent, and the value that it ought to have.
pub trait Extractor: Send + Sync {
    /// Short name, for messages.
    fn name(&self) -> &str;

    /// The feature of z_t (B, C, h, w), differentiable.
    fn feat(&self, z: &Tensor, at: &Moment) -> Result<Tensor>;

    /// The ideal feature at t.
    fn target(&self, at: &Moment) -> Result<Tensor>;

    /// ∇_z D. By automatic differentiation through [`Extractor::feat`], unless the extractor knows better.
    fn gradient(&self, z: &Tensor, distance: &dyn Distance, at: &Moment) -> Result<Tensor> {
        let z = Var::from_tensor(&z.detach())?;
        let d = distance.value(&self.feat(z.as_tensor(), at)?, &self.target(at)?.detach())?;
        d.backward()?.remove(z.as_tensor()).ok_or_else(|| {
            Error::input(format!("guidance `{}`: its feature does not depend on the latent", self.name()))
        })
    }
}

/// The steps in which a guidance acts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Window {
    /// The first part of the steps, rounded, at least one (`0` is none).
    Fraction(f64),
    /// The steps with t ≥ t_th.
    FromTimestep(f64),
}

impl Default for Window {
    /// The paper's first tenth.
    fn default() -> Self {
        Window::Fraction(0.1)
    }
}

impl Window {
    /// Whether the guidance acts at this moment.
    pub fn holds(&self, at: &Moment) -> bool {
        match *self {
            Window::Fraction(f) => at.step < Self::first_steps(f, at.steps),
            Window::FromTimestep(t) => at.t >= t,
        }
    }

    /// How many of a run's first steps the window covers.
    pub fn count(&self, timesteps: &[f64]) -> usize {
        match *self {
            Window::Fraction(f) => Self::first_steps(f, timesteps.len()),
            Window::FromTimestep(t) => timesteps.iter().take_while(|s| **s >= t).count(),
        }
    }

    fn first_steps(fraction: f64, steps: usize) -> usize {
        if fraction <= 0.0 { 0 } else { ((fraction * steps as f64).round_ties_even() as usize).clamp(1, steps) }
    }
}

/// One guidance: what, how strongly, when, where. Clones share what is heavy.
#[derive(Clone)]
pub struct Guidance {
    /// The feature and its ideal.
    pub extractor: Arc<dyn Extractor>,
    /// How far they are apart.
    pub distance: Arc<dyn Distance>,
    /// γ.
    pub scale: f64,
    /// When it acts.
    pub window: Window,
    /// Where it acts: (1, 1, h, w) in [0, 1], multiplied to the gradient. Everywhere if absent.
    pub mask: Option<Tensor>,
}

impl Guidance {
    /// The latent after this guidance: z − γ M ⊙ ∇D within the window, z outside it.
    ///
    /// Errors if the result is not finite, naming the guidance, the step and what to lower.
    pub fn update(&self, z: &Tensor, at: &Moment) -> Result<Tensor> {
        if !self.window.holds(at) || self.scale == 0.0 {
            return Ok(z.clone());
        }
        let mut gradient = self.extractor.gradient(z, &*self.distance, at)?;
        if let Some(mask) = &self.mask {
            gradient = gradient.broadcast_mul(mask)?;
        }
        let updated = (z - (gradient * self.scale)?)?;
        let size = updated.to_dtype(DType::F32)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
        if !size.is_finite() || size > 1e6 {
            return Err(Error::input(format!(
                "guidance `{}` diverged at step {} of {} (t = {}): lower its strength (γ is {}), or let it act in fewer \
                 steps",
                self.extractor.name(),
                at.step + 1,
                at.steps,
                at.t,
                self.scale
            )));
        }
        Ok(updated)
    }
}
