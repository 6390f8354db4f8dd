//! The parameters that all guidance nodes share.

use lsregen_diffusion::guidance::{Auto, GuidanceSettings, Normalise, Region, Schedule, StepShare, Until, Window};
use lsregen_engine::{Links, NodeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::boxes;
use crate::values::Layout;

/// How a guidance acts. Parameters that are not given have the defaults of the node's description.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct GuidanceParams {
    /// The guided steps, as shares of all steps: `to`, which guides from the first step on (at least one step, or none
    /// with `0`), or `[from, to]`.
    #[serde(default)]
    pub window: Option<StepShare>,
    /// In place of `window`: the lowest guided timestep, between 0 (clean) and 999 (noise). With 20 steps, 900 is the same
    /// as `window: 0.1`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 999.0))]
    pub from_timestep: Option<f64>,
    /// In place of `window`: the highest guided timestep.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 999.0))]
    pub to_timestep: Option<f64>,
    /// How the strength changes from step to step.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// The factor at which `schedule: linear` ends.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub schedule_end: Option<f64>,
    /// The largest number of updates in each guided step.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub repeats: Option<u32>,
    /// Whether each repeat takes the sampler's step and undoes it with fresh noise, so that the image can settle between
    /// updates (FreeDoM's time travel). Otherwise all updates come before the step.
    #[serde(default)]
    pub renoise: Option<bool>,
    /// Ends the repeats of a step once the distance is at most this.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub until: Option<f64>,
    /// How the gradient is normalised.
    #[serde(default)]
    pub normalise: Option<Normalise>,
    /// Boxes in which the guidance acts, each `[x0, y0, x1, y1]` in fractions of the image. By default it acts everywhere.
    #[serde(default)]
    pub mask: Option<Vec<[f64; 4]>>,
    /// Width of the edge over which the guidance fades outside its boxes, in fractions of the image's side. 0 is a hard
    /// edge; about 0.05 hides the border.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub feather: f64,
    /// Share of the guidance that remains outside its boxes. With 1 it acts everywhere, and boxes only make it stronger or
    /// weaker.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub outside: Option<f64>,
}

/// A strength: a number, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Strength {
    /// The same in every box.
    Number(#[schemars(range(min = 0.0, max = 1e6))] f64),
    /// The default, raised in small boxes and lowered in large ones.
    Named(AutoStrength),
}

/// `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AutoStrength {
    /// Follows the size of each box.
    Auto,
}

/// The default of w.
const DEFAULT_STRENGTH: f64 = 0.75;

/// The default of the parameter `strength`.
pub(crate) fn default_strength() -> Strength {
    Strength::Number(DEFAULT_STRENGTH)
}

impl Strength {
    /// Returns the number, or `default` for `auto`.
    fn number(self, default: f64) -> f64 {
        match self {
            Strength::Number(number) => number,
            Strength::Named(AutoStrength::Auto) => default,
        }
    }

    fn auto(self) -> Option<Auto> {
        matches!(self, Strength::Named(_)).then(Auto::default)
    }
}

impl GuidanceParams {
    /// Resolves the parameters to the library's settings: each parameter that is not given takes its value from `defaults`.
    /// The guidance acts in the boxes of `mask` and of `layout`.
    pub fn resolve(&self, strength: Strength, defaults: GuidanceSettings, layout: Option<&Layout>) -> GuidanceSettings {
        let own = self.mask.iter().flatten().map(|bounds| bounds.map(|v| v as f32));
        let linked = layout.iter().flat_map(|layout| &layout.0).map(|object| object.bounds);
        GuidanceSettings {
            scale: strength.number(defaults.scale),
            schedule: self.schedule.unwrap_or(defaults.schedule),
            schedule_end: match self.schedule {
                Some(_) => self.schedule_end.unwrap_or(0.0),
                None => defaults.schedule_end,
            },
            window: self.window().unwrap_or(defaults.window),
            repeats: self.repeats.map_or(defaults.repeats, |n| n as usize),
            renoise: self.renoise.unwrap_or(defaults.renoise),
            until: self.until.map_or(defaults.until, |enough| match defaults.until {
                Until::Settled(_) => Until::Settled(enough),
                _ => Until::Reached(enough),
            }),
            normalise: self.normalise.unwrap_or(defaults.normalise),
            region: Region {
                boxes: (self.mask.is_some() || layout.is_some()).then(|| own.chain(linked).collect()),
                feather: self.feather as f32,
                outside: self.outside.map_or(defaults.region.outside, |share| share as f32),
                auto: strength.auto(),
            },
        }
    }

