//! The denoising U-Net of Stable Diffusion 1 and 2, GLIGEN, SDXL and models like them (diffusers' `UNet2DConditionModel`).

mod attention_maps;
mod block;
mod conditioning;
mod constants;
mod embedding;
mod freeu;
mod level;
mod options;
mod pass;
#[cfg(feature = "cuda")]
mod replays;
mod transformer;

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use crate::models::config::{AttentionType, UNetConfig, UNetInput};
use crate::models::gligen::{Grounding, PositionNet};
use crate::models::launch;
use crate::models::layers::{Conv2d, GroupNorm};
use crate::models::remat::{GRADIENT_MEMORY, RematBudget};
use crate::models::resnet::{Head, upsample};
use crate::weights::Weights;
use crate::{Error, Result, ops};
use attention_maps::Recorder;
use embedding::{Embedding, GuidanceEmbedding, sinusoidal};
use level::{Level, Mid, temb_width};
use pass::Pass;

pub use attention_maps::{AttentionKind, AttentionLayer, AttentionMap, UNetBlock};
pub use conditioning::{Added, Conditioning};
pub use constants::{UNetConstant, UNetConstants};
pub use embedding::LCM_GUIDANCE;
pub use freeu::FreeU;
pub use options::{PassOptions, Perturbed};

/// The U-Net.
pub struct UNet {
    config: UNetConfig,
    time_embedding: Embedding,
    /// LCM's embedding of the guidance scale.
    guidance: Option<GuidanceEmbedding>,
    add_embedding: Option<Embedding>,
    position_net: Option<PositionNet>,
    conv_in: Conv2d,
    down: Vec<Level>,
    mid: Option<Mid>,
    up: Vec<Level>,
    head: Arc<Head>,
    /// Bytes that may be kept for the backward pass.
    gradient_memory: u64,
    constants: UNetConstants,
    dtype: DType,
    device: Device,
    #[cfg(feature = "cuda")]
    replays: replays::Replays,
}

impl UNet {
    /// Builds the network from `w`.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or belongs to another network.
    pub fn build(config: UNetConfig, w: &Weights) -> Result<Self> {
        let unet = Self::new(config, w)?;
        w.finish()?;
        Ok(unet)
    }

