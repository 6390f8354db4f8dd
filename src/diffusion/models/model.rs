//! A model whose networks are loaded on first use, and the conditioning that it computes from prompts and layouts.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use candle_core::{D, DType, Device, Tensor};

use crate::layout::GroundedPhrase;
use crate::models::blueprint::{Blueprint, EncoderBlueprint};
use crate::models::gligen::Grounding;
use crate::models::prompt::{Chunk, Prompt, Sizes};
use crate::models::remat::GRADIENT_MEMORY;
use crate::models::text_encoder::TextEncoder;
use crate::models::unet::{Added, Conditioning, UNet};
use crate::models::vae::AutoencoderKl;
use crate::models::{Family, ModelInfo};
use crate::weights::Precision;
use crate::{Error, Result};

/// The aesthetic score on which SDXL's refiner is conditioned.
pub const AESTHETIC_SCORE: f32 = 6.0;

/// The same for the unconditional half of classifier-free guidance.
pub const NEGATIVE_AESTHETIC_SCORE: f32 = 2.5;

/// An encoded prompt.
#[derive(Clone, Debug)]
pub struct Text {
    /// Hidden states, (1, L, d).
    pub context: Tensor,
    /// Pooled and projected text of SDXL, (1, p).
    pub pooled: Option<Tensor>,
}

/// One of a model's networks, loaded on first use.
struct Network<T>(Mutex<Option<Arc<T>>>);

impl<T> Network<T> {
    /// Returns the network, and loads it if it is not in memory. `name` is for the log.
    fn get(&self, name: &str, load: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut network = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(network) = &*network {
            return Ok(network.clone());
        }
        let start = Instant::now();
        let loaded = Arc::new(tracing::debug_span!("load", network = name).in_scope(load)?);
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

/// A model: text encoders, U-Net and autoencoder.
pub struct Model {
    /// Family and sizes.
    pub info: ModelInfo,
    blueprint: Arc<Blueprint>,
    precision: Precision,
    offload: bool,
    gradient_memory: u64,
    unet: Network<UNet>,
    vae: Network<AutoencoderKl>,
    /// The autoencoder in f32, where the other one is in half precision.
    wide_vae: Network<AutoencoderKl>,
    encoders: Network<Vec<TextEncoder>>,
}

impl Model {
    /// Makes a model whose networks are loaded on first use. With `offload` only one of text encoders, U-Net and autoencoder
    /// is in memory at a time, but for [`Model::prefetch_vae`]; the others are loaded again when they are used again.
    pub fn new(blueprint: impl Into<Arc<Blueprint>>, precision: Precision, offload: bool) -> Self {
        let blueprint = blueprint.into();
        Model {
            info: blueprint.info.clone(),
            blueprint,
            precision,
            offload,
            gradient_memory: GRADIENT_MEMORY,
            unet: Network::default(),
            vae: Network::default(),
            wide_vae: Network::default(),
            encoders: Network::default(),
        }
    }

    /// Sets how many bytes of activations U-Net and autoencoder each keep for a backward pass, by default
    /// [`GRADIENT_MEMORY`]. The others are rematerialised, see [`UNet::with_gradient_memory`].
    pub fn with_gradient_memory(mut self, bytes: u64) -> Self {
        self.gradient_memory = bytes;
        self
    }

    /// The blueprint.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// The U-Net, loaded if necessary.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn unet(&self) -> Result<Arc<UNet>> {
        if self.offload {
            self.vae.release();
            self.wide_vae.release();
            self.encoders.release();
        }
        self.unet
            .get("unet", || Ok(self.blueprint.load_unet(&self.precision)?.with_gradient_memory(self.gradient_memory)))
    }

    /// The autoencoder, loaded if necessary.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn vae(&self) -> Result<Arc<AutoencoderKl>> {
        if self.offload {
            self.unet.release();
            self.encoders.release();
        }
        self.load_vae()
    }

    /// With offloading on a CUDA device, loads the autoencoder beside the U-Net, which has been given its last step: the weights
    /// are copied while the device computes. If that fails, for example without memory for both, [`Model::vae`] loads it.
    pub fn prefetch_vae(&self) {
        if self.offload
            && self.device().is_cuda()
            && let Err(error) = self.load_vae()
        {
            tracing::debug!(%error, "the autoencoder is not loaded ahead");
        }
    }

