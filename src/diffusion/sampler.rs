//! Samplers: from noise to a latent, step by step, with backward guidance before each network call.
//!
//! Everything here lives in the variance-preserving space, z_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε. Euler's own space is
//! x = z/√ᾱ with σ = √((1−ᾱ)/ᾱ); its step x' = x + (σ'−σ) ε is, written in z, DDIM's with η = 0, so that what sets
//! Euler apart is its grid of timesteps and its end at σ = 0. Guidance therefore acts alike under every sampler.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::denoiser::{Denoiser, epsilon, predicted};
use crate::guidance::{Guidance, Moment, Session};
use crate::noise::Generator;
use crate::schedule::{NoiseSchedule, SchedulerConfig, TimestepSpacing};
use crate::{Error, Result};

/// Which sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Song et al., Denoising Diffusion Implicit Models, eq. 12.
    #[default]
    Ddim,
    /// Karras et al., algorithm 2 without churn: diffusers' `EulerDiscreteScheduler`.
    Euler,
    /// Lu et al., DPM-Solver++(2M): diffusers' `DPMSolverMultistepScheduler`.
    #[serde(rename = "dpmpp_2m")]
    DpmSolverPp2M,
}

/// A sampler over T steps of a schedule.
#[derive(Clone, Debug)]
pub struct Sampler {
    method: Method,
    eta: f64,
    schedule: NoiseSchedule,
    timesteps: Vec<f64>,
    /// ᾱ at each timestep, then where the last step ends.
    alpha_bar: Vec<f64>,
}

/// Called after each step; an error ends the run.
pub type OnStep<'a> = &'a dyn Fn(Step) -> Result<()>;

/// A step that was done.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Its number, from 1.
    pub done: usize,
    /// The number of steps.
    pub of: usize,
    /// x̂₀, the clean latent as this step's prediction has it.
    pub clean: &'a Tensor,
}

impl Sampler {
    /// A sampler over `steps` steps. `eta` (η of DDIM, 0 to 1) is the share of fresh noise a step.
    ///
    /// Errors if there are no steps, or more than the schedule has timesteps.
    pub fn new(method: Method, config: &SchedulerConfig, steps: usize, eta: f64) -> Result<Self> {
        let schedule = NoiseSchedule::new(config)?;
        let n = schedule.len();
        if steps == 0 || steps >= n {
            return Err(Error::input(format!("steps must lie between 1 and {}, not {steps}", n - 1)));
        }
        if eta != 0.0 && method != Method::Ddim {
            return Err(Error::input("eta is DDIM's: the other samplers add no noise"));
        }
        let timesteps = timesteps(method, config, n, steps);
        let mut alpha_bar: Vec<f64> = timesteps.iter().map(|&t| schedule.alpha_bar(t)).collect();
        alpha_bar.push(if method == Method::Ddim { schedule.final_alpha_bar() } else { 1.0 });
        Ok(Sampler { method, eta, schedule, timesteps, alpha_bar })
    }

    /// The timesteps, first to last, descending.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// The schedule.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// Unit noise as the latent of the first timestep.
    ///
    /// Euler with `linspace` or `trailing` spacing starts at σ_max ε in its own space (diffusers' `init_noise_sigma`);
    /// everything else starts at ε.
    pub fn start(&self, noise: &Tensor) -> Result<Tensor> {
        match (self.method, self.schedule.config.timestep_spacing) {
            (Method::Euler, TimestepSpacing::Linspace | TimestepSpacing::Trailing) => {
                Ok((noise * (1.0 - self.alpha_bar[0]).sqrt())?)
            }
            _ => Ok(noise.clone()),
        }
    }

    /// Samples from unit noise.
    pub fn run(
        &self,
        noise: &Tensor,
        denoiser: &dyn Denoiser,
        guidance: &[Guidance],
        generator: &mut Generator,
        on_step: OnStep,
    ) -> Result<Tensor> {
        self.run_from(0, &self.start(noise)?, denoiser, guidance, generator, on_step)
    }

