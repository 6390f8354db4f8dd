//! Sums, means, extremes and norms over axes.

use candle_core::{DType, Device, Tensor};

use super::{Run, ints, one};
use crate::attributes::Attributes;
use crate::dims::checked_axis;
use crate::vjp::custom_vjp;
use crate::{Error, Result};

#[derive(Clone, Copy, PartialEq)]
pub enum Reduce {
    Mean,
    Sum,
    SumSquare,
    Max,
    Min,
    Product,
    L1,
    L2,
    LogSumExp,
}

/// The axes are an attribute in old files and an argument in newer ones; by default all.
pub fn reduce(op: Reduce, a: &Attributes) -> Result<Run> {
    let given = a.ints("axes")?;
    let keep = a.flag("keepdims", true)?;
    let empty_is_identity = a.flag("noop_with_empty_axes", false)?;
    one(move |inputs| {
        let x = inputs.get(0)?;
        let named = match inputs.optional_ints(1)? {
            Some(axes) => Some(axes),
            None => given.clone(),
        };
        let mut axes = match named.filter(|axes| !axes.is_empty()) {
            Some(axes) => axes.into_iter().map(|n| checked_axis(n, x.rank())).collect::<Result<Vec<_>>>()?,
            None if empty_is_identity => return Ok(x.clone()),
            None => (0..x.rank()).collect(),
        };
        axes.sort_unstable();
        axes.dedup();
        let y = if x.dtype() == DType::I64 { integers(op, x, &axes)? } else { floats(op, inputs.real(0)?, &axes)? };
        if keep {
            return Ok(y);
        }
        Ok(axes.iter().rev().try_fold(y, |y, axis| y.squeeze(*axis))?)
    })
}

/// The maximum or minimum over axes, which it keeps. Equal entries share the gradient, as in torch's `amax`; candle would
/// give each of them the whole.
pub(super) fn extreme(x: &Tensor, axes: &[usize], max: bool) -> Result<Tensor> {
    let reduce = |x: Tensor, axis: &usize| if max { x.max_keepdim(*axis) } else { x.min_keepdim(*axis) };
    let y = axes.iter().try_fold(x.detach(), reduce)?;
    let axes = axes.to_vec();
    custom_vjp(x, y, move |x, y, g| {
        let chosen = x.broadcast_eq(y)?.to_dtype(x.dtype())?;
        let share = (g / chosen.sum_keepdim(axes.as_slice())?)?;
        Ok(chosen.broadcast_mul(&share)?)
    })
}

fn floats(op: Reduce, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let count: usize = axes.iter().map(|axis| x.dims()[*axis]).product();
    let sum = |x: &Tensor| x.sum_keepdim(axes);
    Ok(match op {
        Reduce::Mean => (sum(x)? / count as f64)?,
        Reduce::Sum => sum(x)?,
        Reduce::SumSquare => sum(&x.sqr()?)?,
        Reduce::Max => extreme(x, axes, true)?,
        Reduce::Min => extreme(x, axes, false)?,
        Reduce::L1 => sum(&x.abs()?)?,
        Reduce::L2 => sum(&x.sqr()?)?.sqrt()?,
        Reduce::LogSumExp => {
            let most = extreme(&x.detach(), axes, true)?;
            (sum(&x.broadcast_sub(&most)?.exp()?)?.log()? + most)?
        }
        Reduce::Product => return Err(Error::input("is not supported for floats")),
    })
}

/// Reduces integers, one axis after another.
fn integers(op: Reduce, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let f = |m: i64, n: i64| match op {
        Reduce::Sum => m.checked_add(n),
        Reduce::Product => m.checked_mul(n),
        Reduce::Max => Some(m.max(n)),
        Reduce::Min => Some(m.min(n)),
        _ => None,
    };
    let first = match op {
        Reduce::Sum => 0,
        Reduce::Product => 1,
        Reduce::Max => i64::MIN,
        Reduce::Min => i64::MAX,
        _ => return Err(Error::input("is not supported for integers")),
    };
    let (mut dims, mut numbers) = (x.dims().to_vec(), ints(x)?);
    for &axis in axes {
        let (n, after) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
        let before: usize = dims[..axis].iter().product();
        let at = |i: usize, k: usize, j: usize| numbers.get((i * n + k) * after + j).copied();
        let mut reduced = Vec::with_capacity(before * after);
        for i in 0..before {
            for j in 0..after {
                let all = (0..n).try_fold(first, |sum, k| f(sum, at(i, k, j)?));
                reduced.push(all.ok_or_else(|| Error::input("integers overflow"))?);
            }
        }
        dims[axis] = 1;
        numbers = reduced;
    }
    Ok(Tensor::from_vec(numbers, dims, &Device::Cpu)?)
}