    fn load_vae(&self) -> Result<Arc<AutoencoderKl>> {
        self.vae.get("vae", || Ok(self.blueprint.load_vae(&self.precision)?.with_gradient_memory(self.gradient_memory)))
    }

    /// The autoencoder in at least f32, through which guidance differentiates: in f16 the gradient of Edges is off by 92 %
    /// (docs/cuda.md has the measurements).
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn wide_vae(&self) -> Result<Arc<AutoencoderKl>> {
        if !matches!(self.blueprint.vae_precision(&self.precision).compute, DType::F16 | DType::BF16) {
            return self.vae();
        }
        if self.offload {
            self.unet.release();
            self.encoders.release();
        }
        let precision = Precision::new(DType::F32, self.device());
        self.wide_vae
            .get("vae in f32", || Ok(self.blueprint.load_vae(&precision)?.with_gradient_memory(self.gradient_memory)))
    }

    fn encoders(&self) -> Result<Arc<Vec<TextEncoder>>> {
        if self.offload {
            self.unet.release();
            self.vae.release();
            self.wide_vae.release();
        }
        let load = |encoder: &EncoderBlueprint| {
            Ok(TextEncoder { tokenizer: encoder.tokenizer()?, model: encoder.load(&self.precision)? })
        };
        self.encoders.get("text encoders", || self.blueprint.encoders.iter().map(load).collect())
    }

    /// The bytes of memory that the weights of all networks take.
    pub fn bytes(&self) -> usize {
        self.blueprint.bytes(&self.precision)
    }

    /// The device of weights and activations.
    pub fn device(&self) -> &Device {
        &self.precision.device
    }

    /// The dtype of activations.
    pub fn dtype(&self) -> DType {
        self.precision.compute
    }

