//! The block of a U-Net's transformers (diffusers' `BasicTransformerBlock`).

use std::sync::Arc;

use candle_core::Tensor;

use super::attention_maps::AttentionKind;
use crate::Result;
use crate::models::config::{AttentionType, UNetConfig};
use crate::models::gligen::Fuser;
use crate::models::layers::{Attention, FeedForward, LayerNorm};
use crate::models::remat::Block;
use crate::ops;
use crate::weights::Weights;

/// Self-attention, GLIGEN's fuser if the model has one, cross-attention, feed-forward net.
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
    pub fn new(d: usize, heads: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let context = c.cross_attention_dim;
        Ok(TransformerBlock {
            norm1: LayerNorm::new(d, 1e-5, &w.at("norm1"))?,
            attn1: Attention::new(d, d, heads, &w.at("attn1"))?.upcast(c.upcast_attention),
            fuser: (c.attention_type != AttentionType::Default)
                .then(|| Fuser::new(d, context, heads, &w.at("fuser")))
                .transpose()?,
            norm2: LayerNorm::new(d, 1e-5, &w.at("norm2"))?,
            attn2: Attention::new(d, context, heads, &w.at("attn2"))?.upcast(c.upcast_attention),
            norm3: LayerNorm::new(d, 1e-5, &w.at("norm3"))?,
            ff: FeedForward::new(d, &w.at("ff"))?,
        })
    }

    /// `x` (B, N, d) → (B, N, d).
    pub fn forward(&self, x: &Tensor, context: &Tensor, objs: Option<&Tensor>) -> Result<Tensor> {
        self.feed(self.attend(x, context, objs, None)?)
    }

    /// Runs everything except the feed-forward net. The self-attention of the samples from number `perturbed` on is the
    /// identity.
    fn attend(&self, x: &Tensor, context: &Tensor, objs: Option<&Tensor>, perturbed: Option<usize>) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let attended = match perturbed {
            None => self.attn1.forward_add(&h, &h, x)?,
            Some(0) => self.attn1.forward_identity_add(&h, x)?,
            Some(from) => {
                let intact = |t: &Tensor| t.narrow(0, 0, from);
                let perturbed = |t: &Tensor| t.narrow(0, from, t.dim(0)? - from);
                let first = self.attn1.forward_add(&intact(&h)?, &intact(&h)?, &intact(x)?)?;
                Tensor::cat(&[&first, &self.attn1.forward_identity_add(&perturbed(&h)?, &perturbed(x)?)?], 0)?
            }
        };
        let x = self.fuse(attended, objs)?;
        self.attn2.forward_add(&self.norm2.forward(&x)?, context, &x)
    }

    /// Returns the weights of one of its attentions and, unless they are the `last` to be recorded, the result of
    /// [`TransformerBlock::forward`].
    pub fn record(
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

    /// Applies GLIGEN's fuser, if there is one and it is on.
    fn fuse(&self, x: Tensor, objs: Option<&Tensor>) -> Result<Tensor> {
        match (&self.fuser, objs) {
            (Some(fuser), Some(objs)) => fuser.forward(&x, objs),
            _ => Ok(x),
        }
    }

    fn feed(&self, x: Tensor) -> Result<Tensor> {
        self.ff.forward_add(&self.norm3.forward(&x)?, &x)
    }

    /// The VJP of [`Block::forward`]. Recomputes only the attentions under autodiff.
    fn vjp_from(
        &self,
        perturbed: Option<usize>,
        inputs: &[Tensor],
        wanted: &[bool],
        dy: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let attend = |x: &[Tensor]| Ok(self.attend(&x[0], &x[1], x.get(2), perturbed)?);
        let feed = |x: Tensor| Ok(self.ff.vjp_add(&self.norm3, &x, dy)?);
        Ok(ops::vjp(attend, inputs, wanted, feed)?)
    }
}

impl Block for TransformerBlock {
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize> {
        let ((b, n, d), (_, l, _)) = (inputs[0].dims3()?, inputs[1].dims3()?);
        // Self-attention: its norm, three projections, result, sum; cross-attention: norm, queries, result, sum; the
        // feed-forward net: norm, 8 to be gated, 4 gated. The sum that the block returns is not among them.
        let mut numbers = (6 + 4 + 13) * n * d + 2 * l * d;
        if let (Some(_), Some(objs)) = (&self.fuser, inputs.get(2)) {
            numbers += Fuser::kept(n, objs.dim(1)?, d);
        }
        Ok(b * numbers)
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.forward(&inputs[0], &inputs[1], inputs.get(2))
    }

    fn vjp(&self, inputs: &[Tensor], wanted: &[bool], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        self.vjp_from(None, inputs, wanted, dy)
    }
}

/// A transformer block in which the self-attention of the last samples of a batch is the identity.
pub(super) struct PerturbedBlock {
    /// The block.
    pub block: Arc<TransformerBlock>,
    /// The first of these samples.
    pub from: usize,
}

impl Block for PerturbedBlock {
    /// At most what is kept for the block with all of its attention.
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize> {
        self.block.kept(inputs)
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.block.feed(self.block.attend(&inputs[0], &inputs[1], inputs.get(2), Some(self.from))?)
    }

    fn vjp(&self, inputs: &[Tensor], wanted: &[bool], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        self.block.vjp_from(Some(self.from), inputs, wanted, dy)
    }
}
