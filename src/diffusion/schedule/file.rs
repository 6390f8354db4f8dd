//! Reads `scheduler_config.json`, and derives the noise of a model from it.

use super::classes;
use super::config::{BetaSchedule, Edm, SchedulerConfig, SigmaSchedule, TimestepType};
use super::prediction::{Parameterisation, PredictionType};
use super::rounding::Rounding;
use crate::weights::{Json, ModelFiles};
use crate::{Error, Result};

/// The most timesteps of a schedule. Public models have 1000.
const MOST_TIMESTEPS: usize = 1 << 16;

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
        config.set = json.keys().filter(|key| !classes::is_neutral(key, json.get(key))).map(Into::into).collect();
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
        classes::is_edm(class).then(|| Edm {
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
        let latent = classes::is_for_latents(self.class_name.as_deref().unwrap_or_default());
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
        if let Some(why) = refused(self) {
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

/// Why no sampler can follow this file.
fn refused(config: &SchedulerConfig) -> Option<String> {
    let class = config.class_name.as_deref().unwrap_or_default();
    if classes::named(class).is_none() && classes::FOREIGN.iter().any(|part| class.contains(part)) {
        return Some(format!("`{class}` is for another kind of model, which is not supported"));
    }
    for key in ["use_flow_sigmas", "use_dynamic_shifting", "interpolation_type", "solver_p", "shift_terminal"] {
        if config.set.iter().any(|set| set == key) {
            return Some(format!("`{key}` is not supported"));
        }
    }
    if let Some(variance) = config.variance_type.as_deref().filter(|v| !["fixed_small", "fixed_large"].contains(v)) {
        return Some(format!(
            "`variance_type` is \"{variance}\", but only \"fixed_small\" and \"fixed_large\" are supported"
        ));
    }
    let spaced =
        [config.use_karras_sigmas, config.use_exponential_sigmas, config.use_beta_sigmas, config.use_lu_lambdas];
    if spaced.iter().filter(|set| **set).count() > 1 {
        return Some(
            "of `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas` and `use_lu_lambdas` only one can be true"
                .into(),
        );
    }
    None
}
