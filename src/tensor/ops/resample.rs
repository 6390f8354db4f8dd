//! Nearest-neighbour resizing: by 2, on the CPU a line at a time; and to any size.

use candle_core::{Device, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Arg, Kernel, apply1, either};
use super::simd::{Unwritten, written};
use super::vjp::custom_vjp;
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

/// Nearest-neighbour resizing to any size: the pixels of (B, C, H, W) in these `rows` and `columns`, as u32 numbers (H') and
/// (W'). The result is (B, C, H', W').
///
/// candle's selection and its gradient need numbers in the order of their dimensions, which neither a feature map with channels
/// last has, nor its gradient.
///
/// # Errors
/// If `x` does not have four dimensions, or a number is not that of a row or column.
pub fn select_pixels(x: &Tensor, rows: &Tensor, columns: &Tensor) -> Result<Tensor> {
    let y = x.detach().contiguous()?.index_select(rows, 2)?.index_select(columns, 3)?;
    let (rows, columns) = (rows.clone(), columns.clone());
    let vjp = move |inputs: &[Tensor], _: &[bool], _: &Tensor, dy: &Tensor| {
        let (b, c, h, w) = inputs[0].dims4()?;
        let (_, _, tall, _) = dy.dims4()?;
        let zeros = |h: usize| Tensor::zeros((b, c, h, w), dy.dtype(), dy.device());
        let dx = zeros(tall)?.index_add(&columns, &dy.contiguous()?, 3)?;
        Ok(vec![Some(zeros(h)?.index_add(&rows, &dx, 2)?)])
    };
    custom_vjp(&[x], y, Box::new(vjp))
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};

    use super::select_pixels;

    /// The values and the gradient are those of candle's own operations, whatever the order in memory.
    #[test]
    fn selected_pixels_have_candle_s_gradient() {
        let device = Device::Cpu;
        let rows = Tensor::new(&[6u32, 0, 3, 3, 5], &device).unwrap();
        let columns = Tensor::new(&[4u32, 1, 1], &device).unwrap();
        let x = Var::randn(0f64, 1.0, (2, 3, 7, 5), &device).unwrap();
        let weights = Tensor::randn(0f64, 1.0, (2, 5, 3, 3), &device).unwrap().permute([0, 3, 1, 2]).unwrap();
        let of = |y: Tensor| {
            let mut gradients = (&y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            let numbers = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            (numbers(y), numbers(gradients.remove(&x).unwrap()))
        };
        let last = x.permute([0, 2, 3, 1]).unwrap().contiguous().unwrap().permute([0, 3, 1, 2]).unwrap();
        let expected = of(x.index_select(&rows, 2).unwrap().index_select(&columns, 3).unwrap());
        assert_eq!(of(select_pixels(&x, &rows, &columns).unwrap()), expected);
        assert_eq!(of(select_pixels(&last, &rows, &columns).unwrap()), expected);
    }
}
