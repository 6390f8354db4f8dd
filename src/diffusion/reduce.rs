//! Reductions of a tensor, and the one place where a sampling reads numbers from its device.
//!
//! A read waits until the device has computed everything before it. [`readings`] counts them, so that a test can state which
//! steps of a sampling read.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Tensor};

use crate::Result;

/// The number of reads so far.
static READINGS: AtomicU64 = AtomicU64::new(0);

/// Returns how often this process has read numbers by [`numbers`] or [`scalar`].
pub fn readings() -> u64 {
    READINGS.load(Ordering::Relaxed)
}

/// Reads all numbers of a tensor.
///
/// # Errors
/// If the device fails.
pub fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    READINGS.fetch_add(1, Ordering::Relaxed);
    Ok(x.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

/// Reads the number of a tensor with one element.
///
/// # Errors
/// If the tensor has another number of elements, or the device fails.
pub fn scalar(x: &Tensor) -> Result<f64> {
    READINGS.fetch_add(1, Ordering::Relaxed);
    Ok(x.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// Whether all numbers are finite; waits for the device. A maximum would not do: on CUDA, that of NaN and a number is the number.
pub fn all_finite(x: &Tensor) -> Result<bool> {
    Ok(scalar(&x.affine(0.0, 0.0)?.to_dtype(DType::F32)?.sum_all()?)? == 0.0)
}

/// Widens half precision, which is too coarse for sums and differences, to f32.
pub(crate) fn at_least_f32(x: &Tensor) -> Result<Tensor> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { Ok(x.to_dtype(DType::F32)?) } else { Ok(x.clone()) }
}

/// Returns the root mean square of a tensor's elements, a tensor without dimensions in f64.
pub(crate) fn rms(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(DType::F32)?.sqr()?.mean_all()?.to_dtype(DType::F64)?.sqrt()?)
}
