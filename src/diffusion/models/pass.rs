//! One pass through a U-Net: what every block of it gets, and what is looked at on the way.
//!
//! Knows how blocks are run. Does not know in which order.

use std::sync::Arc;

use candle_core::Tensor;

use crate::Result;
use crate::models::attention_maps::{AttentionPlace, Look};
use crate::models::checkpoint::Memory;
use crate::models::resnet::ResnetBlock;
use crate::models::transformer::TransformerBlock;

/// One pass through the network.
pub(super) struct Pass<'a> {
    /// Time embedding after SiLU, (B, d).
    pub temb: &'a Tensor,
    /// Hidden states of the text, (B, L, c).
    pub context: &'a Tensor,
    /// Grounding tokens (B, M, c), absent where the fusers are off.
    pub objs: Option<&'a Tensor>,
    /// What may be kept for a gradient.
    pub memory: Memory,
    /// What is to be seen. Nothing: the network's result is what is wanted.
    pub look: Option<Look>,
}

impl Pass<'_> {
    /// Runs a residual block, on `x` and on what the way down left, if it takes it.
    pub fn resnet(&self, block: &Arc<ResnetBlock>, x: &Tensor, skip: Option<&Tensor>) -> Result<Tensor> {
        match skip {
            Some(skip) => self.memory.run(block, &[x, skip, self.temb]),
            None => self.memory.run(block, &[x, self.temb]),
        }
    }

    /// Runs a block of a transformer over a feature map of that `size`. None if all has been seen: the pass ends here.
    pub fn transformer(
        &mut self,
        block: &Arc<TransformerBlock>,
        x: &Tensor,
        size: (usize, usize),
        place: &AttentionPlace,
    ) -> Result<Option<Tensor>> {
        if let Some(look) = &mut self.look
            && let Some((kind, last)) = look.at(place)
        {
            let (weights, y) = block.look(x, self.context, self.objs, kind, last)?;
            look.saw(size, weights);
            return Ok(y);
        }
        let y = match self.objs {
            Some(objs) => self.memory.run(block, &[x, self.context, objs])?,
            None => self.memory.run(block, &[x, self.context])?,
        };
        Ok(Some(y))
    }
}
