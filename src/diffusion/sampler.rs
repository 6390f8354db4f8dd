//! Samplers: their timesteps, and the formula of one step.
//!
//! All latents are in the variance-preserving space, z_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε. Euler's own space is x = z/√ᾱ with σ =
//! √((1−ᾱ)/ᾱ); in terms of z, its step x' = x + (σ'−σ) ε is DDIM's with η = 0. So Euler differs from DDIM only in its
//! timesteps and in its end at σ = 0. Guidance therefore acts alike under every sampler.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::noise::Generator;
use crate::schedule::{NoiseSchedule, SchedulerConfig, TimestepSpacing};
use crate::{Error, Result};

/// The kind of a sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum SamplerKind {
    /// DDIM (Song et al., eq. 12), the sampler of the paper.
    #[default]
    Ddim,
    /// Euler (Karras et al., algorithm 2 without churn), as diffusers' `EulerDiscreteScheduler`.
    Euler,
    /// DPM-Solver++(2M) (Lu et al.), as diffusers' `DPMSolverMultistepScheduler`.
    #[serde(rename = "dpmpp_2m")]
    DpmSolverPp2M,
}

impl SamplerKind {
    /// Returns the name that serde reads.
    pub fn name(self) -> &'static str {
        match self {
            SamplerKind::Ddim => "ddim",
            SamplerKind::Euler => "euler",
            SamplerKind::DpmSolverPp2M => "dpmpp_2m",
        }
    }
}

/// A sampler over T steps of a noise schedule.
#[derive(Clone, Debug)]
pub struct Sampler {
    kind: SamplerKind,
    /// η.
    eta: f64,
    schedule: NoiseSchedule,
    timesteps: Vec<f64>,
    /// ᾱ at each timestep, then at the end of the last step.
    alpha_bar: Vec<f64>,
}

/// Called after each step; an error ends the sampling.
pub type OnStep<'a> = &'a dyn Fn(Step) -> Result<()>;

/// A completed step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Its number, from 1.
    pub done: usize,
    /// The number of steps.
    pub of: usize,
    /// x̂₀, the clean latent that this step's prediction implies.
    pub predicted_x0: &'a Tensor,
}

/// The values of the previous step that DPM-Solver++(2M) uses.
pub(crate) struct PreviousStep {
    /// x̂₀.
    pub x0: Tensor,
    /// ᾱ at its timestep.
    pub alpha_bar: f64,
}

impl Sampler {
    /// Creates a sampler over `steps` steps. `eta`, η of DDIM from 0 to 1, scales the fresh noise of each step.
    ///
    /// # Errors
    /// If `steps` is 0 or at least the number of training timesteps, or if `eta` is not 0 for another sampler than DDIM.
    pub fn new(kind: SamplerKind, config: &SchedulerConfig, steps: usize, eta: f64) -> Result<Self> {
        let schedule = NoiseSchedule::new(config)?;
        let n = schedule.len();
        if steps == 0 || steps >= n {
            return Err(Error::input(format!("`steps` must be between 1 and {}, but is {steps}", n - 1)));
        }
        if eta != 0.0 && kind != SamplerKind::Ddim {
            return Err(Error::input("`eta` requires the sampler `ddim`: the others add no noise"));
        }
        let timesteps = timesteps(kind, config, n, steps);
        let descending = timesteps.windows(2).all(|pair| pair[0] > pair[1]);
        if !descending || timesteps.iter().any(|t| !(0.0..n as f64).contains(t)) {
            return Err(Error::input(format!(
                "`steps` is {steps}, but the sampler `{}` has no {steps} different timesteps below {n} with the model's \
                 `timestep_spacing` and `steps_offset`; write fewer steps",
                kind.name()
            )));
        }
        let mut alpha_bar: Vec<f64> = timesteps.iter().map(|&t| schedule.alpha_bar(t)).collect();
        alpha_bar.push(if kind == SamplerKind::Ddim { schedule.final_alpha_bar() } else { 1.0 });
        Ok(Sampler { kind, eta, schedule, timesteps, alpha_bar })
    }

    /// Returns the timesteps in the order of sampling: descending.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// Returns the noise schedule.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// Converts unit noise to the latent of the first timestep.
    ///
    /// Euler with `linspace` or `trailing` spacing starts at σ_max ε in its own space (diffusers' `init_noise_sigma`);
    /// the others start at ε.
    pub fn start(&self, noise: &Tensor) -> Result<Tensor> {
        match (self.kind, self.schedule.config.timestep_spacing) {
            (SamplerKind::Euler, TimestepSpacing::Linspace | TimestepSpacing::Trailing) => {
                Ok((noise * (1.0 - self.alpha_bar[0]).sqrt())?)
            }
            _ => Ok(noise.clone()),
        }
    }

    /// Takes step i: from z_t, with the predicted ε and x̂₀, to the latent at the next timestep.
    ///
    /// `previous` is the step before, which DPM-Solver++(2M) extrapolates from; DDIM with η > 0 draws from `generator`.
    pub(crate) fn step(
        &self,
        i: usize,
        z: &Tensor,
        e: Tensor,
        x0: &Tensor,
        previous: Option<&PreviousStep>,
        generator: &mut Generator,
    ) -> Result<Tensor> {
        let (a, b) = (self.alpha_bar[i], self.next_alpha_bar(i));
        match self.kind {
            SamplerKind::Ddim => self.ddim(z, e, x0, a, b, generator),
            SamplerKind::Euler => Ok(((x0 * b.sqrt())? + (e * (1.0 - b).sqrt())?)?),
            SamplerKind::DpmSolverPp2M => dpm_solver_pp_2m(z, x0, previous, a, b),
        }
    }

