//! Noise schedules: how much noise there is at each timestep, and what a network predicts there.
//!
//! Deals with numbers, not with latents. [`config`] is the content of `scheduler_config.json`, [`classes`] says what each of
//! diffusers' classes means by it, [`choice`] what a sampler makes of it, and [`grid`] chooses the noise levels of a sampling.

pub mod choice;
pub mod classes;
pub mod config;
mod file;
pub mod grid;
mod prediction;
mod rounding;

pub use config::{BetaSchedule, SchedulerConfig, TimestepSpacing};
pub use grid::ScheduleKind;
pub use prediction::{Parameterisation, PredictionType};

use self::rounding::Rounding;
use crate::{Error, Result};

/// ᾱ in place of 0 at the last timestep for samplers that divide by it, as in diffusers.
pub(crate) const NEARLY_NO_SIGNAL: f64 = 5.960_464_477_539_063e-8;

/// A noise level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// What the network receives: the timestep, or ¼ ln σ for EDM.
    pub t: f64,
    /// ᾱ, the share of the signal: z = √ᾱ x₀ + √(1−ᾱ) ε.
    pub alpha_bar: f64,
}

impl Level {
    /// Returns the level of Karras's σ = √((1−ᾱ)/ᾱ).
    pub fn of_sigma(sigma: f64, t: f64) -> Level {
        Level { t, alpha_bar: 1.0 / (sigma * sigma + 1.0) }
    }

    /// Returns σ = √((1−ᾱ)/ᾱ), the noise per signal.
    pub fn sigma(&self) -> f64 {
        sigma_of(self.alpha_bar)
    }
}

fn table_sigma(alpha_bar: f64, rounding: Rounding) -> f64 {
    rounding.of(rounding.of(rounding.of(1.0 - alpha_bar) / alpha_bar).sqrt())
}

fn sigma_of(alpha_bar: f64) -> f64 {
    ((1.0 - alpha_bar) / alpha_bar).sqrt()
}

/// A noise schedule: ᾱ_t for t = 0..N, or EDM's continuous range of σ.
#[derive(Clone, Debug)]
pub struct NoiseSchedule {
    /// ᾱ_t; empty for EDM.
    alpha_bar: Vec<f64>,
    /// σ_t, in f32 as PyTorch computes it.
    sigmas: Vec<f64>,
    /// What the network predicts.
    pub parameterisation: Parameterisation,
    /// Whether the network is told the nearest whole timestep, as by ComfyUI, which computes it in f32.
    pub has_whole_timesteps: bool,
    /// Its configuration.
    pub config: SchedulerConfig,
}

impl NoiseSchedule {
    /// Computes ᾱ as PyTorch does: β in f32, the product accumulated in f64 and rounded to f32.
    ///
    /// # Errors
    /// If the configuration has a value that no model can have, or timesteps without signal or noise.
    pub fn new(config: &SchedulerConfig) -> Result<Self> {
        Self::rounded(config, Rounding::F32)
    }

    /// Computes ᾱ in f64, as ComfyUI does. σ at timestep 0 is 1e-5 less than in f32.
    pub(crate) fn exact(config: &SchedulerConfig) -> Result<Self> {
        Self::rounded(config, Rounding::None)
    }

    fn rounded(config: &SchedulerConfig, rounding: Rounding) -> Result<Self> {
        let invalid = |what: String| Err(Error::Config(format!("scheduler_config.json: {what}")));
        config.check()?;
        let parameterisation = config.parameterisation();
        if config.edm().is_some() {
            return Ok(NoiseSchedule {
                alpha_bar: vec![],
                sigmas: vec![],
                parameterisation,
                has_whole_timesteps: false,
                config: config.clone(),
            });
        }
        let n = config.num_train_timesteps;
        let mut betas = config.betas(rounding);
        if config.rescale_betas_zero_snr {
            betas = zero_terminal_snr(&betas, rounding);
        }
        let alpha_bar = products(&betas, rounding);
        let ends_at_zero = |t: usize| config.rescale_betas_zero_snr && t == n - 1;
        // A latent has both signal and noise at every timestep, and less signal than at the one before.
        let less = |t: usize| {
            let has_signal = alpha_bar[t] > 0.0 || ends_at_zero(t);
            has_signal && alpha_bar[t] < if t == 0 { 1.0 } else { alpha_bar[t - 1] }
        };
        if let Some(t) = (0..n).find(|t| !less(*t)) {
            return invalid(format!(
                "ᾱ must decrease from less than 1 to more than 0, but is {} at timestep {t}, where β is {}; see \
                 `beta_start`, `beta_end` and `trained_betas`",
                alpha_bar[t], betas[t]
            ));
        }
        let sigmas = alpha_bar.iter().map(|alpha_bar| table_sigma(*alpha_bar, rounding)).collect();
        Ok(NoiseSchedule { alpha_bar, sigmas, parameterisation, has_whole_timesteps: false, config: config.clone() })
    }

    /// Replaces ᾱ = 0 at the last timestep by `signal`, so that σ is finite.
    pub(crate) fn with_signal(mut self, signal: f64) -> Self {
        if let (Some(last @ 0.0), Some(sigma)) = (self.alpha_bar.last_mut(), self.sigmas.last_mut()) {
            *last = signal;
            *sigma = table_sigma(signal, Rounding::F32);
        }
        self
    }

    /// Returns the same schedule for a network that is told whole timesteps. One that is told ¼ ln σ is not.
    pub(crate) fn with_whole_timesteps(self) -> Self {
        NoiseSchedule { has_whole_timesteps: self.parameterisation.sigma_data.is_none(), ..self }
    }

