//! The noise levels of a sampling: schedules by name.
//!
//! `leading`, `linspace` and `trailing` space timesteps as diffusers does, by the rules of the sampler's class. The others
//! space σ as ComfyUI and k-diffusion do, over the σ of the model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::function::beta::beta_reg;

use super::classes::{Class, Steps};
use super::config::{BetaSchedule, FinalSigma, SchedulerConfig, TimestepSpacing};
use super::{Level, NoiseSchedule, sigma_of};
use crate::{Error, Result};

/// The least and the greatest σ of a list: those of every model are within.
const SIGMAS: (f64, f64) = (1e-4, 1e5);

/// ρ of Karras et al., eq. 5.
const RHO: f64 = 7.0;

/// How the noise levels of the steps are chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ScheduleKind {
    /// What the model's scheduler file says, or else the sampler's class in diffusers.
    #[default]
    Auto,
    /// Multiples of the same number of timesteps, as diffusers counts them (`timestep_spacing`).
    Leading,
    /// Timesteps from the last to the first, evenly.
    Linspace,
    /// Timesteps downwards from the last, evenly, without the first.
    Trailing,
    /// σ at timesteps from the last to the first, evenly.
    Normal,
    /// Karras et al., eq. 5: more steps at low noise.
    Karras,
    /// Evenly in ln σ.
    Exponential,
    /// σ at timesteps downwards from the last, without the first, as in Stability AI's code.
    SgmUniform,
    /// Every n-th σ of the model, from the last on.
    Simple,
    /// Every n-th σ of the model, from the second on. There may be one step more.
    DdimUniform,
    /// By the quantiles of Beta(0.6, 0.6): more steps at both ends (Lee et al.).
    Beta,
    /// Linear down to 0.975 σ_max, then quadratic, as for video models.
    LinearQuadratic,
    /// Evenly in arctan σ, as minimises the divergence (Sabour et al., theorem 3.1).
    KlOptimal,
    /// The published ten steps of Align Your Steps (Sabour et al.), for other numbers interpolated in ln σ.
    AlignYourSteps,
    /// These σ, descending: one for each step, and 0 for the end.
    Sigmas(Vec<f64>),
    /// These timesteps, descending, one for each step.
    Timesteps(Vec<f64>),
}

impl ScheduleKind {
    /// Returns the name that serde reads.
    pub fn name(&self) -> &'static str {
        match self {
            ScheduleKind::Auto => "auto",
            ScheduleKind::Leading => "leading",
            ScheduleKind::Linspace => "linspace",
            ScheduleKind::Trailing => "trailing",
            ScheduleKind::Normal => "normal",
            ScheduleKind::Karras => "karras",
            ScheduleKind::Exponential => "exponential",
            ScheduleKind::SgmUniform => "sgm_uniform",
            ScheduleKind::Simple => "simple",
            ScheduleKind::DdimUniform => "ddim_uniform",
            ScheduleKind::Beta => "beta",
            ScheduleKind::LinearQuadratic => "linear_quadratic",
            ScheduleKind::KlOptimal => "kl_optimal",
            ScheduleKind::AlignYourSteps => "align_your_steps",
            ScheduleKind::Sigmas(_) => "sigmas",
            ScheduleKind::Timesteps(_) => "timesteps",
        }
    }

    /// Returns the number of steps of an explicit list.
    pub fn steps(&self) -> Option<usize> {
        match self {
            ScheduleKind::Sigmas(list) => Some(list.len() - usize::from(list.last() == Some(&0.0))),
            ScheduleKind::Timesteps(list) => Some(list.len()),
            _ => None,
        }
    }

    fn spacing(&self) -> Option<TimestepSpacing> {
        match self {
            ScheduleKind::Leading => Some(TimestepSpacing::Leading),
            ScheduleKind::Linspace => Some(TimestepSpacing::Linspace),
            ScheduleKind::Trailing => Some(TimestepSpacing::Trailing),
            _ => None,
        }
    }
}

/// The noise levels of a sampling.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    /// The level of each step's start.
    pub levels: Vec<Level>,
    /// ᾱ at the end of the last step.
    pub end: f64,
    /// Whether a sampler of Karras's space starts at ε in z rather than at σ ε in x: if timesteps are counted down from a
    /// multiple, and for EDM.
    pub starts_at_unit_noise: bool,
}

