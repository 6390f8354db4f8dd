//! The transformers inside a U-Net's levels (diffusers' `Transformer2DModel`).

use candle_core::Tensor;

use crate::Result;
use crate::models::attention_maps::{AttentionKind, AttentionPlace};
use crate::models::config::{AttentionType, UNetConfig};
use crate::models::gligen::Fuser;
use crate::models::layers::{Attention, FeedForward, GroupNorm, LayerNorm, Linear};
use crate::models::pass::Pass;
use crate::ops::Layout;
use crate::weights::Weights;

/// Self-attention, GLIGEN's fuser where the model has one, cross-attention, feed-forward.
pub(super) struct Block {
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

    /// `x` (B, N, d) → (B, N, d).
    pub fn forward(&self, x: &Tensor, context: &Tensor, objs: Option<&Tensor>) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let x = self.fuse(self.attn1.forward_add(&h, &h, x)?, objs)?;
        self.feed(self.attn2.forward_add(&self.norm2.forward(&x)?, context, &x)?)
    }

    /// The weights of one of its attentions and, unless they are the `last` thing wanted, what [`Block::forward`] gives.
    pub fn look(
        &self,
        x: &Tensor,
        context: &Tensor,
        objs: Option<&Tensor>,
        kind: AttentionKind,
        last: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let h = self.norm1.forward(x)?;
        if kind == AttentionKind::SelfAttention {
            let weights = self.attn1.weights(&h, &h)?;
            if last {
                return Ok((weights, None));
            }
            let x = self.fuse(self.attn1.forward_by(&weights, &h, x)?, objs)?;
            let y = self.feed(self.attn2.forward_add(&self.norm2.forward(&x)?, context, &x)?)?;
            return Ok((weights, Some(y)));
        }
        let x = self.fuse(self.attn1.forward_add(&h, &h, x)?, objs)?;
        let weights = self.attn2.weights(&self.norm2.forward(&x)?, context)?;
        let y = if last { None } else { Some(self.feed(self.attn2.forward_by(&weights, context, &x)?)?) };
        Ok((weights, y))
    }

    /// Lets the layout in.
    fn fuse(&self, x: Tensor, objs: Option<&Tensor>) -> Result<Tensor> {
        match (&self.fuser, objs) {
            (Some(fuser), Some(objs)) => fuser.forward(&x, objs),
            _ => Ok(x),
        }
    }

    fn feed(&self, x: Tensor) -> Result<Tensor> {
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

    /// Its blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// `x` (B, d, H, W) → (B, d, H, W). `at` is the place of its first block. None if the pass ends in it.
    pub(super) fn forward(&self, x: &Tensor, at: AttentionPlace, pass: &mut Pass) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        let y = self.norm.forward(x)?;
        let mut y = self.proj_in.forward_between(&y, None, (Layout::Channels, Layout::Tokens))?;
        for (i, block) in self.blocks.iter().enumerate() {
            match pass.transformer(block, &y, (h, w), &AttentionPlace { block: i, ..at })? {
                Some(next) => y = next,
                None => return Ok(None),
            }
        }
        self.proj_out.forward_between(&y, Some(x), (Layout::Tokens, Layout::Channels)).map(Some)
    }
}
