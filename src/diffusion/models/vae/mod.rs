//! The autoencoder between images and latents (diffusers' `AutoencoderKL`).
//!
//! Large images are processed in bands, see [`crate::models::bands`].

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use lsregen_tensor::Constants;

use crate::models::bands::{BandOptions, BandedPass, FeatureMap, ReceptiveField};
use crate::models::config::VaeConfig;
use crate::models::launch;
use crate::models::layers::{Attention, Conv2d, GroupNorm};
use crate::models::remat::{Block, GRADIENT_MEMORY, RematBudget};
use crate::models::resnet::{Head, ResnetBlock};
use crate::reduce::at_least_f32;
use crate::weights::Weights;
use crate::{Error, Result, ops};

/// ε of every group norm of the autoencoder.
const EPS: f64 = 1e-6;

/// Self-attention over all pixels, added to its input.
struct PixelAttention {
    group_norm: GroupNorm,
    attention: Attention,
}

impl PixelAttention {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.attention.forward_pixels(&self.group_norm.forward(x)?, x)
    }
}

impl Block for PixelAttention {
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize> {
        // The results of the norm, of three projections and of the attention.
        Ok(5 * inputs[0].elem_count())
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.forward(&inputs[0])
    }
}

struct Mid {
    first: Arc<ResnetBlock>,
    attention: Option<Arc<PixelAttention>>,
    second: Arc<ResnetBlock>,
}

impl Mid {
    fn new(c: &VaeConfig, w: &Weights) -> Result<Self> {
        let (d, groups) = (*c.block_out_channels.last().unwrap_or(&0), c.norm_num_groups);
        let attention = |a: Weights| -> Result<_> {
            Ok(Arc::new(PixelAttention {
                group_norm: GroupNorm::new(groups, d, EPS, &a.at("group_norm"))?,
                attention: Attention::single_head(d, &a)?,
            }))
        };
        Ok(Mid {
            first: Arc::new(ResnetBlock::new(d, d, None, groups, EPS, &w.at("resnets.0"))?),
            attention: c.mid_block_add_attention.then(|| attention(w.at("attentions.0"))).transpose()?,
            second: Arc::new(ResnetBlock::new(d, d, None, groups, EPS, &w.at("resnets.1"))?),
        })
    }

    const LAYERS: usize = 2 * ResnetBlock::LAYERS;

    fn forward(&self, x: FeatureMap, pass: &BandedPass) -> Result<FeatureMap> {
        let mut h = self.first.forward_bands(x, pass)?;
        if let Some(attention) = &self.attention {
            h = FeatureMap::of(attention.forward(&h.join()?)?)?;
        }
        self.second.forward_bands(h, pass)
    }
}

/// One level: residual blocks, then an optional change of resolution.
struct Level {
    resnets: Vec<Arc<ResnetBlock>>,
    resample: Option<Conv2d>,
}

impl Level {
    fn forward(&self, x: FeatureMap, resample: ReceptiveField, pass: &BandedPass) -> Result<FeatureMap> {
        let h = self.resnets.iter().try_fold(x, |h, resnet| resnet.forward_bands(h, pass))?;
        match &self.resample {
            Some(conv) => pass.convolve(conv, resample, None, h, None),
            None => Ok(h),
        }
    }

    fn layers(&self) -> usize {
        self.resnets.len() * ResnetBlock::LAYERS + usize::from(self.resample.is_some())
    }
}

/// Number of layers of the encoder or decoder: first and last convolution, the middle block, the levels.
fn layers(levels: &[Level]) -> usize {
    2 + Mid::LAYERS + levels.iter().map(Level::layers).sum::<usize>()
}

struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level>,
    mid: Mid,
    head: Arc<Head>,
}

impl Encoder {
    fn new(c: &VaeConfig, w: &Weights) -> Result<Self> {
        let (channels, groups) = (&c.block_out_channels, c.norm_num_groups);
        let mut levels = Vec::new();
        let mut from = channels[0];
        for (i, &to) in channels.iter().enumerate() {
            let b = w.at("down_blocks").at(i);
            let resnets = (0..c.layers_per_block).map(|j| {
                let r = b.at("resnets").at(j);
                ResnetBlock::new(if j == 0 { from } else { to }, to, None, groups, EPS, &r).map(Arc::new)
            });
            levels.push(Level {
                resnets: resnets.collect::<Result<_>>()?,
                // Pads below and to the right only.
                resample: (i + 1 < channels.len())
                    .then(|| Conv2d::new(to, to, 3, 2, (0, 1), &b.at("downsamplers.0.conv")))
                    .transpose()?,
            });
            from = to;
        }
        Ok(Encoder {
            conv_in: Conv2d::same3(c.in_channels, channels[0], &w.at("conv_in"))?,
            levels,
            mid: Mid::new(c, &w.at("mid_block"))?,
            head: Arc::new(Head {
                norm: GroupNorm::new(groups, from, EPS, &w.at("conv_norm_out"))?,
                conv: Conv2d::same3(from, 2 * c.latent_channels, &w.at("conv_out"))?,
            }),
        })
    }