/// Returns the levels of `steps` steps, at least 1 and fewer than the model's timesteps. `exact` computes the schedule in f64,
/// for the schedules that ComfyUI has.
///
/// # Errors
/// If there are no such levels.
pub(crate) fn grid(
    schedule: &NoiseSchedule,
    exact: impl FnOnce() -> Result<NoiseSchedule>,
    kind: &ScheduleKind,
    class: &Class,
    steps: usize,
) -> Result<Grid> {
    let grid = match (kind, kind.spacing()) {
        (ScheduleKind::Sigmas(_) | ScheduleKind::Timesteps(_), _) => listed(schedule, kind, class, steps)?,
        (ScheduleKind::Auto, _) | (_, Some(_)) => of_class(schedule, class, kind.spacing(), steps)?,
        _ => {
            let exact = exact()?;
            of_sigmas(&exact, sigmas(&exact, kind, steps))
        }
    };
    let alpha_bar: Vec<f64> = grid.levels.iter().map(|level| level.alpha_bar).collect();
    if grid.levels.is_empty() || alpha_bar.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(Error::input(format!(
            "`steps` is {steps}, but the scheduler `{}` has no {steps} different noise levels with this model",
            kind.name()
        )));
    }
    Ok(grid)
}

/// The levels of an explicit list. As in diffusers, the file's spacing decides whether sampling starts at unit noise.
fn listed(schedule: &NoiseSchedule, kind: &ScheduleKind, class: &Class, steps: usize) -> Result<Grid> {
    let invalid = |what: String| Err(Error::input(format!("the list of the `scheduler` {what}")));
    let (list, most, unit) = match kind {
        ScheduleKind::Sigmas(list) => (list, SIGMAS.1, "σ"),
        ScheduleKind::Timesteps(list) => (list, schedule.len() as f64 - 1.0, "timestep"),
        _ => return invalid("is none".into()),
    };
    let count = kind.steps().unwrap_or(0);
    if count != steps {
        return invalid(format!("has {count} steps, but `steps` is {steps}"));
    }
    if unit == "σ" && list.last() != Some(&0.0) {
        return invalid("must end with 0, the end of the last step".into());
    }
    let list = &list[..count];
    let least = if unit == "σ" { SIGMAS.0 } else { 0.0 };
    let is_level = |value: &f64| (least..=most).contains(value);
    if let Some(value) = list.iter().find(|value| !is_level(value)) {
        let range = match unit {
            "timestep" => format!("timesteps are between 0 and {most}"),
            _ => format!("σ is between {least} and {most}"),
        };
        return invalid(format!("has {value}, which is no {unit} of this model: {range}"));
    }
    if let Some(pair) = list.windows(2).find(|pair| pair[0] <= pair[1]) {
        return invalid(format!("must descend, but {} is followed by {}", pair[0], pair[1]));
    }
    let is_continuous = schedule.parameterisation.sigma_data.is_some();
    if is_continuous && unit == "timestep" {
        return invalid("has timesteps, but this model is told ¼ ln σ: write `sigmas`".into());
    }
    let level = |value: f64| match unit {
        "σ" => Level::of_sigma(value, schedule.c_noise(value)),
        _ => Level { t: value, alpha_bar: schedule.alpha_bar_at(value) },
    };
    let spacing = schedule.config.timestep_spacing.unwrap_or(class.spacing);
    Ok(Grid {
        levels: list.iter().map(|value| level(*value)).collect(),
        end: if ends_low(&schedule.config, class) { lowest(schedule) } else { 1.0 },
        starts_at_unit_noise: schedule.config.edm().is_some() || spacing == TimestepSpacing::Leading,
    })
}

/// Whether the last step ends at σ_min.
fn ends_low(config: &SchedulerConfig, class: &Class) -> bool {
    class.ends_at_sigma_min || reads(class, "final_sigmas_type") && config.final_sigmas_type == FinalSigma::SigmaMin
}

/// ᾱ of σ_min.
fn lowest(schedule: &NoiseSchedule) -> f64 {
    1.0 / (schedule.range().0.powi(2) + 1.0)
}

/// The levels of σ without the last, which is the end.
fn of_sigmas(schedule: &NoiseSchedule, mut sigmas: Vec<f64>) -> Grid {
    let end = sigmas.pop().unwrap_or(0.0);
    let levels = sigmas.into_iter().map(|sigma| Level::of_sigma(sigma, schedule.c_noise(sigma))).collect();
    Grid { levels, end: 1.0 / (end * end + 1.0), starts_at_unit_noise: false }
}

