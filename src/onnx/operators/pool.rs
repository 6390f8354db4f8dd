//! Pooling, one axis after the other.
//!
//! The gradient of a maximum goes to the entry that was the maximum, of equal ones to the first, as in torch; that of a
//! global maximum to all of them in equal parts. A mean along
//! an axis is a product with a matrix.

use candle_core::{Device, Tensor};

use super::reduce::extreme;
use super::unpool::argmax;
use super::window::{AxisWindow, Window, as_given, as_image};
use super::{Run, one, real};
use crate::attributes::Attributes;
use crate::axes::{along, every, spread};
use crate::dims::checked_count;
use crate::vjp::custom_vjp;
use crate::{Error, Result};

pub fn max(a: &Attributes) -> Result<Run> {
    let window = Window::new(a)?;
    let (kernel, ceil) = (window.required()?, a.flag("ceil_mode", false)?);
    let columns_first = a.flag("storage_order", false)?;
    let wants_places = a.wants(1);
    Ok(Box::new(move |inputs| {
        let given = inputs.real(0)?;
        window.check_rank(given.rank())?;
        let image = as_image(given)?;
        let lines = window.along_axes(&image, kernel)?;
        let results = |l: AxisWindow| if ceil { l.results_ceil() } else { l.results() };
        let results = [results(lines[0])?, results(lines[1])?];
        let mut y = image.clone();
        // Columns first, so that of equal entries the first in row-major order counts.
        for i in [1, 0] {
            y = max_along(&y, i + 2, lines[i], results[i])?;
        }
        let mut all = vec![as_given(y, given)?];
        if wants_places {
            all.push(as_given(argmax(&image, lines, results, columns_first)?, given)?);
        }
        Ok(all)
    }))
}

fn max_along(x: &Tensor, axis: usize, l: AxisWindow, results: usize) -> Result<Tensor> {
    if l.kernel == 1 && l.stride == 1 && l.before + l.after == 0 {
        return Ok(x.clone());
    }
    let total = (l.size + l.before).max((results - 1) * l.stride + l.extent());
    let mut dims = x.dims().to_vec();
    dims[axis] = total;
    checked_count(&dims)?;
    let beyond = |n: usize| -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        dims[axis] = n;
        Ok(Tensor::full(f32::NEG_INFINITY, dims, x.device())?.to_dtype(x.dtype())?)
    };
    let mut parts = vec![x.detach()];
    if l.before > 0 {
        parts.insert(0, beyond(l.before)?);
    }
    if total > l.size + l.before {
        parts.push(beyond(total - l.size - l.before)?);
    }
    let padded = Tensor::cat(&parts, axis)?;
    let tap = |t: usize| every(&padded, axis, t * l.dilation, l.stride, results);
    let mut best = tap(0)?;
    let mut which = best.zeros_like()?;
    for t in 1..l.kernel {
        let other = tap(t)?;
        let better = other.gt(&best)?;
        which = better.where_cond(&(which.zeros_like()? + t as f64)?, &which)?;
        best = better.where_cond(&other.contiguous()?, &best.contiguous()?)?;
    }
    custom_vjp(x, best, move |_, _, g| {
        let mut sum: Option<Tensor> = None;
        for t in 0..l.kernel {
            let mine = (g * which.eq(t as f32)?.to_dtype(g.dtype())?)?;
            let placed = spread(&mine, axis, t * l.dilation, l.stride, total)?;
            sum = Some(match sum {
                Some(sum) => (sum + placed)?,
                None => placed,
            });
        }
        let sum = sum.ok_or_else(|| Error::input("the window is empty"))?;
        Ok(sum.narrow(axis, l.before, l.size)?.contiguous()?)
    })
}

