//! The denoising U-Net of SD1-like, GLIGEN and SDXL-like models (diffusers' `UNet2DConditionModel`).
//!
//! Knows a latent, a timestep and its conditioning. Knows no sampler and no guidance.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::Module;
use candle_transformers::models::stable_diffusion::embeddings::Timesteps;

use crate::models::attention_maps::{AttentionKind, AttentionMap, AttentionPlace, Look, Part};
use crate::models::checkpoint::{GRADIENT_MEMORY, Memory};
use crate::models::config::{AttentionType, UNetConfig};
use crate::models::gligen::{Grounding, PositionNet};
use crate::models::layers::{Conv2d, GroupNorm, Linear};
use crate::models::pass::Pass;
use crate::models::resnet::{Head, ResnetBlock, upsample};
use crate::models::transformer::Transformer;
use crate::weights::Weights;
use crate::{Error, Result, ops};

/// What a prediction is conditioned on, a row a sample.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Hidden states of the text, (B, L, d).
    pub context: Tensor,
    /// SDXL's added conditioning.
    pub added: Option<Added>,
    /// GLIGEN's grounding tokens from [`UNet::grounding_tokens`], (B, M, d). Absent: the fusers are off.
    pub objs: Option<Tensor>,
}

/// SDXL's added conditioning (`text_time`).
#[derive(Clone, Debug)]
pub struct Added {
    /// Pooled, projected text, (B, p).
    pub text_embeds: Tensor,
    /// Original height and width, crop's top and left, target height and width in pixels, (B, 6).
    pub time_ids: Tensor,
}

impl Conditioning {
    /// The rows of `self`, then those of `other`: both halves of classifier-free guidance in one batch. Contexts of
    /// different lengths are repeated to the least length that holds both, which cross-attention does not notice.
    pub fn stack(&self, other: &Conditioning) -> Result<Conditioning> {
        let pair = |a: &Option<Tensor>, b: &Option<Tensor>| -> Result<Option<Tensor>> {
            match (a, b) {
                (Some(a), Some(b)) => Ok(Some(Tensor::cat(&[a, b], 0)?)),
                (None, None) => Ok(None),
                _ => Err(Error::input("the two halves of classifier-free guidance differ in kind")),
            }
        };
        let part = |c: &Conditioning, f: fn(&Added) -> &Tensor| c.added.as_ref().map(|a| f(a).clone());
        let text = pair(&part(self, |a| &a.text_embeds), &part(other, |a| &a.text_embeds))?;
        let time = pair(&part(self, |a| &a.time_ids), &part(other, |a| &a.time_ids))?;
        let (a, b) = (self.context.dim(1)?, other.context.dim(1)?);
        let length = (1..=b).map(|n| n * a).find(|length| length.is_multiple_of(b)).unwrap_or(a);
        let repeated = |t: &Tensor, l: usize| if l == length { Ok(t.clone()) } else { t.repeat((1, length / l, 1)) };
        Ok(Conditioning {
            context: Tensor::cat(&[repeated(&self.context, a)?, repeated(&other.context, b)?], 0)?,
            added: text.zip(time).map(|(text_embeds, time_ids)| Added { text_embeds, time_ids }),
            objs: pair(&self.objs, &other.objs)?,
        })
    }
}

/// Sinusoidal embedding of (N) numbers: (N, dim). In f32 whatever the network's dtype: at t = 981 bf16 is off by 2.
fn sinusoidal(t: &Tensor, dim: usize, c: &UNetConfig) -> Result<Tensor> {
    Ok(Timesteps::new(dim, c.flip_sin_to_cos, c.freq_shift).forward(&t.to_dtype(DType::F32)?)?)
}

