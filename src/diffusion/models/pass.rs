//! One pass through a U-Net: what every block of it gets, and what is looked at on the way.
//!
//! Knows how blocks are run. Does not know in which order.

use candle_core::Tensor;

use crate::Result;
use crate::models::attention_maps::{AttentionPlace, Look};
use crate::models::resnet::ResnetBlock;
use crate::models::transformer::Block;

/// One pass through the network.
pub(super) struct Pass<'a> {
    /// Time embedding after SiLU, (B, d).
    pub temb: &'a Tensor,
    /// Hidden states of the text, (B, L, c).
    pub context: &'a Tensor,
    /// Grounding tokens (B, M, c), absent where the fusers are off.
    pub objs: Option<&'a Tensor>,
    /// What is to be seen. Nothing: the network's result is what is wanted.
    pub look: Option<Look>,
}

impl Pass<'_> {
    /// Runs a residual block.
    pub fn resnet(&self, block: &ResnetBlock, x: &Tensor) -> Result<Tensor> {
        block.forward(x, Some(self.temb))
    }

    /// Runs a block of a transformer over a feature map of that `size`. None if all has been seen: the pass ends here.
    pub fn transformer(
        &mut self,
        block: &Block,
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
        block.forward(x, self.context, self.objs).map(Some)
    }
}