/// Returns σ of each step, and at the end.
pub(crate) fn sigmas(schedule: &NoiseSchedule, kind: &ScheduleKind, steps: usize) -> Vec<f64> {
    let (low, high) = schedule.range();
    let last = steps as f64;
    // The share of the way that is left at step i: from 1 to 0 at the last one.
    let left = |i: usize| if steps == 1 { 1.0 } else { 1.0 - i as f64 / (last - 1.0) };
    let at = |t: f64| schedule.sigma_at(t);
    let (first_t, last_t) = (schedule.timestep_of(high), schedule.timestep_of(low));
    let between = |share: f64| last_t + (first_t - last_t) * share;
    let table = table(schedule);
    let n = table.len();
    let each = |f: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..steps).map(f).collect() };
    let mut sigmas = match kind {
        ScheduleKind::Karras => each(&|i| karras(low, high, RHO, left(i))),
        ScheduleKind::Exponential => each(&|i| exponential(low, high, left(i))),
        ScheduleKind::SgmUniform => each(&|i| at(between(1.0 - i as f64 / last))),
        ScheduleKind::Simple => each(&|i| table[n - 1 - (i as f64 * (n as f64 / last)) as usize]),
        ScheduleKind::DdimUniform => {
            (1..n).step_by((n / steps).max(1)).map(|i| table[i]).collect::<Vec<_>>().into_iter().rev().collect()
        }
        ScheduleKind::Beta => {
            let quantile = |i: usize| quantile(1.0 - i as f64 / last) * (n - 1) as f64;
            let mut chosen: Vec<usize> = (0..steps).map(|i| quantile(i).round_ties_even() as usize).collect();
            chosen.dedup();
            chosen.into_iter().map(|i| table[i]).collect()
        }
        ScheduleKind::LinearQuadratic => linear_quadratic(steps).into_iter().map(|share| share * high).collect(),
        ScheduleKind::KlOptimal => each(&|i| (high.atan() * left(i) + low.atan() * (1.0 - left(i))).tan()),
        ScheduleKind::AlignYourSteps => align_your_steps(steps, schedule.config.is_xl),
        _ => each(&|i| at(between(left(i)))),
    };
    sigmas.push(0.0);
    sigmas
}

/// The σ of all timesteps, or a thousand of EDM's.
fn table(schedule: &NoiseSchedule) -> Vec<f64> {
    match schedule.config.edm() {
        Some(edm) => (0..1000).map(|i| exponential(edm.sigma_min, edm.sigma_max, f64::from(i) / 999.0)).collect(),
        None => schedule.sigmas.clone(),
    }
}

fn karras(low: f64, high: f64, rho: f64, left: f64) -> f64 {
    let (low, high) = (low.powf(1.0 / rho), high.powf(1.0 / rho));
    (low + left * (high - low)).powf(rho)
}

fn exponential(low: f64, high: f64, left: f64) -> f64 {
    (low.ln() + left * (high.ln() - low.ln())).exp()
}

/// The quantile of Beta(0.6, 0.6), by bisection to the last digit: it decides between two timesteps.
fn quantile(share: f64) -> f64 {
    if share <= 0.0 || share >= 1.0 {
        return share.clamp(0.0, 1.0);
    }
    if share > 0.5 {
        return 1.0 - quantile(1.0 - share);
    }
    if share == 0.5 {
        return 0.5;
    }
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if beta_reg(0.6, 0.6, middle) < share { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// 1 − s of Lightricks' schedule, with its threshold 0.025 after half of the steps.
fn linear_quadratic(steps: usize) -> Vec<f64> {
    const THRESHOLD: f64 = 0.025;
    if steps == 1 {
        return vec![1.0];
    }
    let (linear, steps_f) = ((steps / 2) as f64, steps as f64);
    let rest = steps_f - linear;
    let difference = linear - THRESHOLD * steps_f;
    let quadratic = difference / (linear * rest * rest);
    let slope = THRESHOLD / linear - 2.0 * difference / (rest * rest);
    let share = |i: usize| {
        let i = i as f64;
        if i < linear { i * THRESHOLD / linear } else { quadratic * i * i + slope * i + quadratic * linear * linear }
    };
    (0..steps).map(|i| 1.0 - share(i)).collect()
}

/// Sabour et al.: the published σ of ten steps, and at their end.
const ALIGN_YOUR_STEPS_SD: [f64; 11] = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029];
const ALIGN_YOUR_STEPS_XL: [f64; 11] = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029];

