//! Whole models in diffusers' folder layout: text encoders, U-Net, autoencoder and the sampler's settings.
//!
//! Knows what a prompt and a layout become for each family of models. Knows no sampler.

pub mod bands;
pub mod clip;
pub mod config;
pub mod gligen;
pub mod layers;
pub mod resnet;
pub mod tokenizer;
pub mod transformer;
pub mod unet;
pub mod vae;

use candle_core::{D, DType, Device, Tensor};
use serde::Deserialize;

use crate::layout::GroundedPhrase;
use crate::models::clip::ClipTextModel;
use crate::models::config::{AttentionType, ClipTextConfig, UNetConfig, VaeConfig};
use crate::models::gligen::Grounding;
use crate::models::tokenizer::ClipTokenizer;
use crate::models::unet::{Added, Conditioning, UNet};
use crate::models::vae::AutoencoderKl;
use crate::schedule::{NoiseSchedule, SchedulerConfig};
use crate::weights::{ModelFiles, Weights};
use crate::{Error, Result};

/// Kinds of models, told apart by their configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion 1.x: one text encoder.
    Sd1,
    /// Stable Diffusion 1.x with GLIGEN's grounding.
    Gligen,
    /// SDXL: two text encoders, pooled text and sizes.
    Sdxl,
}

impl Family {
    /// Short name, as in messages: `sd1`, `gligen`, `sdxl`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Sd1 => "sd1",
            Family::Gligen => "gligen",
            Family::Sdxl => "sdxl",
        }
    }

    /// The reverse of [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        [Family::Sd1, Family::Gligen, Family::Sdxl].into_iter().find(|f| f.name() == name)
    }

    /// Whether latents of both families mean the same: GLIGEN's are those of the SD1 model that it grew from.
    pub fn shares_latents(self, other: Family) -> bool {
        (self == Family::Sdxl) == (other == Family::Sdxl)
    }

    /// Folders of the tokenizers and their text encoders.
    fn encoders(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Family::Sdxl => &[("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")],
            _ => &[("tokenizer", "text_encoder")],
        }
    }

    fn of(config: &UNetConfig) -> Self {
        match (config.text_time, config.attention_type) {
            (Some(_), _) => Family::Sdxl,
            (None, AttentionType::Default) => Family::Sd1,
            (None, _) => Family::Gligen,
        }
    }
}

/// What can be said of a model without loading its weights.
#[derive(Clone, Copy, Debug)]
pub struct ModelInfo {
    /// Its kind.
    pub family: Family,
    /// Side in pixels of the pictures that it was trained on.
    pub picture_size: usize,
    /// Width and height must be multiples of this many pixels.
    pub size_step: usize,
}

impl ModelInfo {
    /// Reads the configuration files alone.
    pub fn inspect(files: &ModelFiles) -> Result<Self> {
        Ok(Self::of(&UNetConfig::read(files)?, &VaeConfig::read(files)?))
    }

    fn of(unet: &UNetConfig, vae: &VaeConfig) -> Self {
        let downscale = vae.downscale();
        ModelInfo { family: Family::of(unet), picture_size: unet.sample_size * downscale, size_step: downscale }
    }
}

