//! What ComfyUI does otherwise than diffusers, for the same names. Facts of ComfyUI v0.3.64 and later; the fixtures run older
//! functions of it, with what has changed since written anew (`tests/fixtures/comfyui.py`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SamplerSettings;
use super::kind::{Method, SamplerKind, Solver};
use crate::schedule::{ScheduleKind, SchedulerConfig, choice};
use crate::{Error, Result};

/// Which program's image of a seed, a sampler and a scheduler is generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Conventions {
    /// That of diffusers.
    #[default]
    Diffusers,
    /// That of ComfyUI on a CPU: whole timesteps, its σ_max, its own fresh noise, and its own forms of some samplers.
    Comfyui,
}

impl Conventions {
    /// All conventions.
    pub const ALL: [Conventions; 2] = [Conventions::Diffusers, Conventions::Comfyui];

    /// Whether a sampling under these conventions may have this sampler.
    pub fn has_sampler(self, kind: SamplerKind) -> bool {
        self == Conventions::Diffusers || method_of(kind).is_some()
    }

    /// Whether a sampling under these conventions may have this schedule.
    pub fn has_schedule(self, kind: &ScheduleKind) -> bool {
        let of_diffusers = matches!(
            kind,
            ScheduleKind::Auto
                | ScheduleKind::Leading
                | ScheduleKind::Linspace
                | ScheduleKind::Trailing
                | ScheduleKind::Timesteps(_)
        );
        self == Conventions::Diffusers || !of_diffusers
    }
}

/// σ at the end of ComfyUI's UniPC (`sample_unipc`).
pub(super) const UNI_PC_END: f64 = 0.001;

/// ᾱ in place of 0 at the last timestep, in ComfyUI (`rescale_zero_terminal_snr_sigmas`).
pub(crate) const NEARLY_NO_SIGNAL: f64 = 4.897_345_189_085_343_5e-8;

/// Returns the method of a sampler's name in ComfyUI; `None` if ComfyUI has no such sampler, or ours is not compared with it.
pub(super) fn method_of(kind: SamplerKind) -> Option<Method> {
    use SamplerKind::{Auto, Ddim, Deis, Dpmpp2S, Dpmpp3M, Pndm, Tcd};
    if matches!(kind, Auto | Dpmpp2S | Dpmpp3M | Deis | Pndm | Tcd) {
        return None;
    }
    Some(match choice::method_of(kind) {
        // ComfyUI's `ddim` is Euler's method.
        _ if kind == Ddim => Method::Euler,
        Method::Multistep(solver) => Method::Multistep(Solver { lower_order_final: false, ..solver }),
        Method::UniPc { bh1, form, lower_order_final, uncorrected, .. } => {
            Method::UniPc { order: 3, bh1, form, lower_order_final, uncorrected }
        }
        Method::Lcm { .. } => Method::Lcm { scaling: None },
        method => method,
    })
}

/// Returns the method of these settings.
///
/// # Errors
/// If the sampler or the schedule has no counterpart in ComfyUI.
pub(super) fn method(settings: &SamplerSettings) -> Result<Method> {
    let (sampler, schedule) = (settings.sampler, &settings.schedule);
    if !Conventions::Comfyui.has_schedule(schedule) {
        return Err(Error::input(format!("ComfyUI has no scheduler `{}`", schedule.name())));
    }
    method_of(sampler).ok_or_else(|| {
        Error::input(format!("`conventions: comfyui` does not support the sampler `{}`", sampler.name()))
    })
}

/// Returns the method for the number of steps that are taken: ComfyUI's UniPC has at most an order of one less.
///
/// # Errors
/// If that leaves no order.
pub(super) fn ordered(method: Method, steps: usize) -> Result<Method> {
    match method {
        Method::UniPc { .. } if steps < 2 => {
            Err(Error::input("ComfyUI's `uni_pc` and `uni_pc_bh2` need two steps or more"))
        }
        Method::UniPc { order, bh1, form, lower_order_final, uncorrected } => {
            Ok(Method::UniPc { order: order.min(steps - 1), bh1, form, lower_order_final, uncorrected })
        }
        method => Ok(method),
    }
}

/// Whether the schedule of one step more is laid out, without its last step (ComfyUI's `DISCARD_PENULTIMATE_SIGMA_SAMPLERS`).
pub(super) fn discards_penultimate(method: &Method, schedule: &ScheduleKind) -> bool {
    schedule.steps().is_none() && matches!(method, Method::Dpm2 | Method::Dpm2Ancestral | Method::UniPc { .. })
}

/// Returns the configuration without clamping and thresholding, which ComfyUI does not have.
pub(super) fn unclamped(config: &SchedulerConfig) -> SchedulerConfig {
    SchedulerConfig { clip_sample: false, thresholding: false, ..config.clone() }
}
