//! The layers of networks: weights with a shape, applied by [`crate::ops`].

use candle_core::Tensor;

use crate::Result;
use crate::ops::{self, Convolution, Layout, Moments};
use crate::reduce::at_least_f32;
use crate::weights::Weights;

/// A linear map of features with an optional bias; `weight` is (out, in).
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Loads `weight` and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Linear { weight: w.matrix((to, from), "weight")?, bias: Some(w.get(to, "bias")?) })
    }

    /// Loads `weight` alone.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn no_bias(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Linear { weight: w.matrix((to, from), "weight")?, bias: None })
    }

    /// Loads the weight of a 1×1 convolution, (out, in, 1, 1), and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn pointwise(from: usize, to: usize, w: &Weights) -> Result<Self> {
        let weight = w.matrix((to, from, 1, 1), "weight")?.squeeze(3)?.squeeze(2)?;
        Ok(Linear { weight, bias: Some(w.get(to, "bias")?) })
    }

    /// Loads the weight of a convolution without bias in windows of `side` that do not overlap, (out, channels, side, side).
    /// The linear map takes the numbers of a window, channel by channel.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn windows(channels: usize, side: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Linear { weight: w.matrix((to, channels, side, side), "weight")?.flatten_from(1)?, bias: None })
    }

    /// (…, in) → (…, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_between(x, None, (Layout::Tokens, Layout::Tokens))
    }

    /// [`Linear::forward`] plus `add` (…, out).
    pub fn forward_add(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        self.forward_between(x, Some(add), (Layout::Tokens, Layout::Tokens))
    }

    /// The VJP of [`Linear::forward`] with respect to its input.
    pub fn input_vjp(&self, dy: &Tensor) -> Result<Tensor> {
        Ok(ops::linear_vjp(&self.weight, dy)?)
    }

    /// Maps from one layout of features to another, see [`ops::linear_between`].
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
    /// Loads `weight` (out, in, k, k) and `bias`. `padding` is the number of zeros (above and left, below and right).
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(from: usize, to: usize, k: usize, stride: usize, padding: (usize, usize), w: &Weights) -> Result<Self> {
        let (weight, bias) = (w.matrix((to, from, k, k), "weight")?, w.get(to, "bias")?);
        Ok(Conv2d { convolution: Convolution::new(&weight, Some(&bias), stride, padding)?, channels: to })
    }

    /// A 3×3 convolution with stride 1 and padding 1.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn same3(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Self::new(from, to, 3, 1, (1, 1), w)
    }

    /// The number of channels of the result.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// (B, in, H, W) → (B, out, H', W').
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.forward(x)?)
    }

    /// [`Conv2d::forward`] plus `add`, which is (B, out) for each channel or (B, out, H', W') for each pixel.
    pub fn forward_add(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.forward_add(x, add)?)
    }

    /// The VJP with respect to an input of (height, width).
    pub fn input_vjp(&self, size: (usize, usize), dy: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.input_vjp(size, dy, None)?)
    }

    /// [`Conv2d::input_vjp`] plus `add`, which has the shape of the input.
    pub fn input_vjp_add(&self, size: (usize, usize), dy: &Tensor, add: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.input_vjp(size, dy, Some(add))?)
    }

    /// [`Conv2d::forward`] of `x` after nearest-neighbour upsampling by 2.
    pub fn forward_doubled(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.forward_doubled(x)?)
    }
}

/// Group normalisation with an affine map, optionally followed by SiLU.
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Loads the norm of (B, channels, H, W).
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(groups: usize, channels: usize, eps: f64, w: &Weights) -> Result<Self> {
        Ok(GroupNorm { weight: w.get(channels, "weight")?, bias: w.get(channels, "bias")?, groups, eps })
    }

    /// Normalises.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::group_norm(x, self.groups, &self.weight, &self.bias, self.eps, false)?)
    }

    /// Normalises, then applies SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::group_norm(x, self.groups, &self.weight, &self.bias, self.eps, true)?)
    }

    /// The VJP of [`GroupNorm::forward_silu`] with respect to its input.
    pub fn silu_vjp(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        Ok(ops::group_norm_vjp(x, self.groups, &self.weight, &self.bias, self.eps, true, dy)?)
    }

    /// The moments of a part `x` of a feature map, to be joined with those of the other parts.
    pub fn moments(&self, x: &Tensor) -> Result<Moments> {
        Ok(Moments::of(x, self.groups)?)
    }

    /// [`GroupNorm::forward_silu`] of a part of a feature map, by the moments of the whole map.
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
    /// Loads the norm of (…, d).
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(d: usize, eps: f64, w: &Weights) -> Result<Self> {
        Ok(LayerNorm { weight: w.get(d, "weight")?, bias: w.get(d, "bias")?, eps })
    }

    /// (…, d) → (…, d).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }

    /// The VJP with respect to the input.
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
    /// Whether half precision is widened to f32 between the projections.
    upcast: bool,
}

