//! Invert.

use std::sync::Arc;

use lsregen_diffusion::candle_core::Tensor;
use lsregen_diffusion::guidance::Window;
use lsregen_diffusion::layout::mask;
use lsregen_diffusion::pipeline::{self, InversionMode, Settings};
use lsregen_engine::{CheckContext, Context, Fault, Lane, Links, Node, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::boxes;
use crate::bridge::{on_step, raise};
use crate::defaults;
use crate::options::{Sampler, negative, prompt, sizes};
use crate::values::{Guidance, Latent, Layout, Model, latent_faults};

/// LSReGen's guidance: draws a sampling towards a reference, here the layout picture at its large size.
///
/// The reference's latent is carried up to the noise of each guided timestep; the sampling's latent is moved towards it,
/// by `strength`, before each of those steps. Prompts, `steps`, `sampler`, `original_size`, `target_size` and `crop` must
/// be the sampling's.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invert {
    /// The prompt of the sampling, under which the reference is inverted. Not used by `mode: noise`.
    #[serde(default)]
    pub prompt: String,
    /// The sampling's prompt of the second text encoder; by default the same as `prompt`.
    #[serde(default)]
    pub prompt_2: Option<String>,
    /// What not to draw, during the inversion; without effect while `cfg` is 1.
    #[serde(default)]
    pub negative: Option<String>,
    /// What not to draw, for the second text encoder; by default the same.
    #[serde(default)]
    pub negative_2: Option<String>,
    /// The sampling's original size, `[width, height]`; by default the picture's own.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub original_size: Option<[u32; 2]>,
    /// The sampling's target size, `[width, height]`; by default the picture's own.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub target_size: Option<[u32; 2]>,
    /// The sampling's crop, `[left, top]`.
    #[serde(default)]
    #[schemars(inner(range(min = 0, max = 16384)))]
    pub crop: [u32; 2],
    /// How the reference gets its noise.
    #[serde(default)]
    pub mode: Mode,
    /// How far the latent moves to the reference in a guided step (w in z ← (1−w) z + w z̄): 0 is no guidance, 1 puts the
    /// reference in its place, which is image-to-image. Raise it where shapes leave their boxes, lower it where the
    /// picture looks like the small one enlarged.
    #[serde(default = "strength")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub strength: f64,
    /// Share of the steps that are guided, from the first on; at least one step, none with 0. The paper's 0.1 where
    /// neither this nor `from_timestep` is given. More holds the layout harder and leaves less to the large model.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub window: Option<f64>,
    /// In place of `window`: the lowest timestep that is guided, between 0 (clean) and 999 (noise). With 20 steps 900
    /// is the same as `window: 0.1`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 999.0))]
    pub from_timestep: Option<f64>,
    /// Steps of the inversion; those of the sampling.
    #[serde(default = "defaults::steps")]
    #[schemars(range(min = 1, max = 999))]
    pub steps: u32,
    /// The sampling's sampler, which decides the timesteps.
    #[serde(default)]
    pub sampler: Sampler,
    /// Scale of classifier-free guidance during the inversion. 1, none, is the paper's, the fastest, and the most
    /// faithful to the reference.
    #[serde(default = "cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
    /// Seed of the noise of `mode: noise`; its low 32 bits count. Not used by `mode: ddim`.
    #[serde(default)]
    pub seed: u64,
    /// Whether `mode: noise` takes the first noise of `seed`, which is the noise that a sampling of the same seed starts
    /// from, or the second, which has nothing to do with it. Mixing two independent noises shrinks their spread (to 0.71
    /// at `strength: 0.5`); a shared one keeps it.
    #[serde(default)]
    pub shared_noise: bool,
    /// Boxes in which the guidance acts, each `[x0, y0, x1, y1]` in fractions of the picture; everywhere without any.
    /// Boxes of the socket `layout` are added to them.
    #[serde(default)]
    pub mask: Option<Vec<[f64; 4]>>,
    /// Width of the edge over which a mask fades outside its boxes, in fractions of the picture's side. 0 is a hard mask;
    /// about 0.05 hides its border.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub feather: f64,
}