    fn forward(&self, x: Tensor, options: &BandOptions) -> Result<Tensor> {
        let pass = BandedPass::new(options, layers(&self.levels));
        let mut h = pass.convolve(&self.conv_in, ReceptiveField::Around, None, FeatureMap::of(x)?, None)?;
        for level in &self.levels {
            h = level.forward(h, ReceptiveField::Halved, &pass)?;
        }
        let h = self.mid.forward(h, &pass)?;
        pass.convolve(&self.head.conv, ReceptiveField::Around, Some(&self.head.norm), h, None)?.join()
    }
}

struct Decoder {
    conv_in: Conv2d,
    mid: Mid,
    levels: Vec<Level>,
    head: Arc<Head>,
}

impl Decoder {
    fn new(c: &VaeConfig, w: &Weights) -> Result<Self> {
        let groups = c.norm_num_groups;
        let channels: Vec<usize> = c.block_out_channels.iter().rev().copied().collect();
        let mut levels = Vec::new();
        let mut from = channels[0];
        for (i, &to) in channels.iter().enumerate() {
            let b = w.at("up_blocks").at(i);
            let resnets = (0..=c.layers_per_block).map(|j| {
                let r = b.at("resnets").at(j);
                ResnetBlock::new(if j == 0 { from } else { to }, to, None, groups, EPS, &r).map(Arc::new)
            });
            levels.push(Level {
                resnets: resnets.collect::<Result<_>>()?,
                resample: (i + 1 < channels.len())
                    .then(|| Conv2d::same3(to, to, &b.at("upsamplers.0.conv")))
                    .transpose()?,
            });
            from = to;
        }
        Ok(Decoder {
            conv_in: Conv2d::same3(c.latent_channels, channels[0], &w.at("conv_in"))?,
            mid: Mid::new(c, &w.at("mid_block"))?,
            levels,
            head: Arc::new(Head {
                norm: GroupNorm::new(groups, from, EPS, &w.at("conv_norm_out"))?,
                conv: Conv2d::same3(from, c.out_channels, &w.at("conv_out"))?,
            }),
        })
    }

    fn forward(&self, z: Tensor, options: &BandOptions) -> Result<Tensor> {
        let pass = BandedPass::new(options, layers(&self.levels));
        let h = pass.convolve(&self.conv_in, ReceptiveField::Around, None, FeatureMap::of(z)?, None)?;
        let mut h = self.mid.forward(h, &pass)?;
        for level in &self.levels {
            h = level.forward(h, ReceptiveField::Doubled, &pass)?;
        }
        pass.convolve(&self.head.conv, ReceptiveField::Around, Some(&self.head.norm), h, None)?.join()
    }
}

impl Decoder {
    /// [`Decoder::forward`] of a latent that autodiff tracks: kept blocks run whole, rematerialised blocks band by
    /// band.
    fn forward_tracked(&self, z: &Tensor, options: &BandOptions, memory: &RematBudget) -> Result<Tensor> {
        let pass = BandedPass::new(options, layers(&self.levels));
        let resnet = |block: &Arc<ResnetBlock>, x: &Tensor| {
            memory.run_by(block, &[x], |x| block.forward_bands(FeatureMap::of(x[0].clone())?, &pass)?.join())
        };
        let mut h = resnet(&self.mid.first, &self.conv_in.forward(z)?)?;
        if let Some(attention) = &self.mid.attention {
            h = memory.run(attention, &[&h])?;
        }
        h = resnet(&self.mid.second, &h)?;
        for level in &self.levels {
            for block in &level.resnets {
                h = resnet(block, &h)?;
            }
            if let Some(conv) = &level.resample {
                h = conv.forward_doubled(&h)?;
            }
        }
        memory.run_by(&self.head, &[&h], |h| {
            let h = FeatureMap::of(h[0].clone())?;
            pass.convolve(&self.head.conv, ReceptiveField::Around, Some(&self.head.norm), h, None)?.join()
        })
    }
}

/// The autoencoder. Latents are scaled as the denoisers expect them.
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    config: VaeConfig,
    /// Bytes that may be kept for the backward pass.
    gradient_memory: u64,
    dtype: DType,
    /// The statistics of the latents.
    constants: Constants<&'static str>,
}

impl AutoencoderKl {
    /// Builds the autoencoder from `w`.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or belongs to another network.
    pub fn build(config: VaeConfig, w: &Weights) -> Result<Self> {
        let vae = Self::new(config, w)?;
        w.finish()?;
        Ok(vae)
    }

