//! The transformers inside a U-Net's levels (diffusers' `Transformer2DModel`).

use candle_core::Tensor;

use crate::Result;
use crate::models::config::{AttentionType, UNetConfig};
use crate::models::gligen::Fuser;
use crate::models::layers::{Attention, Conv2d, FeedForward, GroupNorm, LayerNorm, Linear};
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
        let mut x = (x + self.attn1.forward(&h, &h)?)?;
        if let (Some(fuser), Some(objs)) = (&self.fuser, objs) {
            x = fuser.forward(&x, objs)?;
        }
        let x = (&x + self.attn2.forward(&self.norm2.forward(&x)?, context)?)?;
        Ok((&x + self.ff.forward(&self.norm3.forward(&x)?)?)?)
    }
}

enum Projection {
    Linear(Linear, Linear),
    Conv(Conv2d, Conv2d),
}

/// Transformer blocks over the pixels of a feature map, with a residual around them.
pub struct Transformer {
    norm: GroupNorm,
    projection: Projection,
    blocks: Vec<Block>,
}

impl Transformer {
    /// `d` channels, `depth` blocks.
    pub fn new(d: usize, heads: usize, depth: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let (i, o) = (w.at("proj_in"), w.at("proj_out"));
        Ok(Transformer {
            norm: GroupNorm::new(c.norm_num_groups, d, 1e-6, &w.at("norm"))?,
            projection: if c.use_linear_projection {
                Projection::Linear(Linear::new(d, d, &i)?, Linear::new(d, d, &o)?)
            } else {
                Projection::Conv(Conv2d::new(d, d, 1, 1, 0, &i)?, Conv2d::new(d, d, 1, 1, 0, &o)?)
            },
            blocks: (0..depth)
                .map(|j| Block::new(d, heads, c, &w.at("transformer_blocks").at(j)))
                .collect::<Result<_>>()?,
        })
    }

    /// `x` (B, d, H, W), `context` (B, L, c), `objs` (B, M, c): grounding tokens, absent where the fuser is off.
    pub fn forward(&self, x: &Tensor, context: &Tensor, objs: Option<&Tensor>) -> Result<Tensor> {
        let (b, d, h, w) = x.dims4()?;
        let tokens = |y: &Tensor| -> Result<Tensor> { Ok(y.reshape((b, d, h * w))?.transpose(1, 2)?.contiguous()?) };
        let pixels = |y: &Tensor| -> Result<Tensor> { Ok(y.transpose(1, 2)?.contiguous()?.reshape((b, d, h, w))?) };
        let y = self.norm.forward(x)?;
        let mut y = match &self.projection {
            Projection::Linear(i, _) => i.forward(&tokens(&y)?)?,
            Projection::Conv(i, _) => tokens(&i.forward(&y)?)?,
        };
        for block in &self.blocks {
            y = block.forward(&y, context, objs)?;
        }
        let y = match &self.projection {
            Projection::Linear(_, o) => pixels(&o.forward(&y)?)?,
            Projection::Conv(_, o) => o.forward(&pixels(&y)?)?,
        };
        Ok((x + y)?)
    }
}
