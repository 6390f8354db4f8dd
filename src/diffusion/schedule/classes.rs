//! What diffusers' scheduler classes mean: the table of classes, with the samplers and schedules that they are.
//!
//! From diffusers 0.39. A file's `_class_name` chooses the sampler and the schedule `auto`; a sampler that is chosen by name
//! reads the file as the class of that sampler, as diffusers' `from_config` does: the keys that are in the file count, and
//! the class has the defaults of the others.

use serde_json::{Value, json};

use super::PredictionType;
use super::config::{Algorithm, SchedulerConfig, SolverType, TimestepSpacing};
use crate::sampler::{Form, Method, SamplerKind, Solver};

/// How a class numbers its timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// T whole timesteps.
    Whole,
    /// T timesteps, which `linspace` leaves fractional.
    Fractional,
    /// T + 1 whole timesteps, without the last.
    OneMore,
    /// As `OneMore`, always with `linspace`.
    OneMoreLinspace,
    /// T of the steps that the model was distilled on.
    Distilled,
    /// EDM's σ.
    Edm,
}

/// A class of diffusers.
#[derive(Debug)]
pub struct Class {
    /// `_class_name`.
    pub name: &'static str,
    /// The sampler that it is. DPM-Solver's is refined by `algorithm_type` and `solver_order`.
    pub sampler: SamplerKind,
    /// The default of `timestep_spacing`.
    pub spacing: TimestepSpacing,
    /// How it numbers its timesteps.
    pub steps: Steps,
    /// Whether Karras's and other σ end at the lowest σ of the model rather than at that of the lowest timestep.
    pub whole_range: bool,
    /// Whether the timesteps of Karras's σ are rounded.
    pub rounds: bool,
    /// Whether sampling starts at σ_max ε in Karras's space rather than at √(σ_max² + 1) ε, except with `leading`.
    pub starts_at_sigma: bool,
    /// Whether the last step ends at the noise of timestep 0 if the file does not say so.
    pub ends_at_sigma_min: bool,
    /// The default of `set_alpha_to_one`.
    pub set_alpha_to_one: bool,
    /// The keys that it reads, apart from [`EVERY`].
    pub keys: &'static [&'static str],
}

/// Keys that all classes read.
const EVERY: &[&str] = &[
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "timestep_spacing",
    "timestep_type",
    "steps_offset",
];

/// The class with which the rows of the table begin: each states where it differs.
const PLAIN: Class = Class {
    name: "",
    sampler: SamplerKind::Ddim,
    spacing: TimestepSpacing::Leading,
    steps: Steps::Whole,
    whole_range: false,
    rounds: false,
    starts_at_sigma: false,
    ends_at_sigma_min: false,
    set_alpha_to_one: true,
    keys: &[],
};

/// The classes that work in Karras's space.
const IN_SIGMA: Class = Class {
    spacing: TimestepSpacing::Linspace,
    steps: Steps::Fractional,
    starts_at_sigma: true,
    keys: &["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"],
    ..PLAIN
};

/// The multistep solvers.
const MULTISTEP: Class =
    Class { spacing: TimestepSpacing::Linspace, steps: Steps::OneMore, whole_range: true, rounds: true, ..PLAIN };

const DISTILLED: Class = Class {
    steps: Steps::Distilled,
    keys: &[
        "original_inference_steps",
        "clip_sample",
        "clip_sample_range",
        "set_alpha_to_one",
        "thresholding",
        "dynamic_thresholding_ratio",
        "sample_max_value",
        "timestep_scaling",
        "rescale_betas_zero_snr",
    ],
    ..PLAIN
};