fn align_your_steps(steps: usize, is_xl: bool) -> Vec<f64> {
    let table = if is_xl { ALIGN_YOUR_STEPS_XL } else { ALIGN_YOUR_STEPS_SD };
    let at = |i: usize| {
        let place = i as f64 * 10.0 / steps as f64;
        let (low, part) = (place.floor() as usize, place.fract());
        (table[low].ln() * (1.0 - part) + table[(low + 1).min(10)].ln() * part).exp()
    };
    (0..steps).map(at).collect()
}

/// The levels that a class of diffusers lays out.
fn of_class(schedule: &NoiseSchedule, class: &Class, given: Option<TimestepSpacing>, steps: usize) -> Result<Grid> {
    let config = &schedule.config;
    if let (Some(edm), None) = (config.edm(), given) {
        let left = |i: usize| if steps == 1 { 1.0 } else { 1.0 - i as f64 / (steps - 1) as f64 };
        let sigma = |i: usize| match edm.rho {
            Some(rho) => karras(edm.sigma_min, edm.sigma_max, rho, left(i)),
            None if steps == 1 => edm.sigma_min,
            None => exponential(edm.sigma_min, edm.sigma_max, left(i)),
        };
        let mut sigmas: Vec<f64> = (0..steps).map(sigma).collect();
        sigmas.push(if config.final_sigmas_type == FinalSigma::SigmaMin { edm.sigma_min } else { 0.0 });
        return Ok(Grid { starts_at_unit_noise: true, ..of_sigmas(schedule, sigmas) });
    }
    if config.edm().is_some() {
        return Err(Error::input(
            "this model is told ¼ ln σ, so that its timesteps cannot be spaced; choose another `scheduler`",
        ));
    }
    let spacing = given.or(config.timestep_spacing).unwrap_or(class.spacing);
    let spacing = if class.steps == Steps::OneMoreLinspace { TimestepSpacing::Linspace } else { spacing };
    let timesteps = match class.steps {
        Steps::Distilled if given.is_none() => distilled(config, steps)?,
        _ => spaced(schedule, class, spacing, steps),
    };
    let n = schedule.len() as f64;
    if timesteps.windows(2).any(|pair| pair[0] <= pair[1]) || timesteps.iter().any(|t| !(0.0..n).contains(t)) {
        return Err(Error::input(format!(
            "`steps` is {steps}, but the model has no {steps} different timesteps below {n} with this sampler and its \
             `timestep_spacing` and `steps_offset`; choose another `scheduler`, or fewer steps"
        )));
    }
    let is_continuous = schedule.parameterisation.sigma_data.is_some();
    let level = |t: &f64| {
        let level = Level { t: *t, alpha_bar: schedule.alpha_bar_at(*t) };
        if is_continuous { Level { t: schedule.c_noise(level.sigma()), ..level } } else { level }
    };
    let levels: Vec<Level> = timesteps.iter().map(level).collect();
    let starts_at_unit_noise = spacing == TimestepSpacing::Leading;
    let ends_low = ends_low(config, class);
    let end = if ends_low { lowest(schedule) } else { 1.0 };
    let grid = Grid { levels, end, starts_at_unit_noise };
    let Some(converted) = converted(schedule, class, &grid, steps).filter(|_| given.is_none()) else { return Ok(grid) };
    let rounds = class.rounds && (config.use_karras_sigmas || config.use_lu_lambdas);
    let is_cosine = class.steps == Steps::OneMore
        && config.beta_schedule == Some(BetaSchedule::SquaredcosCapV2)
        && reads(class, "use_lu_lambdas");
    let whole = matches!(class.steps, Steps::OneMore | Steps::OneMoreLinspace);
    let told = |t: f64| match (rounds && !is_cosine, whole) {
        (true, _) => t.round_ties_even(),
        (false, true) => t.trunc(),
        (false, false) => t,
    };
    let end = match converted.last() {
        // These classes repeat the last σ.
        Some(sigma) if ends_low && !reads(class, "euler_at_final") && class.steps == Steps::OneMore => {
            1.0 / (sigma * sigma + 1.0)
        }
        _ => end,
    };
    let level = |sigma: f64| {
        let t = if is_continuous { schedule.c_noise(sigma) } else { told(schedule.timestep_of(sigma)) };
        Level::of_sigma(sigma, t)
    };
    Ok(Grid { levels: converted.into_iter().map(level).collect(), end, starts_at_unit_noise })
}