    /// Encodes a prompt. For SD1 and SD2 the context is the last hidden state; the encoder of SD2 lacks OpenCLIP's last layer. For SDXL it is the penultimate hidden states of both
    /// encoders side by side, with the pooled, projected text of the second encoder.
    ///
    /// A prompt longer than the encoder accepts is encoded in chunks, joined along the tokens: (1, n L, d). A weight scales
    /// the difference of a token's state from that of the empty text. The pooled text is that of the first chunk, without
    /// weights.
    ///
    /// # Errors
    /// If weights are too large, or the encoders cannot be loaded.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Text> {
        self.encode(prompt, None)
    }

    /// [`Model::encode_prompt`], with the states of the layer `clip_skip` from the end, as A1111's web UI counts: 1 is the
    /// last. By default 1 for SD1 and 2 for the others, whose networks were trained on the layer before the last.
    ///
    /// # Errors
    /// As [`Model::encode_prompt`], and if there is no such layer.
    pub fn encode(&self, prompt: &Prompt, clip_skip: Option<usize>) -> Result<Text> {
        let own = self.info.family.clip_skip();
        let skipped = clip_skip.unwrap_or(own).checked_sub(own).ok_or_else(|| {
            Error::input(format!("`clip_skip` must be at least {own}, as this family was trained, but is less"))
        })?;
        let encoders = self.encoders()?;
        let chunks = encoders.iter().enumerate().map(|(i, encoder)| encoder.chunks(prompt.of_encoder(i)));
        let mut chunks = chunks.collect::<Result<Vec<_>>>()?;
        let most = chunks.iter().map(Vec::len).max().unwrap_or(1);
        let mut states = Vec::new();
        let mut pooled = None;
        for (encoder, chunks) in encoders.iter().zip(&mut chunks) {
            chunks.resize(most, Chunk::new());
            let (context, text_embeds) = encoder.encode(chunks, self.info.family.is_xl(), skipped)?;
            states.push(context);
            pooled = text_embeds;
        }
        if !self.info.family.is_xl() {
            pooled = None;
        }
        Ok(Text { context: Tensor::cat(&states, D::Minus1)?, pooled })
    }

    /// The indices in the context of the words of `phrase` without a leading article, at their first occurrence.
    ///
    /// # Errors
    /// If the prompt does not have these words.
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

    /// The indices in the context of all words of a prompt, and of the first end of text.
    ///
    /// # Errors
    /// If the encoders cannot be loaded.
    pub fn words(&self, prompt: &Prompt) -> Result<Vec<usize>> {
        let encoders = self.encoders()?;
        let places = encoders[0].places(prompt.of_encoder(0))?;
        let end = places.last().map_or(0, |(_, place)| *place) + 1;
        Ok(places.into_iter().map(|(_, place)| place).chain([end]).collect())
    }

    /// Encodes a negative prompt. The default is zeros if the configuration of an SDXL model says so, otherwise the empty text.
    ///
    /// # Errors
    /// As [`Model::encode_prompt`].
    pub fn encode_negative(&self, negative: Option<&Prompt>, clip_skip: Option<usize>) -> Result<Text> {
        let text = self.encode(negative.unwrap_or(&Prompt::default()), clip_skip)?;
        if negative.is_some() || !self.blueprint.force_zeros {
            return Ok(text);
        }
        let pooled = text.pooled.map(|p| p.zeros_like()).transpose()?;
        Ok(Text { context: text.context.zeros_like()?, pooled })
    }

    /// The conditioning of a prompt for images of this size in pixels. By default SDXL's original and target size are this
    /// size, without crop.
    ///
    /// # Errors
    /// If the model has a property that samplings do not honour yet ([`ModelInfo::limits`]), or the device is out of memory.
    pub fn condition(&self, text: &Text, width: usize, height: usize, sizes: Sizes) -> Result<Conditioning> {
        if let Some(limit) = self.info.limits.first() {
            return Err(Error::input(format!("this model cannot be sampled: {}", limit.reason)));
        }
        self.condition_scored(text, width, height, sizes, AESTHETIC_SCORE)
    }

    /// Whether the U-Net takes the scale of classifier-free guidance as an input, as in latent consistency models.
    pub fn takes_guidance(&self) -> bool {
        self.blueprint.unet.0.time_cond_proj_dim.is_some()
    }

    /// [`Model::condition`] for every model, also one that no sampling honours yet. `score` is the aesthetic score that SDXL's
    /// refiner takes in place of the target size; other models ignore it. diffusers' defaults are [`AESTHETIC_SCORE`] and, for
    /// the unconditional half, [`NEGATIVE_AESTHETIC_SCORE`].
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn condition_scored(
        &self,
        text: &Text,
        width: usize,
        height: usize,
        sizes: Sizes,
        score: f32,
    ) -> Result<Conditioning> {
        let pair = |size: (usize, usize)| [size.1 as f32, size.0 as f32];
        let (original, crop) = (pair(sizes.original.unwrap_or((width, height))), pair(sizes.crop));
        let target = pair(sizes.target.unwrap_or((width, height)));
        let last = if self.info.family == Family::SdxlRefiner { &[score][..] } else { &target };
        let ids = [&original[..], &crop, last].concat();
        let added = text.pooled.as_ref().map(|pooled| -> Result<Added> {
            let time_ids = Tensor::new(&ids[..], self.device())?.unsqueeze(0)?;
            Ok(Added { text_embeds: pooled.clone(), time_ids })
        });
        Ok(Conditioning {
            context: text.context.clone(),
            added: added.transpose()?,
            objs: None,
            guidance: None,
            channels: None,
        })
    }

    /// Computes the grounding tokens (1, M, d) of a layout in `slots` slots, of which the unused ones are null. Without objects
    /// all are null, as in the unconditional half of classifier-free guidance.
    ///
    /// # Errors
    /// If there are more objects than slots, or the model accepts no layout.
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
        let mut parts = vec![];
        if !objects.is_empty() {
            let encoders = self.encoders()?;
            let encoder = &encoders[0];
            let ids = objects.iter().map(|o| encoder.tokenizer.encode(&o.phrase)).collect::<Result<Vec<_>>>()?;
            parts.push(encoder.model.forward(&ids)?.pooled);
        }
        // CUDA has no memory of 0 bytes, so that there is no tensor of no slots.
        if objects.len() < slots {
            parts.push(Tensor::zeros((slots - objects.len(), width), self.dtype(), self.device())?);
        }
        let embeddings = Tensor::cat(&parts, 0)?;
        self.unet()?.grounding_tokens(&Grounding {
            boxes: Tensor::from_vec(boxes, (1, slots, 4), self.device())?,
            embeddings: embeddings.unsqueeze(0)?,
            masks: Tensor::from_vec(masks, (1, slots), self.device())?.to_dtype(self.dtype())?,
        })
    }
}
