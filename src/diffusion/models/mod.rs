//! Whole models: text encoders, U-Net, autoencoder and the sampler's settings.
//!
//! A [`Blueprint`] says what a model is made of; a [`Model`] loads its networks when they are wanted. Knows what a prompt
//! and a layout become for each family of models. Knows no sampler.

pub mod attention_maps;
pub mod bands;
pub mod blueprint;
pub mod checkpoint;
pub mod clip;
pub mod clip_pair;
pub mod clip_picture;
pub mod clip_vision;
pub mod config;
pub mod gligen;
pub mod layers;
mod pass;
pub mod prompt;
pub mod resnet;
pub mod survey;
pub mod tokenizer;
pub mod transformer;
pub mod unet;
pub mod vae;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use candle_core::{D, DType, Device, Tensor};

use crate::layout::GroundedPhrase;
use crate::models::blueprint::EncoderBlueprint;
use crate::models::checkpoint::GRADIENT_MEMORY;
use crate::models::clip::ClipTextModel;
use crate::models::config::{AttentionType, UNetConfig, VaeConfig};
use crate::models::gligen::Grounding;
use crate::models::prompt::{Chunk, Group, Prompt, Sizes};
use crate::models::tokenizer::ClipTokenizer;
use crate::models::unet::{Added, Conditioning, UNet};
use crate::models::vae::AutoencoderKl;
use crate::schedule::SchedulerConfig;
use crate::weights::{ModelFiles, Numbers};
use crate::{Error, Result};

