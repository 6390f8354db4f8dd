//! One pass through a U-Net: the inputs that all blocks share, and the attention that is recorded on the way.

use std::sync::Arc;

use candle_core::Tensor;

use super::attention_maps::{AttentionLayer, Recorder};
use super::block::{PerturbedBlock, TransformerBlock};
use super::constants::UNetConstants;
use super::options::PassOptions;
use crate::Result;
use crate::models::remat::{Block, RematBudget};
use crate::models::resnet::ResnetBlock;

/// One pass through the network.
pub(super) struct Pass<'a> {
    /// Time embedding after SiLU, (B, d).
    pub temb: &'a Tensor,
    /// Hidden states of the text, (B, L, c).
    pub context: &'a Tensor,
    /// Grounding tokens (B, M, c), absent where the fusers are off.
    pub objs: Option<&'a Tensor>,
    /// What it does differently.
    pub options: &'a PassOptions,
    /// What the network keeps from pass to pass.
    pub constants: &'a UNetConstants,
    /// What may be kept for the backward pass.
    pub memory: RematBudget,
    /// Records attention maps, if the pass is for them and not for the network's result.
    pub recorder: Option<Recorder>,
}

impl Pass<'_> {
    /// Runs a residual block on `x` and, on the way up, on a skip connection.
    pub fn resnet(&self, block: &Arc<ResnetBlock>, x: &Tensor, skip: Option<&Tensor>) -> Result<Tensor> {
        match skip {
            Some(skip) => self.memory.run(block, &[x, skip, self.temb]),
            None => self.memory.run(block, &[x, self.temb]),
        }
    }

    /// Runs a block of a transformer over a feature map of that `size`. `None` if all maps have been recorded: the pass ends
    /// here.
    pub fn transformer(
        &mut self,
        block: &Arc<TransformerBlock>,
        x: &Tensor,
        size: (usize, usize),
        place: &AttentionLayer,
    ) -> Result<Option<Tensor>> {
        if let Some(recorder) = &mut self.recorder
            && let Some((kind, last)) = recorder.at(place)
        {
            let (weights, y) = block.record(x, self.context, self.objs, kind, last)?;
            recorder.record(size, weights);
            return Ok(y);
        }
        let y = match self.options.perturbed_from(place) {
            Some(from) => self.run(&Arc::new(PerturbedBlock { block: block.clone(), from }), x)?,
            None => self.run(block, x)?,
        };
        Ok(Some(y))
    }

    fn run<B: Block>(&self, block: &Arc<B>, x: &Tensor) -> Result<Tensor> {
        match self.objs {
            Some(objs) => self.memory.run(block, &[x, self.context, objs]),
            None => self.memory.run(block, &[x, self.context]),
        }
    }

    /// The inputs of a residual block of `up_blocks.N`: the features from below and the skip connection, changed by FreeU.
    pub fn up_inputs(&self, n: usize, h: Tensor, skip: Tensor) -> Result<(Tensor, Tensor)> {
        match &self.options.freeu {
            Some(freeu) => freeu.apply(n, &h, &skip, self.constants),
            None => Ok((h, skip)),
        }
    }
}
