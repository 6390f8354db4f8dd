//! The steps of a sampling: their number, the sampler and the scheduler.

use lsregen_diffusion::models::ModelInfo;
use lsregen_diffusion::sampler::{Conventions, Part, Sampler, SamplerKind, SamplerSettings};
use lsregen_diffusion::schedule::ScheduleKind;
use lsregen_engine::{Links, NodeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;

/// The steps of a sampling, and of an inversion for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Steps {
    /// Denoising steps. More steps are slower and give finer images. A sampling and the inversion for it have the same
    /// number.
    #[serde(default = "defaults::steps")]
    #[schemars(range(min = 1, max = 999))]
    pub steps: u32,
    /// How the latent is sampled. `auto` is the sampler of the model's scheduler file; docs/models.md lists what that is.
    #[serde(default)]
    pub sampler: SamplerKind,
    /// The noise levels of the steps. `auto` is what the model's scheduler file says, or else what the sampler does in
    /// diffusers. `{ sigmas: [14.6, 4.1, 1.2, 0] }` and `{ timesteps: [999, 749, 499] }` are explicit lists, with one level
    /// for each of the `steps`; the list of σ has 0 at its end.
    #[serde(default)]
    pub scheduler: ScheduleKind,
    /// Whose image of a seed is generated, where the two differ: that of `diffusers`, or that of `comfyui` on a CPU, for
    /// workflows that come from there. docs/models.md lists the differences. With `comfyui`, write one of ComfyUI's
    /// schedulers, such as `normal`; `auto` is none of them.
    #[serde(default)]
    pub conventions: Conventions,
}

/// The part of the steps that is taken, as by ComfyUI's KSampler and KSamplerAdvanced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct StepRange {
    /// How much of the input `latent` is regenerated: 1 is everything, small values change little. The noise levels are the
    /// last ones of `steps / denoise` steps, so that `steps` steps run.
    #[serde(default = "one")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub denoise: f64,
    /// The first step that is taken, from 0. The steps before it belong to an earlier sampling.
    #[serde(default)]
    #[schemars(range(max = 998))]
    pub start_step: u32,
    /// The step before which the sampling ends; by default all are taken.
    #[serde(default)]
    #[schemars(range(min = 1, max = 999))]
    pub end_step: Option<u32>,
}

impl Default for StepRange {
    fn default() -> Self {
        StepRange { denoise: 1.0, start_step: 0, end_step: None }
    }
}

impl StepRange {
    /// Reports a part without steps, and a part that does not begin with noise alone though there is no input latent.
    pub(crate) fn errors(&self, steps: u32, has_latent: bool) -> Vec<NodeError> {
        let end = self.end_step.unwrap_or(steps).min(steps);
        if self.start_step >= end {
            let message = format!("no step is between `start_step`, {}, and the end, {end}", self.start_step);
            return vec![
                NodeError::new("start_step", message).help("write a `start_step` below `end_step` and `steps`"),
            ];
        }
        let param = if self.denoise < 1.0 { "denoise" } else { "start_step" };
        if !has_latent && (self.denoise < 1.0 || self.start_step > 0) {
            let message = format!("`{param}` needs an input `latent`, to start from");
            return vec![
                NodeError::new(param, message).help("link `latent`, for example to VAEEncode, or leave it out"),
            ];
        }
        vec![]
    }

    /// Warns of an end that is none, and of leftover noise without an end.
    pub(crate) fn warnings(&self, steps: u32, leftover_noise: bool) -> Vec<NodeError> {
        let beyond = self.end_step.filter(|end| *end >= steps);
        let end =
            beyond.map(|end| ("end_step", format!("`end_step` has no effect: {end} is not below `steps`, {steps}")));
        let ends = self.end_step.is_some_and(|end| end < steps);
        let leftover = (leftover_noise && !ends)
            .then(|| ("leftover_noise", "`leftover_noise` has no effect: the last step leaves no noise".to_string()));
        let warning = |(param, message): (&'static str, String)| {
            NodeError::new(param, message)
                .help("leave it out, or write an `end_step` below `steps`")
                .as_warning("no-effect")
        };
        end.into_iter().chain(leftover).map(warning).collect()
    }

    /// Returns the library's part of the steps.
    pub(crate) fn part(&self, leftover_noise: bool) -> Part {
        let end = self.end_step.map(|end| end as usize);
        Part { denoise: self.denoise, start: self.start_step as usize, end, leftover_noise }
    }
}

/// The fresh noise of a sampling's steps.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Fresh {
    /// η, the share of fresh noise in each step, for the samplers that have it: 0 is deterministic. By default 0 for `ddim`,
    /// 0.3 for `tcd`, where it is called γ, and 1 for the others.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: Option<f64>,
    /// Scale of the fresh noise, for samplers that add some. Above 1 gives more detail.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub s_noise: f64,
}

fn one() -> f64 {
    1.0
}

impl Default for Fresh {
    fn default() -> Self {
        Fresh { eta: None, s_noise: 1.0 }
    }
}

