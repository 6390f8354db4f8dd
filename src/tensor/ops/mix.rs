//! Sums of two latents, of which classifier-free guidance and the steps of samplers are made: one kernel on a CUDA device.

use candle_core::{Result, Tensor};

/// A sum of x and y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// a x + b y.
    Sum(f64, f64),
    /// x + s (y − x).
    Between(f64),
    /// (x − n y)/a.
    Without(f64, f64),
}

/// Computes a sum of two tensors of one shape and dtype.
///
/// # Errors
/// If shapes, dtypes or devices differ.
pub fn mix(x: &Tensor, y: &Tensor, mix: Mix) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if super::kernel::alike_on_device([x, y]) && x.shape() == y.shape() && !x.track_op() && !y.track_op() {
        let (kind, a, b) = match mix {
            Mix::Sum(a, b) => (0, a, b),
            Mix::Between(s) => (1, s, 0.0),
            Mix::Without(n, a) => (2, n, a),
        };
        return crate::cuda::elementwise::mix(kind, x, y, a, b);
    }
    match mix {
        Mix::Sum(1.0, b) => x + (y * b)?,
        Mix::Sum(a, b) => (x * a)? + (y * b)?,
        Mix::Between(s) => x + ((y - x)? * s)?,
        Mix::Without(n, a) => (x - (y * n)?)? / a,
    }
}
