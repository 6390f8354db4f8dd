//! FreeU (Si et al., "FreeU: Free Lunch in Diffusion U-Net"), as diffusers' `apply_freeu` and `fourier_filter`.

use std::f64::consts::TAU;

use candle_core::{D, DType, Device, Tensor};

use super::constants::{UNetConstant, UNetConstants};
use crate::{Result, ops};

/// The factors of FreeU, which needs no training: in the first two blocks on the way up, half of the channels that come from
/// below are amplified, and the lowest frequencies of the skip connections are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreeU {
    /// Factor of the first half of the channels from below in `up_blocks.0`.
    pub b1: f64,
    /// The same in `up_blocks.1`.
    pub b2: f64,
    /// Factor of the lowest frequencies of the skip connections in `up_blocks.0`.
    pub s1: f64,
    /// The same in `up_blocks.1`.
    pub s2: f64,
}

impl FreeU {
    /// Changes the inputs of a residual block of `up_blocks.N`: the features `h` from below and the skip connection, both
    /// (B, C, H, W).
    ///
    /// In a network without a middle block, diffusers also amplifies the first skip connection, because there it is the same
    /// tensor as `h` and is changed in place. That is not repeated here.
    pub(super) fn apply(&self, n: usize, h: &Tensor, skip: &Tensor, kept: &UNetConstants) -> Result<(Tensor, Tensor)> {
        let (b, s) = match n {
            0 => (self.b1, self.s1),
            1 => (self.b2, self.s2),
            _ => return Ok((h.clone(), skip.clone())),
        };
        Ok((amplified(h, b)?, filtered(skip, s, kept)?))
    }
}

/// Scales the first half of the channels of (B, C, H, W).
fn amplified(x: &Tensor, factor: f64) -> Result<Tensor> {
    symmetric(x, move |x| {
        let half = x.dim(1)? / 2;
        let (first, second) = (x.narrow(1, 0, half)?, x.narrow(1, half, x.dim(1)? - half)?);
        Tensor::cat(&[&(first * factor)?, &second], 1)
    })
}

/// Scales the frequencies −1 and 0 of both axes of (B, C, H, W), and returns the real part.
///
/// The filter is x + (s − 1) P x. The real part P of the projection onto these frequencies is Φ Φᵀ / HW, where the columns of Φ
/// are the cosines and sines of [`lowest`], so that no Fourier transform is needed.
fn filtered(x: &Tensor, factor: f64, kept: &UNetConstants) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let dtype = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let basis = kept.get(UNetConstant::Lowest(h, w), dtype, x.device(), || lowest(h, w))?;
    symmetric(x, move |x| {
        let (b, c, h, w) = x.dims4()?;
        let flat = x.to_dtype(dtype)?.reshape((b * c, h * w))?;
        let low = flat.matmul(&basis)?.matmul(&basis.t()?.contiguous()?)?;
        let filtered = (flat + (low * ((factor - 1.0) / (h * w) as f64))?)?;
        filtered.reshape((b, c, h, w))?.to_dtype(x.dtype())
    })
}

/// Returns cos and sin of 2π (k y/H + l x/W) for the frequencies k and l that are −1 or 0, (HW, 7): one column is constant, and
/// the sines of frequency 0 are left out. Along a side of one pixel, −1 is the same as 0.
fn lowest(height: usize, width: usize) -> candle_core::Result<Tensor> {
    let frequencies = |side: usize| if side > 1 { &[0.0, -1.0][..] } else { &[0.0] };
    let mut columns = vec![];
    for k in frequencies(height) {
        for l in frequencies(width) {
            let phase =
                |i: usize| TAU * (k * (i / width) as f64 / height as f64 + l * (i % width) as f64 / width as f64);
            columns.push((0..height * width).map(|i| phase(i).cos()).collect::<Vec<f64>>());
            if (*k, *l) != (0.0, 0.0) {
                columns.push((0..height * width).map(|i| phase(i).sin()).collect());
            }
        }
    }
    Tensor::new(columns, &Device::Cpu)?.transpose(D::Minus2, D::Minus1)?.contiguous()
}

/// Applies a linear map whose matrix is symmetric, so that it is its own VJP.
fn symmetric(
    x: &Tensor,
    map: impl Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let value = map(&x.detach())?;
    Ok(ops::custom_vjp(&[x], value, Box::new(move |_, _, _, dy| Ok(vec![Some(map(dy)?)])))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The masked Fourier transform itself, in f64: diffusers' `fourier_filter` with threshold 1.
    fn transformed(x: &[f64], height: usize, width: usize, factor: f64) -> Vec<f64> {
        let low = |k: usize, side: usize| k == 0 || k + 1 == side;
        let mut out = vec![0.0; x.len()];
        for k in 0..height {
            for l in 0..width {
                let scale = if low(k, height) && low(l, width) { factor } else { 1.0 } / x.len() as f64;
                let phase = |i: usize| {
                    TAU * ((k * (i / width)) as f64 / height as f64 + (l * (i % width)) as f64 / width as f64)
                };
                let sum = |f: fn(f64) -> f64| x.iter().enumerate().map(|(i, x)| x * f(phase(i))).sum::<f64>();
                let (re, im) = (sum(f64::cos), -sum(f64::sin));
                for (i, out) in out.iter_mut().enumerate() {
                    *out += scale * (re * phase(i).cos() - im * phase(i).sin());
                }
            }
        }
        out
    }

    #[test]
    fn the_filter_is_a_masked_fourier_transform() {
        for (h, w) in [(1, 1), (1, 6), (5, 1), (2, 2), (2, 3), (3, 5), (8, 8), (7, 12)] {
            let x: Vec<f64> = (0..h * w).map(|i| (i as f64 * 1.7).sin() + 0.3 * i as f64).collect();
            for factor in [0.2, 1.0, 2.5] {
                let tensor = Tensor::from_slice(&x, (1, 1, h, w), &Device::Cpu).unwrap();
                let found = filtered(&tensor, factor, &UNetConstants::default())
                    .unwrap()
                    .flatten_all()
                    .unwrap()
                    .to_vec1::<f64>()
                    .unwrap();
                for (a, b) in found.iter().zip(transformed(&x, h, w, factor)) {
                    assert!((a - b).abs() < 1e-9, "{h}×{w} by {factor}: {a} {b}");
                }
            }
        }
    }
}
