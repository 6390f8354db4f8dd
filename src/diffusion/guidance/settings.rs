//! The settings of a guidance: how strongly, in which steps, how often, and where it acts.
//!
//! Deals with steps, timesteps and boxes, not with features or networks.

use std::f64::consts::PI;
use std::ops::Range;

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StepContext;
use crate::Result;
use crate::layout::{self, Bounds};

/// The settings that every guidance has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuidanceSettings {
    /// γ where the schedule's factor is 1.
    pub scale: f64,
    /// How γ changes from step to step.
    pub schedule: Schedule,
    /// The factor at which [`Schedule::Linear`] ends; other schedules ignore it.
    pub schedule_end: f64,
    /// The guided steps.
    pub window: Window,
    /// The largest number of updates in each guided step.
    pub repeats: usize,
    /// Whether the sampler's step is taken and undone with fresh noise between two updates (FreeDoM's time travel).
    pub renoise: bool,
    /// When the updates of a step end before `repeats` is reached.
    pub until: Until,
    /// How the gradient is normalised before it is multiplied by γ.
    pub normalise: Normalise,
    /// The part of the image in which the guidance acts.
    pub region: Region,
}

impl Default for GuidanceSettings {
    /// The paper's settings: γ = 1/4, once a step in the first tenth of the steps, everywhere.
    fn default() -> Self {
        GuidanceSettings {
            scale: 0.25,
            schedule: Schedule::Constant,
            schedule_end: 0.0,
            window: Window::default(),
            repeats: 1,
            renoise: false,
            until: Until::Never,
            normalise: Normalise::None,
            region: Region::default(),
        }
    }
}

impl GuidanceSettings {
    /// Returns γ(t).
    pub fn scale_at(&self, at: &StepContext) -> f64 {
        self.scale * self.schedule.factor(self.schedule_end, &self.window, at)
    }

    /// Whether the guidance updates the latent in this step.
    pub fn acts(&self, at: &StepContext) -> bool {
        self.scale != 0.0 && self.repeats > 0 && self.window.contains(at)
    }
}

/// The steps in which a guidance acts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Window {
    /// A part of the steps, its ends rounded to whole steps; at least one step, unless the part is empty.
    Share(StepShare),
    /// The steps whose timesteps are between these two, both included.
    Timesteps(f64, f64),
}

/// A part of the steps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum StepShare {
    /// From the first step on.
    First(#[schemars(range(min = 0.0, max = 1.0))] f64),
    /// From and to.
    Between(#[schemars(inner(range(min = 0.0, max = 1.0)))] [f64; 2]),
}

impl Default for Window {
    /// The first tenth of the steps, as in the paper.
    fn default() -> Self {
        Window::first(0.1)
    }
}

impl Window {
    /// Returns the first `share` of the steps, rounded, at least one step (`0` is no step).
    pub fn first(share: f64) -> Self {
        Window::Share(StepShare::First(share))
    }

    /// Returns the steps between two shares of the run.
    pub fn between(from: f64, to: f64) -> Self {
        Window::Share(StepShare::Between([from, to]))
    }

    /// Returns the single step at this share of the run.
    pub fn step(share: f64) -> Self {
        Window::between(share, share + 1e-9)
    }

    /// Returns the steps with t ≥ t_th.
    pub fn from_timestep(t: f64) -> Self {
        Window::Timesteps(t, f64::MAX)
    }

    /// Whether the window contains this step.
    pub fn contains(&self, at: &StepContext) -> bool {
        match self {
            Window::Share(share) => share.steps(at.steps).contains(&at.step),
            Window::Timesteps(low, high) => (*low..=*high).contains(&at.t),
        }
    }

    /// Returns the steps that the window covers in a run with these descending timesteps.
    pub fn steps(&self, timesteps: &[f64]) -> Range<usize> {
        match *self {
            Window::Share(share) => share.steps(timesteps.len()),
            Window::Timesteps(low, high) => {
                let count = |holds: &dyn Fn(f64) -> bool| timesteps.iter().take_while(|t| holds(**t)).count();
                let end = count(&|t| t >= low);
                count(&|t| t > high).min(end)..end
            }
        }
    }

    /// Returns the position of a step in the window: 0 at its first step, 1 at its last.
    fn position(&self, at: &StepContext) -> f64 {
        match *self {
            Window::Share(share) => {
                let steps = share.steps(at.steps);
                let last = steps.len().saturating_sub(1).max(1);
                at.step.saturating_sub(steps.start) as f64 / last as f64
            }
            Window::Timesteps(low, high) => {
                ((high.min(1000.0) - at.t) / (high.min(1000.0) - low).max(1.0)).clamp(0.0, 1.0)
            }
        }
    }
}

impl StepShare {
    fn steps(self, steps: usize) -> Range<usize> {
        let [from, to] = match self {
            StepShare::First(to) => [0.0, to],
            StepShare::Between(ends) => ends,
        };
        if to <= from {
            return 0..0;
        }
        let round = |share: f64| ((share.clamp(0.0, 1.0) * steps as f64).round_ties_even() as usize).min(steps);
        let start = round(from).min(steps.saturating_sub(1));
        start..round(to).clamp(start + 1, steps.max(start + 1))
    }
}

/// How γ changes over the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Schedule {
    /// No change.
    #[default]
    Constant,
    /// Linear over the window, from 1 to `schedule_end`.
    Linear,
    /// From 1 to 0 over the window, as ½ (1 + cos πs).
    Cosine,
    /// The share of noise, 1 − ᾱ: layout-guidance's σ².
    // In the space of z/√ᾱ, where σ² = (1−ᾱ)/ᾱ, the same update has γ = σ².
    Noise,
    /// The share of signal, √ᾱ, as in FreeDoM.
    Signal,
    /// BoxDiff's: √(1 … ½), where the radicand falls linearly over the whole run.
    #[serde(rename = "boxdiff")]
    BoxDiff,
    /// DemoFusion's skip residual: [½ (1 + cos π(1 − t/1000))]³.
    #[serde(rename = "demofusion")]
    DemoFusion,
}

