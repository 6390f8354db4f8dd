//! The largest numbers of a tensor, without reading them from the device.
//!
//! candle's sort on CUDA keeps a row in shared memory, which has room for 8192 numbers. Longer rows are searched by bisection.

use candle_core::{DType, Tensor};

use crate::Result;

/// The most numbers that candle sorts on CUDA: their indices take 32 KiB of the 48 KiB of shared memory, and candle rounds up to
/// a power of two.
const SORTED: usize = 8192;

/// Parts into which each step of the search divides its interval.
const PARTS: usize = 32;

/// Steps of the search, five bits each: enough for the range and the mantissa of f32.
const STEPS: usize = 32;

/// Returns the mean of the `k` largest numbers of (n) in at least f32, differentiable. Equal numbers at the border share what is
/// left of k if they are found by bisection; otherwise the sort picks some of them. The value is the same.
pub(crate) fn mean_of_largest(x: &Tensor, k: usize) -> Result<Tensor> {
    if x.device().is_cpu() || x.dim(0)? <= SORTED {
        let order = x.detach().arg_sort_last_dim(false)?.narrow(0, 0, k)?;
        return Ok(x.index_select(&order.contiguous()?, 0)?.mean_all()?);
    }
    mean_by_bisection(x, k)
}

fn mean_by_bisection(x: &Tensor, k: usize) -> Result<Tensor> {
    let border = kth_largest(&x.detach(), k)?;
    let of = |which: Tensor| which.to_dtype(x.dtype());
    let above = of(x.detach().broadcast_gt(&border)?)?;
    let equal = of(x.detach().broadcast_eq(&border)?)?;
    // The border itself is one of the k, so that there is at least one.
    let left = (above.sum_all()?.affine(-1.0, k as f64)? / equal.sum_all()?)?;
    let weights = (above + equal.broadcast_mul(&left)?)?;
    Ok(((x * weights)?.sum_all()? * (1.0 / k as f64))?)
}

/// Returns the `k`th largest of up to 2²⁴ numbers (n) in f32, counted from 1: a tensor without dimensions.
pub(crate) fn kth_largest(x: &Tensor, k: usize) -> Result<Tensor> {
    // From `low` on there are k numbers or more, and from `high` on fewer. In the end no other number is between the two.
    let (mut low, mut high) = (x.min(0)?, x.max(0)?.abs()?.affine(2.0, 1.0)?);
    let parts: Vec<f32> = (0..PARTS).map(|i| i as f32 / PARTS as f32).collect();
    let parts = Tensor::new(parts, x.device())?;
    let row = x.unsqueeze(0)?;
    for _ in 0..STEPS {
        let points = parts.broadcast_mul(&(&high - &low)?)?.broadcast_add(&low)?;
        let counts = row.broadcast_ge(&points.unsqueeze(1)?)?.to_dtype(DType::F32)?.sum(1)?;
        let enough = counts.ge(k as f64)?;
        let all = |x: &Tensor| x.broadcast_as(PARTS)?.contiguous();
        let (from, to) = (enough.where_cond(&points, &all(&low)?)?, enough.where_cond(&all(&high)?, &points)?);
        (low, high) = (from.max(0)?, to.min(0)?);
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn bisection_equals_the_sort() {
        let n = 3 * SORTED + 5;
        for scale in [1.0, 1e-12, 3e30] {
            let x = (Tensor::rand(0f32, 1.0, n, &Device::Cpu).unwrap() * scale).unwrap();
            let mut sorted = x.to_vec1::<f32>().unwrap();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for k in [1, 2, n / 5, n - 1, n] {
                assert_eq!(kth_largest(&x, k).unwrap().to_scalar::<f32>().unwrap(), sorted[k - 1], "{k} at {scale}");
            }
        }
        let x = Var::rand(0f32, 1.0, n, &Device::Cpu).unwrap();
        for k in [1, 7, n / 5, n] {
            let of = |mean: Tensor| {
                let gradient = mean.backward().unwrap().remove(&x).unwrap().to_vec1::<f32>().unwrap();
                (mean.to_scalar::<f32>().unwrap(), gradient)
            };
            let (sort, by_sort) = of(mean_of_largest(&x, k).unwrap());
            let (bisection, by_bisection) = of(mean_by_bisection(&x, k).unwrap());
            assert!((sort / bisection - 1.0).abs() < 1e-5, "{k}: {sort} {bisection}");
            assert!(by_sort.iter().zip(&by_bisection).all(|(a, b)| (a - b).abs() <= 1e-6 / k as f32), "{k}");
        }
    }

    /// Two of the four ones count, half each.
    #[test]
    fn equal_numbers_share_the_border() {
        let x = Var::new(&[1f32, 3.0, 1.0, 0.0, 1.0, 1.0, -2.0], &Device::Cpu).unwrap();
        let mean = mean_by_bisection(&x, 3).unwrap();
        assert!((mean.to_scalar::<f32>().unwrap() - 5.0 / 3.0).abs() < 1e-6);
        let gradient = mean.backward().unwrap().remove(&x).unwrap().to_vec1::<f32>().unwrap();
        let expected = [1.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0].map(|v| v / 6.0);
        assert!(gradient.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{gradient:?}");
    }
}
