//! The layers that networks are made of: weights with a shape, applied by [`crate::ops`].

use candle_core::Tensor;

use crate::Result;
use crate::ops;
use crate::weights::Weights;

/// Affine map of the last dimension; `weight` (out, in).
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// With `weight` and `bias`.
    pub fn new(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Linear { weight: w.get((to, from), "weight")?, bias: Some(w.get(to, "bias")?) })
    }

    /// With `weight` alone.
    pub fn no_bias(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Linear { weight: w.get((to, from), "weight")?, bias: None })
    }

    /// (…, in) → (…, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(x, &self.weight, self.bias.as_ref())?)
    }
}

/// Two-dimensional convolution with bias.
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// `weight` (out, in, k, k).
    pub fn new(from: usize, to: usize, k: usize, stride: usize, padding: usize, w: &Weights) -> Result<Self> {
        Ok(Conv2d { weight: w.get((to, from, k, k), "weight")?, bias: w.get(to, "bias")?, stride, padding })
    }

    /// 3×3, stride 1, padding 1.
    pub fn same3(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Self::new(from, to, 3, 1, 1, w)
    }

    /// (B, in, H, W) → (B, out, H', W').
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::conv2d(x, &self.weight, Some(&self.bias), self.stride, self.padding)?)
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
        let (q, k, v) = (self.to_q.forward(x)?, self.to_k.forward(context)?, self.to_v.forward(context)?);
        self.to_out.forward(&ops::attention(&q, &k, &v, self.heads, false)?)
    }
}

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
}
