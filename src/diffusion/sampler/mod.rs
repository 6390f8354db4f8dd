//! Samplers: their noise levels, and the formula of one step.
//!
//! A latent is in the variance-preserving space, z_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε, between the steps and wherever guidance acts,
//! so that guidance acts alike under every sampler. The formulas of most samplers are for Karras's space, x = z/√ᾱ with
//! σ = √((1−ᾱ)/ᾱ), in which x = x₀ + σ ε; the others are for z itself.
//!
//! The random numbers of a step come from the generator that drew the first noise, one tensor after another, as in
//! diffusers; under ComfyUI's conventions they come from where ComfyUI takes them.

mod brownian;
pub(crate) mod conventions;
mod ddim;
mod euler;
mod fresh;
pub mod kind;
mod multistep;
mod plan;
mod threshold;
mod uni_pc;

use candle_core::Tensor;
use lsregen_tensor::ops::{self, Mix, mix};

pub use conventions::Conventions;
pub use fresh::FreshNoise;
pub use kind::{Form, Method, SamplerKind, Solver};

use self::brownian::BrownianTree;
use self::fresh::StepNoise;
use self::plan::Plan;
use self::threshold::thresholded;
use crate::denoiser::{Denoiser, Prediction};
use crate::noise::Generator;
use crate::schedule::choice::{self, Reading};
use crate::schedule::classes::of_sampler;
use crate::schedule::{Level, NEARLY_NO_SIGNAL, NoiseSchedule, PredictionType, ScheduleKind, SchedulerConfig};
use crate::{Error, Result};

/// Keys of a scheduler file that have no effect with another schedule than the file's own.
const OF_SCHEDULES: [&str; 8] = [
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "sigma_min",
    "sigma_max",
    "final_sigmas_type",
    "lambda_min_clipped",
];

impl SamplerKind {
    /// Whether the sampler has η; `None` for `auto`, and for samplers that the conventions do not have.
    pub fn has_eta(self, conventions: Conventions) -> Option<bool> {
        Some(self.method(conventions)?.default_eta().is_some())
    }

    /// Whether its steps add fresh noise with this η; `None` as for [`Self::has_eta`].
    pub fn adds_noise(self, conventions: Conventions, eta: Option<f64>) -> Option<bool> {
        let method = self.method(conventions)?;
        let has_noise = method.default_eta().is_none_or(|default| eta.unwrap_or(default) > 0.0);
        Some(method.is_stochastic() && has_noise)
    }

    /// Its method, for a model without a scheduler file.
    fn method(self, conventions: Conventions) -> Option<Method> {
        match conventions {
            Conventions::Diffusers => (self != SamplerKind::Auto).then(|| choice::method_of(self)),
            Conventions::Comfyui => conventions::method_of(self),
        }
    }
}

/// How a latent is sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerSettings {
    /// The sampler.
    pub sampler: SamplerKind,
    /// The noise levels of its steps.
    pub schedule: ScheduleKind,
    /// T, the number of steps.
    pub steps: usize,
    /// η, the share of fresh noise in each step; by default the sampler's.
    pub eta: Option<f64>,
    /// The scale of the fresh noise.
    pub s_noise: f64,
    /// The part of the steps that is taken.
    pub part: Part,
    /// Which program's image of a seed is generated.
    pub conventions: Conventions,
}

/// A part of the steps of a sampling, as in ComfyUI.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// d: the noise levels are the last T of those of ⌊T/d⌋ steps.
    pub denoise: f64,
    /// The first step.
    pub start: usize,
    /// The number of steps before the end; by default T.
    pub end: Option<usize>,
    /// Whether a sampling that ends early returns the noisy latent, x = z/√ᾱ. Otherwise its last step ends without noise.
    pub leftover_noise: bool,
}

impl Default for Part {
    fn default() -> Self {
        Part { denoise: 1.0, start: 0, end: None, leftover_noise: false }
    }
}

impl SamplerSettings {
    /// Returns the settings of a sampler with the schedule of the model's scheduler file.
    pub fn new(sampler: SamplerKind, steps: usize) -> Self {
        SamplerSettings {
            sampler,
            schedule: ScheduleKind::Auto,
            steps,
            eta: None,
            s_noise: 1.0,
            part: Part::default(),
            conventions: Conventions::Diffusers,
        }
    }
}

