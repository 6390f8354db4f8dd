//! Noisy latents of a clean one: DDIM inversion (the paper, §3.3) and noising.

use candle_core::{Device, Tensor};

use crate::denoiser::{Denoiser, Prediction, noised};
use crate::sampler::{OnStep, Sampler, Step};
use crate::{Error, Result};

/// A trajectory: z̄_t at the timesteps of a sampler.
#[derive(Clone, Debug)]
pub struct Trajectory {
    points: Vec<(f64, Tensor)>,
}

impl Trajectory {
    /// Creates a trajectory from timesteps and their latents, in the order of sampling.
    pub fn new(points: Vec<(f64, Tensor)>) -> Trajectory {
        Trajectory { points }
    }

    /// Returns the timesteps and their latents, in the order of sampling.
    pub fn points(&self) -> &[(f64, Tensor)] {
        &self.points
    }

    /// Moves the latents to a device; shares those that are already there.
    pub fn to_device(&self, device: &Device) -> Result<Trajectory> {
        let points = self.points.iter().map(|(t, z)| Ok((*t, z.to_device(device)?)));
        Ok(Trajectory { points: points.collect::<Result<_>>()? })
    }

    /// Returns z̄_t.
    ///
    /// # Errors
    /// If the trajectory was not made for this timestep.
    pub fn at(&self, t: f64) -> Result<&Tensor> {
        self.points.iter().find(|(s, _)| (s - t).abs() < 1e-3).map(|(_, z)| z).ok_or_else(|| {
            let known: Vec<String> = self.points.iter().map(|(t, _)| format!("{t}")).collect();
            Error::input(format!(
                "the inversion has no latent at timestep {t}, only at {}; invert with the steps, the sampler and the window \
                 of the guided sampling",
                known.join(", ")
            ))
        })
    }

    /// Returns the timesteps, in the order of sampling.
    pub fn timesteps(&self) -> impl Iterator<Item = f64> + '_ {
        self.points.iter().map(|(t, _)| *t)
    }

    /// Returns the bytes of its latents.
    pub fn bytes(&self) -> usize {
        self.points.iter().map(|(_, z)| z.elem_count() * z.dtype().size_in_bytes()).sum()
    }
}

/// Inverts z̄_0 by DDIM over the sampler's timesteps, and keeps the latents of its first `keep` steps (the noisiest).
///
/// At each timestep t, ascending, with s the one below it: ε = ε_θ(z, t), x̂₀ = (z − √(1−ᾱ_s) ε)/√ᾱ_s,
/// z̄_t = √ᾱ_t x̂₀ + √(1−ᾱ_t) ε. Equals diffusers' `DDIMInverseScheduler` on `leading` spacing. The network is called
/// once a step, in the paper without classifier-free guidance.
pub fn ddim(
    z0: &Tensor,
    sampler: &Sampler,
    denoiser: &dyn Denoiser,
    keep: usize,
    on_step: OnStep,
) -> Result<Trajectory> {
    let schedule = sampler.schedule();
    let levels = sampler.levels();
    let mut below = sampler.final_alpha_bar();
    let mut z = z0.clone();
    let mut points = Vec::new();
    for (i, level) in levels.iter().rev().enumerate() {
        let raw = denoiser.predict(&z, level.t)?;
        let Prediction { x0, e, .. } = Prediction::new(schedule.parameterisation, raw, &z, below)?;
        z = noised(&x0, &e, level.alpha_bar)?;
        below = level.alpha_bar;
        if levels.len() - i <= keep {
            points.push((level.t, z.clone()));
        }
        tracing::debug!(number = i + 1, of = levels.len(), timestep = level.t, "inverted");
        on_step(Step { done: i + 1, of: levels.len(), predicted_x0: &x0 })?;
    }
    points.reverse();
    Ok(Trajectory { points })
}

/// Noises z̄_0: z̄_t = √ᾱ_t z̄_0 + √(1−ᾱ_t) ε, with one ε for all timesteps.
pub fn noise(z0: &Tensor, sampler: &Sampler, epsilon: &Tensor, keep: usize) -> Result<Trajectory> {
    let points = sampler.levels().iter().take(keep).map(|level| Ok((level.t, noised(z0, epsilon, level.alpha_bar)?)));
    Ok(Trajectory { points: points.collect::<Result<_>>()? })
}
