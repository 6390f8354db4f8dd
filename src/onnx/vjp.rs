//! Functions with a custom VJP.
//!
//! candle's autodiff keeps every intermediate of a composition, computes the gradients of constants too, and some of its
//! gradients are wrong. Here the value is computed on detached tensors, and the VJP is written by hand.

use candle_core::Tensor;
use lsregen_tensor::ops;

use crate::Result;

/// Makes `y`, which was computed from the detached `x`, a function of `x` with this VJP: (x, y, ∂L/∂y) → ∂L/∂x.
pub fn custom_vjp(
    x: &Tensor,
    y: Tensor,
    vjp: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let gradient =
        move |inputs: &[Tensor], _: &[bool], y: &Tensor, dy: &Tensor| Ok(vec![Some(vjp(&inputs[0], y, dy)?)]);
    Ok(ops::custom_vjp(&[x], y, Box::new(gradient))?)
}
