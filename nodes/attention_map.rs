//! AttentionMap.

use std::sync::Arc;

use lsregen_diffusion::image::{Resampling, heat, resize};
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::pipeline::{self, SamplingSettings};
use lsregen_engine::{Context, Lane, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::raise;
use crate::options::prompt;
use crate::values::{Image, Latent, Model, latent_faults};

/// Shows where a word of a prompt looks in a picture: the cross-attention of a model, as a picture.
///
/// The picture's latent is noised to `timestep`, and the model looks at it once. This is the paper's Figure 3: in Stable
/// Diffusion 1 the map of a word shows its object alone, in SDXL it shows the others as well.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttentionMap {
    /// The prompt of the picture.
    pub prompt: String,
    /// Words of that prompt, in the same order: the mean of their maps is shown.
    pub phrase: String,
    /// How noisy the picture is when it is looked at, between 0 (clean) and 999 (noise).
    #[serde(default = "timestep")]
    #[schemars(range(min = 0.0, max = 999.0))]
    pub timestep: f64,
    /// The resolution that is shown: latent pixels a side of one pixel of the map. 2 or 4 shows most; a network that has
    /// none of it says which it has.
    #[serde(default = "downscale")]
    #[schemars(range(min = 1, max = 64))]
    pub downscale: u32,
    /// Seed of the noise; its low 32 bits count.
    #[serde(default)]
    pub seed: u64,
    /// How much of the map is laid over the picture, where one is linked to `image`; 1 covers it.
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
        /// The model that looks.
        pub model: Arc<Model>,
        /// The picture's latent, of that model.
        pub latent: Arc<Latent>,
        /// The picture, to lay the map over it. Without one the map stands alone.
        pub image: Option<Arc<Image>>,
    }
}

outputs! {
    pub struct AttentionMapOutputs {
        /// The map in colours, in the size of the picture: from black, where the words do not look, to light yellow.
        pub image: Arc<Image>,
    }
}

impl Node for AttentionMap {
    const TYPE: &'static str = "AttentionMap";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Device;

    type Inputs = AttentionMapInputs;
    type Outputs = AttentionMapOutputs;

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        latent_faults(links)
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
            steps: 1,
            cfg: 1.0,
            sampler: Default::default(),
            eta: 0.0,
            sizes: Sizes::default(),
        };
        let downscale = self.downscale as usize;
        let map = pipeline::attention_map(model, &z0, &settings, &self.phrase, self.timestep, downscale);
        let map = map.and_then(|map| resize(&map, height, width, Resampling::Bicubic)).and_then(|map| heat(&map));
        let mut picture = map.map_err(raise)?.to_device(&lsregen_diffusion::candle_core::Device::Cpu)?;
        if let Some(image) = &inputs.image {
            let ground = resize(&image.0, height, width, Resampling::Bicubic).map_err(raise)?;
            picture = ((picture * self.opacity)? + (ground * (1.0 - self.opacity))?)?;
        }
        Ok(AttentionMapOutputs { image: Arc::new(Image(picture.clamp(-1f32, 1f32)?)) })
    }
}
