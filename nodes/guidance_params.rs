//! How a guidance acts, as parameters: what every guidance node has beside its own.

use std::sync::Arc;

use lsregen_diffusion::guidance::{
    Auto, GuidanceSettings, GuidanceSpec, Normalise, Region, Schedule, StepShare, Until, Window,
};
use lsregen_engine::{Links, NodeError, outputs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::boxes;
use crate::values::{Guidance, Layout};

outputs! {
    /// What every guidance node but Invert gives.
    pub struct GuidanceOutputs {
        /// The guidance, for any sampling.
        pub guidance: Arc<Guidance>,
    }
}

impl GuidanceOutputs {
    /// Of a guide that serves pictures of any size.
    pub fn of(spec: impl GuidanceSpec + 'static) -> GuidanceOutputs {
        GuidanceOutputs { guidance: Arc::new(Guidance::new(spec)) }
    }
}

/// How a guidance acts. What is not given is as the node's description says.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct GuidanceParams {
    /// The guided part of the steps: a share from the first step on (at least one step, none with 0), or `[from, to]`.
    #[serde(default)]
    pub window: Option<StepShare>,
    /// In place of `window`: the lowest timestep that is guided, between 0 (clean) and 999 (noise). With 20 steps 900
    /// is the same as `window: 0.1`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 999.0))]
    pub from_timestep: Option<f64>,
    /// In place of `window`: the highest timestep that is guided.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 999.0))]
    pub to_timestep: Option<f64>,
    /// How the strength changes from step to step.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// What `schedule: linear` falls or grows to, as a factor.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub schedule_end: Option<f64>,
    /// Updates in each guided step, at most.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub repeats: Option<u32>,
    /// Whether each repeat takes the sampler's step and goes back by fresh noise, so that what was drawn meanwhile can
    /// settle (FreeDoM's time travel); else all updates come before the step.
    #[serde(default)]
    pub renoise: Option<bool>,
    /// Ends the repeats of a step once the distance is at most this.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub until: Option<f64>,
    /// What the gradient is scaled to.
    #[serde(default)]
    pub normalise: Option<Normalise>,
    /// Boxes in which the guidance acts, each `[x0, y0, x1, y1]` in fractions of the picture; everywhere without any.
    #[serde(default)]
    pub mask: Option<Vec<[f64; 4]>>,
    /// Width of the edge over which a mask fades outside its boxes, in fractions of the picture's side. 0 is a hard mask;
    /// about 0.05 hides its border.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub feather: f64,
    /// Share of the guidance that is left outside of its boxes; 1 leaves it everywhere, so that boxes only tell where it is
    /// stronger or weaker.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub outside: Option<f64>,
}

/// A strength: a number, or one that follows the size of each box.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Strength {
    /// The same in every box.
    Number(#[schemars(range(min = 0.0, max = 1e6))] f64),
    /// More in small boxes, less in large ones, around the default.
    Named(AutoStrength),
}

/// `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AutoStrength {
    /// By the size of each box.
    Auto,
}

/// w, where nothing is said of it.
const DEFAULT_STRENGTH: f64 = 0.75;

/// The default of `strength`.
pub(crate) fn default_strength() -> Strength {
    Strength::Number(DEFAULT_STRENGTH)
}

impl Strength {
    /// The number, which is `usual` for `auto`.
    fn number(self, defaults: f64) -> f64 {
        match self {
            Strength::Number(number) => number,
            Strength::Named(AutoStrength::Auto) => defaults,
        }
    }

    fn auto(self) -> Option<Auto> {
        matches!(self, Strength::Named(_)).then(Auto::default)
    }
}

impl GuidanceParams {
    /// What the diffusion library is told: the node's `usual` way, where the parameters say nothing, with `layout`'s boxes
    /// beside those of the mask.
    pub fn resolve(&self, strength: Strength, defaults: GuidanceSettings, layout: Option<&Layout>) -> GuidanceSettings {
        let own = self.mask.iter().flatten().map(|bounds| bounds.map(|v| v as f32));
        let linked = layout.iter().flat_map(|layout| &layout.0).map(|object| object.bounds);
        let auto = strength.auto();
        GuidanceSettings {
            scale: strength.number(defaults.scale),
            schedule: self.schedule.unwrap_or(defaults.schedule),
            schedule_end: match self.schedule {
                Some(_) => self.schedule_end.unwrap_or(0.0),
                None => defaults.schedule_end,
            },
            window: self.window(defaults.window),
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
                auto,
            },
        }
    }

    /// [`resolve`](Self::resolve) for a guidance whose feature is the latent, and whose strength is w = 2γ.
    pub(crate) fn resolve_weight(&self, strength: Strength, layout: Option<&Layout>) -> GuidanceSettings {
        let defaults = GuidanceSettings { scale: DEFAULT_STRENGTH, ..GuidanceSettings::default() };
        let settings = self.resolve(strength, defaults, layout);
        GuidanceSettings { scale: settings.scale / 2.0, ..settings }
    }

    /// [`resolve`](Self::resolve) for a guidance that acts everywhere in any case: `layout`'s boxes say only how strong `auto` is.
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

    fn window(&self, defaults: Window) -> Window {
        match (self.window, self.from_timestep, self.to_timestep) {
            (Some(share), ..) => Window::Share(share),
            (None, None, None) => defaults,
            (None, low, high) => Window::Timesteps(low.unwrap_or(0.0), high.unwrap_or(f64::MAX)),
        }
    }

    /// What is wrong with it, if anything.
    pub fn faults(&self) -> Vec<NodeError> {
        let boxes = self.mask.iter().flatten().enumerate();
        let mut faults: Vec<NodeError> = boxes.filter_map(|(i, b)| boxes::fault(format!("mask/{i}"), b)).collect();
        for (name, given) in [("from_timestep", self.from_timestep), ("to_timestep", self.to_timestep)] {
            if self.window.is_some() && given.is_some() {
                faults.push(
                    NodeError::new(name, format!("the guided steps are given twice, by `window` and by `{name}`"))
                        .help("keep one of them"),
                );
            }
        }
        if let (Some(low), Some(high)) = (self.from_timestep, self.to_timestep)
            && low > high
        {
            faults.push(
                NodeError::new("to_timestep", format!("no timestep lies between {low} and {high}"))
                    .help("`from_timestep` is the lower one, nearer to the clean picture"),
            );
        }
        if let Some(StepShare::Between([from, to])) = self.window
            && to <= from
        {
            faults.push(
                NodeError::new("window", format!("the window [{from}, {to}] holds no step"))
                    .help("write [from, to] as shares of the steps, with from < to"),
            );
        }
        if self.schedule_end.is_some() && self.schedule != Some(Schedule::Linear) {
            faults.push(
                NodeError::new("schedule_end", "`schedule_end` is that of `schedule: linear`")
                    .help("write `schedule: linear`, or leave it out"),
            );
        }
        faults
    }

    /// The fault of a `strength` at `path` that follows boxes of which there are none.
    pub fn auto_fault(&self, path: &str, strength: Strength, links: &Links) -> Option<NodeError> {
        let boxes = self.mask.as_ref().is_some_and(|mask| !mask.is_empty()) || links.has("layout");
        (strength.auto().is_some() && !boxes).then(|| {
            NodeError::new(path, format!("`{path}: auto` follows the size of boxes, and there are none"))
                .help("link `layout`, give boxes to `mask`, or write a number")
        })
    }
}
