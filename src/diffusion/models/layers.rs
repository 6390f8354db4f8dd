//! The layers that networks are made of: weights with a shape, applied by [`crate::ops`].

use candle_core::Tensor;

use crate::Result;
use crate::ops::{self, Convolution, Layout, Moments};
use crate::weights::Weights;

/// Affine map of features; `weight` (out, in).
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// With `weight` and `bias`.
    pub fn new(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Linear { weight: w.matrix((to, from), "weight")?, bias: Some(w.get(to, "bias")?) })
    }

    /// With `weight` alone.
    pub fn no_bias(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Linear { weight: w.matrix((to, from), "weight")?, bias: None })
    }

    /// With the weight of a 1×1 convolution, (out, in, 1, 1), and `bias`.
    pub fn pointwise(from: usize, to: usize, w: &Weights) -> Result<Self> {
        let weight = w.matrix((to, from, 1, 1), "weight")?.squeeze(3)?.squeeze(2)?;
        Ok(Linear { weight, bias: Some(w.get(to, "bias")?) })
    }

    /// With the weight of a convolution of `channels` in windows of `side` that do not overlap, (out, channels, side, side),
    /// without bias: a map of each window's numbers, channel by channel.
    pub fn windows(channels: usize, side: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Linear { weight: w.matrix((to, channels, side, side), "weight")?.flatten_from(1)?, bias: None })
    }

    /// (…, in) → (…, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_between(x, None, (Layout::Tokens, Layout::Tokens))
    }

    /// (…, in) and `add` (…, out) → (…, out), their sum.
    pub fn forward_add(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        self.forward_between(x, Some(add), (Layout::Tokens, Layout::Tokens))
    }

    /// The gradient of [`Linear::forward`]'s input from that of its result.
    pub fn input_vjp(&self, dy: &Tensor) -> Result<Tensor> {
        Ok(ops::linear_vjp(&self.weight, dy)?)
    }

    /// From one layout of features to another, see [`ops::linear_between`].
    pub fn forward_between(&self, x: &Tensor, add: Option<&Tensor>, layouts: (Layout, Layout)) -> Result<Tensor> {
        Ok(ops::linear_between(x, &self.weight, self.bias.as_ref(), add, layouts)?)
    }
}

/// Two-dimensional convolution with bias.
pub struct Conv2d {
    convolution: Convolution,
    channels: usize,
}

impl Conv2d {
    /// `weight` (out, in, k, k); `padding`: zeros (above and left, below and right).
    pub fn new(from: usize, to: usize, k: usize, stride: usize, padding: (usize, usize), w: &Weights) -> Result<Self> {
        let (weight, bias) = (w.matrix((to, from, k, k), "weight")?, w.get(to, "bias")?);
        Ok(Conv2d { convolution: Convolution::new(&weight, Some(&bias), stride, padding)?, channels: to })
    }

    /// 3×3, stride 1, padding 1.
    pub fn same3(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Self::new(from, to, 3, 1, (1, 1), w)
    }

    /// Channels of the result.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// (B, in, H, W) → (B, out, H', W').
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.forward(x)?)
    }

    /// (B, in, H, W) and `add`, (B, out) for each channel or (B, out, H', W') for each pixel → (B, out, H', W'), their sum.
    pub fn forward_add(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.forward_add(x, add)?)
    }

    /// The gradient of an input of (height, width) from that of the result.
    pub fn input_vjp(&self, size: (usize, usize), dy: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.input_vjp(size, dy, None)?)
    }

    /// [`Conv2d::input_vjp`] plus `add`, in the input's shape.
    pub fn input_vjp_add(&self, size: (usize, usize), dy: &Tensor, add: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.input_vjp(size, dy, Some(add))?)
    }

    /// [`Conv2d::forward`] of `x` at twice its size, each pixel four times.
    pub fn forward_doubled(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.forward_doubled(x)?)
    }
}

/// Group normalisation with an affine map, and SiLU after it where asked.
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Over (B, channels, H, W).
    pub fn new(groups: usize, channels: usize, eps: f64, w: &Weights) -> Result<Self> {
        Ok(GroupNorm { weight: w.get(channels, "weight")?, bias: w.get(channels, "bias")?, groups, eps })
    }

    /// Normalisation alone.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::group_norm(x, self.groups, &self.weight, &self.bias, self.eps, false)?)
    }

    /// Normalisation, then SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::group_norm(x, self.groups, &self.weight, &self.bias, self.eps, true)?)
    }

    /// The gradient of [`GroupNorm::forward_silu`]'s input from that of its result.
    pub fn silu_vjp(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        Ok(ops::group_norm_vjp(x, self.groups, &self.weight, &self.bias, self.eps, true, dy)?)
    }

    /// What the whole of a map, of which `x` is a part, is normalised by: to be joined with those of its other parts.
    pub fn moments(&self, x: &Tensor) -> Result<Moments> {
        Ok(Moments::of(x, self.groups)?)
    }

    /// [`GroupNorm::forward_silu`] of a part of a map, by the moments of the whole.
    pub fn forward_silu_by(&self, x: &Tensor, moments: &Moments) -> Result<Tensor> {
        Ok(ops::group_norm_by(x, moments, &self.weight, &self.bias, self.eps, true)?)
    }
}

/// Layer normalisation of the last dimension with an affine map.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Over (…, d).
    pub fn new(d: usize, eps: f64, w: &Weights) -> Result<Self> {
        Ok(LayerNorm { weight: w.get(d, "weight")?, bias: w.get(d, "bias")?, eps })
    }

    /// (…, d) → (…, d).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }

    /// The gradient of the input from that of the result.
    pub fn vjp(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm_vjp(x, &self.weight, &self.bias, self.eps, dy)?)
    }
}