/// A sampler over T steps of a noise schedule.
#[derive(Clone, Debug)]
pub struct Sampler {
    method: Method,
    /// η.
    eta: f64,
    s_noise: f64,
    schedule: NoiseSchedule,
    timesteps: Vec<f64>,
    /// The level at the start of each step.
    levels: Vec<Level>,
    /// The level at the end of each step.
    ends: Vec<Level>,
    /// The share of ε in the first z: 1, or √(1−ᾱ), which is σ ε in Karras's space.
    amount: f64,
    /// The same on top of a latent.
    amount_over_latent: f64,
    /// Whether the result is x of Karras's space, which is not z if the last step ends with noise.
    ends_in_x: bool,
    /// Whether the last step ends with the noise of its level.
    leaves_noise: bool,
    conventions: Conventions,
    ignored: Vec<String>,
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

/// What is kept of a step for those after it.
pub(crate) struct Past {
    /// z at its start, as the network saw it or as it was corrected.
    pub z: Tensor,
    /// Its level.
    pub level: Level,
    /// The prediction there.
    pub prediction: Prediction,
}

/// A step that is to be taken.
pub(crate) struct StepInput<'a> {
    /// Its number, from 0.
    pub i: usize,
    /// z at its start, after guidance.
    pub z: &'a Tensor,
    /// z before guidance, if it comes from the step before.
    pub arrived: Option<&'a Tensor>,
    /// The prediction for z.
    pub now: &'a Prediction,
    /// The steps before, the last one at the end.
    pub past: &'a [Past],
    /// Predicts for another latent z, at another level.
    pub call: &'a dyn Fn(&Tensor, Level) -> Result<Prediction>,
}

impl Sampler {
    /// Creates a sampler for a model with this scheduler file.
    ///
    /// # Errors
    /// If the schedule is not supported, if it has no such levels, or if the sampler has no η.
    pub fn new(config: &SchedulerConfig, settings: &SamplerSettings) -> Result<Self> {
        let (Reading { method, class, mut ignored }, schedule) = match settings.conventions {
            Conventions::Diffusers => {
                let reading = choice::read(config, settings.sampler).map_err(Error::Config)?;
                let config = &choice::followed(config, settings.sampler, reading.class);
                let divides =
                    !matches!(reading.method, Method::Ddim | Method::Ddpm { .. } | Method::Lcm { .. } | Method::Tcd);
                let schedule = NoiseSchedule::new(config)?;
                (reading, if divides { schedule.with_signal(NEARLY_NO_SIGNAL) } else { schedule })
            }
            Conventions::Comfyui => {
                let class = of_sampler(SamplerKind::Euler, config.edm().is_some());
                let reading = Reading { method: conventions::method(settings)?, class, ignored: vec![] };
                (
                    reading,
                    NoiseSchedule::exact(&conventions::unclamped(config))?
                        .with_signal(conventions::NEARLY_NO_SIGNAL)
                        .with_whole_timesteps(),
                )
            }
        };
        if settings.schedule != ScheduleKind::Auto {
            ignored.retain(|key| !OF_SCHEDULES.contains(&key.as_str()));
        }
        let eta = match (settings.eta, method.default_eta()) {
            (Some(eta), Some(_)) => eta,
            (None, default) => default.unwrap_or(0.0),
            (Some(0.0), None) => 0.0,
            (Some(_), None) => {
                return Err(Error::input(format!("the sampler `{}` has no `eta`", settings.sampler.name())));
            }
        };
        if settings.s_noise != 1.0 && !method.is_stochastic() {
            return Err(Error::input(format!(
                "`s_noise` scales the fresh noise of a step, but the sampler `{}` adds none",
                settings.sampler.name()
            )));
        }
        let plan = Plan::new(settings, &method, class, &schedule)?;
        let is_comfyui = settings.conventions == Conventions::Comfyui;
        let method = if is_comfyui { conventions::ordered(method, plan.levels.len())? } else { method };
        check_ends(&method, &plan, schedule.parameterisation.prediction)?;
        let full = (1.0 - plan.levels[0].alpha_bar).sqrt();
        let is_unit = plan.is_from_noise && (is_comfyui || plan.starts_at_unit_noise || !class.starts_at_sigma);
        let amount = if is_unit { 1.0 } else { full };
        // At the model's highest noise ComfyUI adds unit noise to a latent too.
        let amount_over_latent = if is_comfyui { amount } else { full };
        Ok(Sampler {
            eta,
            s_noise: settings.s_noise,
            timesteps: plan.levels.iter().map(|level| level.t).collect(),
            amount,
            amount_over_latent,
            ends_in_x: is_comfyui || class.starts_at_sigma || plan.is_early,
            leaves_noise: plan.is_early && settings.part.leftover_noise,
            levels: plan.levels,
            ends: plan.ends,
            conventions: settings.conventions,
            schedule,
            method,
            ignored,
        })
    }