const EDM_KEYS: &[&str] = &["sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "rho", "final_sigmas_type"];

/// diffusers' classes for models whose noise is known at each timestep.
pub const CLASSES: &[Class] = &[
    Class {
        name: "DDIMScheduler",
        keys: &[
            "clip_sample",
            "clip_sample_range",
            "set_alpha_to_one",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "rescale_betas_zero_snr",
        ],
        ..PLAIN
    },
    Class {
        name: "DDPMScheduler",
        sampler: SamplerKind::Ddpm,
        keys: &[
            "variance_type",
            "clip_sample",
            "clip_sample_range",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "rescale_betas_zero_snr",
        ],
        ..PLAIN
    },
    Class {
        name: "PNDMScheduler",
        sampler: SamplerKind::Pndm,
        set_alpha_to_one: false,
        keys: &["skip_prk_steps", "set_alpha_to_one"],
        ..PLAIN
    },
    Class {
        name: "EulerDiscreteScheduler",
        sampler: SamplerKind::Euler,
        keys: &[
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "sigma_min",
            "sigma_max",
            "timestep_type",
            "rescale_betas_zero_snr",
            "final_sigmas_type",
        ],
        ..IN_SIGMA
    },
    Class {
        name: "EulerAncestralDiscreteScheduler",
        sampler: SamplerKind::EulerAncestral,
        keys: &["rescale_betas_zero_snr"],
        ..IN_SIGMA
    },
    Class {
        name: "HeunDiscreteScheduler",
        sampler: SamplerKind::Heun,
        keys: &["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "clip_sample", "clip_sample_range"],
        ..IN_SIGMA
    },
    Class { name: "KDPM2DiscreteScheduler", sampler: SamplerKind::Dpm2, rounds: true, ..IN_SIGMA },
    Class { name: "KDPM2AncestralDiscreteScheduler", sampler: SamplerKind::Dpm2Ancestral, rounds: true, ..IN_SIGMA },
    Class { name: "LMSDiscreteScheduler", sampler: SamplerKind::Lms, ..IN_SIGMA },
    Class { name: "DPMSolverSDEScheduler", sampler: SamplerKind::DpmppSde, ..IN_SIGMA },
    Class {
        name: "DPMSolverMultistepScheduler",
        sampler: SamplerKind::Dpmpp2M,
        keys: &[
            "solver_order",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "algorithm_type",
            "solver_type",
            "lower_order_final",
            "euler_at_final",
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
            "final_sigmas_type",
            "lambda_min_clipped",
            "rescale_betas_zero_snr",
        ],
        ..MULTISTEP
    },
    Class {
        name: "DPMSolverSinglestepScheduler",
        sampler: SamplerKind::Dpmpp2S,
        steps: Steps::OneMoreLinspace,
        keys: &[
            "solver_order",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "algorithm_type",
            "solver_type",
            "lower_order_final",
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "final_sigmas_type",
            "lambda_min_clipped",
        ],
        ..MULTISTEP
    },
    Class {
        name: "UniPCMultistepScheduler",
        sampler: SamplerKind::UniPcBh2,
        keys: &[
            "solver_order",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "predict_x0",
            "solver_type",
            "lower_order_final",
            "disable_corrector",
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "final_sigmas_type",
            "rescale_betas_zero_snr",
            "sigma_min",
            "sigma_max",
        ],
        ..MULTISTEP
    },
    Class {
        name: "DEISMultistepScheduler",
        sampler: SamplerKind::Deis,
        ends_at_sigma_min: true,
        keys: &[
            "solver_order",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "algorithm_type",
            "solver_type",
            "lower_order_final",
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
        ],
        ..MULTISTEP
    },
    Class { name: "LCMScheduler", sampler: SamplerKind::Lcm, ..DISTILLED },
    Class { name: "TCDScheduler", sampler: SamplerKind::Tcd, ..DISTILLED },
    Class { name: "EDMEulerScheduler", sampler: SamplerKind::Euler, steps: Steps::Edm, keys: EDM_KEYS, ..IN_SIGMA },
    Class {
        name: "EDMDPMSolverMultistepScheduler",
        sampler: SamplerKind::Dpmpp2M,
        steps: Steps::Edm,
        keys: &[
            "sigma_min",
            "sigma_max",
            "sigma_data",
            "sigma_schedule",
            "rho",
            "solver_order",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "algorithm_type",
            "solver_type",
            "lower_order_final",
            "euler_at_final",
            "final_sigmas_type",
        ],
        ..MULTISTEP
    },
];

/// Parts of the names of classes for other kinds of models: flow matching, and diffusion on codes or on pixels.
const FOREIGN: &[&str] =
    &["Flow", "VQDiffusion", "UnCLIP", "ScoreSde", "KarrasVe", "Wuerstchen", "Consistency", "Cosine", "SCM"];

/// The class that a file names, if it is in the table. The parallel classes differ only in how they run.
pub fn named(name: &str) -> Option<&'static Class> {
    let name = name.replace("Parallel", "");
    CLASSES.iter().find(|class| class.name == name)
}

/// The class of a sampler that is chosen by name. Samplers that diffusers lacks are read as Euler or DPM-Solver.
fn of_sampler(sampler: SamplerKind, is_edm: bool) -> &'static Class {
    use SamplerKind::*;
    let name = match sampler {
        Auto | Ddim => "DDIMScheduler",
        Ddpm => "DDPMScheduler",
        Pndm => "PNDMScheduler",
        Euler | Ipndm if is_edm => "EDMEulerScheduler",
        Euler | Ipndm => "EulerDiscreteScheduler",
        EulerAncestral | Dpmpp2SAncestral => "EulerAncestralDiscreteScheduler",
        Heun => "HeunDiscreteScheduler",
        Dpm2 => "KDPM2DiscreteScheduler",
        Dpm2Ancestral => "KDPM2AncestralDiscreteScheduler",
        Lms => "LMSDiscreteScheduler",
        DpmppSde => "DPMSolverSDEScheduler",
        Dpmpp2M | Dpmpp2MSde | Dpmpp3M | Dpmpp3MSde if is_edm => "EDMDPMSolverMultistepScheduler",
        Dpmpp2M | Dpmpp2MSde | Dpmpp3M | Dpmpp3MSde => "DPMSolverMultistepScheduler",
        Dpmpp2S => "DPMSolverSinglestepScheduler",
        UniPc | UniPcBh2 => "UniPCMultistepScheduler",
        Deis => "DEISMultistepScheduler",
        Lcm => "LCMScheduler",
        Tcd => "TCDScheduler",
    };
    named(name).expect("every sampler has its class in the table")
}

