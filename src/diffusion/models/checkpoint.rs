//! Gradient checkpointing: what a network keeps of its blocks for the gradient, and what it computes again.
//!
//! Under autodiff every layer keeps its input until the gradient is there, and a transformer's block has two dozen
//! layers. A block that is computed again keeps its own inputs alone. Knows blocks and bytes. Knows no network.

use std::cell::Cell;
use std::sync::Arc;

use candle_core::Tensor;

use crate::{Result, ops};

/// Bytes that a network may keep for its gradient unless it is told otherwise.
pub const GRADIENT_MEMORY: u64 = 2 << 30;

/// A part of a network that can be computed again: a function of one to three tensors.
pub(super) trait Block: Send + Sync + 'static {
    /// Numbers that autodiff keeps of it, beside its inputs and its result.
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize>;

    /// Its result.
    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor>;

    /// The gradients of the `wanted` inputs from that of the result. By computing the result again under autodiff, unless
    /// the block knows better.
    fn vjp(&self, inputs: &[Tensor], wanted: &[bool], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        recomputed(self, inputs, wanted, dy)
    }
}

/// [`Block::vjp`] of any block.
pub(super) fn recomputed<B: Block + ?Sized>(
    block: &B,
    inputs: &[Tensor],
    wanted: &[bool],
    dy: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    Ok(ops::vjp(|inputs| Ok(block.forward(inputs)?), inputs, wanted, |_| Ok(dy.clone()))?)
}

/// What may be kept for a gradient, on one pass through a network.
pub(super) struct Memory {
    left: Cell<u64>,
}

impl Memory {
    /// Of that many bytes.
    pub fn new(bytes: u64) -> Self {
        Memory { left: Cell::new(bytes) }
    }

    /// Runs a block. In the order of the pass each block for which there is room is kept; others are computed again.
    /// Where autodiff tracks no input, nothing is kept.
    pub fn run<B: Block>(&self, block: &Arc<B>, inputs: &[&Tensor]) -> Result<Tensor> {
        self.run_by(block, inputs, |inputs| block.forward(inputs))
    }

    /// [`Memory::run`], with another way to the value of a block that is not kept.
    pub fn run_by<B: Block>(
        &self,
        block: &Arc<B>,
        inputs: &[&Tensor],
        value: impl FnOnce(&[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if self.keeps(&**block, inputs)? {
            return block.forward(&inputs.iter().map(|t| (*t).clone()).collect::<Vec<_>>());
        }
        let value = value(&inputs.iter().map(|t| t.detach()).collect::<Vec<_>>())?;
        let block = block.clone();
        let gradient = move |inputs: &[Tensor], wanted: &[bool], _: &Tensor, dy: &Tensor| {
            Ok(ops::on_pool_for(dy.device(), || block.vjp(inputs, wanted, dy))?)
        };
        Ok(ops::custom_vjp(inputs, value, Box::new(gradient))?)
    }

    fn keeps<B: Block>(&self, block: &B, inputs: &[&Tensor]) -> Result<bool> {
        let Some(input) = inputs.iter().find(|t| t.track_op()) else { return Ok(true) };
        let bytes = (block.kept(inputs)? * input.dtype().size_in_bytes()) as u64;
        let fits = bytes <= self.left.get();
        if fits {
            self.left.set(self.left.get() - bytes);
        }
        Ok(fits)
    }
}
