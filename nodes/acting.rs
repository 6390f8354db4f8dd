//! How a guidance acts, as parameters: what every guidance node has beside its own.

use std::sync::Arc;

use lsregen_diffusion::guidance::{self, Auto, Guide, Normalise, Region, Schedule, Until, Window};
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
    pub fn of(guide: impl Guide + 'static) -> GuidanceOutputs {
        GuidanceOutputs { guidance: Arc::new(Guidance::new(guide)) }
    }
}

/// How a guidance acts. What is not given is as the node's description says.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Acting {
    /// The guided part of the steps: a share from the first step on (at least one step, none with 0), or `[from, to]`.
    #[serde(default)]
    pub window: Option<Share>,
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
    pub schedule: Option<Course>,
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
    pub normalise: Option<Scaling>,
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

/// A part of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Share {
    /// From the first step on.
    First(#[schemars(range(min = 0.0, max = 1.0))] f64),
    /// From and to.
    Between(#[schemars(inner(range(min = 0.0, max = 1.0)))] [f64; 2]),
}

/// How a guidance's strength changes over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Course {
    /// Not at all.
    Constant,
    /// Evenly over the window, to `schedule_end`.
    Linear,
    /// To nothing over the window, along a cosine.
    Cosine,
    /// With the share of noise, 1 − ᾱ: layout-guidance's σ².
    Noise,
    /// With the share of the picture, √ᾱ: FreeDoM's.
    Signal,
    /// BoxDiff's: √ of what falls from 1 to ½ over the whole run.
    Boxdiff,
    /// DemoFusion's: the cube of a cosine over the whole run.
    Demofusion,
}

/// What a gradient is scaled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Scaling {
    /// Nothing: it is taken as it is.
    None,
    /// The size of what classifier-free guidance adds, as FreeDoM does it: the scale is then a share of that.
    Freedom,
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
const PULL: f64 = 0.75;

/// The default of `strength`.
pub(crate) fn pull() -> Strength {
    Strength::Number(PULL)
}

impl Strength {
    /// The number, which is `usual` for `auto`.
    fn number(self, usual: f64) -> f64 {
        match self {
            Strength::Number(number) => number,
            Strength::Named(AutoStrength::Auto) => usual,
        }
    }

    fn auto(self) -> Option<Auto> {
        matches!(self, Strength::Named(_)).then(Auto::default)
    }
}

impl Acting {
    /// What the diffusion library is told: the node's `usual` way, where the parameters say nothing, with `layout`'s boxes
    /// beside those of the mask.
    pub fn told(&self, strength: Strength, usual: guidance::Acting, layout: Option<&Layout>) -> guidance::Acting {
        let own = self.mask.iter().flatten().map(|bounds| bounds.map(|v| v as f32));
        let linked = layout.iter().flat_map(|layout| &layout.0).map(|object| object.bounds);
        let auto = strength.auto();
        guidance::Acting {
            scale: strength.number(usual.scale),
            schedule: self.schedule.map_or(usual.schedule, |course| self.schedule(course)),
            window: self.window(usual.window),
            repeats: self.repeats.map_or(usual.repeats, |n| n as usize),
            renoise: self.renoise.unwrap_or(usual.renoise),
            until: self.until.map_or(usual.until, |enough| match usual.until {
                Until::Settled(_) => Until::Settled(enough),
                _ => Until::Reached(enough),
            }),
            normalise: match self.normalise {
                None => usual.normalise,
                Some(Scaling::None) => Normalise::None,
                Some(Scaling::Freedom) => Normalise::Freedom,
            },
            region: Region {
                boxes: (self.mask.is_some() || layout.is_some()).then(|| own.chain(linked).collect()),
                feather: self.feather as f32,
                outside: self.outside.map_or(usual.region.outside, |share| share as f32),
                auto,
            },
        }
    }

    /// [`told`](Self::told) for a guidance whose feature is the latent, and whose strength is w = 2γ.
    pub(crate) fn pull(&self, strength: Strength, layout: Option<&Layout>) -> guidance::Acting {
        let usual = guidance::Acting { scale: PULL, ..guidance::Acting::default() };
        let acting = self.told(strength, usual, layout);
        guidance::Acting { scale: acting.scale / 2.0, ..acting }
    }

    /// [`told`](Self::told) for a guidance that acts everywhere in any case: `layout`'s boxes say only how strong `auto` is.
    pub fn within(&self, strength: Strength, usual: guidance::Acting, layout: &Layout) -> guidance::Acting {
        let mut acting = self.told(strength, usual, strength.auto().map(|_| layout));
        if self.mask.is_none() && self.outside.is_none() {
            acting.region.outside = 1.0;
        }
        acting
    }

    fn window(&self, usual: Window) -> Window {
        match (self.window, self.from_timestep, self.to_timestep) {
            (Some(Share::First(share)), ..) => Window::first(share),
            (Some(Share::Between([from, to])), ..) => Window::Share(from, to),
            (None, None, None) => usual,
            (None, low, high) => Window::Timesteps(low.unwrap_or(0.0), high.unwrap_or(f64::MAX)),
        }
    }

    fn schedule(&self, course: Course) -> Schedule {
        match course {
            Course::Constant => Schedule::Constant,
            Course::Linear => Schedule::Linear(self.schedule_end.unwrap_or(0.0)),
            Course::Cosine => Schedule::Cosine,
            Course::Noise => Schedule::Noise,
            Course::Signal => Schedule::Signal,
            Course::Boxdiff => Schedule::BoxDiff,
            Course::Demofusion => Schedule::DemoFusion,
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
        if let Some(Share::Between([from, to])) = self.window
            && to <= from
        {
            faults.push(
                NodeError::new("window", format!("the window [{from}, {to}] holds no step"))
                    .help("write [from, to] as shares of the steps, with from < to"),
            );
        }
        if self.schedule_end.is_some() && self.schedule != Some(Course::Linear) {
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