    /// Samples from the latent `z` of the timestep number `first`, as image-to-image does.
    pub fn run_from(
        &self,
        first: usize,
        z: &Tensor,
        denoiser: &dyn Denoiser,
        guidance: &[Guidance],
        generator: &mut Generator,
        on_step: OnStep,
    ) -> Result<Tensor> {
        let steps = self.timesteps.len();
        let kind = self.schedule.config.prediction_type;
        let mut session = Session::new(guidance);
        let mut z = z.clone();
        let mut before = None; // x̂₀ and λ of the step before, for DPM-Solver++
        for i in first..steps {
            let (t, a, b) = (self.timesteps[i], self.alpha_bar[i], self.next_alpha_bar(i));
            let _span = tracing::debug_span!("step", number = i + 1, of = steps, timestep = t).entered();
            let at = Moment { step: i, steps, t, alpha_bar: a, kind, denoiser };
            let passes = session.passes(&at);
            let mut pass = 0;
            let x0 = loop {
                z = session.update(&z, &at, pass)?;
                let e = epsilon(kind, &denoiser.predict(&z, t)?, &z, a)?;
                let x0 = predicted(&z, &e, a)?;
                z = match self.method {
                    Method::Ddim => self.ddim(&z, e, &x0, a, b, generator)?,
                    Method::Euler => ((&x0 * b.sqrt())? + (e * (1.0 - b).sqrt())?)?,
                    Method::DpmSolverPp2M => dpm_solver_pp_2m(&z, &x0, before.as_ref(), a, b)?,
                };
                pass += 1;
                if pass >= passes {
                    break x0;
                }
                z = back(&z, a, b, generator)?;
            };
            tracing::debug!(passes, "sampled");
            on_step(Step { done: i + 1 - first, of: steps - first, clean: &x0 })?;
            before = Some((x0, log_snr(a)));
        }
        Ok(z)
    }

    /// ᾱ at the end of step i. DDIM's is that of t − N/T, whether or not that is the next timestep.
    fn next_alpha_bar(&self, i: usize) -> f64 {
        if self.method != Method::Ddim {
            return self.alpha_bar[i + 1];
        }
        let previous = self.timesteps[i] - (self.schedule.len() / self.timesteps.len()) as f64;
        if previous >= 0.0 { self.schedule.alpha_bar(previous) } else { self.schedule.final_alpha_bar() }
    }

    /// z' = √ᾱ' x̂₀ + √(1−ᾱ'−σ²) ε + σ n, σ = η √((1−ᾱ')/(1−ᾱ)) √(1−ᾱ/ᾱ').
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

/// One step of DPM-Solver++(2M), midpoint form; first order at the start, and at the end where σ' = 0.
fn dpm_solver_pp_2m(z: &Tensor, x0: &Tensor, before: Option<&(Tensor, f64)>, a: f64, b: f64) -> Result<Tensor> {
    if b >= 1.0 {
        return Ok(x0.clone());
    }
    let h = log_snr(b) - log_snr(a);
    let d = match before {
        Some((x0_before, lambda_before)) => {
            let r = (log_snr(a) - lambda_before) / h;
            (x0 + ((x0 - x0_before)? * (0.5 / r))?)?
        }
        None => x0.clone(),
    };
    let ratio = ((1.0 - b) / (1.0 - a)).sqrt();
    Ok(((z * ratio)? - (d * (b.sqrt() * (-h).exp_m1()))?)?)
}

/// Back up the step from ᾱ to ᾱ' ≥ ᾱ by fresh noise: z = √(ᾱ/ᾱ') z' + √(1 − ᾱ/ᾱ') n (FreeDoM's time travel, RePaint).
fn back(z: &Tensor, a: f64, b: f64, generator: &mut Generator) -> Result<Tensor> {
    let share = a / b;
    let n = generator.randn(z.dims(), z.device())?.to_dtype(z.dtype())?;
    Ok(((z * share.sqrt())? + (n * (1.0 - share).max(0.0).sqrt())?)?)
}

/// diffusers' `set_timesteps`, descending.
fn timesteps(method: Method, config: &SchedulerConfig, n: usize, steps: usize) -> Vec<f64> {
    let (n_f, steps_f) = (n as f64, steps as f64);
    // DPM-Solver++ lays out one timestep more and leaves the last one to σ = 0.
    let laid_out = if method == Method::DpmSolverPp2M { steps + 1 } else { steps };
    let mut t: Vec<f64> = match config.timestep_spacing {
        TimestepSpacing::Leading => {
            (0..laid_out).map(|i| (i * (n / laid_out) + config.steps_offset) as f64).rev().collect()
        }
        TimestepSpacing::Linspace => {
            let even = |i: usize| if laid_out == 1 { 0.0 } else { i as f64 * (n_f - 1.0) / (laid_out - 1) as f64 };
            let round = |t: f64| if method == Method::Euler { f64::from(t as f32) } else { t.round_ties_even() };
            (0..laid_out).map(|i| round(even(i))).rev().collect()
        }
        TimestepSpacing::Trailing => {
            (0..steps).map(|i| (n_f - i as f64 * (n_f / steps_f)).round_ties_even() - 1.0).collect()
        }
    };
    t.truncate(steps);
    t
}
