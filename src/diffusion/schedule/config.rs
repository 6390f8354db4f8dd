//! The content of `scheduler_config.json`.
//!
//! A key that the file lacks is `None` where diffusers' classes have different defaults for it: [`super::classes`] has
//! them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::prediction::PredictionType;

/// How β grows with t.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum BetaSchedule {
    /// β linear in t.
    #[default]
    Linear,
    /// √β linear in t, as in Stable Diffusion.
    ScaledLinear,
    /// Nichol and Dhariwal's cosine ᾱ, β at most 0.999.
    SquaredcosCapV2,
    /// β along a sigmoid from −6 to 6 (GeoDiff), which only `DDPMScheduler` has.
    Sigmoid,
}

/// How the timesteps of a sampler are spaced over 0..N.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum TimestepSpacing {
    /// Multiples of N/T, plus the offset.
    Leading,
    /// Evenly from 0 to N − 1.
    Linspace,
    /// Downwards from N − 1.
    Trailing,
}

/// The noise of the last step's end.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigma {
    /// None.
    #[default]
    Zero,
    /// That of timestep 0.
    SigmaMin,
}

/// What DPM-Solver integrates.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Algorithm {
    /// The noise.
    #[serde(rename = "dpmsolver")]
    DpmSolver,
    /// The clean latent.
    #[serde(rename = "dpmsolver++")]
    DpmSolverPp,
    /// The noise, with fresh noise in each step.
    #[serde(rename = "sde-dpmsolver")]
    SdeDpmSolver,
    /// The clean latent, with fresh noise in each step.
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPp,
    /// What a file of `DEISMultistepScheduler` says; for DPM-Solver it means `dpmsolver++`.
    #[serde(rename = "deis")]
    Deis,
}

/// The form of a multistep solver's second order.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SolverType {
    /// DPM-Solver's midpoint rule.
    Midpoint,
    /// DPM-Solver's Heun-like rule.
    Heun,
    /// UniPC with B(h) = h.
    Bh1,
    /// UniPC with B(h) = e^h − 1.
    Bh2,
    /// DEIS in ln ρ.
    Logrho,
}

/// EDM's range of σ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edm {
    /// The lowest σ.
    pub sigma_min: f64,
    /// The highest σ.
    pub sigma_max: f64,
    /// The spread of clean latents.
    pub sigma_data: f64,
    /// Whether σ is spaced as by Karras, with this ρ, or exponentially.
    pub rho: Option<f64>,
}

/// How EDM's σ is spaced.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SigmaSchedule {
    /// Karras et al., eq. 5.
    #[default]
    Karras,
    /// Evenly in ln σ.
    Exponential,
}

/// What a network is told of the noise.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TimestepType {
    /// The timestep.
    #[default]
    Discrete,
    /// ¼ ln σ, if it predicts v.
    Continuous,
}

/// The content of `scheduler/scheduler_config.json`.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the fields are diffusers' keys, which its reference describes")]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name", default)]
    pub class_name: Option<String>,
    /// N, the number of training timesteps.
    #[serde(default = "thousand")]
    pub num_train_timesteps: usize,
    /// β at t = 0.
    #[serde(default)]
    pub beta_start: Option<f64>,
    /// β at t = N − 1.
    #[serde(default)]
    pub beta_end: Option<f64>,
    #[serde(default)]
    pub beta_schedule: Option<BetaSchedule>,
    #[serde(default)]
    pub trained_betas: Option<Vec<f64>>,
    /// What the network predicts.
    #[serde(default)]
    pub prediction_type: PredictionType,
    #[serde(default)]
    pub rescale_betas_zero_snr: bool,

    #[serde(default)]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Offset of each timestep with `leading` spacing.
    #[serde(default)]
    pub steps_offset: usize,
    #[serde(default)]
    pub use_karras_sigmas: bool,
    #[serde(default)]
    pub use_exponential_sigmas: bool,
    #[serde(default)]
    pub use_beta_sigmas: bool,
    #[serde(default)]
    pub use_lu_lambdas: bool,
    #[serde(default)]
    pub final_sigmas_type: FinalSigma,
    #[serde(default)]
    pub sigma_min: Option<f64>,
    #[serde(default)]
    pub sigma_max: Option<f64>,
    /// Timesteps of a lower λ are left out. −∞ by default, which the file may state too.
    #[serde(skip)]
    pub lambda_min_clipped: Option<f64>,
    #[serde(default)]
    pub timestep_type: TimestepType,

    /// Whether DDIM's last step goes to ᾱ = 1 rather than to ᾱ_0.
    #[serde(default)]
    pub set_alpha_to_one: Option<bool>,
    /// Whether x̂₀ is clamped. diffusers' `DDIMScheduler` does so by default, which suits images, not latents. The files of
    /// its other schedulers lack the key, and so do most folders of latent models, whose x̂₀ exceeds ±1.
    #[serde(default)]
    pub clip_sample: bool,
    /// The bound of that clamp, ±.
    #[serde(default = "one")]
    pub clip_sample_range: f64,
    #[serde(default)]
    pub thresholding: bool,
    #[serde(default = "dynamic_thresholding_ratio")]
    pub dynamic_thresholding_ratio: f64,
    #[serde(default = "one")]
    pub sample_max_value: f64,

    #[serde(default)]
    pub solver_order: Option<usize>,
    #[serde(default)]
    pub algorithm_type: Option<Algorithm>,
    #[serde(default)]
    pub solver_type: Option<SolverType>,
    #[serde(default)]
    pub lower_order_final: Option<bool>,
    #[serde(default)]
    pub euler_at_final: bool,
    #[serde(default = "yes")]
    pub predict_x0: bool,
    #[serde(default)]
    pub disable_corrector: Vec<usize>,
    #[serde(default)]
    pub variance_type: Option<String>,
    #[serde(default)]
    pub skip_prk_steps: bool,
    #[serde(default)]
    pub original_inference_steps: Option<usize>,
    #[serde(default)]
    pub timestep_scaling: Option<f64>,
    #[serde(default)]
    pub sigma_data: Option<f64>,
    #[serde(default)]
    pub sigma_schedule: SigmaSchedule,
    #[serde(default)]
    pub rho: Option<f64>,

    /// Whether the model is of the family SDXL, for whose noise Align Your Steps has its own table.
    #[serde(skip)]
    pub is_xl: bool,
    /// The keys of the file that are set to something other than what has no effect.
    #[serde(skip)]
    pub set: Vec<String>,
}

fn thousand() -> usize {
    1000
}
fn one() -> f64 {
    1.0
}
fn yes() -> bool {
    true
}
fn dynamic_thresholding_ratio() -> f64 {
    0.995
}
