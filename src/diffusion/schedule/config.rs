//! `scheduler_config.json`.
//!
//! A key that the file lacks is `None` where diffusers' classes have different defaults for it: [`super::classes`] has
//! them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MOST_TIMESTEPS, Parameterisation, PredictionType, Rounding};
use crate::weights::{Json, ModelFiles};
use crate::{Error, Result};

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

impl SchedulerConfig {
    /// Reads `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    /// If it is missing, malformed or not supported.
    pub fn read(files: &ModelFiles) -> Result<Self> {
        Self::of(&files.json("scheduler/scheduler_config.json")?)
    }

    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed or not supported.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        Self::of(&Json::parse(json, file)?)
    }

    fn of(json: &Json) -> Result<Self> {
        let mut config: SchedulerConfig = json.decode()?;
        config.lambda_min_clipped = json.number("lambda_min_clipped");
        config.set =
            json.keys().filter(|key| !super::classes::is_neutral(key, json.get(key))).map(Into::into).collect();
        Ok(config)
    }

    /// Returns the configuration of Stable Diffusion 1.x and SDXL, for checkpoints in one file, which have none.
    pub fn stable_diffusion(prediction_type: PredictionType) -> Self {
        let text = br#"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": false, "clip_sample": false,
            "skip_prk_steps": true}"#;
        let config = Self::parse(text, "Stable Diffusion's schedule").expect("a configuration");
        SchedulerConfig { prediction_type, ..config }
    }

    /// Returns EDM's range of σ for the classes of EDM.
    pub fn edm(&self) -> Option<Edm> {
        let class = self.class_name.as_deref().unwrap_or_default();
        super::classes::is_edm(class).then(|| Edm {
            sigma_min: self.sigma_min.unwrap_or(0.002),
            sigma_max: self.sigma_max.unwrap_or(80.0),
            sigma_data: self.sigma_data.unwrap_or(0.5),
            rho: (self.sigma_schedule == SigmaSchedule::Karras).then(|| self.rho.unwrap_or(7.0)),
        })
    }

    /// Returns what the network predicts, and how its input is scaled.
    pub fn parameterisation(&self) -> Parameterisation {
        let is_continuous =
            self.timestep_type == TimestepType::Continuous && self.prediction_type == PredictionType::VPrediction;
        let sigma_data = self.edm().map(|edm| edm.sigma_data).or(is_continuous.then_some(1.0));
        Parameterisation { prediction: self.prediction_type, sigma_data }
    }

    /// β_t.
    pub(super) fn betas(&self, rounding: Rounding) -> Vec<f64> {
        let n = self.num_train_timesteps;
        let round = |value| rounding.of(value);
        if let Some(betas) = &self.trained_betas {
            return betas.iter().map(|beta| round(*beta)).collect();
        }
        let latent = super::classes::is_for_latents(self.class_name.as_deref().unwrap_or_default());
        let start = self.beta_start.unwrap_or(if latent { 0.00085 } else { 0.0001 });
        let end = self.beta_end.unwrap_or(if latent { 0.012 } else { 0.02 });
        let default = if latent { BetaSchedule::ScaledLinear } else { BetaSchedule::Linear };
        match self.beta_schedule.unwrap_or(default) {
            BetaSchedule::Linear => linspace(start, end, n, rounding),
            BetaSchedule::ScaledLinear => {
                linspace(start.sqrt(), end.sqrt(), n, rounding).into_iter().map(|root| round(root * root)).collect()
            }
            BetaSchedule::SquaredcosCapV2 => {
                let bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let at = |i: usize| bar(i as f64 / n as f64);
                (0..n).map(|i| round((1.0 - at(i + 1) / at(i)).min(0.999))).collect()
            }
            BetaSchedule::Sigmoid => {
                let at = |x: f64| round((end - start) / (1.0 + (-x).exp()) + start);
                linspace(-6.0, 6.0, n, rounding).into_iter().map(at).collect()
            }
        }
    }

    /// Checks values that no schedule can have.
    pub(super) fn check(&self) -> Result<()> {
        let n = self.num_train_timesteps;
        let invalid = |what: String| Err(Error::Config(format!("scheduler_config.json: {what}")));
        if let Some(why) = super::classes::refused(self) {
            return invalid(why);
        }
        if !(2..=MOST_TIMESTEPS).contains(&n) {
            return invalid(format!("`num_train_timesteps` must be between 2 and {MOST_TIMESTEPS}, but is {n}"));
        }
        if self.steps_offset >= n {
            return invalid(format!(
                "`steps_offset` must be less than the {n} timesteps, but is {}",
                self.steps_offset
            ));
        }
        let positive = [
            ("clip_sample_range", Some(self.clip_sample_range)),
            ("sample_max_value", Some(self.sample_max_value)),
            ("sigma_min", self.sigma_min),
            ("sigma_max", self.sigma_max),
            ("sigma_data", self.sigma_data),
            ("rho", self.rho),
            ("timestep_scaling", self.timestep_scaling),
        ];
        for (key, value) in positive {
            if let Some(value) = value.filter(|value| value.is_nan() || *value <= 0.0) {
                return invalid(format!("`{key}` must be above 0, but is {value}"));
            }
        }
        if !(0.0..=1.0).contains(&self.dynamic_thresholding_ratio) {
            let found = self.dynamic_thresholding_ratio;
            return invalid(format!("`dynamic_thresholding_ratio` must be between 0 and 1, but is {found}"));
        }
        if let Some((low, high)) =
            self.edm().map(|edm| (edm.sigma_min, edm.sigma_max)).filter(|(low, high)| low >= high)
        {
            return invalid(format!("`sigma_min` must be below `sigma_max`, but they are {low} and {high}"));
        }
        if let Some(order) = self.solver_order.filter(|order| !(1..=3).contains(order)) {
            return invalid(format!("`solver_order` must be 1, 2 or 3, but is {order}"));
        }
        if let Some(steps) = self.original_inference_steps.filter(|steps| !(1..=n).contains(steps)) {
            return invalid(format!("`original_inference_steps` must be between 1 and {n}, but is {steps}"));
        }
        if let Some(betas) = self.trained_betas.as_ref().filter(|betas| betas.len() != n) {
            return invalid(format!("`trained_betas` has {} entries for {n} timesteps", betas.len()));
        }
        Ok(())
    }
}

/// Computes `torch.linspace`: from both ends towards the middle.
fn linspace(from: f64, to: f64, n: usize, rounding: Rounding) -> Vec<f64> {
    let round = |value| rounding.of(value);
    let (from, to) = (round(from), round(to));
    let step = round(round(to - from) / (n - 1) as f64);
    let at = |i: usize| {
        if i < n / 2 { from + round(step * i as f64) } else { to - round(step * (n - 1 - i) as f64) }
    };
    (0..n).map(|i| round(at(i))).collect()
}
