//! The transformers inside a U-Net's levels (diffusers' `Transformer2DModel`).

use candle_core::Tensor;

use crate::Result;
use crate::models::config::{AttentionType, UNetConfig};
use crate::models::gligen::Fuser;
use crate::models::layers::{Attention, FeedForward, GroupNorm, LayerNorm, Linear};
use crate::ops::Layout;
use crate::weights::Weights;

/// Self-attention, GLIGEN's fuser where the model has one, cross-attention, feed-forward.
struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    fuser: Option<Fuser>,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl Block {
    fn new(d: usize, heads: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let context = c.cross_attention_dim;
        Ok(Block {
            norm1: LayerNorm::new(d, 1e-5, &w.at("norm1"))?,
            attn1: Attention::new(d, d, heads, &w.at("attn1"))?,
            fuser: (c.attention_type != AttentionType::Default)
                .then(|| Fuser::new(d, context, heads, &w.at("fuser")))
                .transpose()?,
            norm2: LayerNorm::new(d, 1e-5, &w.at("norm2"))?,
            attn2: Attention::new(d, context, heads, &w.at("attn2"))?,
            norm3: LayerNorm::new(d, 1e-5, &w.at("norm3"))?,
            ff: FeedForward::new(d, &w.at("ff"))?,
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor, objs: Option<&Tensor>) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let mut x = self.attn1.forward_add(&h, &h, x)?;
        if let (Some(fuser), Some(objs)) = (&self.fuser, objs) {
            x = fuser.forward(&x, objs)?;
        }
        let x = self.attn2.forward_add(&self.norm2.forward(&x)?, context, &x)?;
        self.ff.forward_add(&self.norm3.forward(&x)?, &x)
    }
}

/// Transformer blocks over the pixels of a feature map, with a residual around them.
pub struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    proj_out: Linear,
    blocks: Vec<Block>,
}

impl Transformer {
    /// `d` channels, `depth` blocks.
    pub fn new(d: usize, heads: usize, depth: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let projection = if c.use_linear_projection { Linear::new } else { Linear::pointwise };
        Ok(Transformer {
            norm: GroupNorm::new(c.norm_num_groups, d, 1e-6, &w.at("norm"))?,
            proj_in: projection(d, d, &w.at("proj_in"))?,
            proj_out: projection(d, d, &w.at("proj_out"))?,
            blocks: (0..depth)
                .map(|j| Block::new(d, heads, c, &w.at("transformer_blocks").at(j)))
                .collect::<Result<_>>()?,
        })
    }

    /// `x` (B, d, H, W), `context` (B, L, c), `objs` (B, M, c): grounding tokens, absent where the fuser is off.
    pub fn forward(&self, x: &Tensor, context: &Tensor, objs: Option<&Tensor>) -> Result<Tensor> {
        let y = self.norm.forward(x)?;
        let mut y = self.proj_in.forward_between(&y, None, (Layout::Channels, Layout::Tokens))?;
        for block in &self.blocks {
            y = block.forward(&y, context, objs)?;
        }
        self.proj_out.forward_between(&y, Some(x), (Layout::Tokens, Layout::Channels))
    }
}
