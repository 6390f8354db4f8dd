//! Invert.

use std::sync::Arc;

use lsregen_diffusion::guidance::InversionGuidance;
use lsregen_diffusion::models::{Family, ModelInfo};
use lsregen_diffusion::pipeline::{self, InversionMode, SamplingOptions, SamplingSettings};
use lsregen_engine::{CheckContext, Context, Declaration, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::{on_step, raise};
use crate::params::cfg::cfg_warnings;
use crate::params::guidance::{GuidanceParams, Strength, default_strength};
use crate::params::leftover::noisy_warning;
use crate::params::prompt_syntax;
use crate::params::sampling::{clip_skip_error, negative, prompt, sizes};
use crate::params::source::ImageGuidance;
use crate::params::steps::{Fresh, StepRange, Steps};
use crate::values::{
    Conditioning, Guidance, Image, ImageInfo, Latent, Layout, Model, Phrases, SamplingNeeds, batch_errors, declared,
    latent_errors, limit_errors,
};

/// Guides the sampling towards an inverted reference: LSReGen's guidance, by the layout image at its large size.
///
/// The latent of the reference is inverted to the noise of each guided timestep. Before each of those steps the latent
/// of the sampling moves towards it by `strength`. Prompts, `steps`, `sampler`, `scheduler`, `original_size`, `target_size`
/// and `crop` must equal those of the sampling. The last three, `prompt_2` and `negative_2` are SDXL's.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Invert {
    /// The prompt of the sampling, under which the reference is inverted. Not used by `mode: noise`.
    #[serde(default)]
    pub prompt: String,
    /// The sampling's prompt of the second text encoder; by default the same as `prompt`.
    #[serde(default)]
    pub prompt_2: Option<String>,
    /// The sampling's `clip_skip`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 24))]
    pub clip_skip: Option<u32>,
    /// The negative prompt of the inversion. No effect while `cfg` is 1.
    #[serde(default)]
    pub negative: Option<String>,
    /// The negative prompt of the second text encoder; by default that of the first.
    #[serde(default)]
    pub negative_2: Option<String>,
    /// The sampling's original size, `[width, height]`; by default the size of the image.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub original_size: Option<[u32; 2]>,
    /// The sampling's target size, `[width, height]`; by default the size of the image.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub target_size: Option<[u32; 2]>,
    /// The sampling's crop, `[left, top]`.
    #[serde(default)]
    #[schemars(inner(range(min = 0, max = 16384)))]
    pub crop: [u32; 2],
    /// How noise is added to the reference.
    #[serde(default)]
    pub mode: Mode,
    /// How far the latent moves towards the reference in a guided step (w in z ← (1−w) z + w z̄): 0 is no guidance, 1
    /// replaces the latent, which is image-to-image. Raise it if shapes leave their boxes; lower it if the image looks like
    /// the small one enlarged. `auto`, with boxes, is the default in a box of average size, more in smaller boxes and less
    /// in larger ones.
    #[serde(default = "default_strength")]
    #[schemars(extend("minimum" = 0.0, "maximum" = 1.0))]
    pub strength: Strength,
    /// The steps of the sampling.
    #[serde(flatten)]
    pub steps: Steps,
    /// The part of them that the sampling takes.
    #[serde(flatten)]
    pub range: StepRange,
    /// Scale of classifier-free guidance during the inversion. 1 means no such guidance; it is the paper's value, the
    /// fastest, and the most faithful to the reference.
    #[serde(default = "cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
    /// Seed of the noise of `mode: noise`; only its low 32 bits are used. Not used by `mode: ddim`.
    #[serde(default)]
    #[schemars(extend("x-role" = "seed"))]
    pub seed: u64,
    /// Whether `mode: noise` takes the first noise of `seed`, from which a sampling of the same seed starts, or the second,
    /// which is independent of it. Mixing two independent noises shrinks their spread (to 0.71 at `strength: 0.5`); a shared
    /// one keeps it.
    #[serde(default)]
    pub shared_noise: bool,
    /// The guidance by the image of the sampling.
    #[serde(flatten)]
    pub image_guidance: ImageGuidance,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

/// How noise is added to a reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Mode {
    /// DDIM inversion, as in the paper, by the model's own prediction. Takes `steps` network calls.
    #[default]
    Ddim,
    /// Noise from `seed`. Takes no network call.
    Noise,
}

fn cfg() -> f64 {
    1.0
}

sockets! {
    pub struct InvertInputs {
        /// The model that samples.
        pub model: Arc<Model> = ["sd1", "sd2", "gligen", "sdxl", "playground"],
        /// The reference, encoded by that model. It has the size of the image.
        pub latent: Arc<Latent>,
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
        /// For an inpainting or InstructPix2Pix model: the `image` of the sampling. Not used by `mode: noise`.
        pub image: Option<Arc<Image>>,
        /// For an inpainting model: the `mask` of the sampling. Not used by `mode: noise`.
        pub image_mask: Option<Arc<Image>>,
    }
}

/// The sockets of the sampling's image and mask; `mask` is a parameter of every guidance.
const SOCKETS: [&str; 2] = ["image", "image_mask"];

outputs! {
    pub struct InvertOutputs {
        /// The guidance, for a sampling of the same model, size, steps, sampler and scheduler.
        pub guidance: Arc<Guidance>,
    }
}

impl Invert {
    /// Reports a `from_timestep` above all timesteps of the sampler: nothing would be inverted.
    fn unguided_error(&self, links: &Links) -> Option<NodeError> {
        let (lowest, info) = (self.params.from_timestep?, links.declaration::<ModelInfo>("model")?);
        let first = *self.steps.timesteps(self.range, info)?.first()?;
        (lowest > first).then(|| {
            let steps = self.steps.steps;
            let message =
                format!("none of the {steps} steps has a timestep of at least {lowest}: the first has {first}");
            NodeError::new("from_timestep", message).help(format!("write at most {first}, or raise `steps`"))
        })
    }