fn reads(class: &Class, key: &str) -> bool {
    class.keys.contains(&key)
}

/// The σ that take the place of those of the timesteps.
fn converted(schedule: &NoiseSchedule, class: &Class, grid: &Grid, steps: usize) -> Option<Vec<f64>> {
    let config = &schedule.config;
    let (low, high) = match class.whole_range {
        true => schedule.range(),
        false => (grid.levels.last()?.sigma(), grid.levels.first()?.sigma()),
    };
    let own = |key: &str, value: Option<f64>, default: f64| value.filter(|_| reads(class, key)).unwrap_or(default);
    let (low, high) = (own("sigma_min", config.sigma_min, low), own("sigma_max", config.sigma_max, high));
    let left = |i: usize| if steps == 1 { 1.0 } else { 1.0 - i as f64 / (steps - 1) as f64 };
    let each = |f: &dyn Fn(f64) -> f64| Some((0..steps).map(|i| f(left(i))).collect());
    let asks = |key: &str, set: bool| set && reads(class, key);
    if asks("use_karras_sigmas", config.use_karras_sigmas) {
        return each(&|left| karras(low, high, RHO, left));
    }
    if asks("use_exponential_sigmas", config.use_exponential_sigmas) || asks("use_lu_lambdas", config.use_lu_lambdas) {
        return each(&|left| exponential(low, high, left));
    }
    if asks("use_beta_sigmas", config.use_beta_sigmas) {
        return each(&|left| low + quantile(left) * (high - low));
    }
    None
}

/// Timesteps by diffusers' `timestep_spacing`, descending.
fn spaced(schedule: &NoiseSchedule, class: &Class, spacing: TimestepSpacing, steps: usize) -> Vec<f64> {
    let config = &schedule.config;
    let one_more = matches!(class.steps, Steps::OneMore | Steps::OneMoreLinspace);
    // Timesteps with a lower λ are left out, if the class reads the key.
    let lowest = config.lambda_min_clipped.unwrap_or(f64::NEG_INFINITY);
    let clipped = |alpha_bar: &&f64| -sigma_of(**alpha_bar).ln() < lowest;
    let n = match reads(class, "lambda_min_clipped") {
        true => schedule.len() - schedule.alpha_bar.iter().filter(clipped).count(),
        false => schedule.len(),
    };
    let spaced = if one_more { steps + 1 } else { steps };
    let mut t: Vec<f64> = match spacing {
        TimestepSpacing::Leading => {
            (0..spaced).map(|i| (i * (n / spaced) + config.steps_offset) as f64).rev().collect()
        }
        TimestepSpacing::Linspace => {
            let even = |i: usize| if spaced == 1 { 0.0 } else { i as f64 * (n as f64 - 1.0) / (spaced - 1) as f64 };
            let round =
                |t: f64| if class.steps == Steps::Fractional { f64::from(t as f32) } else { t.round_ties_even() };
            (0..spaced).map(|i| round(even(i))).rev().collect()
        }
        TimestepSpacing::Trailing => {
            let ratio = schedule.len() as f64 / steps as f64;
            (0..steps).map(|i| (n as f64 - i as f64 * ratio).round_ties_even() - 1.0).collect()
        }
    };
    t.truncate(steps);
    t
}

/// T of the timesteps that an LCM was distilled on.
fn distilled(config: &SchedulerConfig, steps: usize) -> Result<Vec<f64>> {
    let original = config.original_inference_steps.unwrap_or(50).min(config.num_train_timesteps);
    if steps > original {
        return Err(Error::input(format!(
            "`steps` is {steps}, but the sampler has only the {original} timesteps of `original_inference_steps`"
        )));
    }
    let each = config.num_train_timesteps / original;
    let at = |i: usize| (original - (i as f64 * original as f64 / steps as f64).floor() as usize) * each - 1;
    Ok((0..steps).map(|i| at(i) as f64).collect())
}
