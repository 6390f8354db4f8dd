//! How a guidance acts: how strongly, in which steps, how often, and where.
//!
//! Knows steps, timesteps and boxes. Knows no feature and no network.

use std::ops::Range;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Moment;
use crate::Result;
use crate::layout::{self, Bounds};

/// What every guidance is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acting {
    /// γ where the schedule is at 1.
    pub scale: f64,
    /// How γ changes from step to step.
    pub schedule: Schedule,
    /// The steps in which the guidance acts.
    pub window: Window,
    /// Updates in each of these steps, at most.
    pub repeats: usize,
    /// Whether the sampler's step is taken and taken back, by fresh noise, between two updates (FreeDoM's time travel).
    pub renoise: bool,
    /// What ends the updates of a step before that.
    pub until: Until,
    /// What the gradient is scaled to.
    pub normalise: Normalise,
    /// Where it acts.
    pub region: Region,
}

impl Default for Acting {
    /// The paper's: once a step in the first tenth, everywhere; with γ = 1/4.
    fn default() -> Self {
        Acting {
            scale: 0.25,
            schedule: Schedule::Constant,
            window: Window::default(),
            repeats: 1,
            renoise: false,
            until: Until::Spent,
            normalise: Normalise::None,
            region: Region::default(),
        }
    }
}

impl Acting {
    /// γ at this moment.
    pub fn scale_at(&self, at: &Moment) -> f64 {
        self.scale * self.schedule.factor(&self.window, at)
    }

    /// Whether it changes anything in this step.
    pub fn acts(&self, at: &Moment) -> bool {
        self.scale != 0.0 && self.repeats > 0 && self.window.holds(at)
    }
}

/// The steps in which a guidance acts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Window {
    /// A part of the steps, from and to as shares of the run, both rounded; at least one step unless both are equal.
    Share(f64, f64),
    /// The steps with timesteps between these, both included.
    Timesteps(f64, f64),
}

impl Default for Window {
    /// The paper's first tenth.
    fn default() -> Self {
        Window::first(0.1)
    }
}

impl Window {
    /// The first part of the steps, rounded, at least one (`0` is none).
    pub fn first(share: f64) -> Self {
        Window::Share(0.0, share)
    }

    /// The step at this share of the run.
    pub fn step(share: f64) -> Self {
        Window::Share(share, share + 1e-9)
    }

    /// The steps with t ≥ t_th.
    pub fn from_timestep(t: f64) -> Self {
        Window::Timesteps(t, f64::MAX)
    }

    /// Whether the guidance acts at this moment.
    pub fn holds(&self, at: &Moment) -> bool {
        match *self {
            Window::Share(from, to) => shared(from, to, at.steps).contains(&at.step),
            Window::Timesteps(low, high) => (low..=high).contains(&at.t),
        }
    }

    /// The steps of a run with these timesteps that the window covers.
    pub fn steps(&self, timesteps: &[f64]) -> Range<usize> {
        match *self {
            Window::Share(from, to) => shared(from, to, timesteps.len()),
            Window::Timesteps(low, high) => {
                let count = |holds: &dyn Fn(f64) -> bool| timesteps.iter().take_while(|t| holds(**t)).count();
                let end = count(&|t| t >= low);
                count(&|t| t > high).min(end)..end
            }
        }
    }

    /// How far the window has been gone through, from 0 to 1.
    fn position(&self, at: &Moment) -> f64 {
        match *self {
            Window::Share(from, to) => {
                let steps = shared(from, to, at.steps);
                let last = steps.len().saturating_sub(1).max(1);
                at.step.saturating_sub(steps.start) as f64 / last as f64
            }
            Window::Timesteps(low, high) => {
                ((high.min(1000.0) - at.t) / (high.min(1000.0) - low).max(1.0)).clamp(0.0, 1.0)
            }
        }
    }
}

