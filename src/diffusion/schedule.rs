//! The noise schedule ᾱ_t.
//!
//! Deals with `scheduler_config.json` and the arithmetic of diffusers' schedulers, not with latents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::weights::{Json, ModelFiles};
use crate::{Error, Result};

/// The most timesteps of a schedule. Public models have 1000.
const MOST_TIMESTEPS: usize = 1 << 16;

/// How β grows with t.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// β linear in t.
    #[default]
    Linear,
    /// √β linear in t, as in Stable Diffusion.
    ScaledLinear,
    /// Nichol and Dhariwal's cosine ᾱ, β at most 0.999.
    SquaredcosCapV2,
}

/// How the timesteps of a sampler are spaced over 0..N.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Multiples of N/T, plus the offset.
    #[default]
    Leading,
    /// Evenly from 0 to N − 1.
    Linspace,
    /// Downwards from N − 1.
    Trailing,
}

/// What a U-Net predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum PredictionType {
    /// The noise ε.
    #[default]
    Epsilon,
    /// v = √ᾱ ε − √(1−ᾱ) x₀.
    VPrediction,
}

/// The content of `scheduler/scheduler_config.json`, with diffusers' defaults.
#[derive(Clone, Debug, Deserialize)]
pub struct SchedulerConfig {
    /// N, the number of training timesteps.
    #[serde(default = "thousand")]
    pub num_train_timesteps: usize,
    /// β at t = 0.
    #[serde(default = "first_beta")]
    pub beta_start: f64,
    /// β at t = N − 1.
    #[serde(default = "last_beta")]
    pub beta_end: f64,
    /// How β grows.
    #[serde(default)]
    pub beta_schedule: BetaSchedule,
    /// How timesteps are spaced.
    #[serde(default)]
    pub timestep_spacing: TimestepSpacing,
    /// Offset of each timestep with `leading` spacing.
    #[serde(default)]
    pub steps_offset: usize,
    /// Whether DDIM's last step goes to ᾱ = 1 rather than to ᾱ_0.
    #[serde(default = "yes")]
    pub set_alpha_to_one: bool,
    /// Whether DDIM clamps x̂₀. diffusers' `DDIMScheduler` does so by default, which suits images, not latents. The files of
    /// its other schedulers lack the key, and so do most folders of latent models, whose x̂₀ exceeds ±1.
    #[serde(default)]
    pub clip_sample: bool,
    /// The bound of that clamp, ±.
    #[serde(default = "one")]
    pub clip_sample_range: f64,
    /// What the network predicts.
    #[serde(default)]
    pub prediction_type: PredictionType,
    #[serde(default)]
    thresholding: bool,
    #[serde(default)]
    rescale_betas_zero_snr: bool,
    #[serde(default)]
    trained_betas: Option<Vec<f32>>,
}

impl SchedulerConfig {
    /// Reads `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    /// If it is missing, malformed or not supported.
    pub fn read(files: &ModelFiles) -> Result<Self> {
        files.json("scheduler/scheduler_config.json")?.decode()
    }

    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed or not supported.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        Json::parse(json, file)?.decode()
    }

    /// Returns the configuration of Stable Diffusion 1.x and SDXL, for checkpoints in one file, which have none.
    pub fn stable_diffusion(prediction_type: PredictionType) -> Self {
        SchedulerConfig {
            num_train_timesteps: thousand(),
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 1,
            set_alpha_to_one: false,
            clip_sample: false,
            clip_sample_range: one(),
            prediction_type,
            thresholding: false,
            rescale_betas_zero_snr: false,
            trained_betas: None,
        }
    }
}

fn thousand() -> usize {
    1000
}
fn first_beta() -> f64 {
    0.0001
}
fn last_beta() -> f64 {
    0.02
}
fn one() -> f64 {
    1.0
}
fn yes() -> bool {
    true
}

/// A noise schedule: ᾱ_t for t = 0..N.
#[derive(Clone, Debug)]
pub struct NoiseSchedule {
    alpha_bar: Vec<f64>,
    /// Its configuration.
    pub config: SchedulerConfig,
}