/// The weights files of a model, or why one is not there.
fn weights(files: &ModelFiles, family: Family) -> impl Iterator<Item = Result<String>> {
    let networks = [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")];
    let encoders = family.encoders().iter().map(|(_, folder)| (*folder, "model"));
    networks.into_iter().chain(encoders).map(|(folder, stem)| files.safetensors(folder, stem))
}

/// Every file that [`Model::load`] reads and that is there, as paths inside the model.
pub fn files(files: &ModelFiles) -> Vec<String> {
    let family = UNetConfig::read(files).map_or(Family::Sd1, |c| Family::of(&c));
    let mut paths: Vec<String> =
        ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"]
            .map(String::from)
            .into();
    for (tokenizer, encoder) in family.encoders() {
        paths.push(format!("{encoder}/config.json"));
        paths.extend(tokenizer::FILES.iter().map(|name| format!("{tokenizer}/{name}")));
    }
    paths.extend(weights(files, family).flatten());
    paths.retain(|path| files.has(path));
    paths
}

/// All that keeps a model from being loaded, as far as its configuration files tell: their content, and whether what
/// they ask for is there. Reads no weights.
pub fn faults(files: &ModelFiles) -> Vec<Error> {
    let mut faults = Vec::new();
    let unet = UNetConfig::read(files).map_err(|e| faults.push(e)).ok();
    faults.extend(VaeConfig::read(files).err());
    let scheduler = files.json("scheduler/scheduler_config.json").and_then(|c| NoiseSchedule::new(&c));
    faults.extend(scheduler.err());
    let Some(unet) = unet else { return faults };
    let family = Family::of(&unet);
    for (tokenizer, encoder) in family.encoders() {
        faults.extend(ClipTextConfig::read(files, encoder).err());
        for name in tokenizer::NEEDED {
            let path = format!("{tokenizer}/{name}");
            if !files.has(&path) {
                faults.push(Error::Config(format!("{}: no such file", files.label(&path))));
            }
        }
    }
    faults.extend(weights(files, family).filter_map(Result::err));
    faults
}

/// A prompt, encoded: (1, L, d), and for SDXL the pooled text (1, p).
#[derive(Clone, Debug)]
pub struct Text {
    /// Hidden states.
    pub context: Tensor,
    /// Pooled and projected text.
    pub pooled: Option<Tensor>,
}

struct TextEncoder {
    tokenizer: ClipTokenizer,
    model: ClipTextModel,
}

#[derive(Deserialize)]
struct ModelIndex {
    #[serde(default = "yes")]
    force_zeros_for_empty_prompt: bool,
}

fn yes() -> bool {
    true
}

/// A model: everything between a prompt and a picture but the sampling itself.
pub struct Model {
    /// Kind and sizes.
    pub info: ModelInfo,
    /// The denoiser's network.
    pub unet: UNet,
    /// Pictures to latents and back.
    pub vae: AutoencoderKl,
    /// The sampler's settings.
    pub scheduler: SchedulerConfig,
    encoders: Vec<TextEncoder>,
    force_zeros: bool,
    bytes: usize,
    dtype: DType,
    device: Device,
}

impl Model {
    /// Loads a model; weights are converted to `dtype` and moved to `device`.
    pub fn load(files: &ModelFiles, dtype: DType, device: &Device) -> Result<Self> {
        let unet = UNet::load(files, dtype, device)?;
        let vae = AutoencoderKl::load(files, dtype, device)?;
        let info = ModelInfo::of(unet.config(), vae.config());
        if unet.config().in_channels != vae.config().latent_channels {
            return Err(Error::Config(format!(
                "{}: the U-Net takes {} channels where the autoencoder's latents have {} (an inpainting model?)",
                files.label("unet/config.json"),
                unet.config().in_channels,
                vae.config().latent_channels
            )));
        }
        let encoders = info.family.encoders().iter().map(|(tokenizer, encoder)| {
            let longest = ClipTextConfig::read(files, encoder)?.max_position_embeddings;
            Ok(TextEncoder {
                tokenizer: ClipTokenizer::load(files, tokenizer, longest)?,
                model: ClipTextModel::load(files, encoder, dtype, device)?,
            })
        });
        let force_zeros = match info.family {
            Family::Sdxl if files.has("model_index.json") => {
                files.json::<ModelIndex>("model_index.json")?.force_zeros_for_empty_prompt
            }
            Family::Sdxl => true,
            _ => false,
        };
        let bytes = weights(files, info.family)
            .map(|path| Ok(Weights::open(files, &path?, dtype, device)?.bytes()))
            .sum::<Result<usize>>()?;
        Ok(Model {
            info,
            encoders: encoders.collect::<Result<_>>()?,
            scheduler: files.json("scheduler/scheduler_config.json")?,
            unet,
            vae,
            force_zeros,
            bytes,
            dtype,
            device: device.clone(),
        })
    }

    /// Memory of the weights.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype of the weights.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Encodes a prompt. SD1: the last hidden state. SDXL: both penultimate hidden states side by side, and the second
    /// encoder's pooled, projected text.
    pub fn encode_prompt(&self, prompt: &str) -> Result<Text> {
        let mut states = Vec::new();
        let mut pooled = None;
        for encoder in &self.encoders {
            let text = encoder.model.forward(&[encoder.tokenizer.encode(prompt)?])?;
            match self.info.family {
                Family::Sdxl => {
                    states.push(text.penultimate);
                    pooled = text.text_embeds;
                }
                _ => states.push(text.last_hidden_state),
            }
        }
        if self.info.family == Family::Sdxl && pooled.is_none() {
            return Err(Error::Config("text_encoder_2: an SDXL model's second text encoder needs a projection".into()));
        }
        Ok(Text { context: Tensor::cat(&states, D::Minus1)?, pooled })
    }

    /// Encodes a negative prompt. Where none is given, SDXL's is zero if the model asks for it, else the empty text.
    pub fn encode_negative(&self, negative: Option<&str>) -> Result<Text> {
        let text = self.encode_prompt(negative.unwrap_or(""))?;
        if negative.is_some() || !self.force_zeros {
            return Ok(text);
        }
        let pooled = text.pooled.map(|p| p.zeros_like()).transpose()?;
        Ok(Text { context: text.context.zeros_like()?, pooled })
    }

    /// A prompt's conditioning for pictures of this many pixels. SDXL is told the size as original and as target size,
    /// without crop.
    pub fn condition(&self, text: &Text, width: usize, height: usize) -> Result<Conditioning> {
        let (w, h) = (width as f32, height as f32);
        let added = text.pooled.as_ref().map(|pooled| -> Result<Added> {
            Ok(Added { text_embeds: pooled.clone(), time_ids: Tensor::new(&[[h, w, 0., 0., h, w]], &self.device)? })
        });
        Ok(Conditioning { context: text.context.clone(), added: added.transpose()?, objs: None })
    }

    /// Grounding tokens (1, M, d) of a layout in `slots` slots, the unused ones null. All-null without objects, which
    /// is what the unconditional half of classifier-free guidance sees.
    pub fn ground(&self, objects: &[GroundedPhrase], slots: usize) -> Result<Tensor> {
        if objects.len() > slots {
            return Err(Error::input(format!("{} boxes do not fit in {slots} grounding slots", objects.len())));
        }
        let width = self.unet.config().cross_attention_dim;
        let mut boxes = vec![0f32; slots * 4];
        let mut masks = vec![0f32; slots];
        for (i, object) in objects.iter().enumerate() {
            boxes[4 * i..4 * i + 4].copy_from_slice(&object.bounds);
            masks[i] = 1.0;
        }
        let null = Tensor::zeros((slots - objects.len(), width), self.dtype, &self.device)?;
        let embeddings = if objects.is_empty() {
            null
        } else {
            let encoder = &self.encoders[0];
            let ids = objects.iter().map(|o| encoder.tokenizer.encode(&o.phrase)).collect::<Result<Vec<_>>>()?;
            Tensor::cat(&[encoder.model.forward(&ids)?.pooled, null], 0)?
        };
        self.unet.grounding_tokens(&Grounding {
            boxes: Tensor::from_vec(boxes, (1, slots, 4), &self.device)?.to_dtype(self.dtype)?,
            embeddings: embeddings.unsqueeze(0)?,
            masks: Tensor::from_vec(masks, (1, slots), &self.device)?.to_dtype(self.dtype)?,
        })
    }
}