/// Two linear maps with SiLU between them.
struct Embedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl Embedding {
    fn new(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Embedding {
            linear_1: Linear::new(from, to, &w.at("linear_1"))?,
            linear_2: Linear::new(to, to, &w.at("linear_2"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&ops::silu(&self.linear_1.forward(x)?)?)
    }
}

/// One level, going down or up: residual blocks, each perhaps followed by a transformer, then perhaps a resampling.
struct Level {
    resnets: Vec<Arc<ResnetBlock>>,
    transformers: Vec<Transformer>,
    resample: Option<Conv2d>,
}

impl Level {
    /// The layer whose transformer is `at` this place, on the way up with what the way down left. None if the pass ends
    /// in it.
    fn layer(&self, h: &Tensor, skip: Option<&Tensor>, at: AttentionPlace, pass: &mut Pass) -> Result<Option<Tensor>> {
        let h = pass.resnet(&self.resnets[at.transformer], h, skip)?;
        match self.transformers.get(at.transformer) {
            Some(t) => t.forward(&h, at, pass),
            None => Ok(Some(h)),
        }
    }
}

struct Mid {
    first: Arc<ResnetBlock>,
    transformer: Transformer,
    second: Arc<ResnetBlock>,
}

/// The U-Net.
pub struct UNet {
    config: UNetConfig,
    time_embedding: Embedding,
    add_embedding: Option<Embedding>,
    position_net: Option<PositionNet>,
    conv_in: Conv2d,
    down: Vec<Level>,
    mid: Mid,
    up: Vec<Level>,
    head: Arc<Head>,
    /// Bytes that may be kept for a gradient.
    gradient_memory: u64,
    dtype: DType,
    device: Device,
}

impl UNet {
    /// Builds the network from `w`, which must hold its tensors and no others.
    pub fn build(config: UNetConfig, w: &Weights) -> Result<Self> {
        let unet = Self::new(config, w)?;
        w.finish()?;
        Ok(unet)
    }

    /// Builds the network from the tensors of `w`.
    pub fn new(c: UNetConfig, w: &Weights) -> Result<Self> {
        let channels = &c.block_out_channels;
        let (groups, eps, levels) = (c.norm_num_groups, c.norm_eps, channels.len());
        let (first, last) = (channels[0], channels[levels - 1]);
        let temb = 4 * first;
        let resnet = |from, to, w: Weights| ResnetBlock::new(from, to, Some(temb), groups, eps, &w).map(Arc::new);

        let mut down = Vec::new();
        let mut from = first;
        for (i, &to) in channels.iter().enumerate() {
            let b = w.at("down_blocks").at(i);
            let layers = c.layers_per_block;
            down.push(Level {
                resnets: (0..layers)
                    .map(|j| resnet(if j == 0 { from } else { to }, to, b.at("resnets").at(j)))
                    .collect::<Result<_>>()?,
                transformers: (0..if c.down_attention[i] { layers } else { 0 })
                    .map(|j| Transformer::new(to, c.heads[i], c.transformer_layers[i], &c, &b.at("attentions").at(j)))
                    .collect::<Result<_>>()?,
                resample: (i + 1 < levels)
                    .then(|| Conv2d::new(to, to, 3, 2, (1, 1), &b.at("downsamplers.0.conv")))
                    .transpose()?,
            });
            from = to;
        }

        let m = w.at("mid_block");
        let mid = Mid {
            first: resnet(last, last, m.at("resnets.0"))?,
            transformer: Transformer::new(
                last,
                c.heads[levels - 1],
                c.transformer_layers[levels - 1],
                &c,
                &m.at("attentions.0"),
            )?,
            second: resnet(last, last, m.at("resnets.1"))?,
        };

        // Going up, each residual block also takes what the way down left at its resolution.
        let mut up = Vec::new();
        let mut from = last;
        for i in 0..levels {
            let level = levels - 1 - i;
            let (to, below) = (channels[level], channels[level.saturating_sub(1)]);
            let b = w.at("up_blocks").at(i);
            let layers = c.layers_per_block + 1;
            up.push(Level {
                resnets: (0..layers)
                    .map(|j| {
                        let skip = if j + 1 == layers { below } else { to };
                        resnet(if j == 0 { from } else { to } + skip, to, b.at("resnets").at(j))
                    })
                    .collect::<Result<_>>()?,
                transformers: (0..if c.up_attention[i] { layers } else { 0 })
                    .map(|j| {
                        let (heads, depth) = (c.heads[level], c.up_transformer_layers[i]);
                        Transformer::new(to, heads, depth, &c, &b.at("attentions").at(j))
                    })
                    .collect::<Result<_>>()?,
                resample: (i + 1 < levels).then(|| Conv2d::same3(to, to, &b.at("upsamplers.0.conv"))).transpose()?,
            });
            from = to;
        }

        Ok(UNet {
            time_embedding: Embedding::new(first, temb, &w.at("time_embedding"))?,
            add_embedding: c
                .text_time
                .map(|(_, width)| Embedding::new(width, temb, &w.at("add_embedding")))
                .transpose()?,
            position_net: (c.attention_type != AttentionType::Default)
                .then(|| PositionNet::new(c.attention_type, c.cross_attention_dim, &w.at("position_net")))
                .transpose()?,
            conv_in: Conv2d::same3(c.in_channels, first, &w.at("conv_in"))?,
            down,
            mid,
            up,
            head: Arc::new(Head {
                norm: GroupNorm::new(groups, first, eps, &w.at("conv_norm_out"))?,
                conv: Conv2d::same3(first, c.out_channels, &w.at("conv_out"))?,
            }),
            gradient_memory: GRADIENT_MEMORY,
            dtype: w.numbers().compute,
            device: w.numbers().device.clone(),
            config: c,
        })
    }

    /// With so many bytes for what is kept for a gradient, by default [`GRADIENT_MEMORY`]: blocks are kept in the order in
    /// which the network walks as long as there is room, and the others are computed again. What a block is given and what
    /// it gives are kept in any case, and are not counted.
    pub fn with_gradient_memory(mut self, bytes: u64) -> Self {
        self.gradient_memory = bytes;
        self
    }

    /// What the configuration says.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Grounding tokens of a layout, which do not depend on the timestep. Errors if the model takes no layout.
    pub fn grounding_tokens(&self, g: &Grounding) -> Result<Tensor> {
        match &self.position_net {
            Some(net) => net.forward(g),
            None => Err(Error::input("this model takes no layout of boxes: it has no GLIGEN position net")),
        }
    }

    /// The network's prediction for the noisy latent `z` (B, C, h, w) at timestep `t`, in `z`'s shape and dtype, which
    /// may be finer than the network's own.
    ///
    /// `t` is one number for the whole batch; it may be fractional (Euler's timesteps are). Latents whose sides are no
    /// multiple of the network's downscale are resampled to the skip connections' sizes, as diffusers does.
    pub fn forward(&self, z: &Tensor, t: f64, c: &Conditioning) -> Result<Tensor> {
        let batch = z.dim(0)?;
        let t = Tensor::full(t as f32, batch, z.device())?;
        self.forward_each(z, &t, c)
    }

    /// [`UNet::forward`] with a timestep a sample: `t` (B).
    pub fn forward_each(&self, z: &Tensor, t: &Tensor, c: &Conditioning) -> Result<Tensor> {
        ops::on_pool_for(z.device(), || self.predict(z, t, c))
    }

    fn predict(&self, z: &Tensor, t: &Tensor, c: &Conditioning) -> Result<Tensor> {
        let temb = self.time(t, c)?;
        let mut pass = self.pass(&temb, c, None);
        let h = self.walk(&z.to_dtype(self.dtype)?, &mut pass)?;
        let h = h.ok_or_else(|| Error::input("U-Net: the pass ended before its end"))?;
        Ok(pass.memory.run(&self.head, &[&h])?.to_dtype(z.dtype())?)
    }

    /// Where the network attends, in the order in which it walks.
    pub fn attention_places(&self) -> Vec<AttentionPlace> {
        AttentionPlace::all(&self.config)
    }

    /// The maps of the wanted places for the noisy latent `z` at timestep `t`, in the order of
    /// [`UNet::attention_places`], differentiable with respect to `z`.
    ///
    /// What comes behind the last of them is not computed.
    pub fn attention_maps(
        &self,
        z: &Tensor,
        t: f64,
        c: &Conditioning,
        kind: AttentionKind,
        wanted: &dyn Fn(&AttentionPlace) -> bool,
    ) -> Result<Vec<AttentionMap>> {
        let places: Vec<_> = self.attention_places().into_iter().filter(|place| wanted(place)).collect();
        if places.is_empty() {
            return Ok(vec![]);
        }
        let t = Tensor::full(t as f32, z.dim(0)?, z.device())?;
        ops::on_pool_for(z.device(), || {
            let temb = self.time(&t, c)?;
            let mut pass = self.pass(&temb, c, Some(Look::new(kind, places)));
            self.walk(&z.to_dtype(self.dtype)?, &mut pass)?;
            Ok(pass.look.map(Look::into_maps).unwrap_or_default())
        })
    }

    fn pass<'a>(&self, temb: &'a Tensor, c: &'a Conditioning, look: Option<Look>) -> Pass<'a> {
        let memory = Memory::new(self.gradient_memory);
        Pass { temb, context: &c.context, objs: c.objs.as_ref(), memory, look }
    }

    /// The embedding of the timesteps `t` (B) and of what else is not in the text, after SiLU: (B, d).
    fn time(&self, t: &Tensor, c: &Conditioning) -> Result<Tensor> {
        let dtype = self.dtype;
        let emb = sinusoidal(t, self.config.block_out_channels[0], &self.config)?.to_dtype(dtype)?;
        let mut temb = self.time_embedding.forward(&emb)?;
        if let (Some(embedding), Some((width, _))) = (&self.add_embedding, self.config.text_time) {
            let added = c
                .added
                .as_ref()
                .ok_or_else(|| Error::input("this model needs pooled text and sizes (SDXL's added conditioning)"))?;
            let (b, n) = added.time_ids.dims2()?;
            let sizes = sinusoidal(&added.time_ids.reshape(b * n)?, width, &self.config)?;
            let sizes = sizes.reshape((b, n * width))?.to_dtype(dtype)?;
            temb = (temb + embedding.forward(&Tensor::cat(&[&added.text_embeds, &sizes], D::Minus1)?)?)?;
        }
        // Every residual block begins with SiLU of the embedding: once here.
        Ok(ops::silu(&temb)?)
    }

    /// From the latent to the features before the network's last layers. None if all has been seen on the way.
    fn walk(&self, z: &Tensor, pass: &mut Pass) -> Result<Option<Tensor>> {
        let mut h = self.conv_in.forward(z)?;
        let mut skips = vec![h.clone()];
        for (n, level) in self.down.iter().enumerate() {
            for transformer in 0..level.resnets.len() {
                let at = AttentionPlace { part: Part::Down(n), transformer, block: 0, downscale: 1 << n };
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
        h = pass.resnet(&self.mid.first, &h, None)?;
        let at = AttentionPlace { part: Part::Mid, transformer: 0, block: 0, downscale: 1 << deepest };
        let Some(next) = self.mid.transformer.forward(&h, at, pass)? else { return Ok(None) };
        h = pass.resnet(&self.mid.second, &next, None)?;

        for (n, level) in self.up.iter().enumerate() {
            for transformer in 0..level.resnets.len() {
                let skip = skips.pop().ok_or_else(|| Error::input("U-Net: the way up is longer than the way down"))?;
                let at = AttentionPlace { part: Part::Up(n), transformer, block: 0, downscale: 1 << (deepest - n) };
                let Some(next) = level.layer(&h, Some(&skip), at, pass)? else { return Ok(None) };
                h = next;
            }
            if let (Some(conv), Some(skip)) = (&level.resample, skips.last()) {
                let (_, _, height, width) = skip.dims4()?;
                h = upsample(conv, &h, (height, width))?;
            }
        }
        Ok(Some(h))
    }
}
