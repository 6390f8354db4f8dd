//! Nearest-neighbour upsampling by 2 on the CPU, a line at a time.

use candle_core::{Device, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Arg, Kernel, apply1, either};
use super::simd::{Unwritten, written};
use super::{plain, plain_vjp};

/// Nearest-neighbour upsampling by 2: (B, C, H, W) → (B, C, 2H, 2W).
///
/// # Errors
/// If `x` does not have four dimensions.
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    apply1(Double, x)
}

/// The sum of every four pixels: (B, C, 2H, 2W) → (B, C, H, W).
pub(super) fn sum_2x2(x: &Tensor) -> Result<Tensor> {
    let fast = |[x]: [Arg; 1]| {
        let &[b, c, h, w] = x.dims else { candle_core::bail!("sum of four: needs (B, C, H, W)") };
        let write = |y: &mut [Unwritten]| {
            if w > 1 {
                let lines = y.par_chunks_exact_mut(w / 2).zip(x.data.par_chunks_exact(2 * w)).with_min_len(64);
                lines.for_each(|(y, pair)| {
                    let (first, second) = pair.split_at(w);
                    let fours = first.chunks_exact(2).zip(second.chunks_exact(2));
                    y.iter_mut().zip(fours).for_each(|(y, (a, b))| _ = y.write(a[0] + a[1] + b[0] + b[1]));
                });
            }
        };
        // SAFETY: every line of `y` comes from two of `x`.
        let y = unsafe { written(x.data.len() / 4, write) };
        Tensor::from_vec(y, (b, c, h / 2, w / 2), &Device::Cpu)
    };
    #[cfg(feature = "cuda")]
    if super::kernel::on_device([x]) {
        return crate::cuda::channels_last::sum_2x2(x);
    }
    either([x], fast, |[x]| plain_vjp::sum_2x2(x))
}

struct Double;

impl Kernel<1> for Double {
    const NAME: &'static str = "nearest doubling";

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        let &[b, c, h, w] = x.dims else { candle_core::bail!("nearest doubling: needs (B, C, H, W)") };
        let size = h * w;
        let write = |y: &mut [Unwritten]| {
            if size == 0 {
                return;
            }
            let planes = y.par_chunks_exact_mut(4 * size).zip(x.data.par_chunks_exact(size)).with_min_len(4);
            planes.for_each(|(y, x)| {
                for (pair, row) in y.chunks_exact_mut(4 * w).zip(x.chunks_exact(w)) {
                    let (first, second) = pair.split_at_mut(2 * w);
                    first.chunks_exact_mut(2).zip(row).for_each(|(two, v)| two.fill(Unwritten::new(*v)));
                    second.copy_from_slice(first);
                }
            });
        };
        // SAFETY: every row of `x` gives two of `y`.
        let y = unsafe { written(4 * x.data.len(), write) };
        Ok((y, Shape::from((b, c, 2 * h, 2 * w))))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::upsample_nearest_2x(x)
    }

    #[cfg(feature = "cuda")]
    fn device(&self, [x]: [&Tensor; 1]) -> Result<Option<Tensor>> {
        crate::cuda::channels_last::double(x).map(Some)
    }

    fn vjp(&self, _: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(sum_2x2(dy)?)])
    }
}