    /// Returns what the network receives in each step, descending.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// Returns the noise level of each step.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Returns ᾱ at the end of the last step.
    pub(crate) fn final_alpha_bar(&self) -> f64 {
        self.ends.last().map_or(1.0, |end| end.alpha_bar)
    }

    /// Returns the noise schedule.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// Returns the keys of the scheduler file that this sampler does not follow.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Returns where the fresh noise of a sampling comes from: `generator` drew the first noise from the `seed`, for a latent
    /// of `elements` numbers.
    ///
    /// ComfyUI draws from another generator, on a CPU that of the next seed. Its samplers for stochastic equations take their
    /// noise from a Brownian motion in σ.
    pub fn fresh_noise(&self, seed: u64, elements: usize, generator: Generator) -> FreshNoise {
        if self.conventions == Conventions::Diffusers {
            return FreshNoise::new(generator);
        }
        let generator = Generator::new(seed.wrapping_add(1));
        let of_motion = match &self.method {
            Method::DpmppSde => true,
            Method::Multistep(solver) => solver.stochastic,
            _ => false,
        };
        if !of_motion {
            return FreshNoise::new(generator);
        }
        let sigmas = self.levels.iter().chain(&self.ends).map(Level::sigma).filter(|sigma| *sigma > 0.0);
        let (low, high) = sigmas.fold((f64::INFINITY, 0.0f64), |(low, high), s| (low.min(s), high.max(s)));
        FreshNoise::of_motion(generator, BrownianTree::new(seed, elements, low, high))
    }

    /// Converts unit noise to the latent of the first timestep.
    ///
    /// In diffusers most samplers start at ε. Those of Karras's space start at σ_max ε in x, which is √(1−ᾱ) ε in z, unless
    /// timesteps are counted down from a multiple (`leading`). In ComfyUI all start at ε if the noise is the model's highest.
    pub fn start(&self, noise: &Tensor) -> Result<Tensor> {
        Ok((noise * self.amount)?)
    }

    /// Returns the latent of the first step from the clean latent z₀: z = √ᾱ z₀ + √(1−ᾱ) ε. Without noise, from a noisy
    /// x = z/√ᾱ, which an earlier sampling left.
    pub fn start_from(&self, latent: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        let z = (latent * self.levels[0].alpha_bar.sqrt())?;
        match noise {
            Some(noise) => Ok((z + (noise * self.amount_over_latent)?)?),
            None => Ok(z),
        }
    }

    /// Converts z at the end of the last step to the result.
    pub(crate) fn finish(&self, z: Tensor) -> Result<Tensor> {
        let alpha_bar = self.final_alpha_bar();
        Ok(if self.ends_in_x && alpha_bar < 1.0 { (z / alpha_bar.sqrt())? } else { z })
    }

    /// Returns what the network implies at a level.
    pub(crate) fn predict(&self, denoiser: &dyn Denoiser, z: &Tensor, level: Level) -> Result<Prediction> {
        let raw = denoiser.predict(z, level.t)?;
        let prediction = Prediction::new(self.schedule.parameterisation, raw, z, level.alpha_bar)?;
        let config = &self.schedule.config;
        let x0 = match &self.method {
            Method::Ddim | Method::Ddpm { .. } | Method::Lcm { .. } | Method::Heun
                if config.clip_sample && !(config.thresholding && self.method != Method::Heun) =>
            {
                ops::clamp(&prediction.x0, -config.clip_sample_range, config.clip_sample_range)?
            }
            Method::Ddim
            | Method::Ddpm { .. }
            | Method::Lcm { .. }
            | Method::Multistep(_)
            | Method::Singlestep(_)
            | Method::UniPc { form: Form::Data, .. }
            | Method::Deis { .. }
                if config.thresholding =>
            {
                thresholded(&prediction.x0, config.dynamic_thresholding_ratio, config.sample_max_value)?
            }
            _ => return Ok(prediction),
        };
        match self.method {
            // diffusers keeps ε as predicted (`use_clipped_model_output` is off).
            Method::Ddim => Ok(Prediction { x0, ..prediction }),
            _ => Prediction::of_x0(x0, prediction.raw, z, level.alpha_bar),
        }
    }

