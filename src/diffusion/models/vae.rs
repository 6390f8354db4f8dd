//! The autoencoder between pictures and latents (diffusers' `AutoencoderKL`).

use candle_core::Tensor;

use crate::models::config::VaeConfig;
use crate::models::layers::{Attention, Conv2d, GroupNorm};
use crate::models::resnet::{ResnetBlock, upsample};
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

struct Mid {
    first: ResnetBlock,
    attention: Option<PixelAttention>,
    second: ResnetBlock,
}

impl Mid {
    fn new(c: &VaeConfig, w: &Weights) -> Result<Self> {
        let (d, groups) = (*c.block_out_channels.last().unwrap_or(&0), c.norm_num_groups);
        let attention = |a: Weights| -> Result<_> {
            Ok(PixelAttention {
                group_norm: GroupNorm::new(groups, d, EPS, &a.at("group_norm"))?,
                attention: Attention::single_head(d, &a)?,
            })
        };
        Ok(Mid {
            first: ResnetBlock::new(d, d, None, groups, EPS, &w.at("resnets.0"))?,
            attention: c.mid_block_add_attention.then(|| attention(w.at("attentions.0"))).transpose()?,
            second: ResnetBlock::new(d, d, None, groups, EPS, &w.at("resnets.1"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = self.first.forward(x, None)?;
        if let Some(attention) = &self.attention {
            h = attention.forward(&h)?;
        }
        self.second.forward(&h, None)
    }
}

/// One level: residual blocks, then perhaps a change of resolution.
struct Level {
    resnets: Vec<ResnetBlock>,
    resample: Option<Conv2d>,
}

struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level>,
    mid: Mid,
    norm_out: GroupNorm,
    conv_out: Conv2d,
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
                ResnetBlock::new(if j == 0 { from } else { to }, to, None, groups, EPS, &r)
            });
            levels.push(Level {
                resnets: resnets.collect::<Result<_>>()?,
                // It pads below and to the right only.
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
            norm_out: GroupNorm::new(groups, from, EPS, &w.at("conv_norm_out"))?,
            conv_out: Conv2d::same3(from, 2 * c.latent_channels, &w.at("conv_out"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = self.conv_in.forward(x)?;
        for level in &self.levels {
            for resnet in &level.resnets {
                h = resnet.forward(&h, None)?;
            }
            if let Some(conv) = &level.resample {
                h = conv.forward(&h)?;
            }
        }
        self.conv_out.forward(&self.norm_out.forward_silu(&self.mid.forward(&h)?)?)
    }
}

struct Decoder {
    conv_in: Conv2d,
    mid: Mid,
    levels: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
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
                ResnetBlock::new(if j == 0 { from } else { to }, to, None, groups, EPS, &r)
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
            norm_out: GroupNorm::new(groups, from, EPS, &w.at("conv_norm_out"))?,
            conv_out: Conv2d::same3(from, c.out_channels, &w.at("conv_out"))?,
        })
    }

    fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let mut h = self.mid.forward(&self.conv_in.forward(z)?)?;
        for level in &self.levels {
            for resnet in &level.resnets {
                h = resnet.forward(&h, None)?;
            }
            if let Some(conv) = &level.resample {
                let (_, _, height, width) = h.dims4()?;
                h = upsample(conv, &h, (2 * height, 2 * width))?;
            }
        }
        self.conv_out.forward(&self.norm_out.forward_silu(&h)?)
    }
}

/// The autoencoder. Latents outside it are scaled, as the denoisers know them.
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    config: VaeConfig,
}

impl AutoencoderKl {
    /// Builds the autoencoder from `w`, which must hold its tensors and no others.
    pub fn build(config: VaeConfig, w: &Weights) -> Result<Self> {
        let vae = Self::new(config, w)?;
        w.finish()?;
        Ok(vae)
    }

    /// Builds the autoencoder from the tensors of `w`.
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
        })
    }

    /// What the configuration says.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The *mean* of the posterior, shifted and scaled: (B, 3, H, W) in [-1, 1] → (B, 4, H/8, W/8).
    ///
    /// Errors if a side of the picture is no multiple of the downscale (8).
    pub fn encode(&self, picture: &Tensor) -> Result<Tensor> {
        let (_, c, h, w) = picture.dims4()?;
        let f = self.config.downscale();
        if c != self.config.in_channels || h % f != 0 || w % f != 0 || h == 0 || w == 0 {
            return Err(Error::input(format!(
                "autoencoder: cannot encode a picture of {c} channels, {w}×{h}; width and height must be multiples of {f}"
            )));
        }
        let mut moments = ops::on_pool(|| self.encoder.forward(picture))?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        let mean = moments.narrow(1, 0, self.config.latent_channels)?;
        Ok(((mean - self.config.shift_factor.unwrap_or(0.0))? * self.config.scaling_factor)?)
    }

    /// (B, 4, h, w) → (B, 3, 8h, 8w), nominally in [-1, 1], not clamped.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        let z = ((z / self.config.scaling_factor)? + self.config.shift_factor.unwrap_or(0.0))?;
        ops::on_pool(|| match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(&z)?),
            None => self.decoder.forward(&z),
        })
    }
}