/// Multi-head attention with projections; keys and values may come from another sequence.
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    /// diffusers' names (`to_q`, `to_k`, `to_v` without bias, `to_out.0` with). `context` is the width of keys' source.
    pub fn new(d: usize, context: usize, heads: usize, w: &Weights) -> Result<Self> {
        Ok(Attention {
            to_q: Linear::no_bias(d, d, &w.at("to_q"))?,
            to_k: Linear::no_bias(context, d, &w.at("to_k"))?,
            to_v: Linear::no_bias(context, d, &w.at("to_v"))?,
            to_out: Linear::new(d, d, &w.at("to_out.0"))?,
            heads,
        })
    }

    /// The autoencoder's: one head, every projection with bias.
    pub fn single_head(d: usize, w: &Weights) -> Result<Self> {
        Ok(Attention {
            to_q: Linear::new(d, d, &w.at("to_q"))?,
            to_k: Linear::new(d, d, &w.at("to_k"))?,
            to_v: Linear::new(d, d, &w.at("to_v"))?,
            to_out: Linear::new(d, d, &w.at("to_out.0"))?,
            heads: 1,
        })
    }

    /// `x` (B, N, d), `context` (B, M, c) → (B, N, d).
    pub fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        self.forward_between(x, context, None, Layout::Tokens)
    }

    /// [`Attention::forward`] plus `add` (B, N, d).
    pub fn forward_add(&self, x: &Tensor, context: &Tensor, add: &Tensor) -> Result<Tensor> {
        self.forward_between(x, context, Some(add), Layout::Tokens)
    }

    /// Of all pixels to each other, plus the picture `add`: (B, d, H, W) → (B, d, H, W).
    pub fn forward_pixels(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        let x = x.flatten_from(2)?;
        self.forward_between(&x, &x, Some(add), Layout::Channels)
    }

    /// The softmax weights: `x` (B, N, d), `context` (B, M, c) → (B, heads, N, M).
    pub fn weights(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let to_channels = (Layout::Tokens, Layout::Channels);
        let q = self.to_q.forward_between(x, None, to_channels)?;
        let k = self.to_k.forward_between(context, None, to_channels)?;
        Ok(ops::attention_weights(&q, &k, self.heads)?)
    }

    /// [`Attention::forward_add`] by these weights: `context` (B, M, c), `add` (B, N, d) → (B, N, d).
    pub fn forward_by(&self, weights: &Tensor, context: &Tensor, add: &Tensor) -> Result<Tensor> {
        let v = self.to_v.forward(context)?;
        let (b, m, d) = v.dims3()?;
        let v = v.reshape((b, m, self.heads, d / self.heads))?.transpose(1, 2)?.contiguous()?;
        let y = weights.matmul(&v)?.transpose(1, 2)?.flatten_from(2)?;
        self.to_out.forward_add(&y, add)
    }

    fn forward_between(&self, x: &Tensor, context: &Tensor, add: Option<&Tensor>, layout: Layout) -> Result<Tensor> {
        let q = self.to_q.forward_between(x, None, (layout, Layout::Channels))?;
        let k = self.to_k.forward_between(context, None, (layout, Layout::Channels))?;
        let v = self.to_v.forward_between(context, None, (layout, Layout::Tokens))?;
        let y = ops::attention(&q, &k, &v, self.heads, false)?;
        self.to_out.forward_between(&y, add, (Layout::Channels, layout))
    }
}

/// Numbers of the net's widest layer that are there at once for a gradient: 16 MiB in f32.
const FEED: usize = 4 << 20;

/// The transformer's feed-forward net with gated GELU: d → 2·4d → 4d → d.
pub struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    /// diffusers' names (`net.0.proj`, `net.2`).
    pub fn new(d: usize, w: &Weights) -> Result<Self> {
        Ok(FeedForward {
            proj: Linear::new(d, 8 * d, &w.at("net.0.proj"))?,
            out: Linear::new(4 * d, d, &w.at("net.2"))?,
        })
    }

    /// (B, N, d) → (B, N, d).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&ops::geglu(&self.proj.forward(x)?)?)
    }

    /// [`FeedForward::forward`] plus `add` (B, N, d).
    pub fn forward_add(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        self.out.forward_add(&ops::geglu(&self.proj.forward(x)?)?, add)
    }

    /// The gradient of `x` for x plus the net of its norm, from that of the result. Tokens know nothing of each other: some
    /// are taken at a time, because the net is eight times as wide as they are.
    pub fn vjp_add(&self, norm: &LayerNorm, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (b, n, d) = x.dims3()?;
        let (x, dy) = (x.reshape((b * n, d))?, dy.reshape((b * n, d))?);
        let tokens = (FEED / (8 * d)).max(64);
        let mut parts = Vec::new();
        for first in (0..b * n).step_by(tokens) {
            let rows = tokens.min(b * n - first);
            let (x, dy) = (x.narrow(0, first, rows)?, dy.narrow(0, first, rows)?);
            let wide = self.proj.forward(&norm.forward(&x)?)?;
            let dx = ops::geglu_vjp(&wide, &self.out.input_vjp(&dy)?)?;
            parts.push((norm.vjp(&x, &self.proj.input_vjp(&dx)?)? + dy)?);
        }
        Ok(Tensor::cat(&parts, 0)?.reshape((b, n, d))?)
    }
}