    /// Warns of parameters of SDXL's conditioning that the model does not have.
    fn unused_warnings(&self, family: Option<Family>) -> Vec<NodeError> {
        let Some(family) = family.filter(|family| !family.is_xl()) else { return vec![] };
        let given = [
            ("prompt_2", self.prompt_2.is_some()),
            ("negative_2", self.negative_2.is_some()),
            ("original_size", self.original_size.is_some()),
            ("target_size", self.target_size.is_some()),
            ("crop", self.crop != [0, 0]),
        ];
        let warning = |(name, _): &(&'static str, bool)| {
            let message =
                format!("`{name}` has no effect with a model of the family `{}`, only with SDXL", family.name());
            NodeError::new(*name, message).help("leave it out").as_warning("no-effect")
        };
        given.iter().filter(|(_, given)| *given).map(warning).collect()
    }
}

/// The family of the linked model, if it is known.
fn family(links: &Links) -> Option<Family> {
    links.variant("model").and_then(Family::from_name)
}

impl Node for Invert {
    const TYPE: &'static str = "Invert";
    const VERSION: u32 = 4;
    const LANE: Lane = Lane::Device;

    type Inputs = InvertInputs;
    type Outputs = InvertOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        let own = [("prompt", Some(&self.prompt)), ("prompt_2", self.prompt_2.as_ref())];
        let negative = [("negative", self.negative.as_ref()), ("negative_2", self.negative_2.as_ref())];
        let prompts = own.into_iter().chain(negative).filter_map(|(param, text)| Some((param, text?)));
        let prompts =
            prompts.flat_map(|(param, text)| prompt_syntax::problems(param, text)).filter(NodeError::is_error);
        self.params.errors().into_iter().chain(cfg_warnings(self.cfg, None)).chain(prompts).collect()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let auto = self.params.auto_error("strength", self.strength, links);
        let range = self.range.errors(self.steps.steps, true);
        if !range.is_empty() {
            return range;
        }
        let steps = self.steps.errors(Fresh::default(), self.range.part(false), links);
        let unguided = self.unguided_error(links);
        let images = match self.mode {
            Mode::Ddim => self.image_guidance.errors(links, SOCKETS, ImageInfo::of(links, "latent").size),
            Mode::Noise => limit_errors(links),
        };
        let errors = images.into_iter().chain(latent_errors(links));
        let errors = errors.chain(batch_errors(links, ["latent"])).chain(noisy_warning(links, "latent"));
        let unused = self.unused_warnings(family(links));
        let errors = errors.chain(clip_skip_error(self.clip_skip, links));
        errors.chain(auto).chain(steps).chain(unguided).chain(unused).collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let needs = SamplingNeeds {
            phrases: vec![],
            layout: [ImageInfo::of(links, "latent").phrases, Phrases::of_layout(links)].concat(),
            steps: Some((self.steps.clone(), self.range)),
            window: self.params.window(),
            size: ImageInfo::of(links, "latent").size,
            downscale: None,
            boxes: vec![],
            family: family(links),
            conditioning: (self.mode == Mode::Ddim && family(links).is_none_or(Family::is_xl)).then(|| Conditioning {
                prompt: self.prompt.clone(),
                prompt_2: self.prompt_2.clone(),
                clip_skip: self.clip_skip,
                sizes: sizes(self.original_size, self.target_size, self.crop),
            }),
        };
        declared("guidance", Some(needs))
    }

    fn run(&self, inputs: InvertInputs, cx: &Context) -> anyhow::Result<InvertOutputs> {
        cx.cancel().check()?;
        let model = &inputs.model.0;
        let z0 = inputs.latent.of(&inputs.model)?.to_device(model.device()).map_err(|error| raise(error.into()))?;
        let (_, _, h, w) = z0.dims4()?;
        let (width, height) = (w * model.info.size_step, h * model.info.size_step);
        let sampling = SamplingSettings {
            prompt: prompt(&self.prompt, &self.prompt_2),
            negative: negative(&self.negative, &self.negative_2),
            width,
            height,
            seed: self.seed,
            cfg: self.cfg,
            sampler: self.steps.settings(Fresh::default(), self.range.part(false)),
            sizes: sizes(self.original_size, self.target_size, self.crop),
            from: None,
            options: SamplingOptions {
                clip_skip: self.clip_skip.map(|layer| layer as usize),
                ..SamplingOptions::default()
            },
            source: self.image_guidance.source([inputs.image.as_deref(), inputs.image_mask.as_deref()])?,
        };
        let mode = match self.mode {
            Mode::Ddim => InversionMode::Ddim,
            Mode::Noise => InversionMode::Noise { shared: self.shared_noise },
        };
        let settings = self.params.resolve_weight(self.strength, inputs.layout.as_deref());
        let trajectory = pipeline::invert(model, &z0, &sampling, mode, settings.window, &on_step(cx)).map_err(raise)?;
        if let (Some(t), None) = (self.params.from_timestep, trajectory.timesteps().next()) {
            anyhow::bail!(
                "none of the {} steps has a timestep of at least {t}: lower `from_timestep`",
                self.steps.steps
            );
        }
        let inverted = InversionGuidance { trajectory, settings };
        let guidance = Guidance::inverted(inverted, (width, height));
        Ok(InvertOutputs { guidance: Arc::new(guidance) })
    }
}
