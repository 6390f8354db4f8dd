//! The transformer layer of CLIP, the same in its text encoder and its image encoder.

use candle_core::Tensor;

use crate::Result;
use crate::models::config::{ClipActivation, ClipLayerConfig};
use crate::models::layers::{LayerNorm, Linear};
use crate::ops::{self, Layout};
use crate::weights::Weights;

/// A transformer layer of CLIP.
pub(super) struct ClipLayer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: ClipActivation,
    causal: bool,
}

impl ClipLayer {
    /// Builds the layers of an encoder from `{w}.layers`.
    pub(super) fn all(c: &ClipLayerConfig, count: usize, w: &Weights) -> Result<Vec<Self>> {
        let layers = w.at("layers");
        (0..count).map(|i| Self::new(c, &layers.at(i))).collect()
    }

    fn new(c: &ClipLayerConfig, w: &Weights) -> Result<Self> {
        let (d, a) = (c.width, w.at("self_attn"));
        Ok(ClipLayer {
            norm1: LayerNorm::new(d, c.eps, &w.at("layer_norm1"))?,
            q: Linear::new(d, d, &a.at("q_proj"))?,
            k: Linear::new(d, d, &a.at("k_proj"))?,
            v: Linear::new(d, d, &a.at("v_proj"))?,
            out: Linear::new(d, d, &a.at("out_proj"))?,
            norm2: LayerNorm::new(d, c.eps, &w.at("layer_norm2"))?,
            fc1: Linear::new(d, c.inner, &w.at("mlp.fc1"))?,
            fc2: Linear::new(c.inner, d, &w.at("mlp.fc2"))?,
            heads: c.heads,
            activation: c.activation,
            causal: c.causal,
        })
    }

    /// (B, N, d) → (B, N, d).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let channels_first = (Layout::Tokens, Layout::Channels);
        let q = self.q.forward_between(&h, None, channels_first)?;
        let k = self.k.forward_between(&h, None, channels_first)?;
        let attended = ops::attention(&q, &k, &self.v.forward(&h)?, self.heads, self.causal)?;
        let x = self.out.forward_between(&attended, Some(x), (Layout::Channels, Layout::Tokens))?;
        let h = self.fc1.forward(&self.norm2.forward(&x)?)?;
        let h = match self.activation {
            ClipActivation::QuickGelu => ops::quick_gelu(&h)?,
            ClipActivation::Gelu => ops::gelu(&h)?,
        };
        self.fc2.forward_add(&h, &x)
    }
}