impl Attention {
    /// Loads the projections by diffusers' names (`to_q`, `to_k`, `to_v` without bias, `to_out.0` with). `context` is the width
    /// of the sequence of keys and values.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(d: usize, context: usize, heads: usize, w: &Weights) -> Result<Self> {
        Ok(Attention {
            to_q: Linear::no_bias(d, d, &w.at("to_q"))?,
            to_k: Linear::no_bias(context, d, &w.at("to_k"))?,
            to_v: Linear::no_bias(context, d, &w.at("to_v"))?,
            to_out: Linear::new(d, d, &w.at("to_out.0"))?,
            heads,
            upcast: false,
        })
    }

    /// Computes in f32 between the projections where the network computes in half precision: queries times keys may exceed
    /// the range of f16 (diffusers' `upcast_attention`).
    pub fn upcast(self, upcast: bool) -> Self {
        Attention { upcast, ..self }
    }

    fn wide(&self, x: Tensor) -> Result<Tensor> {
        if self.upcast { at_least_f32(&x) } else { Ok(x) }
    }

    /// Loads the attention of the autoencoder: one head, every projection with bias.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn single_head(d: usize, w: &Weights) -> Result<Self> {
        Ok(Attention {
            to_q: Linear::new(d, d, &w.at("to_q"))?,
            to_k: Linear::new(d, d, &w.at("to_k"))?,
            to_v: Linear::new(d, d, &w.at("to_v"))?,
            to_out: Linear::new(d, d, &w.at("to_out.0"))?,
            heads: 1,
            upcast: false,
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

    /// Attention of all pixels to each other, plus `add`: (B, d, H, W) → (B, d, H, W).
    pub fn forward_pixels(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        let x = x.flatten_from(2)?;
        self.forward_between(&x, &x, Some(add), Layout::Channels)
    }

    /// The softmax weights, in f32 or f64: `x` (B, N, d), `context` (B, M, c) → (B, heads, N, M). They are compared and summed,
    /// for which half precision is too coarse.
    pub fn weights(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let to_channels = (Layout::Tokens, Layout::Channels);
        let q = self.to_q.forward_between(x, None, to_channels)?;
        let k = self.to_k.forward_between(context, None, to_channels)?;
        Ok(ops::attention_weights(&at_least_f32(&q)?, &at_least_f32(&k)?, self.heads)?)
    }

    /// [`Attention::forward_add`] with these attention weights: `context` (B, M, c), `add` (B, N, d) → (B, N, d).
    pub fn forward_by(&self, weights: &Tensor, context: &Tensor, add: &Tensor) -> Result<Tensor> {
        let v = self.to_v.forward(context)?;
        let (b, m, d) = v.dims3()?;
        let v = v.reshape((b, m, self.heads, d / self.heads))?.transpose(1, 2)?.contiguous()?;
        let y = weights.to_dtype(v.dtype())?.matmul(&v)?.transpose(1, 2)?.flatten_from(2)?;
        self.to_out.forward_add(&y, add)
    }

    /// Self-attention in which each element attends to itself alone, plus `add`: both (B, N, d) → (B, N, d).
    pub fn forward_identity_add(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        self.to_out.forward_add(&self.to_v.forward(x)?, add)
    }

    fn forward_between(&self, x: &Tensor, context: &Tensor, add: Option<&Tensor>, layout: Layout) -> Result<Tensor> {
        let q = self.to_q.forward_between(x, None, (layout, Layout::Channels))?;
        let k = self.to_k.forward_between(context, None, (layout, Layout::Channels))?;
        let v = self.to_v.forward_between(context, None, (layout, Layout::Tokens))?;
        let dtype = q.dtype();
        let y = ops::attention(&self.wide(q)?, &self.wide(k)?, &self.wide(v)?, self.heads, false)?.to_dtype(dtype)?;
        self.to_out.forward_between(&y, add, (Layout::Channels, layout))
    }
}

/// Numbers of the widest layer that exist at once in the backward pass: 16 MiB in f32.
const FEED: usize = 4 << 20;

/// The transformer's feed-forward net with gated GELU: d → 2·4d → 4d → d.
pub struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    /// Loads the net by diffusers' names (`net.0.proj`, `net.2`).
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
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

    /// The VJP of x + net(norm(x)). Tokens do not depend on each other, so some are processed at a time, because the net is
    /// eight times as wide as a token.
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