    /// Returns ᾱ at what the network receives: ᾱ_t, or for a network that is told ¼ ln σ that of σ.
    pub fn alpha_bar(&self, t: f64) -> f64 {
        match self.parameterisation.sigma_data {
            Some(_) => Level::of_sigma((4.0 * t).exp(), t).alpha_bar,
            None => self.alpha_bar_at(t),
        }
    }

    /// Returns what the network receives at σ: the timestep, or ¼ ln σ.
    pub(crate) fn c_noise(&self, sigma: f64) -> f64 {
        match self.parameterisation.sigma_data {
            Some(_) => 0.25 * sigma.max(1e-10).ln(),
            None if self.has_whole_timesteps => {
                // Next to the middle between two timesteps, f32 decides which one is the nearest.
                let (t, nearest) = (self.timestep_of(sigma), self.nearest_timestep(sigma));
                nearest + (t - nearest).clamp(-0.499, 0.499)
            }
            None => self.timestep_of(sigma),
        }
    }

    /// The timestep whose ln σ is the nearest in f32.
    fn nearest_timestep(&self, sigma: f64) -> f64 {
        let (low, log) = (self.timestep_of(sigma).floor() as usize, (sigma as f32).ln());
        let high = (low + 1).min(self.sigmas.len() - 1);
        let distance = |i: usize| ((self.sigmas[i] as f32).ln() - log).abs();
        (if distance(high) < distance(low) { high } else { low }) as f64
    }

    /// Returns ᾱ_t. Between two timesteps it interpolates σ = √((1−ᾱ)/ᾱ), as diffusers does. For EDM, t is ¼ ln σ.
    pub(crate) fn alpha_bar_at(&self, t: f64) -> f64 {
        if self.alpha_bar.is_empty() {
            return Level::of_sigma((4.0 * t).exp(), t).alpha_bar;
        }
        let last = self.alpha_bar.len() - 1;
        let t = t.clamp(0.0, last as f64);
        let (low, part) = (t.floor() as usize, t.fract());
        if part == 0.0 {
            return self.alpha_bar[low];
        }
        let s = self.sigmas[low] * (1.0 - part) + self.sigmas[(low + 1).min(last)] * part;
        1.0 / (s * s + 1.0)
    }

    /// Returns the timestep of σ, by linear interpolation of ln σ; for EDM ¼ ln σ.
    pub fn timestep_of(&self, sigma: f64) -> f64 {
        let log = sigma.max(1e-10).ln();
        if self.alpha_bar.is_empty() {
            return 0.25 * log;
        }
        let last = self.alpha_bar.len() - 1;
        let log_sigma = |i: usize| f64::from((self.sigmas[i] as f32).ln());
        let below = |sigma: &f64| f64::from((*sigma as f32).ln()) <= log;
        let low = self.sigmas.partition_point(below).saturating_sub(1).min(last - 1);
        let share = (log_sigma(low) - log) / (log_sigma(low) - log_sigma(low + 1));
        low as f64 + share.clamp(0.0, 1.0)
    }

    /// Returns σ at a timestep, between two timesteps by interpolation of ln σ. The reverse of [`Self::timestep_of`].
    pub fn sigma_at(&self, t: f64) -> f64 {
        if self.alpha_bar.is_empty() {
            return (4.0 * t).exp();
        }
        let last = self.alpha_bar.len() - 1;
        let t = t.clamp(0.0, last as f64);
        let (low, part) = (t.floor() as usize, t.fract());
        if self.has_whole_timesteps {
            let (log, part) = (|i: usize| (self.sigmas[i.min(last)] as f32).ln(), (t as f32).fract());
            return f64::from(((1.0 - part) * log(low) + part * log(low + 1)).exp());
        }
        let log_sigma = |i: usize| self.sigmas[i.min(last)].ln();
        (log_sigma(low) * (1.0 - part) + log_sigma(low + 1) * part).exp()
    }

    /// Returns the lowest and the highest σ.
    pub fn range(&self) -> (f64, f64) {
        match self.config.edm() {
            Some(edm) => (edm.sigma_min, edm.sigma_max),
            None => (self.sigmas[0], self.sigmas[self.sigmas.len() - 1]),
        }
    }

    /// Returns ᾱ below the lowest timestep: 1 if `set_alpha_to_one`, else ᾱ_0.
    pub fn final_alpha_bar(&self, set_alpha_to_one: bool) -> f64 {
        if set_alpha_to_one { 1.0 } else { self.alpha_bar.first().copied().unwrap_or(1.0) }
    }

    /// Returns N, the number of training timesteps.
    pub fn len(&self) -> usize {
        self.config.num_train_timesteps
    }

    /// Returns `false`: a schedule has at least two timesteps.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// ᾱ_t = Π (1 − β_s). PyTorch accumulates the product in f64.
fn products(betas: &[f64], rounding: Rounding) -> Vec<f64> {
    let mut product = 1f64;
    let alpha_bar = betas.iter().map(|beta| {
        product *= rounding.of(1.0 - beta);
        rounding.of(product)
    });
    alpha_bar.collect()
}

/// Rescales β so that ᾱ ends at 0 (Lin et al., algorithm 1).
fn zero_terminal_snr(betas: &[f64], rounding: Rounding) -> Vec<f64> {
    let round = |value| rounding.of(value);
    let roots: Vec<f64> = products(betas, rounding).into_iter().map(|a| round(a.sqrt())).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = round(first / round(first - last));
    let alpha_bar: Vec<f64> = roots.iter().map(|root| round(round(round(root - last) * scale).powi(2))).collect();
    let ratio = |t: usize| if t == 0 { alpha_bar[0] } else { alpha_bar[t] / alpha_bar[t - 1] };
    (0..alpha_bar.len()).map(|t| round(1.0 - round(ratio(t)))).collect()
}