impl Fresh {
    /// Reports parameters that the sampler does not use.
    pub(crate) fn errors(&self, steps: &Steps) -> Vec<NodeError> {
        let (sampler, conventions) = (steps.sampler, steps.conventions);
        let name = sampler.name();
        let eta = self.eta.filter(|eta| *eta != 0.0 && sampler.has_eta(conventions) == Some(false)).map(|_| {
            let with: Vec<_> = SamplerKind::ALL.iter().filter(|kind| kind.has_eta(conventions) == Some(true)).collect();
            let with: Vec<_> = with.into_iter().map(|kind| format!("`{}`", kind.name())).collect();
            NodeError::new("eta", format!("the sampler `{name}` has no `eta`"))
                .help(format!("leave `eta` out, or choose a sampler that has it: {}", with.join(", ")))
        });
        let noise = (self.s_noise != 1.0 && sampler.adds_noise(conventions, self.eta) == Some(false)).then(|| {
            let eta = if sampler.has_eta(conventions) == Some(true) { " with this `eta`" } else { "" };
            NodeError::new("s_noise", format!("`s_noise` scales fresh noise, but the sampler `{name}` adds none{eta}"))
                .help("leave `s_noise` out, or choose another sampler, such as `euler_ancestral`")
        });
        eta.into_iter().chain(noise).collect()
    }
}

impl Steps {
    /// Returns the library's settings.
    pub(crate) fn settings(&self, fresh: Fresh, part: Part) -> SamplerSettings {
        SamplerSettings {
            sampler: self.sampler,
            schedule: self.scheduler.clone(),
            steps: self.steps as usize,
            eta: fresh.eta,
            s_noise: fresh.s_noise,
            part,
            conventions: self.conventions,
        }
    }

    /// Returns the timesteps of these steps with a model; `None` if there are none.
    pub(crate) fn timesteps(&self, range: StepRange, model: &ModelInfo) -> Option<Vec<f64>> {
        let settings = self.settings(Fresh::default(), range.part(false));
        Some(Sampler::new(&model.scheduler, &settings).ok()?.timesteps().to_vec())
    }

    /// Reports steps that the model at the socket `model` does not have, and the keys of its scheduler file that the sampler does not follow.
    pub(crate) fn errors(&self, fresh: Fresh, part: Part, links: &Links) -> Vec<NodeError> {
        let foreign = self.foreign_names();
        let Some(info) = links.declaration::<ModelInfo>("model").filter(|_| foreign.is_empty()) else { return foreign };
        let known = Fresh {
            eta: fresh.eta.filter(|_| self.sampler.has_eta(self.conventions) != Some(false)),
            s_noise: match self.sampler.adds_noise(self.conventions, fresh.eta) {
                Some(false) => 1.0,
                _ => fresh.s_noise,
            },
        };
        match Sampler::new(&info.scheduler, &self.settings(known, part)) {
            Ok(sampler) => sampler.ignored().iter().map(|key| self.ignored(key)).collect(),
            Err(error) => {
                let listed = self.scheduler.steps();
                let (param, help) = match (self.sampler, listed) {
                    (_, Some(count)) if (1..=999).contains(&count) && count != self.steps as usize => {
                        ("steps", format!("write `steps: {count}`"))
                    }
                    (_, Some(_)) => {
                        let help = match &self.scheduler {
                            ScheduleKind::Timesteps(_) => "write one timestep for each step, in descending order",
                            _ => "write one σ for each step, in descending order, and 0 after the last one",
                        };
                        ("scheduler", help.into())
                    }
                    (kind, _) => {
                        let param = match kind {
                            SamplerKind::Auto => "sampler",
                            _ if part.denoise < 1.0 => "denoise",
                            _ => "steps",
                        };
                        (param, "choose other `steps`, another `sampler` or another `scheduler`".into())
                    }
                };
                vec![NodeError::new(param, error.to_string()).help(help)]
            }
        }
    }

    /// Reports names that the conventions do not have.
    fn foreign_names(&self) -> Vec<NodeError> {
        let conventions = self.conventions;
        let sampler = (!conventions.has_sampler(self.sampler)).then(|| {
            let known = SamplerKind::ALL.iter().filter(|kind| conventions.has_sampler(**kind));
            let known: Vec<_> = known.map(|kind| format!("`{}`", kind.name())).collect();
            let message = format!("`conventions: comfyui` does not support the sampler `{}`", self.sampler.name());
            NodeError::new("sampler", message).help(format!("write one of {}", known.join(", ")))
        });
        let scheduler = (!conventions.has_schedule(&self.scheduler)).then(|| {
            let message = format!(
                "`conventions: comfyui` needs one of ComfyUI's schedulers, but `scheduler` is `{}`",
                self.scheduler.name()
            );
            NodeError::new("scheduler", message).help("write `normal`, `karras`, `exponential`, `sgm_uniform`, `simple`, `ddim_uniform`, `beta`, `linear_quadratic`, `kl_optimal`, `align_your_steps` or a list of `sigmas`")
        });
        sampler.into_iter().chain(scheduler).collect()
    }

    fn ignored(&self, key: &str) -> NodeError {
        let sampler = self.sampler.name();
        let message =
            format!("the model's scheduler_config.json sets `{key}`, which the sampler `{sampler}` does not follow");
        NodeError::new("sampler", message)
            .help("write `sampler: auto` for the sampler of the file, or choose the `scheduler` yourself")
            .as_warning("no-effect")
    }

    /// The words of a message: `20 steps of euler (karras)`.
    pub(crate) fn text(&self) -> String {
        let schedule = match &self.scheduler {
            ScheduleKind::Auto => String::new(),
            ScheduleKind::Sigmas(list) | ScheduleKind::Timesteps(list) => {
                format!(" ({}: {list:?})", self.scheduler.name())
            }
            other => format!(" ({})", other.name()),
        };
        let conventions = match self.conventions {
            Conventions::Diffusers => "",
            Conventions::Comfyui => ", as in ComfyUI",
        };
        format!("{} steps of {}{schedule}{conventions}", self.steps, self.sampler.name())
    }
}
