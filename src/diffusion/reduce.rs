//! Reductions of a tensor to a number.

use candle_core::{DType, Tensor};

use crate::Result;

/// Reads the number of a tensor with one element.
pub(crate) fn scalar(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// Returns the root mean square of a tensor's elements.
pub(crate) fn rms(x: &Tensor) -> Result<f64> {
    Ok(scalar(&x.to_dtype(DType::F32)?.sqr()?.mean_all()?)?.sqrt())
}
