//! The noise levels of the steps that are taken.

use super::conventions::{self, Conventions};
use super::kind::Method;
use super::{Part, SamplerSettings};
use crate::schedule::classes::Class;
use crate::schedule::{Level, NEARLY_NO_SIGNAL, NoiseSchedule, ScheduleKind, grid};
use crate::{Error, Result};

/// The levels of a sampling, and what its first and last step are.
pub(super) struct Plan {
    /// The level at the start of each step.
    pub levels: Vec<Level>,
    /// The level at the end of each step.
    pub ends: Vec<Level>,
    /// Whether the first step is the first of the schedule; with ComfyUI, whether its noise is the model's highest.
    pub is_from_noise: bool,
    /// Whether there are further steps after the last one.
    pub is_early: bool,
    /// Whether a sampler of Karras's space starts at ε in z rather than at σ ε in x.
    pub starts_at_unit_noise: bool,
}

impl Plan {
    /// Lays out all steps, and takes those of the settings' part.
    ///
    /// # Errors
    /// If there are no such levels, or no steps in this part.
    pub fn new(settings: &SamplerSettings, method: &Method, class: &Class, schedule: &NoiseSchedule) -> Result<Plan> {
        let is_comfyui = settings.conventions == Conventions::Comfyui;
        let Part { denoise, start, end, leftover_noise } = settings.part;
        let discarded = usize::from(is_comfyui && conventions::discards_penultimate(method, &settings.schedule));
        let total = total(settings, schedule.len() - 1 - discarded)? + discarded;
        let exact = || match settings.conventions {
            Conventions::Comfyui => Ok(schedule.clone()),
            Conventions::Diffusers => Ok(NoiseSchedule::exact(&schedule.config)?.with_signal(NEARLY_NO_SIGNAL)),
        };
        let mut grid = grid::grid(schedule, exact, &settings.schedule, class, total)?;
        grid.levels.truncate(grid.levels.len() - discarded);
        let mut ends = ends(method, class, schedule, &grid, &settings.schedule);
        if let Some(end) = ends.last_mut().filter(|_| is_comfyui) {
            *end = final_level(method, schedule, is_comfyui);
        }
        let skipped = if denoise < 1.0 { grid.levels.len().saturating_sub(settings.steps) } else { 0 };
        let count = grid.levels.len() - skipped;
        let last = end.unwrap_or(count).min(count);
        if start >= last {
            return Err(Error::input(format!("no step is between the first, {start}, and the end, {last}")));
        }
        let taken = skipped + start..skipped + last;
        let is_early = taken.end < grid.levels.len();
        if let Some(end) = ends[..taken.end].last_mut().filter(|_| is_early && !leftover_noise) {
            *end = final_level(method, schedule, is_comfyui);
        }
        let levels = grid.levels[taken.clone()].to_vec();
        let highest = schedule.range().1;
        Ok(Plan {
            is_from_noise: if is_comfyui { levels[0].sigma() >= highest * (1.0 - 1e-5) } else { taken.start == 0 },
            ends: ends[taken].to_vec(),
            starts_at_unit_noise: grid.starts_at_unit_noise,
            is_early,
            levels,
        })
    }
}

/// The number of steps of the whole schedule, of which the last ones are taken, at `most`.
fn total(settings: &SamplerSettings, most: usize) -> Result<usize> {
    let (steps, denoise) = (settings.steps, settings.part.denoise);
    if !(denoise > 0.0 && denoise <= 1.0) {
        return Err(Error::input(format!("`denoise` must be above 0 and at most 1, but is {denoise}")));
    }
    if denoise < 1.0 && settings.schedule.steps().is_some() {
        return Err(Error::input(
            "`denoise` takes the last of more steps, but an explicit `scheduler` has no more: write the levels from \
             which to start, or `start_step`",
        ));
    }
    let total = (steps as f64 / denoise) as usize;
    if (1..=most).contains(&total) {
        return Ok(total);
    }
    Err(Error::input(if denoise < 1.0 {
        format!("`steps` / `denoise`, {steps} / {denoise}, must be between 1 and {most} steps, but is {total}")
    } else {
        format!("`steps` must be between 1 and {most} with this model and sampler, but is {steps}")
    }))
}

/// The level without noise at which a sampling ends.
fn final_level(method: &Method, schedule: &NoiseSchedule, is_comfyui: bool) -> Level {
    match method {
        Method::UniPc { .. } if is_comfyui => {
            Level::of_sigma(conventions::UNI_PC_END, schedule.c_noise(conventions::UNI_PC_END))
        }
        _ => Level { t: 0.0, alpha_bar: 1.0 },
    }
}

/// The levels at the ends of the steps. DDIM's and PNDM's are those of t − N/T, even where this is not the next timestep.
fn ends(
    method: &Method,
    class: &Class,
    schedule: &NoiseSchedule,
    grid: &grid::Grid,
    kind: &ScheduleKind,
) -> Vec<Level> {
    let set_alpha_to_one = schedule.config.set_alpha_to_one.unwrap_or(class.set_alpha_to_one);
    let counted = schedule.parameterisation.sigma_data.is_none()
        && matches!(kind, ScheduleKind::Auto | ScheduleKind::Leading | ScheduleKind::Linspace | ScheduleKind::Trailing);
    let end = Level { t: 0.0, alpha_bar: grid.end };
    if counted && matches!(method, Method::Ddim | Method::Pndm) {
        let each = (schedule.len() / grid.levels.len()) as f64;
        let below = |level: &Level| match level.t - each {
            t if t >= 0.0 => Level { t, alpha_bar: schedule.alpha_bar(t) },
            _ => Level { t: 0.0, alpha_bar: schedule.final_alpha_bar(set_alpha_to_one) },
        };
        return grid.levels.iter().map(below).collect();
    }
    let last = match method {
        Method::Tcd if counted || matches!(kind, ScheduleKind::Timesteps(_)) => {
            Level { t: 0.0, alpha_bar: schedule.alpha_bar(0.0) }
        }
        _ => end,
    };
    grid.levels[1..].iter().copied().chain([last]).collect()
}
