//! GLIGENLayout.

use std::path::PathBuf;
use std::sync::Arc;

use crate::params::steps::{Fresh, Steps};
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::pipeline::{self, SamplingSettings};
use lsregen_diffusion::sampler::Part;
use lsregen_diffusion::source::SourceImage;
use lsregen_engine::{CheckContext, Context, Declaration, FileRef, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::autoencoder::decoded;
use crate::host::bridge::{raise, unless_cancelled};
use crate::host::preview::on_step_with_previews;
use crate::params::batch::BatchParams;
use crate::params::boxes::{LayoutParams, PhraseBox};
use crate::params::cfg::cfg_warnings;
use crate::params::needs::phrase_warnings;
use crate::params::prompt_syntax;
use crate::params::sampling::{negative, prompt, size_errors, trained_side};
use crate::values::{
    Image, ImageInfo, ImageSize, Latent, LatentNoise, Layout, Model, Phrases, declared, sampling_errors, seeds,
};

/// Generates an image from a layout, with each phrase in its box, by a GLIGEN model.
///
/// This is the first half of LSReGen, at the small size that the model was trained on. At a larger size the same node is
/// the paper's baseline "GLIGEN at large scale".
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GligenLayout {
    /// The description of the whole image, of any length. It should name the objects in the boxes. `(text:1.2)` gives text
    /// more weight, `(text:0.8)` less, and `(text)` the weight 1.1; write parentheses as `\(` and `\)`.
    pub prompt: String,
    /// The description of what the image should not show. By default the empty text.
    #[serde(default)]
    pub negative: Option<String>,
    /// The objects, each a `phrase` and a `box`. With an empty list only the prompt counts. Either this or `layout_file`.
    #[serde(default)]
    pub boxes: Option<Vec<PhraseBox>>,
    /// A JSON file of boxes, relative to the graph file: `{"boxes": [{"phrase": …, "box": [x0, y0, x1, y1]}]}` in
    /// fractions, or COCO's `bbox: [x, y, width, height]` in pixels, with the image's `width` and `height`; or a file of
    /// COCO's annotations, such as `instances_val2017.json`, with `image_id`.
    #[serde(default)]
    pub layout_file: Option<PathBuf>,
    /// The image of a COCO file whose annotations are the layout; the phrases are the names of their categories.
    #[serde(default)]
    pub image_id: Option<u64>,
    /// Width of the image in pixels, a multiple of 8. By default the size that the model was trained on: 128 for
    /// `shapes/gligen`, 512 for Stable Diffusion 1.4. At much larger sizes the image no longer follows the layout.
    #[serde(default)]
    #[schemars(range(min = 8, max = 8192))]
    pub width: Option<u32>,
    /// Height of the image in pixels, a multiple of 8. By default the size that the model was trained on.
    #[serde(default)]
    #[schemars(range(min = 8, max = 8192))]
    pub height: Option<u32>,
    /// Seed of the noise. One seed gives the same image on every device, and the same as in diffusers. PyTorch's generator
    /// uses its low 32 bits; the Brownian noise of `conventions: comfyui` uses all 64.
    #[serde(default)]
    #[schemars(extend("x-role" = "seed"))]
    pub seed: u64,
    /// How many images.
    #[serde(flatten)]
    pub batch: BatchParams,
    /// The steps.
    #[serde(flatten)]
    pub steps: Steps,
    /// Scale of classifier-free guidance: how closely the image follows prompt and boxes. 1 or less disables it and is twice as
    /// fast; large values oversaturate colours. `shapes/gligen` is at its best near 3, Stable Diffusion near 7.5.
    #[serde(default = "cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
    /// Grounding slots of the model; slots without a box are null. Models are trained with 30. More slots take more time, and
    /// another number changes the image.
    #[serde(default = "slots")]
    #[schemars(range(min = 1, max = 256))]
    pub slots: u32,
    /// Share of the steps, from the first on, in which the model is grounded on the boxes (the paper's scheduled sampling,
    /// β). Lower it if objects look pasted in: the remaining steps follow the prompt only.
    #[serde(default = "beta")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta: f64,
    /// The fresh noise of the steps.
    #[serde(flatten)]
    pub fresh: Fresh,
}

fn cfg() -> f64 {
    3.0
}

fn slots() -> u32 {
    30
}

fn beta() -> f64 {
    1.0
}

sockets! {
    pub struct GligenLayoutInputs {
        /// The model that samples.
        pub model: Arc<Model> = ["gligen"],
    }
}

outputs! {
    pub struct GligenLayoutOutputs {
        /// The image.
        pub image: Arc<Image>,
        /// The sampled latent, of this model's autoencoder.
        pub latent: Arc<Latent> = model,
        /// The boxes and phrases.
        pub layout: Arc<Layout>,
    }
}

impl GligenLayout {
    fn layout(&self) -> LayoutParams<'_> {
        LayoutParams { boxes: self.boxes.as_deref(), file: self.layout_file.as_deref(), image_id: self.image_id }
    }
}

