//! AttentionMap.

use std::sync::Arc;

use lsregen_diffusion::models::ModelInfo;
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::pipeline::{self, SamplingSettings};
use lsregen_diffusion::sampler::{SamplerKind, SamplerSettings};
use lsregen_diffusion::source::SourceImage;
use lsregen_engine::{CheckContext, Context, Declaration, Lane, Links, Node, NodeError, outputs, sockets};
use lsregen_tensor::image::{Resampling, heat, resize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::params::leftover::noisy_warning;
use crate::params::needs::has_words;
use crate::params::sampling::prompt;
use crate::values::{
    Image, ImageInfo, Latent, Model, batch_errors, declared, downscale_error, latent_errors, sampling_errors,
};

/// Shows the cross-attention between a phrase of a prompt and an image, as an image.
///
/// The latent of the image is noised to `timestep`, and the network is called once. This is the paper's Figure 3: in Stable
/// Diffusion 1 the map of a word shows only its object, in SDXL it shows other objects too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttentionMap {
    /// The prompt of the image.
    pub prompt: String,
    /// Words of that prompt, in the same order. The result is the mean of their maps.
    pub phrase: String,
    /// The timestep to which the latent is noised, between 0 (clean) and 999 (noise).
    #[serde(default = "timestep")]
    #[schemars(range(min = 0.0, max = 999.0))]
    pub timestep: f64,
    /// The resolution of the map: the number of latent pixels along the side of one of its pixels. 2 or 4 is the most
    /// informative. If the network has no such resolution, the error lists those that it has.
    #[serde(default = "downscale")]
    #[schemars(range(min = 1, max = 64))]
    pub downscale: u32,
    /// Seed of the noise; only its low 32 bits are used.
    #[serde(default)]
    #[schemars(extend("x-role" = "seed"))]
    pub seed: u64,
    /// Opacity of the map over the image that is linked to `image`; 1 covers the image.
    #[serde(default = "opacity")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub opacity: f64,
}

fn timestep() -> f64 {
    501.0
}

fn downscale() -> u32 {
    2
}

fn opacity() -> f64 {
    0.7
}

sockets! {
    pub struct AttentionMapInputs {
        /// The model whose attention is shown.
        pub model: Arc<Model>,
        /// The latent of the image, of that model.
        pub latent: Arc<Latent>,
        /// The image under the map. By default the map has no background.
        pub image: Option<Arc<Image>>,
    }
}

outputs! {
    pub struct AttentionMapOutputs {
        /// The map in the size of the image, in colours from black (no attention) to light yellow.
        pub image: Arc<Image>,
    }
}

impl Node for AttentionMap {
    const TYPE: &'static str = "AttentionMap";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Device;

    type Inputs = AttentionMapInputs;
    type Outputs = AttentionMapOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        let error = if self.phrase.trim().is_empty() {
            NodeError::new("phrase", "`phrase` is empty").help("give words of the prompt")
        } else if !has_words(&self.prompt, &self.phrase) {
            NodeError::new("phrase", format!("the prompt does not contain `{}`", self.phrase))
                .help("write words of the prompt, in the same order")
        } else {
            return vec![];
        };
        vec![error]
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let batches = batch_errors(links, ["latent", "image"]);
        let latents = latent_errors(links).into_iter().chain(batches);
        let Some(model) = links.declaration::<ModelInfo>("model") else { return latents.collect() };
        let last = model.scheduler.num_train_timesteps as f64 - 1.0;
        let beyond = (self.timestep > last).then(|| {
            NodeError::new("timestep", format!("`timestep` is {}, but the model's last one is {last}", self.timestep))
                .help(format!("write at most {last}"))
        });
        let downscale = downscale_error(model, "downscale", "this node", self.downscale);
        let errors = sampling_errors(links).into_iter().chain(latents).chain(noisy_warning(links, "latent"));
        errors.chain(beyond).chain(downscale).collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let size = ImageInfo::of(links, "latent").size;
        declared("image", Some(ImageInfo { size, count: Some(1), ..ImageInfo::default() }))
    }

    fn run(&self, inputs: AttentionMapInputs, cx: &Context) -> anyhow::Result<AttentionMapOutputs> {
        cx.cancel().check()?;
        let model = &inputs.model.0;
        let z0 = inputs.latent.of(&inputs.model)?.to_device(model.device()).map_err(|error| raise(error.into()))?;
        let (_, _, h, w) = z0.dims4()?;
        let (height, width) = (h * model.info.size_step, w * model.info.size_step);
        let settings = SamplingSettings {
            prompt: prompt(&self.prompt, &None),
            negative: None,
            width,
            height,
            seed: self.seed,
            cfg: 1.0,
            sampler: SamplerSettings::new(SamplerKind::Ddim, 1),
            sizes: Sizes::default(),
            from: None,
            options: Default::default(),
            source: SourceImage::default(),
        };
        let downscale = self.downscale as usize;
        let map = pipeline::attention_map(model, &z0, &settings, &self.phrase, self.timestep, downscale);
        let map = map.and_then(|map| resize(&map, height, width, Resampling::Bicubic)).and_then(|map| heat(&map));
        let mut picture = map.map_err(raise)?.to_device(&lsregen_tensor::candle_core::Device::Cpu)?;
        if let Some(image) = &inputs.image {
            let ground = resize(&image.tensor()?, height, width, Resampling::Bicubic).map_err(raise)?;
            picture = ((picture * self.opacity)? + (ground * (1.0 - self.opacity))?)?;
        }
        Ok(AttentionMapOutputs { image: Arc::new(Image::Float(picture.clamp(-1f32, 1f32)?)) })
    }
}