impl Schedule {
    fn factor(self, end: f64, window: &Window, at: &StepContext) -> f64 {
        let cosine = |s: f64| 0.5 * (1.0 + (PI * s).cos());
        match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 + (end - 1.0) * window.position(at),
            Schedule::Cosine => cosine(window.position(at)),
            Schedule::Noise => 1.0 - at.alpha_bar,
            Schedule::Signal => at.alpha_bar.sqrt(),
            Schedule::BoxDiff => (1.0 - 0.5 * at.step as f64 / at.steps.saturating_sub(1).max(1) as f64).sqrt(),
            Schedule::DemoFusion => cosine(1.0 - at.t / 1000.0).powi(3),
        }
    }
}

/// When the updates of a step end early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Until {
    /// Never: all repeats are applied.
    #[default]
    Never,
    /// Once D is at most this before an update, which is then skipped.
    Reached(f64),
    /// Once D is at most this before an update, which is still applied; the guidance then skips the rest of the run
    /// (layout-guidance).
    Settled(f64),
}

/// How a gradient is normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Normalise {
    /// Not at all.
    #[default]
    None,
    /// To the size of classifier-free guidance's correction, s · RMS(ε_c − ε_u), as in FreeDoM. γ is then a share of that
    /// size.
    Freedom,
}

/// The part of the image in which a guidance acts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// The boxes. With `None` the guidance acts everywhere; with an empty list it acts only as `outside` says.
    pub boxes: Option<Vec<Bounds>>,
    /// Width of the edge outside each box over which the guidance fades, as a fraction of the image's side.
    pub feather: f32,
    /// Share of the guidance that remains outside all boxes, from 0 to 1.
    pub outside: f32,
    /// How the strength follows the size of a box, if it does.
    pub auto: Option<Auto>,
}

/// A strength that follows the size of a box: the smaller the box, the stronger (the paper, §4.3, in words).
///
/// f_b = clamp((A/A_b)^p, 1/limit, limit) for a box with the share A_b of the image's area.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Auto {
    /// A, the share of the image's area at which f_b = 1.
    pub area: f32,
    /// p.
    pub power: f32,
    /// The largest factor by which the strength of a box is raised or lowered.
    pub limit: f32,
}

impl Default for Auto {
    fn default() -> Self {
        Auto { area: 0.15, power: 0.5, limit: 2.0 }
    }
}

impl Auto {
    /// Returns f_b.
    pub fn factor(&self, [x0, y0, x1, y1]: Bounds) -> f32 {
        let area = ((x1 - x0) * (y1 - y0)).max(f32::MIN_POSITIVE);
        (self.area / area).powf(self.power).clamp(1.0 / self.limit, self.limit)
    }
}

impl Region {
    /// Returns the weight of the gradient in each cell of a latent of `height` × `width`, (1, 1, h, w), each at most `most`.
    /// `None` if the guidance acts everywhere alike.
    ///
    /// W = max_b f_b m_b + (1 − max_b m_b) outside, where m_b is the soft mask of box b.
    pub fn weights(&self, height: usize, width: usize, most: f32, device: &Device) -> Result<Option<Tensor>> {
        let Some(boxes) = &self.boxes else { return Ok(None) };
        let mut inside = vec![0f32; height * width];
        let mut weights = vec![0f32; height * width];
        for bounds in boxes {
            let f = self.auto.map_or(1.0, |auto| auto.factor(*bounds));
            let mask = layout::mask(&[*bounds], height, width, self.feather);
            for ((m, inside), weight) in mask.into_iter().zip(&mut inside).zip(&mut weights) {
                *inside = inside.max(m);
                *weight = weight.max(f * m);
            }
        }
        let cells = weights.iter().zip(&inside).map(|(weight, m)| (weight + (1.0 - m) * self.outside).min(most));
        Ok(Some(Tensor::from_vec(cells.collect::<Vec<_>>(), (1, 1, height, width), device)?))
    }
}
