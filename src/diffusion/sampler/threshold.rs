//! Dynamic thresholding (Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding").

use candle_core::{DType, Tensor};
use lsregen_tensor::ops;

use crate::{Result, order};

/// Clamps x̂₀ of each sample at a quantile s ≥ 1 of its size, and divides it by s.
pub(super) fn thresholded(x0: &Tensor, ratio: f64, most: f64) -> Result<Tensor> {
    let row = |i: usize| {
        let x0 = x0.narrow(0, i, 1)?;
        if x0.device().is_cpu() {
            thresholded_by_sort(&x0, ratio, most)
        } else {
            thresholded_by_search(&x0, ratio, most)
        }
    };
    Ok(Tensor::cat(&(0..x0.dim(0)?).map(row).collect::<Result<Vec<_>>>()?, 0)?)
}

/// Where `torch.quantile` interpolates between `n` numbers in ascending order: the place of the lower one, and the share of the
/// next.
fn quantile(ratio: f64, n: usize) -> (usize, f64) {
    let place = ratio * (n - 1) as f64;
    (place.floor() as usize, place.fract())
}

fn thresholded_by_sort(x0: &Tensor, ratio: f64, most: f64) -> Result<Tensor> {
    let mut sizes = x0.abs()?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    sizes.sort_by(f32::total_cmp);
    let (low, part) = quantile(ratio, sizes.len());
    let high = sizes[(low + 1).min(sizes.len() - 1)];
    let s = f64::from(sizes[low]) * (1.0 - part) + f64::from(high) * part;
    let s = s.max(1.0).min(most.max(1.0));
    Ok((ops::clamp(x0, -s, s)? / s)?)
}

/// The same without reading the numbers from the device.
fn thresholded_by_search(x0: &Tensor, ratio: f64, most: f64) -> Result<Tensor> {
    let sizes = x0.abs()?.to_dtype(DType::F32)?.flatten_all()?;
    let n = sizes.dim(0)?;
    let (low, part) = quantile(ratio, n);
    let at = |place: usize| order::kth_largest(&sizes, n - place.min(n - 1));
    let s = ((at(low)? * (1.0 - part))? + (at(low + 1)? * part)?)?;
    let s = s.clamp(1.0, most.max(1.0))?.to_dtype(x0.dtype())?;
    let clamped = x0.broadcast_minimum(&s)?.broadcast_maximum(&s.neg()?)?;
    Ok(ops::keep_nan(clamped.broadcast_div(&s)?, x0)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn thresholds_by_search_equal_those_by_sort() {
        for (deviation, ratio, most) in [(2.0, 0.995, 10.0), (0.1, 0.995, 10.0), (9.0, 0.5, 1.5), (3.0, 1.0, 100.0)] {
            let x0 = Tensor::randn(0f32, deviation, (1, 4, 9, 7), &Device::Cpu).unwrap();
            let a = thresholded_by_sort(&x0, ratio, most).unwrap();
            let b = thresholded_by_search(&x0, ratio, most).unwrap();
            let apart = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(apart < 1e-5, "{deviation} {ratio} {most}: {apart}");
        }
    }
}