/// Whether a class is one of EDM's.
pub(super) fn is_edm(name: &str) -> bool {
    named(name).is_some_and(|class| class.steps == Steps::Edm)
}

/// Whether the defaults of β are those of latent models.
pub(super) fn is_for_latents(name: &str) -> bool {
    named(name).is_some_and(|class| class.steps == Steps::Distilled)
}

/// Whether a key has no effect with this value, whatever the class is.
pub(super) fn is_neutral(key: &str, value: Option<&Value>) -> bool {
    let Some(value) = value else { return true };
    let neutral = match key {
        // `noise_sampler_seed` seeds noise that is drawn from the seed of the sampling here.
        "_class_name" | "_diffusers_version" | "_use_default_values" | "flow_shift" | "time_shift_type" => return true,
        "clip_sample"
        | "thresholding"
        | "rescale_betas_zero_snr"
        | "use_karras_sigmas"
        | "use_exponential_sigmas"
        | "use_beta_sigmas"
        | "use_lu_lambdas"
        | "use_flow_sigmas"
        | "use_dynamic_shifting"
        | "euler_at_final"
        | "skip_prk_steps" => json!(false),
        "clip_sample_range" | "sample_max_value" => json!(1.0),
        "dynamic_thresholding_ratio" => json!(0.995),
        "interpolation_type" => json!("linear"),
        "timestep_type" => json!("discrete"),
        "final_sigmas_type" => json!("zero"),
        "variance_type" => json!("fixed_small"),
        "steps_offset" => json!(0),
        "lambda_min_clipped" => return value.as_f64().is_none_or(|v| v == f64::NEG_INFINITY),
        "disable_corrector" => json!([]),
        "predict_x0" => json!(true),
        _ => return false,
    };
    *value == neutral || value.as_f64().is_some_and(|v| Some(v) == neutral.as_f64())
}

