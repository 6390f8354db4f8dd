//! Pooling, one axis after the other.
//!
//! The gradient of a maximum goes to the entry that was the maximum, of equal ones to the first, as in torch. A mean along
//! an axis is a product with a matrix.

use candle_core::{Device, Tensor};

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
    a.only("storage_order", 0)?;
    one(move |inputs| {
        let given = inputs.real(0)?;
        window.check_rank(given.rank())?;
        let mut x = as_image(given)?;
        // Columns first, so that of equal entries the first in row-major order counts.
        for (i, l) in window.along_axes(&x, kernel)?.into_iter().enumerate().rev() {
            let results = if ceil { l.results_ceil()? } else { l.results()? };
            x = max_along(&x, i + 2, l, results)?;
        }
        as_given(x, given)
    })
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
                x = along(&x, i + 2, &means(l, results, count_padding, x.device())?)?;
            }
        }
        as_given(x, given)
    })
}

/// The weight of each entry in each result, (results, size).
fn means(l: AxisWindow, results: usize, count_padding: bool, device: &Device) -> Result<Tensor> {
    let mut matrix = vec![0f32; checked_count(&[results, l.size])?];
    for (row, start) in matrix.chunks_exact_mut(l.size).zip((0..).step_by(l.stride)) {
        let taps = (0..l.kernel).map(|t| start + t * l.dilation);
        let within: Vec<usize> =
            taps.clone().filter_map(|at| at.checked_sub(l.before)).filter(|at| *at < l.size).collect();
        let padded = taps.filter(|at| *at < l.size + l.before + l.after).count();
        let count = if count_padding { padded } else { within.len() };
        for at in within {
            row[at] = 1.0 / count as f32;
        }
    }
    Ok(Tensor::from_vec(matrix, (results, l.size), device)?)
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
    real(|x| Ok(spatial(x)?.try_fold(x.clone(), |x, axis| x.max_keepdim(axis))?))
}
