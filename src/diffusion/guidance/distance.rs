//! Distances between a feature and its ideal.

use candle_core::Tensor;

use crate::Result;

/// A distance and its gradient with respect to the feature.
pub trait Distance: Send + Sync {
    /// D, a scalar, differentiable.
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor>;

    /// ∂D/∂feature, in the feature's shape.
    fn gradient(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor>;
}

/// D = ‖f̄ − f‖², the sum over all elements: LSReGen's.
pub struct SquaredL2;

impl Distance for SquaredL2 {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        Ok((feature - target)?.sqr()?.sum_all()?)
    }

    fn gradient(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        Ok(((feature - target)? * 2.0)?)
    }
}