/// Why no sampler can follow this file.
pub(super) fn refused(config: &SchedulerConfig) -> Option<String> {
    let class = config.class_name.as_deref().unwrap_or_default();
    if named(class).is_none() && FOREIGN.iter().any(|part| class.contains(part)) {
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

/// What a sampler makes of a file.
#[derive(Debug)]
pub struct Reading {
    /// How a step is computed.
    pub method: Method,
    /// The class by whose rules the schedule `auto` is laid out.
    pub class: &'static Class,
    /// Keys of the file that change the image with its own class, and that this sampler does not follow.
    pub ignored: Vec<String>,
}

/// Reads a file for a sampler; [`SamplerKind::Auto`] is the file's own.
///
/// # Errors
/// If the file's own sampler is wanted, but its class is unknown or does what is not supported.
pub fn read(config: &SchedulerConfig, sampler: SamplerKind) -> Result<Reading, String> {
    let own = config.class_name.as_deref();
    let class = match (sampler, own) {
        (SamplerKind::Auto, None) => of_sampler(SamplerKind::Ddim, false),
        (SamplerKind::Auto, Some(name)) => named(name).ok_or_else(|| {
            format!("the model's scheduler_config.json is of the class `{name}`, which is unknown; choose a `sampler`")
        })?,
        (kind, _) => of_sampler(kind, config.edm().is_some()),
    };
    let method = match sampler {
        SamplerKind::Auto => own_method(config, class)?,
        kind => method(kind, config),
    };
    let known = |key: &&String| !EVERY.contains(&key.as_str()) && !class.keys.contains(&key.as_str());
    let mut ignored: Vec<String> = config.set.iter().filter(known).cloned().collect();
    // What a class sets for itself, and another one has no use for.
    let harmless = [
        "set_alpha_to_one",
        "skip_prk_steps",
        "solver_order",
        "solver_type",
        "algorithm_type",
        "lower_order_final",
        "original_inference_steps",
        "timestep_scaling",
        "noise_sampler_seed",
    ];
    if sampler != SamplerKind::Auto {
        ignored.retain(|key| !harmless.contains(&key.as_str()));
    }
    Ok(Reading { method, class, ignored })
}

/// The method of a file's own class.
fn own_method(config: &SchedulerConfig, class: &Class) -> Result<Method, String> {
    let kind = match (class.sampler, config.algorithm_type) {
        (SamplerKind::Pndm, _) if !config.skip_prk_steps => {
            return Err(
                "the model's scheduler_config.json asks for Runge-Kutta steps (`skip_prk_steps` is not true), \
                        which are not supported; write `sampler: pndm` for PLMS without them"
                    .into(),
            );
        }
        (SamplerKind::UniPcBh2, _) if config.solver_type == Some(SolverType::Bh1) => SamplerKind::UniPc,
        (kind, _) => kind,
    };
    let mut method = method(kind, config);
    let heun = config.solver_type == Some(SolverType::Heun);
    let form = match config.algorithm_type {
        Some(Algorithm::DpmSolver | Algorithm::SdeDpmSolver) => Form::Noise,
        _ => Form::Data,
    };
    let stochastic = matches!(config.algorithm_type, Some(Algorithm::SdeDpmSolver | Algorithm::SdeDpmSolverPp));
    let order = config.solver_order.unwrap_or(2);
    match &mut method {
        Method::Multistep(solver) | Method::Singlestep(solver) => {
            *solver = Solver { order, form, stochastic, heun, ..solver.clone() };
            if form == Form::Noise && config.final_sigmas_type == super::config::FinalSigma::Zero {
                return Err(
                    "the model's scheduler_config.json has an `algorithm_type` that cannot end without noise; \
                            diffusers refuses it too, unless `final_sigmas_type` is \"sigma_min\""
                        .into(),
                );
            }
        }
        Method::UniPc { order: own, .. } | Method::Deis { order: own } => *own = order,
        _ => {}
    }
    Ok(method)
}

/// The method of a sampler's name, for a model without a scheduler file.
pub(crate) fn method_of(kind: SamplerKind) -> Method {
    method(kind, &SchedulerConfig::stable_diffusion(PredictionType::Epsilon))
}

/// The method of a sampler's name.
fn method(kind: SamplerKind, config: &SchedulerConfig) -> Method {
    let solver = |order, stochastic| Solver {
        order,
        form: Form::Data,
        heun: kind == SamplerKind::Dpmpp3MSde || config.solver_type == Some(SolverType::Heun),
        stochastic,
        // k-diffusion's three steps have no lower order at the end, nor has diffusers' singlestep solver by default.
        lower_order_final: config
            .lower_order_final
            .unwrap_or(!matches!(kind, SamplerKind::Dpmpp3MSde | SamplerKind::Dpmpp2S)),
        euler_at_final: config.euler_at_final,
    };
    let uni_pc = |bh1| Method::UniPc {
        order: 2,
        bh1,
        form: if config.predict_x0 { Form::Data } else { Form::Noise },
        lower_order_final: config.lower_order_final.unwrap_or(true),
        uncorrected: config.disable_corrector.clone(),
    };
    match kind {
        SamplerKind::Auto | SamplerKind::Ddim => Method::Ddim,
        SamplerKind::Ddpm => Method::Ddpm { large: config.variance_type.as_deref() == Some("fixed_large") },
        SamplerKind::Euler => Method::Euler,
        SamplerKind::EulerAncestral => Method::EulerAncestral,
        SamplerKind::Heun => Method::Heun,
        SamplerKind::Dpm2 => Method::Dpm2,
        SamplerKind::Dpm2Ancestral => Method::Dpm2Ancestral,
        SamplerKind::Lms => Method::Lms,
        SamplerKind::Dpmpp2S => Method::Singlestep(solver(2, false)),
        SamplerKind::Dpmpp2SAncestral => Method::Dpmpp2SAncestral,
        SamplerKind::DpmppSde => Method::DpmppSde,
        SamplerKind::Dpmpp2M => Method::Multistep(solver(2, false)),
        SamplerKind::Dpmpp2MSde => Method::Multistep(solver(2, true)),
        SamplerKind::Dpmpp3M => Method::Multistep(solver(3, false)),
        SamplerKind::Dpmpp3MSde => Method::Multistep(solver(3, true)),
        SamplerKind::UniPc => uni_pc(true),
        SamplerKind::UniPcBh2 => uni_pc(false),
        SamplerKind::Deis => Method::Deis { order: 2 },
        SamplerKind::Ipndm => Method::Ipndm,
        SamplerKind::Pndm => Method::Pndm,
        SamplerKind::Lcm => Method::Lcm { scaling: config.timestep_scaling.unwrap_or(10.0) },
        SamplerKind::Tcd => Method::Tcd,
    }
}