/// How a reference gets its noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Mode {
    /// DDIM inversion, the paper's: the model's own prediction carries the latent upwards. Costs `steps` network calls.
    #[default]
    Ddim,
    /// Noise from `seed`. Costs nothing.
    Noise,
}

fn strength() -> f64 {
    0.5
}

fn cfg() -> f64 {
    1.0
}

sockets! {
    pub struct InvertInputs {
        /// The model that samples.
        pub model: Arc<Model> = ["sdxl"],
        /// The reference, encoded by that model. Its size is the size of the picture.
        pub latent: Arc<Latent>,
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
        pub layout: Option<Arc<Layout>>,
    }
}

outputs! {
    pub struct InvertOutputs {
        /// The guidance, for a sampling of the same model, size, steps and sampler.
        pub guidance: Arc<Guidance>,
    }
}

impl Invert {
    fn window(&self) -> Window {
        match (self.window, self.from_timestep) {
            (_, Some(t)) => Window::FromTimestep(t),
            (Some(fraction), None) => Window::Fraction(fraction),
            (None, None) => Window::default(),
        }
    }

    /// (1, 1, h, w), if the guidance has boxes.
    fn mask(&self, layout: Option<&Layout>, z: &Tensor) -> anyhow::Result<Option<Tensor>> {
        if self.mask.is_none() && layout.is_none() {
            return Ok(None);
        }
        let own = self.mask.iter().flatten().map(|bounds| bounds.map(|v| v as f32));
        let linked = layout.iter().flat_map(|layout| &layout.0).map(|object| object.bounds);
        let boxes: Vec<[f32; 4]> = own.chain(linked).collect();
        let (_, _, h, w) = z.dims4()?;
        let mask = Tensor::from_vec(mask(&boxes, h, w, self.feather as f32), (1, 1, h, w), z.device())?;
        Ok(Some(mask.to_dtype(z.dtype())?))
    }
}

impl Node for Invert {
    const TYPE: &'static str = "Invert";
    const VERSION: u32 = 2;
    const LANE: Lane = Lane::Device;

    type Inputs = InvertInputs;
    type Outputs = InvertOutputs;

    fn check(&self, _: &CheckContext) -> Vec<Fault> {
        let boxes = self.mask.iter().flatten().enumerate();
        let mut faults: Vec<Fault> = boxes.filter_map(|(i, b)| boxes::fault(format!("mask/{i}"), b)).collect();
        if self.window.is_some() && self.from_timestep.is_some() {
            faults.push(
                Fault::new("from_timestep", "the guided steps are given twice, by `window` and by `from_timestep`")
                    .help("keep one of them"),
            );
        }
        faults
    }

    fn check_links(&self, links: &Links) -> Vec<Fault> {
        latent_faults(links)
    }

    fn run(&self, inputs: InvertInputs, cx: &Context) -> anyhow::Result<InvertOutputs> {
        cx.cancel().check()?;
        let model = &inputs.model.0;
        let z0 = inputs.latent.of(&inputs.model)?.to_device(model.device()).map_err(|error| raise(error.into()))?;
        let (_, _, h, w) = z0.dims4()?;
        let (width, height) = (w * model.info.size_step, h * model.info.size_step);
        let settings = Settings {
            prompt: prompt(&self.prompt, &self.prompt_2),
            negative: negative(&self.negative, &self.negative_2),
            width,
            height,
            seed: self.seed,
            steps: self.steps as usize,
            cfg: self.cfg,
            sampler: self.sampler.into(),
            eta: 0.0,
            sizes: sizes(self.original_size, self.target_size, self.crop),
        };
        let mode = match self.mode {
            Mode::Ddim => InversionMode::Ddim,
            Mode::Noise => InversionMode::Noise { shared: self.shared_noise },
        };
        let trajectory = pipeline::invert(model, &z0, &settings, mode, self.window(), &on_step(cx)).map_err(raise)?;
        if let (Some(t), None) = (self.from_timestep, trajectory.timesteps().next()) {
            anyhow::bail!("no step of {} has a timestep from {t} on: lower `from_timestep`", self.steps);
        }
        let mask = self.mask(inputs.layout.as_deref(), &z0)?;
        let guidance = Guidance::inversion(trajectory, self.strength, self.window(), mask, (width, height));
        Ok(InvertOutputs { guidance: Arc::new(guidance) })
    }
}