impl Node for GligenLayout {
    const TYPE: &'static str = "GLIGENLayout";
    const VERSION: u32 = 4;
    const LANE: Lane = Lane::Device;

    type Inputs = GligenLayoutInputs;
    type Outputs = GligenLayoutOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        let mut errors = self.layout().errors(self.slots, cx);
        errors.extend(self.fresh.errors(&self.steps));
        errors.extend(cfg_warnings(self.cfg, self.negative.is_some().then_some("negative")));
        let Phrases(phrases) = self.layout().phrases(cx);
        errors.extend(phrase_warnings(&self.prompt, &phrases));
        errors.extend(prompt_syntax::problems("prompt", &self.prompt));
        errors.extend(self.negative.iter().flat_map(|negative| prompt_syntax::problems("negative", negative)));
        errors
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let steps = self.steps.errors(self.fresh, Part::default(), links);
        let errors = sampling_errors(links).into_iter().chain(size_errors(self.width, self.height, links));
        errors.chain(steps).collect()
    }

    fn declare(&self, links: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let sides = self.width.or(trained_side(links)).zip(self.height.or(trained_side(links)));
        let size = sides.map(|(width, height)| ImageSize { width, height });
        let Phrases(phrases) = self.layout().phrases(cx);
        let (count, seed) = (self.batch.declared(links), Some(self.seed));
        let image = ImageInfo { size, phrases: phrases.clone(), count, seed, noise: LatentNoise::None };
        let images = declared("image", Some(image.clone())).into_iter().chain(declared("latent", Some(image)));
        images.chain(declared("layout", Some(Phrases(phrases)))).collect()
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        self.layout().files(cx)
    }

    fn run(&self, inputs: GligenLayoutInputs, cx: &Context) -> anyhow::Result<GligenLayoutOutputs> {
        cx.cancel().check()?;
        let model = &inputs.model.0;
        let layout = self.layout().objects(cx)?;
        let side = |given: Option<u32>| given.map_or(model.info.picture_size, |side| side as usize);
        let settings = SamplingSettings {
            prompt: prompt(&self.prompt, &None),
            negative: negative(&self.negative, &None),
            width: side(self.width),
            height: side(self.height),
            seed: self.seed,
            cfg: self.cfg,
            sampler: self.steps.settings(self.fresh, Part::default()),
            sizes: Sizes::default(),
            from: None,
            options: Default::default(),
            source: SourceImage::default(),
        };
        let slots = self.slots as usize;
        let count = self.batch.images(None)?;
        let on_step = on_step_with_previews(cx, &inputs.model, count);
        let z = pipeline::gligen(model, &settings, count, &layout, slots, self.beta, &on_step).map_err(raise)?;
        let latent = Latent { z, family: Some(model.info.family), seeds: seeds(self.seed, count) };
        Ok(GligenLayoutOutputs {
            image: Arc::new(decoded(&latent, &inputs.model, cx, &unless_cancelled(cx))?),
            latent: Arc::new(latent),
            layout: Arc::new(Layout(layout)),
        })
    }
}
