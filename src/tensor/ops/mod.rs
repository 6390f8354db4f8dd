//! The operations of networks, differentiable on every device.
//!
//! The plain candle form in [`plain`] defines and tests each operation, and is used on other devices and dtypes. For f32 on
//! the CPU each operation has a kernel in a file of its own, on `gemm`'s matrix products or on the register tile of `tile`.
//! Kernels treat weights as constants; if autodiff tracks a weight, the plain form is used. Linear maps and convolutions
//! accept weights in f16 and bf16 too, and compute with the same numbers in f32. Kernels run on rayon's current pool.
//!
//! VJPs are written by hand: see [`custom_vjp`] and [`vjp`](fn@vjp).

mod attention;
mod attention_vjp;
mod conv;
mod elementwise;
mod vjp;
mod plain_vjp;
mod kernel;
mod linear;
mod memory;
mod mix;
mod threads;
mod norm;
pub mod plain;
mod resample;
mod simd;
mod tile;
mod widen;

use candle_core::{Device, Result, Tensor};

pub use attention::{attention, attention_weights};
pub use conv::Convolution;
pub use elementwise::{geglu, geglu_vjp, gelu, quick_gelu, silu};
pub use linear::{Layout, linear, linear_between, linear_vjp};
pub use memory::keep_memory;
pub use mix::{Mix, mix};
pub use norm::{Moments, group_norm, group_norm_by, group_norm_vjp, layer_norm, layer_norm_vjp};
pub use resample::{select_pixels, upsample_nearest_2x};
pub use threads::start_threads;
pub use vjp::{Vjp, custom_vjp, vjp};

/// Cross-correlation. [`Convolution`] keeps the prepared weights for further calls.
///
/// # Errors
/// As [`Convolution::new`] and [`Convolution::forward`].
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: (usize, usize),
) -> Result<Tensor> {
    Convolution::new(weight, bias, stride, padding)?.forward(x)
}

/// Clamps numbers to [`low`, `high`]. NaN stays NaN on every device.
///
/// # Errors
/// If candle's operations fail.
pub fn clamp(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    keep_nan(x.clamp(low, high)?, x)
}

/// Returns `y`, which comes from minima and maxima of `x`, with NaN where `x` has one: CUDA's minimum of NaN and a number is the
/// number, so that a result would hide that a computation failed. Infinity, which f16 reaches at 65520, becomes NaN too.
///
/// # Errors
/// If shapes do not match.
pub fn keep_nan(y: Tensor, x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cuda() {
        return Ok(y);
    }
    y + x.detach().affine(0.0, 0.0)?
}

/// Joins feature maps (B, Cᵢ, H, W) along their channels.
///
/// # Errors
/// If shapes do not match.
pub fn join_channels(parts: &[&Tensor]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if parts.iter().all(|part| part.device().is_cuda()) {
        return crate::cuda::channels_last::join(parts);
    }
    Tensor::cat(parts, 1)
}

/// A tensor whose numbers lie one after another: `x` itself, or a copy.
///
/// # Errors
/// If there is no memory.
pub fn contiguous(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return crate::cuda::elementwise::contiguous(x);
    }
    x.contiguous()
}