    /// Builds the network from the tensors of `w`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(c: UNetConfig, w: &Weights) -> Result<Self> {
        let (first, levels, temb) = (c.block_out_channels[0], c.block_out_channels.len(), temb_width(&c));
        let added = |(_, width)| Embedding::new(width, temb, &w.at("add_embedding"));
        Ok(UNet {
            time_embedding: Embedding::new(first, temb, &w.at("time_embedding"))?,
            guidance: c.time_cond_proj_dim.map(|width| GuidanceEmbedding::new(width, first, w)).transpose()?,
            add_embedding: c.text_time.map(added).transpose()?,
            position_net: (c.attention_type != AttentionType::Default)
                .then(|| PositionNet::new(c.attention_type, c.cross_attention_dim, &w.at("position_net")))
                .transpose()?,
            conv_in: Conv2d::same3(c.in_channels, first, &w.at("conv_in"))?,
            down: (0..levels).map(|i| Level::down(i, &c, w)).collect::<Result<_>>()?,
            mid: Mid::new(&c, w)?,
            up: (0..levels).map(|i| Level::up(i, &c, w)).collect::<Result<_>>()?,
            head: Arc::new(Head {
                norm: GroupNorm::new(c.norm_num_groups, first, c.norm_eps, &w.at("conv_norm_out"))?,
                conv: Conv2d::same3(first, c.out_channels, &w.at("conv_out"))?,
            }),
            gradient_memory: GRADIENT_MEMORY,
            constants: UNetConstants::default(),
            dtype: w.precision().compute,
            device: w.precision().device.clone(),
            #[cfg(feature = "cuda")]
            replays: replays::Replays::default(),
            config: c,
        })
    }

    /// Sets how many bytes of activations are kept for the backward pass, by default [`GRADIENT_MEMORY`]. Blocks are kept in
    /// the order of the forward pass as long as the limit allows; the others are rematerialised. The inputs and results of
    /// blocks are kept in any case, and are not counted.
    pub fn with_gradient_memory(mut self, bytes: u64) -> Self {
        self.gradient_memory = bytes;
        self
    }

    /// The configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The device of the weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Computes the grounding tokens of a layout, which do not depend on the timestep.
    ///
    /// # Errors
    /// If the model does not accept a layout.
    pub fn grounding_tokens(&self, g: &Grounding) -> Result<Tensor> {
        match &self.position_net {
            Some(net) => net.forward(g),
            None => Err(Error::input("this model accepts no layout: it has no GLIGEN position net")),
        }
    }

    /// Predicts for the noisy latent `z` (B, C, h, w) at timestep `t`. The result has the shape and dtype of `z`, which may be
    /// finer than the network's dtype. A network with another [`UNetConfig::input`] takes its further channels from the
    /// conditioning, or after those of the latent in `z`; then the result has fewer channels than `z`.
    ///
    /// `t` is one number for the whole batch; it may be fractional, as Euler's timesteps are. If a side of the latent is not
    /// a multiple of the network's downscale, feature maps are resized to the skip connections, as in diffusers.
    ///
    /// # Errors
    /// If the conditioning does not fit the model or the batch.
    pub fn forward(&self, z: &Tensor, t: f64, c: &Conditioning) -> Result<Tensor> {
        self.forward_with(z, t, c, &PassOptions::default())
    }

    /// [`UNet::forward`] with these options.
    ///
    /// # Errors
    /// As [`UNet::forward`].
    pub fn forward_with(&self, z: &Tensor, t: f64, c: &Conditioning, options: &PassOptions) -> Result<Tensor> {
        let t = Tensor::full(t as f32, z.dim(0)?, z.device())?;
        #[cfg(feature = "cuda")]
        if let Some(y) = self.replays.run([z, &t], c, options, |z, t| self.predict(z, t, c, options))? {
            return Ok(y);
        }
        ops::on_pool_for(z.device(), || self.predict(z, &t, c, options))
    }

    /// [`UNet::forward`] with a timestep for each sample, `t` (B).
    ///
    /// # Errors
    /// As [`UNet::forward`].
    pub fn forward_each(&self, z: &Tensor, t: &Tensor, c: &Conditioning) -> Result<Tensor> {
        ops::on_pool_for(z.device(), || self.predict(z, t, c, &PassOptions::default()))
    }

    fn predict(&self, z: &Tensor, t: &Tensor, c: &Conditioning, options: &PassOptions) -> Result<Tensor> {
        let temb = self.time(t, c)?;
        let mut pass = self.pass(&temb, c, options, None);
        let h = self.walk(&self.input(z, c)?, &mut pass)?;
        let h = h.ok_or_else(|| Error::input("U-Net: the pass ended too early"))?;
        Ok(ops::contiguous(&pass.memory.run(&self.head, &[&h])?)?.to_dtype(z.dtype())?)
    }

    /// The attention layers, in the order of a forward pass.
    pub fn attention_layers(&self) -> Vec<AttentionLayer> {
        AttentionLayer::all(&self.config)
    }

    /// Computes the attention maps of the `wanted` layers for the noisy latent `z` at timestep `t`, in the order of
    /// [`UNet::attention_layers`], differentiable with respect to `z`. Layers after the last wanted one are not computed.
    ///
    /// # Errors
    /// As [`UNet::forward`].
    pub fn attention_maps(
        &self,
        z: &Tensor,
        t: f64,
        c: &Conditioning,
        kind: AttentionKind,
        wanted: &dyn Fn(&AttentionLayer) -> bool,
        options: &PassOptions,
    ) -> Result<Vec<AttentionMap>> {
        let places: Vec<_> = self.attention_layers().into_iter().filter(|place| wanted(place)).collect();
        if places.is_empty() {
            return Ok(vec![]);
        }
        if kind == AttentionKind::SelfAttention {
            let (b, _, h, w) = z.dims4()?;
            launch::check(z.device(), "U-Net", &launch::of_maps(&self.config, b, (h, w), &places))?;
        }
        let t = Tensor::full(t as f32, z.dim(0)?, z.device())?;
        ops::on_pool_for(z.device(), || {
            let temb = self.time(&t, c)?;
            let mut pass = self.pass(&temb, c, options, Some(Recorder::new(kind, places)));
            self.walk(&self.input(z, c)?, &mut pass)?;
            Ok(pass.recorder.map(Recorder::into_maps).unwrap_or_default())
        })
    }

    /// The noisy latent with the further channels of the conditioning, in the network's dtype.
    fn input(&self, z: &Tensor, c: &Conditioning) -> Result<Tensor> {
        let (b, _, h, w) = z.dims4()?;
        launch::check(z.device(), "U-Net", &launch::of_unet(&self.config, b, (h, w)))?;
        let mut input = z.to_dtype(self.dtype)?;
        if let Some(channels) = &c.channels {
            input = Tensor::cat(&[&input, &channels.to_dtype(self.dtype)?], 1)?;
        }
        let (needs, has) = (self.config.in_channels, input.dim(1)?);
        if needs == has {
            return Ok(input);
        }
        let what = match self.config.input() {
            UNetInput::Latent => "the latent alone",
            UNetInput::Inpainting => "the latent, a mask and the latent of the masked image",
            UNetInput::Edit => "the latent and that of the image to edit",
        };
        Err(Error::input(format!("U-Net: takes {needs} channels, {what}, but got {has}")))
    }

    fn pass<'a>(
        &'a self,
        temb: &'a Tensor,
        c: &'a Conditioning,
        options: &'a PassOptions,
        recorder: Option<Recorder>,
    ) -> Pass<'a> {
        let memory = RematBudget::new(self.gradient_memory);
        Pass { temb, context: &c.context, objs: c.objs.as_ref(), options, constants: &self.constants, memory, recorder }
    }

    /// The embedding of the timesteps `t` (B), and of pooled text and sizes, after SiLU: (B, d).
    fn time(&self, t: &Tensor, c: &Conditioning) -> Result<Tensor> {
        let dtype = self.dtype;
        let mut emb =
            sinusoidal(t, self.config.block_out_channels[0], &self.config, &self.constants)?.to_dtype(dtype)?;
        if let Some(guidance) = &self.guidance {
            emb = (&emb + guidance.forward(c.guidance.as_ref(), &emb, &self.constants)?)?;
        }
        let mut temb = self.time_embedding.forward(&emb)?;
        if let (Some(embedding), Some((width, _))) = (&self.add_embedding, self.config.text_time) {
            let added = c
                .added
                .as_ref()
                .ok_or_else(|| Error::input("this model needs pooled text and sizes (SDXL's added conditioning)"))?;
            let (b, n) = added.time_ids.dims2()?;
            if n != self.config.time_ids() {
                return Err(Error::input(format!(
                    "this model is conditioned on {} sizes, but got {n}",
                    self.config.time_ids()
                )));
            }
            let sizes = sinusoidal(&added.time_ids.reshape(b * n)?, width, &self.config, &self.constants)?;
            let sizes = sizes.reshape((b, n * width))?.to_dtype(dtype)?;
            temb = (temb + embedding.forward(&Tensor::cat(&[&added.text_embeds, &sizes], D::Minus1)?)?)?;
        }
        // Every residual block applies SiLU to the embedding first: once here for all.
        Ok(ops::silu(&temb)?)
    }

    /// From the latent to the features before the last layers. `None` if all maps were recorded on the way.
    fn walk(&self, z: &Tensor, pass: &mut Pass) -> Result<Option<Tensor>> {
        let mut h = self.conv_in.forward(z)?;
        let mut skips = vec![h.clone()];
        for (n, level) in self.down.iter().enumerate() {
            for transformer in 0..level.resnets.len() {
                let at = AttentionLayer { unet_block: UNetBlock::Down(n), transformer, block: 0, downscale: 1 << n };
                let Some(next) = level.layer(&h, None, at, pass)? else { return Ok(None) };
                h = next;
                skips.push(h.clone());
            }
            if let Some(conv) = &level.resample {
                h = conv.forward(&h)?;
                skips.push(h.clone());
            }
        }

        let deepest = self.down.len() - 1;
        if let Some(mid) = &self.mid {
            h = pass.resnet(&mid.first, &h, None)?;
            if let Some((transformer, second)) = &mid.rest {
                let at =
                    AttentionLayer { unet_block: UNetBlock::Mid, transformer: 0, block: 0, downscale: 1 << deepest };
                let Some(next) = transformer.forward(&h, at, pass)? else { return Ok(None) };
                h = pass.resnet(second, &next, None)?;
            }
        }

        for (n, level) in self.up.iter().enumerate() {
            for transformer in 0..level.resnets.len() {
                let skip = skips
                    .pop()
                    .ok_or_else(|| Error::input("U-Net: there are fewer skip connections than upsampling layers"))?;
                let (below, skip) = pass.up_inputs(n, h, skip)?;
                let at = AttentionLayer {
                    unet_block: UNetBlock::Up(n),
                    transformer,
                    block: 0,
                    downscale: 1 << (deepest - n),
                };
                let Some(next) = level.layer(&below, Some(&skip), at, pass)? else { return Ok(None) };
                h = next;
            }
            if let (Some(conv), Some(skip)) = (&level.resample, skips.last()) {
                let (_, _, height, width) = skip.dims4()?;
                h = upsample(conv, &h, (height, width), &self.constants)?;
            }
        }
        Ok(Some(h))
    }
}
