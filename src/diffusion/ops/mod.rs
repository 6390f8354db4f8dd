//! The building blocks that every network of this crate is made of, differentiable on every device.
//!
//! The plain candle form in [`plain`] is the definition, the test, and the form on other devices and dtypes. For f32 on
//! the CPU each function here has a kernel, a file an operation, around `gemm`'s matrix products or the register tile of
//! `tile`. Kernels take their weights as constants: where autodiff tracks a weight, the plain form is used. They run on
//! rayon's current pool. This module knows no model.

mod attention;
mod conv;
mod elementwise;
mod kernel;
mod linear;
mod norm;
pub mod plain;
mod resample;
mod simd;
mod tile;

use candle_core::{Result, Tensor};

pub use attention::attention;
pub use conv::Convolution;
pub use elementwise::{geglu, gelu, quick_gelu, silu};
pub use linear::{Layout, linear, linear_between};
pub use norm::{group_norm, layer_norm};
pub use resample::upsample_nearest_2x;

/// Cross-correlation, see [`Convolution`], which keeps the weights ready for the next time.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: (usize, usize),
) -> Result<Tensor> {
    Convolution::new(weight, bias, stride, padding)?.forward(x)
}

/// Runs `f` on rayon's pool, where the kernels within can share their work without waking it each time.
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}
