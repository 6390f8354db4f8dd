//! Rematerialisation: a network keeps the activations of some blocks for the backward pass, and recomputes the others.
//!
//! Under autodiff every layer keeps its input until the backward pass, and a transformer block has two dozen layers. A
//! block that is recomputed keeps only its own inputs.

use std::cell::Cell;
use std::sync::Arc;

use candle_core::Tensor;

use crate::{Result, ops};

/// The default limit of the bytes of activations that a network keeps for its backward pass: 2 GiB.
pub const GRADIENT_MEMORY: u64 = 2 << 30;

/// A part of a network that can be recomputed: a function of one to three tensors.
pub(super) trait Block: Send + Sync + 'static {
    /// How many numbers autodiff keeps for it, besides its inputs and its result.
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize>;

    /// Computes the result.
    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor>;

    /// The VJP: gradients of the `wanted` inputs from the gradient of the result. By default recomputes the result under
    /// autodiff.
    fn vjp(&self, inputs: &[Tensor], wanted: &[bool], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        recomputed(self, inputs, wanted, dy)
    }
}

/// The default [`Block::vjp`].
pub(super) fn recomputed<B: Block + ?Sized>(
    block: &B,
    inputs: &[Tensor],
    wanted: &[bool],
    dy: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    Ok(ops::vjp(|inputs| Ok(block.forward(inputs)?), inputs, wanted, |_| Ok(dy.clone()))?)
}

/// The bytes of activations that one pass through a network may still keep.
pub(super) struct RematBudget {
    left: Cell<u64>,
}

impl RematBudget {
    /// A budget of that many bytes.
    pub fn new(bytes: u64) -> Self {
        RematBudget { left: Cell::new(bytes) }
    }

    /// Runs a block. Keeps its activations if the budget allows, otherwise recomputes them in the backward pass. Keeps
    /// nothing if autodiff tracks no input.
    pub fn run<B: Block>(&self, block: &Arc<B>, inputs: &[&Tensor]) -> Result<Tensor> {
        self.run_by(block, inputs, |inputs| block.forward(inputs))
    }

    /// [`RematBudget::run`], where `value` computes the result of a block that is recomputed.
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
        let vjp = move |inputs: &[Tensor], wanted: &[bool], _: &Tensor, dy: &Tensor| {
            Ok(ops::on_pool_for(dy.device(), || block.vjp(inputs, wanted, dy))?)
        };
        Ok(ops::custom_vjp(inputs, value, Box::new(vjp))?)
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