pub use blueprint::{Blueprint, ModelSource, Place, Problem};
pub use survey::Survey;

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

    pub(crate) fn of(config: &UNetConfig) -> Self {
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
    /// Reads a folder's configuration files alone.
    pub fn inspect(files: &ModelFiles) -> Result<Self> {
        Ok(Self::of(&UNetConfig::read(files)?, &VaeConfig::read(files)?))
    }

    pub(crate) fn of(unet: &UNetConfig, vae: &VaeConfig) -> Self {
        let downscale = vae.downscale();
        ModelInfo { family: Family::of(unet), picture_size: unet.sample_size * downscale, size_step: downscale }
    }
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

impl TextEncoder {
    /// A prompt's weighted tokens in chunks that the encoder takes; at least one.
    fn chunks(&self, prompt: &str) -> Result<Vec<Chunk>> {
        let groups = prompt::parse(prompt).into_iter().map(|segment| {
            let weight = segment.weight as f32;
            if !weight.is_finite() {
                return Err(Error::input(format!(
                    "prompt: {:?} weighs too much to be computed with; take away some of the parentheses around it",
                    segment.text
                )));
            }
            Ok(Group { ids: self.tokenizer.tokens(&segment.text)?, weight })
        });
        Ok(prompt::chunks(&groups.collect::<Result<Vec<_>>>()?, self.tokenizer.room()))
    }

    /// A prompt's tokens, each with its place among those of the context.
    fn places(&self, prompt: &str) -> Result<Vec<(u32, usize)>> {
        let length = self.tokenizer.max_length();
        let chunks = self.chunks(prompt)?;
        let placed = |(i, chunk): (usize, &Chunk)| -> Vec<(u32, usize)> {
            chunk.iter().enumerate().map(|(j, (id, _))| (*id, i * length + 1 + j)).collect()
        };
        Ok(chunks.iter().enumerate().flat_map(placed).collect())
    }

    /// Weighted hidden states (1, n L, d) of n chunks of L tokens, and the pooled, projected text (1, p) of the first.
    fn encode(&self, chunks: &[Chunk], penultimate: bool) -> Result<(Tensor, Option<Tensor>)> {
        let weighted = chunks.iter().flatten().any(|(_, weight)| *weight != 1.0);
        let mut ids: Vec<_> = chunks.iter().map(|c| self.tokenizer.frame(c.iter().map(|(id, _)| *id))).collect();
        if weighted {
            ids.push(self.tokenizer.frame([]));
        }
        let text = self.model.forward(&ids)?;
        let states = if penultimate { text.penultimate } else { text.last_hidden_state };
        let n = chunks.len();
        let mut context = states.narrow(0, 0, n)?;
        if weighted {
            context = weigh(&context, &states.narrow(0, n, 1)?, chunks)?;
        }
        let (_, l, d) = context.dims3()?;
        Ok((context.reshape((1, n * l, d))?, text.text_embeds.map(|t| t.narrow(0, 0, 1)).transpose()?))
    }
}

/// z w + z_empty (1 − w), with each token's weight w: exactly z where w = 1. `states` (n, L, d) of n chunks, `empty`
/// (1, L, d) of the empty text.
fn weigh(states: &Tensor, empty: &Tensor, chunks: &[Chunk]) -> Result<Tensor> {
    let (n, l, _) = states.dims3()?;
    let mut weights = vec![1f32; n * l];
    for (row, chunk) in weights.chunks_exact_mut(l).zip(chunks) {
        // Begin of text comes first, and weighs 1 as end and padding do.
        row.iter_mut().skip(1).zip(chunk).for_each(|(weight, token)| *weight = token.1);
    }
    let weights = Tensor::from_vec(weights, (n, l, 1), states.device())?;
    let (z, empty) = (states.to_dtype(DType::F32)?, empty.to_dtype(DType::F32)?);
    let z = (z.broadcast_mul(&weights)? + empty.broadcast_mul(&(1.0 - weights)?)?)?.to_dtype(states.dtype())?;
    let size = z.to_dtype(DType::F32)?.abs()?.max_all()?.to_scalar::<f32>()?;
    if !size.is_finite() {
        return Err(Error::input("prompt: its weights are too large to be computed with; weights lie near 1"));
    }
    Ok(z)
}

/// One of a model's networks, loaded when it is first wanted.
struct Network<T>(Mutex<Option<Arc<T>>>);

impl<T> Network<T> {
    /// The network, which `load` loads if it is not in memory; `name` is for the log.
    fn get(&self, name: &str, load: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut network = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(network) = &*network {
            return Ok(network.clone());
        }
        let start = Instant::now();
        let loaded = Arc::new(load()?);
        tracing::info!(network = name, duration = ?start.elapsed(), "loaded weights");
        *network = Some(loaded.clone());
        Ok(loaded)
    }

    fn release(&self) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

impl<T> Default for Network<T> {
    fn default() -> Self {
        Network(Mutex::default())
    }
}

/// A model: everything between a prompt and a picture but the sampling itself.
pub struct Model {
    /// Kind and sizes.
    pub info: ModelInfo,
    /// The sampler's settings.
    pub scheduler: SchedulerConfig,
    blueprint: Blueprint,
    numbers: Numbers,
    offload: bool,
    gradient_memory: u64,
    unet: Network<UNet>,
    vae: Network<AutoencoderKl>,
    encoders: Network<Vec<TextEncoder>>,
}

impl Model {
    /// A model whose networks are loaded when they are wanted. With `offload` only one of text encoders, U-Net and
    /// autoencoder is in memory at a time: the others are read from their files again when they are wanted again.
    pub fn new(blueprint: Blueprint, numbers: Numbers, offload: bool) -> Self {
        Model {
            info: blueprint.info,
            scheduler: blueprint.scheduler.clone(),
            blueprint,
            numbers,
            offload,
            gradient_memory: GRADIENT_MEMORY,
            unet: Network::default(),
            vae: Network::default(),
            encoders: Network::default(),
        }
    }

    /// With so many bytes for what each of U-Net and autoencoder keeps for a gradient through it, by default
    /// [`GRADIENT_MEMORY`]: what does not fit is computed again, see [`UNet::with_gradient_memory`].
    pub fn with_gradient_memory(mut self, bytes: u64) -> Self {
        self.gradient_memory = bytes;
        self
    }

    /// What it is made of.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// The denoiser's network.
    pub fn unet(&self) -> Result<Arc<UNet>> {
        if self.offload {
            self.vae.release();
            self.encoders.release();
        }
        self.unet
            .get("unet", || Ok(self.blueprint.load_unet(&self.numbers)?.with_gradient_memory(self.gradient_memory)))
    }

    /// Pictures to latents and back.
    pub fn vae(&self) -> Result<Arc<AutoencoderKl>> {
        if self.offload {
            self.unet.release();
            self.encoders.release();
        }
        self.vae.get("vae", || Ok(self.blueprint.load_vae(&self.numbers)?.with_gradient_memory(self.gradient_memory)))
    }

    fn encoders(&self) -> Result<Arc<Vec<TextEncoder>>> {
        if self.offload {
            self.unet.release();
            self.vae.release();
        }
        let load = |encoder: &EncoderBlueprint| {
            Ok(TextEncoder { tokenizer: encoder.tokenizer()?, model: encoder.load(&self.numbers)? })
        };
        self.encoders.get("text encoders", || self.blueprint.encoders.iter().map(load).collect())
    }

    /// Memory of the weights, all networks together.
    pub fn bytes(&self) -> usize {
        self.blueprint.bytes(&self.numbers)
    }

    /// Where everything is computed.
    pub fn device(&self) -> &Device {
        &self.numbers.device
    }

    /// The dtype in which everything is computed.
    pub fn dtype(&self) -> DType {
        self.numbers.compute
    }

    /// Encodes a prompt. SD1: the last hidden state. SDXL: both penultimate hidden states side by side, and the second
    /// encoder's pooled, projected text.
    ///
    /// A prompt longer than the encoder is encoded in chunks, joined along the tokens: (1, n L, d). Weights draw each
    /// token's state away from that of the empty text, or towards it. The pooled text is that of the first chunk and
    /// knows no weights.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Text> {
        let encoders = self.encoders()?;
        let chunks = encoders.iter().enumerate().map(|(i, encoder)| encoder.chunks(prompt.of_encoder(i)));
        let mut chunks = chunks.collect::<Result<Vec<_>>>()?;
        let most = chunks.iter().map(Vec::len).max().unwrap_or(1);
        let mut states = Vec::new();
        let mut pooled = None;
        for (encoder, chunks) in encoders.iter().zip(&mut chunks) {
            chunks.resize(most, Chunk::new());
            let (context, text_embeds) = encoder.encode(chunks, self.info.family == Family::Sdxl)?;
            states.push(context);
            pooled = text_embeds;
        }
        if self.info.family != Family::Sdxl {
            pooled = None;
        }
        Ok(Text { context: Tensor::cat(&states, D::Minus1)?, pooled })
    }

    /// Where the words of `phrase` stand among the tokens of a prompt's context, without a leading article. Where they
    /// stand several times, the first counts.
    ///
    /// Errors if the prompt has no such words.
    pub fn positions(&self, prompt: &Prompt, phrase: &str) -> Result<Vec<usize>> {
        let encoders = self.encoders()?;
        let encoder = &encoders[0];
        let (tokens, places): (Vec<u32>, Vec<usize>) = encoder.places(prompt.of_encoder(0))?.into_iter().unzip();
        let words = phrase.trim();
        let bare = ["a ", "an ", "the "].iter().find_map(|article| words.strip_prefix(article)).unwrap_or(words);
        let wanted = encoder.tokenizer.tokens(bare)?;
        let found = (!wanted.is_empty()).then(|| tokens.windows(wanted.len()).position(|w| w == wanted)).flatten();
        match found {
            Some(at) => Ok(places[at..at + wanted.len()].to_vec()),
            None => Err(Error::input(format!(
                "the prompt {:?} does not have the words {bare:?}: a guidance by attention can only move what the prompt \
                 names in the same words",
                prompt.of_encoder(0)
            ))),
        }
    }

    /// Where all of a prompt's words stand among the tokens of its context, and where the first end of text stands.
    pub fn words(&self, prompt: &Prompt) -> Result<Vec<usize>> {
        let encoders = self.encoders()?;
        let places = encoders[0].places(prompt.of_encoder(0))?;
        let end = places.last().map_or(0, |(_, place)| *place) + 1;
        Ok(places.into_iter().map(|(_, place)| place).chain([end]).collect())
    }

    /// Encodes a negative prompt. Where none is given, SDXL's is zero if the model asks for it, else the empty text.
    pub fn encode_negative(&self, negative: Option<&Prompt>) -> Result<Text> {
        let text = self.encode_prompt(negative.unwrap_or(&Prompt::default()))?;
        if negative.is_some() || !self.blueprint.force_zeros {
            return Ok(text);
        }
        let pooled = text.pooled.map(|p| p.zeros_like()).transpose()?;
        Ok(Text { context: text.context.zeros_like()?, pooled })
    }

    /// A prompt's conditioning for pictures of this many pixels. SDXL is told their size as original and as target size,
    /// and no crop, unless `sizes` says otherwise.
    pub fn condition(&self, text: &Text, width: usize, height: usize, sizes: Sizes) -> Result<Conditioning> {
        let pair = |size: (usize, usize)| [size.1 as f32, size.0 as f32];
        let ([h0, w0], [top, left]) = (pair(sizes.original.unwrap_or((width, height))), pair(sizes.crop));
        let [h1, w1] = pair(sizes.target.unwrap_or((width, height)));
        let added = text.pooled.as_ref().map(|pooled| -> Result<Added> {
            let time_ids = Tensor::new(&[[h0, w0, top, left, h1, w1]], self.device())?;
            Ok(Added { text_embeds: pooled.clone(), time_ids })
        });
        Ok(Conditioning { context: text.context.clone(), added: added.transpose()?, objs: None })
    }

    /// Grounding tokens (1, M, d) of a layout in `slots` slots, the unused ones null. All-null without objects, which
    /// is what the unconditional half of classifier-free guidance sees.
    pub fn ground(&self, objects: &[GroundedPhrase], slots: usize) -> Result<Tensor> {
        if objects.len() > slots {
            return Err(Error::input(format!("{} boxes do not fit in {slots} grounding slots", objects.len())));
        }
        let width = self.blueprint.unet.0.cross_attention_dim;
        let mut boxes = vec![0f32; slots * 4];
        let mut masks = vec![0f32; slots];
        for (i, object) in objects.iter().enumerate() {
            boxes[4 * i..4 * i + 4].copy_from_slice(&object.bounds);
            masks[i] = 1.0;
        }
        let null = Tensor::zeros((slots - objects.len(), width), self.dtype(), self.device())?;
        let embeddings = if objects.is_empty() {
            null
        } else {
            let encoders = self.encoders()?;
            let encoder = &encoders[0];
            let ids = objects.iter().map(|o| encoder.tokenizer.encode(&o.phrase)).collect::<Result<Vec<_>>>()?;
            Tensor::cat(&[encoder.model.forward(&ids)?.pooled, null], 0)?
        };
        self.unet()?.grounding_tokens(&Grounding {
            boxes: Tensor::from_vec(boxes, (1, slots, 4), self.device())?.to_dtype(self.dtype())?,
            embeddings: embeddings.unsqueeze(0)?,
            masks: Tensor::from_vec(masks, (1, slots), self.device())?.to_dtype(self.dtype())?,
        })
    }
}
