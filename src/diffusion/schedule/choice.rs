//! What a sampler makes of a scheduler file: the method of its steps, and the class whose rules lay out its schedule.

use super::PredictionType;
use super::classes::{Class, EVERY, named, of_sampler};
use super::config::{Algorithm, FinalSigma, SchedulerConfig, SolverType};
use crate::sampler::kind::{Form, Method, SamplerKind, Solver};

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
    let is_ignored = |key: &&String| !EVERY.contains(&key.as_str()) && !class.keys.contains(&key.as_str());
    let mut ignored: Vec<String> = config.set.iter().filter(is_ignored).cloned().collect();
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
        // The model's, whatever the sampler: see `followed`.
        "rescale_betas_zero_snr",
        // It seeds noise that is drawn from the seed of the sampling here.
        "noise_sampler_seed",
    ];
    if sampler != SamplerKind::Auto {
        ignored.retain(|key| !harmless.contains(&key.as_str()));
    }
    Ok(Reading { method, class, ignored })
}

/// Returns a file without the rescaling to a zero terminal SNR if it is to be read as its own class, which does not read that
/// key. Under another sampler it is a property of the model.
pub(crate) fn followed(config: &SchedulerConfig, sampler: SamplerKind, class: &Class) -> SchedulerConfig {
    let reads = sampler != SamplerKind::Auto || class.keys.contains(&"rescale_betas_zero_snr");
    SchedulerConfig { rescale_betas_zero_snr: config.rescale_betas_zero_snr && reads, ..config.clone() }
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
            let diffusers_third = config.algorithm_type == Some(Algorithm::SdeDpmSolverPp);
            *solver = Solver { order, form, stochastic, heun, diffusers_third, ..solver.clone() };
            if form == Form::Noise && stochastic && order == 3 {
                return Err("the model's scheduler_config.json asks for the third order of `sde-dpmsolver`, which diffusers does not \
                            have either; write `sampler: dpmpp_2m_sde`"
                    .into());
            }
            if form == Form::Noise && config.final_sigmas_type == FinalSigma::Zero {
                return Err(
                    "the model's scheduler_config.json has an `algorithm_type` that cannot end without noise; \
                            diffusers refuses it too, unless `final_sigmas_type` is \"sigma_min\""
                        .into(),
                );
            }
        }
        Method::UniPc { order: own, .. } | Method::Deis { order: own, .. } => *own = order,
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
        diffusers_third: false,
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
        SamplerKind::Deis => Method::Deis { order: 2, lower_order_final: config.lower_order_final.unwrap_or(true) },
        SamplerKind::Ipndm => Method::Ipndm,
        SamplerKind::Pndm => Method::Pndm,
        SamplerKind::Lcm => Method::Lcm { scaling: Some(config.timestep_scaling.unwrap_or(10.0)) },
        SamplerKind::Tcd => Method::Tcd,
    }
}