    /// Takes a step: from z_t, with the prediction for it, to the latent at the end of the step. Also returns z_t if it was
    /// corrected.
    pub(crate) fn step(&self, at: &StepInput, fresh: &mut FreshNoise) -> Result<(Tensor, Option<Tensor>)> {
        let (level, end) = (self.levels[at.i], self.ends[at.i]);
        let (z, now) = (at.z, at.now);
        let (from, to) = (level.sigma(), end.sigma());
        let noise = &mut StepNoise { source: fresh, z, from, to, scale: self.s_noise };
        let is_last = at.i + 1 == self.levels.len() && !self.leaves_noise;
        let z_next = match &self.method {
            Method::Ddim => ddim::ddim(now, level.alpha_bar, end.alpha_bar, self.eta, noise)?,
            Method::Ddpm { large } => ddim::ddpm(z, now, level, end, *large, noise)?,
            Method::Lcm { scaling } => ddim::lcm(z, now, level, (!is_last).then_some(end), *scaling, noise)?,
            Method::Tcd => {
                // In f32, as PyTorch: the product is often next to a whole number.
                let s = f64::from(((1.0 - self.eta) as f32 * end.t as f32).floor());
                let middle = self.schedule.alpha_bar(s);
                ddim::tcd(now, middle, (self.eta > 0.0 && !is_last).then_some(end.alpha_bar), noise)?
            }
            Method::Pndm => {
                let next = self.levels.get(at.i + 1);
                ddim::plms(at, &self.schedule, self.levels.len(), level, end, next)?
            }
            Method::UniPc { order, bh1, form, lower_order_final, uncorrected } => {
                let left = self.levels.len() - at.i;
                let unipc = uni_pc::UniPc { bh1: *bh1, form: *form };
                let lowered = |left: usize| if *lower_order_final { (*order).min(left) } else { *order };
                let corrects = at.i > 0 && !uncorrected.contains(&(at.i - 1));
                return unipc.step(at, level, end, lowered(left), corrects.then(|| lowered(left + 1)));
            }
            // The last step of all ComfyUI's other samplers.
            _ if is_last && self.conventions == Conventions::Comfyui => now.x0.clone(),
            method => {
                let karras = euler::Karras { at, from: level, to: end, schedule: &self.schedule, eta: self.eta };
                let x = match method {
                    Method::EulerAncestral => karras.euler_ancestral(noise)?,
                    Method::Heun => karras.heun()?,
                    Method::Dpm2 => karras.dpm_2()?,
                    Method::Dpm2Ancestral => karras.dpm_2_ancestral(noise)?,
                    Method::Lms => karras.lms()?,
                    Method::Ipndm => karras.ipndm()?,
                    Method::Dpmpp2SAncestral => karras.dpmpp_2s_ancestral(noise)?,
                    Method::DpmppSde => karras.dpmpp_sde(noise)?,
                    Method::Multistep(solver) => {
                        let order = solver.order_at(at.i, self.levels.len(), at.past.len(), end);
                        multistep::multistep(&karras, solver, order, noise)?
                    }
                    Method::Singlestep(solver) => multistep::singlestep(&karras, solver, self.levels.len(), noise)?,
                    Method::Deis { order, lower_order_final } => {
                        let most = multistep::most_order(at.i, self.levels.len(), *lower_order_final);
                        multistep::deis(&karras, (*order).min(most))?
                    }
                    _ => karras.euler()?,
                };
                (x * end.alpha_bar.sqrt())?
            }
        };
        Ok((z_next, None))
    }

    /// Undoes step i with fresh noise n: z = √(ᾱ/ᾱ') z' + √(1 − ᾱ/ᾱ') n (FreeDoM's time travel, RePaint).
    pub(crate) fn undo(&self, i: usize, z: &Tensor, fresh: &mut FreshNoise) -> Result<Tensor> {
        let share = self.levels[i].alpha_bar / self.ends[i].alpha_bar;
        Ok(mix(z, &fresh.draw(z)?, Mix::Sum(share.sqrt(), (1.0 - share).max(0.0).sqrt()))?)
    }
}

/// Refuses levels at which a formula divides by zero.
fn check_ends(method: &Method, plan: &Plan, prediction: PredictionType) -> Result<()> {
    let needs_noise = match method {
        Method::UniPc { form, .. } => *form == Form::Noise,
        Method::Multistep(solver) | Method::Singlestep(solver) => solver.form == Form::Noise,
        _ => false,
    };
    if needs_noise && plan.ends.iter().any(|end| end.alpha_bar >= 1.0) {
        return Err(Error::Config(
            "the model's scheduler_config.json has `predict_x0: false` or an `algorithm_type` that cannot end without noise, \
             unless `final_sigmas_type` is \"sigma_min\" and `scheduler` is `auto`; choose another `sampler`"
                .into(),
        ));
    }
    if prediction == PredictionType::Epsilon && plan.levels.iter().any(|level| level.alpha_bar <= 0.0) {
        return Err(Error::Config(
            "`rescale_betas_zero_snr` leaves no signal at the first step, from which a network that predicts ε tells nothing; \
             the model needs `prediction: v_prediction`"
                .into(),
        ));
    }
    Ok(())
}