/// Runs `f` on rayon's pool, so that the kernels in it need not enter the pool one by one.
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// [`on_pool`] for the CPU. For other devices runs `f` on this thread, because some of their libraries keep state for each
/// thread.
pub fn on_pool_for<R: Send>(device: &Device, f: impl FnOnce() -> R + Send) -> R {
    if device.is_cpu() { on_pool(f) } else { f() }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use pulp::Arch;

    /// Every kernel with each kind of vector instructions that this processor has, and without.
    #[test]
    fn kernels_agree_on_all_vectors() {
        let _alone = simd::ALONE.lock();
        let normal = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let (x, weight, bias) = (normal(&[2, 6, 9, 33]), normal(&[11, 6, 3, 3]), normal(&[11]));
        let (q, k, v) = (normal(&[1, 20, 70]), normal(&[1, 20, 150]), normal(&[1, 150, 20]));
        let (scale, shift, row, wide) = (normal(&[6]), normal(&[6]), normal(&[33]), normal(&[5, 70]));
        let matrix = normal(&[13, 70]);
        type Case<'a> = (&'a str, Box<dyn Fn(DType) -> Result<Tensor> + 'a>);
        let to = |t: &Tensor, d| t.to_dtype(d);
        // A weight in half precision, if the other arguments are f32.
        let half = |t: &Tensor, d| t.to_dtype(DType::F16)?.to_dtype(if d == DType::F32 { DType::F16 } else { d });
        let brain = |t: &Tensor, d| t.to_dtype(DType::BF16)?.to_dtype(if d == DType::F32 { DType::BF16 } else { d });
        // The gradient of the first input, where the gradient of the result is the result itself.
        let back = |x: &Tensor, d: DType, f: &dyn Fn(&Tensor) -> Result<Tensor>| {
            let x = x.to_dtype(d)?;
            let [Some(dx)] = &vjp(|x| f(&x[0]), &[x], &[true], Ok)?[..] else { panic!("no gradient") };
            Ok(dx.clone())
        };
        let cases: [Case; 16] = [
            ("convolution", Box::new(|d| conv2d(&to(&x, d)?, &to(&weight, d)?, Some(&to(&bias, d)?), 1, (1, 1)))),
            ("strided", Box::new(|d| conv2d(&to(&x, d)?, &to(&weight, d)?, None, 2, (0, 1)))),
            ("convolution by f16", Box::new(|d| conv2d(&to(&x, d)?, &half(&weight, d)?, None, 1, (1, 1)))),
            ("convolution by bf16", Box::new(|d| conv2d(&to(&x, d)?, &brain(&weight, d)?, None, 1, (1, 1)))),
            ("linear by f16", Box::new(|d| linear(&to(&wide, d)?, &half(&matrix, d)?, None))),
            ("attention", Box::new(|d| attention(&to(&q, d)?, &to(&k, d)?, &to(&v, d)?, 2, false))),
            ("group norm", Box::new(|d| group_norm(&to(&x, d)?, 3, &to(&scale, d)?, &to(&shift, d)?, 1e-5, true))),
            ("layer norm", Box::new(|d| layer_norm(&to(&x, d)?, &to(&row, d)?, &to(&row, d)?, 1e-5))),
            ("geglu", Box::new(|d| geglu(&to(&wide, d)?))),
            (
                "gradient of a strided convolution",
                Box::new(|d| back(&x, d, &|x| conv2d(x, &to(&weight, d)?, None, 2, (0, 1)))),
            ),
            ("gradient of attention", Box::new(|d| back(&q, d, &|q| attention(q, &to(&k, d)?, &to(&v, d)?, 2, false)))),
            (
                "gradient of attention's keys",
                Box::new(|d| back(&k, d, &|k| attention(&to(&q, d)?, k, &to(&v, d)?, 2, false))),
            ),
            (
                "gradient of a group norm",
                Box::new(|d| back(&x, d, &|x| group_norm(x, 3, &to(&scale, d)?, &to(&shift, d)?, 1e-5, true))),
            ),
            (
                "gradient of a layer norm",
                Box::new(|d| back(&x, d, &|x| layer_norm(x, &to(&row, d)?, &to(&row, d)?, 1e-5))),
            ),
            ("gradient of geglu", Box::new(|d| back(&wide, d, &geglu))),
            ("gradient by f16", Box::new(|d| back(&wide, d, &|x| linear(x, &half(&matrix, d)?, None)))),
        ];
        #[allow(unused_mut)]
        let mut kinds = vec![Arch::new(), Arch::Scalar];
        #[cfg(target_arch = "x86_64")]
        kinds.extend(pulp::x86::V3::try_new().map(Arch::V3));
        for kind in kinds {
            *simd::FORCED.lock().unwrap() = Some(kind);
            for (name, f) in &cases {
                let (exact, fast) = (f(DType::F64).unwrap(), f(DType::F32).unwrap());
                let sum = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
                let error = sum((fast.to_dtype(DType::F64).unwrap() - &exact).unwrap()) / sum(exact);
                assert!(error < 1e-6, "{name} on {kind:?}: relative error {error:.1e}");
            }
        }
    }
}
