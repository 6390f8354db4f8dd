//! What diffusers' scheduler classes mean: the table of classes, with the samplers and schedules that they are.
//!
//! From diffusers 0.39. A file's `_class_name` chooses the sampler and the schedule `auto`; a sampler that is chosen by name
//! reads the file as the class of that sampler, as diffusers' `from_config` does: the keys that are in the file count, and
//! the class has the defaults of the others.

use serde_json::{Value, json};

use super::config::TimestepSpacing;
use crate::sampler::kind::SamplerKind;

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
    /// The keys that it reads, apart from those that all classes read.
    pub keys: &'static [&'static str],
}

/// Keys that all classes read.
pub(super) const EVERY: &[&str] = &[
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
pub(super) const FOREIGN: &[&str] =
    &["Flow", "VQDiffusion", "UnCLIP", "ScoreSde", "KarrasVe", "Wuerstchen", "Consistency", "Cosine", "SCM"];

/// The class that a file names, if it is in the table. The parallel classes differ only in how they run.
pub fn named(name: &str) -> Option<&'static Class> {
    let name = name.replace("Parallel", "");
    CLASSES.iter().find(|class| class.name == name)
}

/// The class of a sampler that is chosen by name. Samplers that diffusers lacks are read as Euler or DPM-Solver.
pub(crate) fn of_sampler(sampler: SamplerKind, is_edm: bool) -> &'static Class {
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