pub fn average(a: &Attributes) -> Result<Run> {
    let window = Window::new(a)?;
    let (kernel, ceil) = (window.required()?, a.flag("ceil_mode", false)?);
    let count_padding = a.flag("count_include_pad", false)?;
    one(move |inputs| {
        let given = inputs.real(0)?;
        window.check_rank(given.rank())?;
        let mut x = as_image(given)?;
        for (i, l) in window.along_axes(&x, kernel)?.into_iter().enumerate().rev() {
            let results = if ceil { l.results_ceil()? } else { l.results()? };
            if l.kernel > 1 || l.stride > 1 || l.before + l.after > 0 {
                let mean = |within, padded| 1.0 / if count_padding { padded } else { within } as f32;
                x = along(&x, i + 2, &weights(l, results, mean, x.device())?)?;
            }
        }
        as_given(x, given)
    })
}

/// The weight of each entry in each result, (results, size). `weight` gets how many entries of a window lie in the axis, and
/// how many in the padded one.
fn weights(l: AxisWindow, results: usize, weight: impl Fn(usize, usize) -> f32, device: &Device) -> Result<Tensor> {
    let mut matrix = vec![0f32; checked_count(&[results, l.size])?];
    for (row, start) in matrix.chunks_exact_mut(l.size).zip((0..).step_by(l.stride)) {
        let taps = (0..l.kernel).map(|t| start + t * l.dilation);
        let within: Vec<usize> =
            taps.clone().filter_map(|at| at.checked_sub(l.before)).filter(|at| *at < l.size).collect();
        let padded = taps.filter(|at| *at < l.size + l.before + l.after).count();
        for at in &within {
            row[*at] = weight(within.len(), padded);
        }
    }
    Ok(Tensor::from_vec(matrix, (results, l.size), device)?)
}

/// The p-norm of each window. At a window of zeros its gradient is 0.
pub fn lp(a: &Attributes) -> Result<Run> {
    let window = Window::new(a)?;
    let (kernel, ceil) = (window.required()?, a.flag("ceil_mode", false)?);
    let p = power(a)?;
    one(move |inputs| {
        let given = inputs.real(0)?;
        window.check_rank(given.rank())?;
        let mut x = powers(&as_image(given)?, p)?;
        for (i, l) in window.along_axes(&x, kernel)?.into_iter().enumerate().rev() {
            let results = if ceil { l.results_ceil()? } else { l.results()? };
            x = along(&x, i + 2, &weights(l, results, |_, _| 1.0, x.device())?)?;
        }
        as_given(root(&x, p)?, given)
    })
}

fn power(a: &Attributes) -> Result<f64> {
    match a.int("p", 2)? {
        p if (1..=64).contains(&p) => Ok(p as f64),
        p => Err(Error::input(format!("`p` = {p} is not supported"))),
    }
}

/// |x|ᵖ
fn powers(x: &Tensor, p: f64) -> Result<Tensor> {
    let y = x.detach().abs()?.powf(p)?;
    custom_vjp(x, y, move |x, _, g| Ok(((g * x.sign()?)? * (x.abs()?.powf(p - 1.0)? * p)?)?))
}

/// x^(1/p) of a sum of powers.
fn root(x: &Tensor, p: f64) -> Result<Tensor> {
    let y = x.detach().powf(1.0 / p)?;
    custom_vjp(x, y, move |x, _, g| {
        let slope = (x.powf(1.0 / p - 1.0)? / p)?;
        Ok((g * x.eq(0f32)?.where_cond(&x.zeros_like()?, &slope)?)?)
    })
}

/// The axes after (B, C).
fn spatial(x: &Tensor) -> Result<std::ops::Range<usize>> {
    if x.rank() < 3 { Err(Error::input(format!("{:?} has no axes to pool", x.dims()))) } else { Ok(2..x.rank()) }
}

pub fn global_average() -> Result<Run> {
    real(|x| {
        let axes: Vec<_> = spatial(x)?.collect();
        Ok(x.mean_keepdim(axes)?)
    })
}

pub fn global_max() -> Result<Run> {
    real(|x| extreme(x, &spatial(x)?.collect::<Vec<_>>(), true))
}

pub fn global_lp(a: &Attributes) -> Result<Run> {
    let p = power(a)?;
    real(move |x| root(&powers(x, p)?.sum_keepdim(spatial(x)?.collect::<Vec<_>>())?, p))
}