    /// [Resolves](Self::resolve) the parameters of a guidance whose feature is the latent, with the strength w = 2γ.
    pub(crate) fn resolve_weight(&self, strength: Strength, layout: Option<&Layout>) -> GuidanceSettings {
        let defaults = GuidanceSettings { scale: DEFAULT_STRENGTH, ..GuidanceSettings::default() };
        let settings = self.resolve(strength, defaults, layout);
        GuidanceSettings { scale: settings.scale / 2.0, ..settings }
    }

    /// [Resolves](Self::resolve) the parameters of a guidance that `layout` does not restrict to its boxes: they only set
    /// the strength `auto`.
    pub fn resolve_unmasked(
        &self,
        strength: Strength,
        defaults: GuidanceSettings,
        layout: &Layout,
    ) -> GuidanceSettings {
        let mut settings = self.resolve(strength, defaults, strength.auto().map(|_| layout));
        if self.mask.is_none() && self.outside.is_none() {
            settings.region.outside = 1.0;
        }
        settings
    }

    /// Returns the steps in which the guidance acts, if the parameters name them.
    pub(crate) fn window(&self) -> Option<Window> {
        match (self.window, self.from_timestep, self.to_timestep) {
            (Some(share), ..) => Some(Window::Share(share)),
            (None, None, None) => None,
            (None, low, high) => Some(Window::Timesteps(low.unwrap_or(0.0), high.unwrap_or(f64::MAX))),
        }
    }

    /// Reports invalid combinations of parameters.
    pub fn errors(&self) -> Vec<NodeError> {
        let boxes = self.mask.iter().flatten().enumerate();
        let mut errors: Vec<NodeError> = boxes.filter_map(|(i, b)| boxes::error(format!("mask/{i}"), b)).collect();
        for (name, given) in [("from_timestep", self.from_timestep), ("to_timestep", self.to_timestep)] {
            if self.window.is_some() && given.is_some() {
                errors.push(
                    NodeError::new(name, format!("the guided steps are given twice, by `window` and by `{name}`"))
                        .help("keep one of them"),
                );
            }
        }
        if let (Some(low), Some(high)) = (self.from_timestep, self.to_timestep)
            && low > high
        {
            errors.push(
                NodeError::new("to_timestep", format!("no timestep is between {low} and {high}"))
                    .help("make `from_timestep` the lower one, nearer to the clean image"),
            );
        }
        if let Some(StepShare::Between([from, to])) = self.window
            && to <= from
        {
            errors.push(
                NodeError::new("window", format!("the window [{from}, {to}] contains no step"))
                    .help("write [from, to] as shares of the steps, with from < to"),
            );
        }
        if self.schedule_end.is_some() && self.schedule != Some(Schedule::Linear) {
            errors.push(
                NodeError::new("schedule_end", "`schedule_end` requires `schedule: linear`")
                    .help("write `schedule: linear`, or leave `schedule_end` out"),
            );
        }
        errors
    }

    /// Returns the error of a strength at `path` that is `auto` although there are no boxes.
    pub fn auto_error(&self, path: &str, strength: Strength, links: &Links) -> Option<NodeError> {
        let boxes = self.mask.as_ref().is_some_and(|mask| !mask.is_empty()) || links.has("layout");
        (strength.auto().is_some() && !boxes).then(|| {
            NodeError::new(path, format!("`{path}: auto` follows the size of boxes, but there are none"))
                .help("link `layout`, give boxes to `mask`, or write a number")
        })
    }
}