    /// Builds the autoencoder from the tensors of `w`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(c: VaeConfig, w: &Weights) -> Result<Self> {
        let l = c.latent_channels;
        Ok(AutoencoderKl {
            encoder: Encoder::new(&c, &w.at("encoder"))?,
            decoder: Decoder::new(&c, &w.at("decoder"))?,
            quant_conv: c
                .use_quant_conv
                .then(|| Conv2d::new(2 * l, 2 * l, 1, 1, (0, 0), &w.at("quant_conv")))
                .transpose()?,
            post_quant_conv: c
                .use_post_quant_conv
                .then(|| Conv2d::new(l, l, 1, 1, (0, 0), &w.at("post_quant_conv")))
                .transpose()?,
            config: c,
            gradient_memory: GRADIENT_MEMORY,
            dtype: w.precision().compute,
            constants: Constants::default(),
        })
    }

    /// Sets how many bytes of activations [`AutoencoderKl::decode`] keeps for its backward pass, by default
    /// [`GRADIENT_MEMORY`]: see [`UNet`](crate::models::unet::UNet::with_gradient_memory).
    pub fn with_gradient_memory(mut self, bytes: u64) -> Self {
        self.gradient_memory = bytes;
        self
    }

    /// The configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Encodes images (B, 3, H, W) in [-1, 1] to the shifted and scaled *mean* of the posterior, (B, 4, H/8, W/8), in f32 or
    /// f64 whatever the precision of the autoencoder.
    ///
    /// # Errors
    /// If a side of the image is not a multiple of the downscale (8).
    pub fn encode(&self, image: &Tensor) -> Result<Tensor> {
        self.encode_with(image, &BandOptions::default())
    }

    /// [`AutoencoderKl::encode`] with these options of banding.
    ///
    /// # Errors
    /// As [`AutoencoderKl::encode`], or the error of `on_step`.
    pub fn encode_with(&self, image: &Tensor, options: &BandOptions) -> Result<Tensor> {
        let (_, c, h, w) = image.dims4()?;
        let f = self.config.downscale();
        if c != self.config.in_channels || h % f != 0 || w % f != 0 || h == 0 || w == 0 {
            return Err(Error::input(format!(
                "autoencoder: cannot encode an image of {c} channels and {w}×{h} pixels; width and height must be multiples of {f}"
            )));
        }
        let x = image.to_dtype(self.dtype)?;
        let mut moments = ops::on_pool_for(image.device(), || self.encoder.forward(x, options))?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        let mean = at_least_f32(&moments.narrow(1, 0, self.config.latent_channels)?)?;
        let z = ((mean - self.config.shift_factor.unwrap_or(0.0))? * self.config.scaling_factor)?;
        match self.statistics(&z)? {
            // (mean − μ) s / σ, where z is already scaled.
            Some((mean, std)) => Ok(z.broadcast_sub(&(mean * self.config.scaling_factor)?)?.broadcast_div(&std)?),
            None => Ok(z),
        }
    }

    /// Mean and deviation of latents that have their own, (1, C, 1, 1), in the dtype and on the device of `like`.
    fn statistics(&self, like: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        let (Some(mean), Some(std)) = (&self.config.latents_mean, &self.config.latents_std) else { return Ok(None) };
        let tensor = |name, numbers: &[f64]| {
            self.constants.get(name, like.dtype(), like.device(), || -> Result<Tensor> {
                Ok(Tensor::new(numbers, &Device::Cpu)?.reshape((1, numbers.len(), 1, 1))?)
            })
        };
        Ok(Some((tensor("mean", mean)?, tensor("std", std)?)))
    }

    /// Returns latents as the autoencoder has them, before they are shifted and scaled for the denoiser, in f32 or f64.
    pub fn unscaled(&self, z: &Tensor) -> Result<Tensor> {
        let z = at_least_f32(z)?;
        let z = match self.statistics(&z)? {
            Some((mean, std)) => (z.broadcast_mul(&std)? / self.config.scaling_factor)?.broadcast_add(&mean)?,
            None => (z / self.config.scaling_factor)?,
        };
        Ok((z + self.config.shift_factor.unwrap_or(0.0))?)
    }

    /// Decodes latents (B, 4, h, w) to images (B, 3, 8h, 8w), nominally in [-1, 1] but not clamped, in f32 or f64 whatever
    /// the precision of the autoencoder.
    ///
    /// # Errors
    /// If the latents have another number of channels.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        self.decode_with(z, &BandOptions::default())
    }

    /// [`AutoencoderKl::decode`] with these options of banding. If autodiff tracks the latent, only rematerialised blocks are
    /// computed in bands.
    ///
    /// # Errors
    /// As [`AutoencoderKl::decode`], or the error of `on_step`.
    pub fn decode_with(&self, z: &Tensor, options: &BandOptions) -> Result<Tensor> {
        let mut z = self.unscaled(z)?.to_dtype(self.dtype)?;
        if z.track_op() {
            let (b, _, h, w) = z.dims4()?;
            launch::check(z.device(), "decoder", &launch::of_decoder(&self.config, b, (h, w)))?;
        }
        if let Some(conv) = &self.post_quant_conv {
            z = conv.forward(&z)?;
        }
        let device = z.device().clone();
        at_least_f32(&ops::on_pool_for(&device, || match z.track_op() {
            true => self.decoder.forward_tracked(&z, options, &RematBudget::new(self.gradient_memory)),
            false => self.decoder.forward(z, options),
        })?)
    }
}
