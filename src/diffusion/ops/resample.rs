//! Nearest-neighbour doubling on the CPU, a line at a time.

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Arg, Kernel, apply1};
use super::plain;
use super::simd::{Unwritten, written};

/// Every pixel twice in both directions: (B, C, H, W) → (B, C, 2H, 2W).
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    apply1(Double, x)
}

struct Double;

impl Kernel<1> for Double {
    const NAME: &'static str = "nearest doubling";

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [None, None]
    }

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
}