    /// Undoes step i with fresh noise n: z = √(ᾱ/ᾱ') z' + √(1 − ᾱ/ᾱ') n (FreeDoM's time travel, RePaint).
    pub(crate) fn undo(&self, i: usize, z: &Tensor, generator: &mut Generator) -> Result<Tensor> {
        let share = self.alpha_bar[i] / self.next_alpha_bar(i);
        let n = generator.randn(z.dims(), z.device())?.to_dtype(z.dtype())?;
        Ok(((z * share.sqrt())? + (n * (1.0 - share).max(0.0).sqrt())?)?)
    }

    /// Returns ᾱ at timestep number `i`.
    pub(crate) fn alpha_bar(&self, i: usize) -> f64 {
        self.alpha_bar[i]
    }

    /// Returns ᾱ' at the end of step i. DDIM's is that of t − N/T, even where this is not the next timestep.
    fn next_alpha_bar(&self, i: usize) -> f64 {
        if self.kind != SamplerKind::Ddim {
            return self.alpha_bar[i + 1];
        }
        let previous = self.timesteps[i] - (self.schedule.len() / self.timesteps.len()) as f64;
        if previous >= 0.0 { self.schedule.alpha_bar(previous) } else { self.schedule.final_alpha_bar() }
    }

    /// Song et al., eq. 12 and 16: z' = √ᾱ' x̂₀ + √(1−ᾱ'−σ²) ε + σ n, σ = η √((1−ᾱ')/(1−ᾱ)) √(1−ᾱ/ᾱ').
    fn ddim(&self, z: &Tensor, e: Tensor, x0: &Tensor, a: f64, b: f64, generator: &mut Generator) -> Result<Tensor> {
        let config = &self.schedule.config;
        let x0 = match config.clip_sample {
            // diffusers keeps ε as predicted (`use_clipped_model_output` is off).
            true => &x0.clamp(-config.clip_sample_range, config.clip_sample_range)?,
            false => x0,
        };
        let sigma = self.eta * ((1.0 - b) / (1.0 - a) * (1.0 - a / b)).max(0.0).sqrt();
        let z_next = ((x0 * b.sqrt())? + (e * (1.0 - b - sigma * sigma).max(0.0).sqrt())?)?;
        if sigma == 0.0 {
            return Ok(z_next);
        }
        let n = generator.randn(z.dims(), z.device())?.to_dtype(z.dtype())?;
        Ok((z_next + (n * sigma)?)?)
    }
}

/// λ = ln(√ᾱ / √(1−ᾱ)), half the log signal-to-noise ratio.
fn log_snr(alpha_bar: f64) -> f64 {
    0.5 * (alpha_bar / (1.0 - alpha_bar)).ln()
}

/// One step of DPM-Solver++(2M) (Lu et al., algorithm 2), midpoint form; first order at the start, and at the end where
/// σ' = 0.
fn dpm_solver_pp_2m(z: &Tensor, x0: &Tensor, previous: Option<&PreviousStep>, a: f64, b: f64) -> Result<Tensor> {
    if b >= 1.0 {
        return Ok(x0.clone());
    }
    let h = log_snr(b) - log_snr(a);
    let d = match previous {
        Some(previous) => {
            let r = (log_snr(a) - log_snr(previous.alpha_bar)) / h;
            (x0 + ((x0 - &previous.x0)? * (0.5 / r))?)?
        }
        None => x0.clone(),
    };
    let ratio = ((1.0 - b) / (1.0 - a)).sqrt();
    Ok(((z * ratio)? - (d * (b.sqrt() * (-h).exp_m1()))?)?)
}

/// Returns the timesteps of diffusers' `set_timesteps`, descending.
fn timesteps(kind: SamplerKind, config: &SchedulerConfig, n: usize, steps: usize) -> Vec<f64> {
    let (n_f, steps_f) = (n as f64, steps as f64);
    // DPM-Solver++ spaces one timestep more and drops the last one, where σ = 0.
    let spaced = if kind == SamplerKind::DpmSolverPp2M { steps + 1 } else { steps };
    let mut t: Vec<f64> = match config.timestep_spacing {
        TimestepSpacing::Leading => {
            (0..spaced).map(|i| (i * (n / spaced) + config.steps_offset) as f64).rev().collect()
        }
        TimestepSpacing::Linspace => {
            let even = |i: usize| if spaced == 1 { 0.0 } else { i as f64 * (n_f - 1.0) / (spaced - 1) as f64 };
            let round = |t: f64| if kind == SamplerKind::Euler { f64::from(t as f32) } else { t.round_ties_even() };
            (0..spaced).map(|i| round(even(i))).rev().collect()
        }
        TimestepSpacing::Trailing => {
            (0..steps).map(|i| (n_f - i as f64 * (n_f / steps_f)).round_ties_even() - 1.0).collect()
        }
    };
    t.truncate(steps);
    t
}