impl NoiseSchedule {
    /// Computes ᾱ as PyTorch does: β in f32, the product accumulated in f64 and rounded to f32.
    ///
    /// # Errors
    /// If the configuration has an option that is not supported, or timesteps without signal or noise.
    pub fn new(config: &SchedulerConfig) -> Result<Self> {
        let n = config.num_train_timesteps;
        let invalid = |what: String| Err(Error::Config(format!("scheduler_config.json: {what}")));
        for (set, key) in
            [(config.thresholding, "thresholding"), (config.rescale_betas_zero_snr, "rescale_betas_zero_snr")]
        {
            if set {
                return invalid(format!("`{key}` is not supported"));
            }
        }
        if !(2..=MOST_TIMESTEPS).contains(&n) {
            return invalid(format!("`num_train_timesteps` must be between 2 and {MOST_TIMESTEPS}, but is {n}"));
        }
        if config.steps_offset >= n {
            return invalid(format!(
                "`steps_offset` must be less than the {n} timesteps, but is {}",
                config.steps_offset
            ));
        }
        if config.clip_sample_range.is_nan() || config.clip_sample_range <= 0.0 {
            return invalid(format!("`clip_sample_range` must be above 0, but is {}", config.clip_sample_range));
        }
        if let Some(betas) = config.trained_betas.as_ref().filter(|betas| betas.len() != n) {
            return invalid(format!("`trained_betas` has {} entries for {n} timesteps", betas.len()));
        }
        let betas: Vec<f32> = match (&config.trained_betas, config.beta_schedule) {
            (Some(betas), _) => betas.clone(),
            (None, BetaSchedule::Linear) => linspace(config.beta_start as f32, config.beta_end as f32, n),
            (None, BetaSchedule::ScaledLinear) => {
                let roots = linspace(config.beta_start.sqrt() as f32, config.beta_end.sqrt() as f32, n);
                roots.into_iter().map(|r| r * r).collect()
            }
            (None, BetaSchedule::SquaredcosCapV2) => {
                let bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let at = |i: usize| bar(i as f64 / n as f64);
                (0..n).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
            }
        };
        let mut product = 1f64;
        let alpha_bar = betas.iter().map(|beta| {
            product *= f64::from(1.0 - beta);
            f64::from(product as f32)
        });
        let alpha_bar: Vec<f64> = alpha_bar.collect();
        // A latent has both signal and noise at every timestep, and less signal than at the one before.
        let less = |t: usize| alpha_bar[t] > 0.0 && alpha_bar[t] < if t == 0 { 1.0 } else { alpha_bar[t - 1] };
        if let Some(t) = (0..n).find(|t| !less(*t)) {
            return invalid(format!(
                "ᾱ must decrease from less than 1 to more than 0, but is {} at timestep {t}, where β is {}; see \
                 `beta_start`, `beta_end` and `trained_betas`",
                alpha_bar[t], betas[t]
            ));
        }
        Ok(NoiseSchedule { alpha_bar, config: config.clone() })
    }

    /// Returns ᾱ_t. Between two timesteps it interpolates σ = √((1−ᾱ)/ᾱ), as Euler's fractional timesteps require.
    pub fn alpha_bar(&self, t: f64) -> f64 {
        let last = self.alpha_bar.len() - 1;
        let t = t.clamp(0.0, last as f64);
        let (low, part) = (t.floor() as usize, t.fract());
        if part == 0.0 {
            return self.alpha_bar[low];
        }
        let sigma = |i: usize| ((1.0 - self.alpha_bar[i]) / self.alpha_bar[i]).sqrt();
        let s = sigma(low) * (1.0 - part) + sigma((low + 1).min(last)) * part;
        1.0 / (s * s + 1.0)
    }

    /// Returns ᾱ below the lowest timestep: 1 if `set_alpha_to_one`, else ᾱ_0.
    pub fn final_alpha_bar(&self) -> f64 {
        if self.config.set_alpha_to_one { 1.0 } else { self.alpha_bar[0] }
    }

    /// Returns N.
    pub fn len(&self) -> usize {
        self.alpha_bar.len()
    }

    /// Returns `false`: a schedule has at least two timesteps.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Computes `torch.linspace` in f32: from both ends towards the middle.
fn linspace(from: f32, to: f32, n: usize) -> Vec<f32> {
    let step = (to - from) / (n - 1) as f32;
    (0..n).map(|i| if i < n / 2 { from + step * i as f32 } else { to - step * (n - 1 - i) as f32 }).collect()
}
