//! The discrete Fourier transform along an axis, as products with matrices of cosines and sines.

use candle_core::{D, Device, Tensor};

use super::{Run, one};
use crate::attributes::Attributes;
use crate::axes::along;
use crate::dims::{checked_axis, checked_count, checked_size};
use crate::{Error, Result};

/// Complex numbers are pairs on the last axis, real numbers single. The axis is an attribute up to opset 19, and an argument
/// later.
pub fn dft(a: &Attributes) -> Result<Run> {
    let (inverse, onesided) = (a.flag("inverse", false)?, a.flag("onesided", false)?);
    let default = if a.opset < 20 { 1 } else { -2 };
    let given = if a.opset < 20 { a.int("axis", default)? } else { default };
    one(move |inputs| {
        let x = inputs.real(0)?;
        let single = |i: usize| Ok::<_, Error>(inputs.optional_ints(i)?.and_then(|numbers| numbers.first().copied()));
        let axis = checked_axis(single(2)?.unwrap_or(given), x.rank())?;
        let parts = x.dims().last().copied().unwrap_or(0);
        let to_real = onesided && inverse;
        if axis + 1 == x.rank() || !(1..=2).contains(&parts) || (onesided && parts != if inverse { 2 } else { 1 }) {
            return Err(Error::input(format!("{:?} has no numbers to transform along axis {axis}", x.dims())));
        }
        let held = x.dim(axis)?;
        let n = match single(1)? {
            Some(n) => checked_size(n, "dft_length")?,
            None if to_real => 2 * (held - 1),
            None => held,
        };
        if n == 0 {
            return Err(Error::input("a transform of length 0 is empty"));
        }
        let used = held.min(if to_real { n / 2 + 1 } else { n });
        let x = x.narrow(axis, 0, used)?;
        let rows = if onesided && !inverse { n / 2 + 1 } else { n };
        checked_count(&[rows, used])?;
        // Each of the first half of a one-sided spectrum also stands for its mirror image.
        let weight = |k: usize| if to_real && k > 0 && 2 * k < n { 2.0 } else { 1.0 };
        let scale = if inverse { 1.0 / n as f64 } else { 1.0 };
        let matrix = |f: fn(f64) -> f64| -> Result<Tensor> {
            let angle = |i: usize, j: usize| std::f64::consts::TAU * ((i * j) % n) as f64 / n as f64;
            let entry = |at: usize| (scale * weight(at % used) * f(angle(at / used, at % used))) as f32;
            Ok(Tensor::from_vec((0..rows * used).map(entry).collect(), (rows, used), &Device::Cpu)?
                .to_device(x.device())?)
        };
        let (cosines, sines) = (matrix(f64::cos)?, matrix(f64::sin)?);
        let sines = if inverse { sines.neg()? } else { sines };
        let real = x.narrow(D::Minus1, 0, 1)?.contiguous()?;
        let (mut re, mut im) = (along(&real, axis, &cosines)?, along(&real, axis, &sines.neg()?)?);
        if parts == 2 {
            let imaginary = x.narrow(D::Minus1, 1, 1)?.contiguous()?;
            re = (re + along(&imaginary, axis, &sines)?)?;
            im = (im + along(&imaginary, axis, &cosines)?)?;
        }
        Ok(if to_real { re } else { Tensor::cat(&[re, im], D::Minus1)? })
    })
}