fn shared(from: f64, to: f64, steps: usize) -> Range<usize> {
    let number = |share: f64| ((share.clamp(0.0, 1.0) * steps as f64).round_ties_even() as usize).min(steps);
    if to <= from {
        return 0..0;
    }
    let start = number(from).min(steps.saturating_sub(1));
    start..number(to).clamp(start + 1, steps.max(start + 1))
}

/// How γ changes over the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Schedule {
    /// Not at all.
    #[default]
    Constant,
    /// From 1 to this, evenly over the window.
    Linear(f64),
    /// From 1 to 0 over the window, as ½ (1 + cos πs).
    Cosine,
    /// 1 − ᾱ. In the space of z/√ᾱ, where σ² = (1−ᾱ)/ᾱ, it is the σ² of layout-guidance.
    Noise,
    /// √ᾱ: FreeDoM's.
    Signal,
    /// √ of what falls evenly from 1 to ½ over the whole run: BoxDiff's.
    BoxDiff,
    /// [½ (1 + cos π(1 − t/1000))]³: DemoFusion's skip residual.
    DemoFusion,
}

impl Schedule {
    fn factor(&self, window: &Window, at: &Moment) -> f64 {
        let cosine = |s: f64| 0.5 * (1.0 + (std::f64::consts::PI * s).cos());
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Linear(end) => 1.0 + (end - 1.0) * window.position(at),
            Schedule::Cosine => cosine(window.position(at)),
            Schedule::Noise => 1.0 - at.alpha_bar,
            Schedule::Signal => at.alpha_bar.sqrt(),
            Schedule::BoxDiff => (1.0 - 0.5 * at.step as f64 / (at.steps.saturating_sub(1)).max(1) as f64).sqrt(),
            Schedule::DemoFusion => cosine(1.0 - at.t / 1000.0).powi(3),
        }
    }
}

/// What ends the updates of a step early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Until {
    /// Nothing: all repeats are made.
    #[default]
    Spent,
    /// D is at most this, seen before an update.
    Reached(f64),
    /// D is at most this, seen at an update; then the guidance rests for what remains of the run (layout-guidance).
    Settled(f64),
}

/// What the gradient is scaled to before γ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Normalise {
    /// Nothing.
    #[default]
    None,
    /// The size of classifier-free guidance's own correction, s · RMS(ε_c − ε_u), as FreeDoM does it.
    Freedom,
}

/// Where a guidance acts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Its boxes; everywhere where there are none to be had, nowhere where there are, but none.
    pub boxes: Option<Vec<Bounds>>,
    /// Width of the edge outside of each box over which it fades, in fractions of the picture's side.
    pub feather: f32,
    /// What is left of it outside of all boxes, from 0 to 1.
    pub outside: f32,
    /// How its strength follows the size of a box, if it does.
    pub auto: Option<Auto>,
}

/// Strength that follows the size of a box: the smaller, the stronger (the paper, §4.3, in words).
///
/// f_b = clamp((A/A_b)^p, 1/limit, limit) for a box that takes the share A_b of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Auto {
    /// A, the share of the picture for which strength stays as it is.
    pub area: f32,
    /// p.
    pub power: f32,
    /// By how much at most a box's strength is raised or lowered.
    pub limit: f32,
}

impl Default for Auto {
    fn default() -> Self {
        Auto { area: 0.15, power: 0.5, limit: 2.0 }
    }
}

impl Auto {
    /// f_b.
    pub fn factor(&self, [x0, y0, x1, y1]: Bounds) -> f32 {
        let area = ((x1 - x0) * (y1 - y0)).max(f32::MIN_POSITIVE);
        (self.area / area).powf(self.power).clamp(1.0 / self.limit, self.limit)
    }
}

impl Region {
    /// The weight of the gradient in each cell of a latent of `height` × `width`, (1, 1, h, w); none where it is 1
    /// everywhere. None is larger than `most`.
    ///
    /// W = max_b f_b m_b + (1 − max_b m_b) outside, with the box's soft mask m_b.
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
