//! The transformers inside a U-Net's levels (diffusers' `Transformer2DModel`).

use std::sync::Arc;

use candle_core::Tensor;

use crate::Result;
use crate::models::attention_maps::{AttentionKind, AttentionPlace};
use crate::models::checkpoint::Block;
use crate::models::config::{AttentionType, UNetConfig};
use crate::models::gligen::Fuser;
use crate::models::layers::{Attention, FeedForward, GroupNorm, LayerNorm, Linear};
use crate::models::pass::Pass;
use crate::ops::{self, Layout};
use crate::weights::Weights;

/// Self-attention, GLIGEN's fuser where the model has one, cross-attention, feed-forward.
pub(super) struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    fuser: Option<Fuser>,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(d: usize, heads: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let context = c.cross_attention_dim;
        Ok(TransformerBlock {
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
        self.feed(self.attend(x, context, objs)?)
    }

    /// All but the feed-forward net.
    fn attend(&self, x: &Tensor, context: &Tensor, objs: Option<&Tensor>) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let x = self.fuse(self.attn1.forward_add(&h, &h, x)?, objs)?;
        self.attn2.forward_add(&self.norm2.forward(&x)?, context, &x)
    }

    /// The weights of one of its attentions and, unless they are the `last` thing wanted, what [`TransformerBlock::forward`] gives.
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

impl Block for TransformerBlock {
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize> {
        let ((b, n, d), (_, l, _)) = (inputs[0].dims3()?, inputs[1].dims3()?);
        // Self-attention: its norm, three projections, result, sum; cross-attention: norm, queries, result, sum; the
        // feed-forward net: norm, 8 to be gated, 4 gated. The sum that the block gives is not among them.
        let mut numbers = (6 + 4 + 13) * n * d + 2 * l * d;
        if let (Some(_), Some(objs)) = (&self.fuser, inputs.get(2)) {
            numbers += Fuser::kept(n, objs.dim(1)?, d);
        }
        Ok(b * numbers)
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.forward(&inputs[0], &inputs[1], inputs.get(2))
    }

    /// Only the attentions are computed again under autodiff.
    fn vjp(&self, inputs: &[Tensor], wanted: &[bool], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let attend = |x: &[Tensor]| Ok(self.attend(&x[0], &x[1], x.get(2))?);
        let feed = |x: Tensor| Ok(self.ff.vjp_add(&self.norm3, &x, dy)?);
        Ok(ops::vjp(attend, inputs, wanted, feed)?)
    }
}

/// What a transformer begins with: pixels become tokens.
struct Entry {
    norm: GroupNorm,
    proj_in: Linear,
}

impl Block for Entry {
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize> {
        Ok(inputs[0].elem_count())
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.proj_in.forward_between(&self.norm.forward(&inputs[0])?, None, (Layout::Channels, Layout::Tokens))
    }
}

/// Transformer blocks over the pixels of a feature map, with a residual around them.
pub struct Transformer {
    entry: Arc<Entry>,
    proj_out: Linear,
    blocks: Vec<Arc<TransformerBlock>>,
}

impl Transformer {
    /// `d` channels, `depth` blocks.
    pub fn new(d: usize, heads: usize, depth: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let projection = if c.use_linear_projection { Linear::new } else { Linear::pointwise };
        Ok(Transformer {
            entry: Arc::new(Entry {
                norm: GroupNorm::new(c.norm_num_groups, d, 1e-6, &w.at("norm"))?,
                proj_in: projection(d, d, &w.at("proj_in"))?,
            }),
            proj_out: projection(d, d, &w.at("proj_out"))?,
            blocks: (0..depth)
                .map(|j| TransformerBlock::new(d, heads, c, &w.at("transformer_blocks").at(j)).map(Arc::new))
                .collect::<Result<_>>()?,
        })
    }

    /// `x` (B, d, H, W) → (B, d, H, W). `at` is the place of its first block. None if the pass ends in it.
    pub(super) fn forward(&self, x: &Tensor, at: AttentionPlace, pass: &mut Pass) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        let mut y = pass.memory.run(&self.entry, &[x])?;
        for (i, block) in self.blocks.iter().enumerate() {
            match pass.transformer(block, &y, (h, w), &AttentionPlace { block: i, ..at })? {
                Some(next) => y = next,
                None => return Ok(None),
            }
        }
        self.proj_out.forward_between(&y, Some(x), (Layout::Tokens, Layout::Channels)).map(Some)
    }
}
