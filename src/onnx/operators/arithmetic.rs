//! Arithmetic with broadcasting, comparisons, selection and matrix products. Floats are differentiable; integers are
//! checked, so that a shape that overflows is an error.

use candle_core::{DType, Device, Tensor};

use super::{Inputs, Run, dtype_name, ints, one, real};
use crate::attributes::Attributes;
use crate::dims::{broadcast_shape, checked_count};
use crate::load::{ElementClass, element_type};
use crate::vjp::custom_vjp;
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
}

pub fn binary(op: Binary) -> Result<Run> {
    one(move |inputs| apply(op, inputs.get(0)?, inputs.get(1)?))
}

/// Folds any number of arguments from left to right.
pub fn fold(op: Binary) -> Result<Run> {
    one(move |inputs| {
        let first = inputs.get(0)?.clone();
        (1..inputs.values.len()).try_fold(first, |sum, i| apply(op, &sum, inputs.get(i)?))
    })
}

pub fn mean() -> Result<Run> {
    one(|inputs| {
        let first = inputs.real(0)?.clone();
        let n = inputs.values.len();
        let sum = (1..n).try_fold(first, |sum, i| apply(Binary::Add, &sum, inputs.real(i)?))?;
        Ok((sum / n as f64)?)
    })
}

pub fn apply(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let dims = broadcast_shape(a.dims(), b.dims())?;
    match (a.dtype(), b.dtype()) {
        (m, n) if m.is_float() && n.is_float() => match dims.contains(&0) {
            true => Err(Error::input("its arguments are empty")),
            false => floats(op, a, b, &dims),
        },
        (DType::I64, DType::I64) => integers(a, b, &dims, |m, n| match op {
            Binary::Add => m.checked_add(n),
            Binary::Sub => m.checked_sub(n),
            Binary::Mul => m.checked_mul(n),
            Binary::Div => m.checked_div(n),
            Binary::Min => Some(m.min(n)),
            Binary::Max => Some(m.max(n)),
        }),
        _ => Err(Error::input(format!("{} and {} cannot be combined", dtype_name(a), dtype_name(b)))),
    }
}

fn floats(op: Binary, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let value = |a: &Tensor, b: &Tensor| match op {
        Binary::Add => a.broadcast_add(b),
        Binary::Sub => a.broadcast_sub(b),
        Binary::Mul => a.broadcast_mul(b),
        Binary::Div => a.broadcast_div(b),
        Binary::Min => a.broadcast_minimum(b),
        Binary::Max => a.broadcast_maximum(b),
    };
    // If one operand is a constant that does not enlarge the result, a custom VJP avoids computing the constant's
    // gradient, as candle would.
    let linear = matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div);
    if linear && a.track_op() && !b.track_op() && a.dims() == dims {
        let constant = b.clone();
        return custom_vjp(a, value(&a.detach(), b)?, move |_, _, g| match op {
            Binary::Mul => Ok(g.broadcast_mul(&constant)?),
            Binary::Div => Ok(g.broadcast_div(&constant)?),
            _ => Ok(g.clone()),
        });
    }
    if linear && op != Binary::Div && b.track_op() && !a.track_op() && b.dims() == dims {
        let constant = a.clone();
        return custom_vjp(b, value(a, &b.detach())?, move |_, _, g| match op {
            Binary::Mul => Ok(g.broadcast_mul(&constant)?),
            Binary::Sub => Ok(g.neg()?),
            _ => Ok(g.clone()),
        });
    }
    Ok(value(a, b)?)
}

fn integers(a: &Tensor, b: &Tensor, dims: &[usize], f: impl Fn(i64, i64) -> Option<i64>) -> Result<Tensor> {
    let numbers = |t: &Tensor| -> Result<Vec<i64>> {
        if dims.contains(&0) { Ok(vec![]) } else { ints(&t.broadcast_as(dims)?.contiguous()?) }
    };
    let (m, n) = (numbers(a)?, numbers(b)?);
    let results: Option<Vec<i64>> = m.iter().zip(&n).map(|(m, n)| f(*m, *n)).collect();
    let results = results.ok_or_else(|| Error::input("integers overflow, or are divided by zero"))?;
    Ok(Tensor::from_vec(results, dims, &Device::Cpu)?)
}

pub fn modulo(a: &Attributes) -> Result<Run> {
    a.only("fmod", 0)?;
    one(|inputs| {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        // The result has the sign of the divisor, as in Python.
        let remainder = |m: i64, n: i64| m.checked_rem(n).map(|r| if r != 0 && (r < 0) != (n < 0) { r + n } else { r });
        integers(a, b, &broadcast_shape(a.dims(), b.dims())?, remainder)
    })
}

/// Differentiable for a single exponent, or for a positive base.
pub fn pow() -> Result<Run> {
    one(|inputs| {
        let x = inputs.real(0)?;
        let exponent = inputs.get(1)?.to_dtype(inputs.float)?.to_device(inputs.device)?;
        let dims = broadcast_shape(x.dims(), exponent.dims())?;
        if exponent.elem_count() == 1 && dims == x.dims() && !exponent.track_op() {
            let e = exponent.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?.first().copied().unwrap_or(1.0);
            return Ok(match e {
                1.0 => x.clone(),
                2.0 => x.sqr()?,
                0.5 => x.sqrt()?,
                -1.0 => x.recip()?,
                e => x.powf(f64::from(e))?,
            });
        }
        Ok(x.broadcast_as(dims.as_slice())?.broadcast_pow(&exponent.broadcast_as(dims)?)?)
    })
}

pub fn abs() -> Result<Run> {
    one(|inputs| match inputs.get(0)? {
        x if x.dtype() == DType::I64 => mapped(x, |n| n.checked_abs()),
        _ => {
            let x = inputs.real(0)?;
            custom_vjp(x, x.detach().abs()?, |x, _, g| Ok((g * x.sign()?)?))
        }
    })
}

pub fn neg() -> Result<Run> {
    one(|inputs| match inputs.get(0)? {
        x if x.dtype() == DType::I64 => mapped(x, |n| n.checked_neg()),
        _ => Ok(inputs.real(0)?.neg()?),
    })
}

pub fn sign() -> Result<Run> {
    one(|inputs| match inputs.get(0)? {
        x if x.dtype() == DType::I64 => mapped(x, |n| Some(n.signum())),
        _ => Ok(inputs.real(0)?.detach().sign()?),
    })
}

fn mapped(x: &Tensor, f: impl Fn(i64) -> Option<i64>) -> Result<Tensor> {
    let results: Option<Vec<i64>> = ints(x)?.into_iter().map(f).collect();
    let results = results.ok_or_else(|| Error::input("integers overflow"))?;
    Ok(Tensor::from_vec(results, x.shape(), &Device::Cpu)?)
}

pub fn is_nan() -> Result<Run> {
    real(|x| Ok(x.detach().ne(&x.detach())?))
}

#[derive(Clone, Copy)]
pub enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

pub fn compare(op: Compare) -> Result<Run> {
    one(move |inputs| {
        let (a, b) = broadcast_pair(inputs, inputs.get(0)?, inputs.get(1)?)?;
        let (a, b) = (a.detach(), b.detach());
        Ok(match op {
            Compare::Equal => a.eq(&b)?,
            Compare::Less => a.lt(&b)?,
            Compare::LessOrEqual => a.le(&b)?,
            Compare::Greater => a.gt(&b)?,
            Compare::GreaterOrEqual => a.ge(&b)?,
        })
    })
}

/// Both tensors, broadcast to their common shape, on one device.
fn broadcast_pair(inputs: &Inputs, a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    if a.dtype() != b.dtype() {
        return Err(Error::input(format!("{} and {} cannot be combined", dtype_name(a), dtype_name(b))));
    }
    let dims = broadcast_shape(a.dims(), b.dims())?;
    let ready = |t: &Tensor| -> Result<Tensor> {
        let t = t.broadcast_as(dims.as_slice())?.contiguous()?;
        Ok(if t.dtype() == DType::U8 { t.to_device(inputs.device)? } else { t })
    };
    Ok((ready(a)?, ready(b)?))
}

#[derive(Clone, Copy)]
pub enum Logic {
    And,
    Or,
    Xor,
}

fn truths(t: &Tensor) -> Result<&Tensor> {
    if t.dtype() == DType::U8 { Ok(t) } else { Err(Error::input(format!("expected bool, got {}", dtype_name(t)))) }
}

pub fn logic(op: Logic) -> Result<Run> {
    one(move |inputs| {
        let (a, b) = broadcast_pair(inputs, truths(inputs.get(0)?)?, truths(inputs.get(1)?)?)?;
        Ok(match op {
            Logic::And => a.minimum(&b)?,
            Logic::Or => a.maximum(&b)?,
            Logic::Xor => a.ne(&b)?,
        })
    })
}

pub fn not() -> Result<Run> {
    one(|inputs| Ok(truths(inputs.get(0)?)?.eq(0u8)?))
}

pub fn choose() -> Result<Run> {
    one(|inputs| {
        let condition = truths(inputs.get(0)?)?;
        let (a, b) = broadcast_pair(inputs, inputs.get(1)?, inputs.get(2)?)?;
        let dims = broadcast_shape(condition.dims(), a.dims())?;
        let condition = condition.broadcast_as(dims.as_slice())?.contiguous()?.to_device(a.device())?;
        let (a, b) = (a.broadcast_as(dims.as_slice())?, b.broadcast_as(dims.as_slice())?);
        Ok(condition.where_cond(&a.contiguous()?, &b.contiguous()?)?)
    })
}

pub fn cast(a: &Attributes) -> Result<Run> {
    let to = a.optional_int("to")?.ok_or_else(|| Error::input("`to` is missing"))?;
    let to = i32::try_from(to).map_err(|_| Error::input(format!("element type {to} is not supported")))?;
    a.ignore("saturate");
    a.ignore("round_mode");
    let (_, _, class) = element_type(to)?;
    one(move |inputs| converted(inputs, class))
}

pub fn cast_like(a: &Attributes) -> Result<Run> {
    a.ignore("saturate");
    a.ignore("round_mode");
    one(|inputs| {
        let class = match inputs.get(1)?.dtype() {
            DType::I64 => ElementClass::Int,
            DType::U8 => ElementClass::Bool,
            _ => ElementClass::Float,
        };
        converted(inputs, class)
    })
}

/// Converts to a class of element types: floats of every width have the type of the run, and integers are i64.
fn converted(inputs: &Inputs, class: ElementClass) -> Result<Tensor> {
    let x = inputs.get(0)?;
    Ok(match (x.dtype(), class) {
        (DType::I64, ElementClass::Int) | (DType::U8, ElementClass::Bool) => x.clone(),
        (from, ElementClass::Float) if from.is_float() => x.clone(),
        (_, ElementClass::Float) => x.to_dtype(inputs.float)?.to_device(inputs.device)?,
        (_, ElementClass::Int) => x.detach().to_device(&Device::Cpu)?.to_dtype(DType::I64)?,
        (DType::I64, ElementClass::Bool) => x.ne(0i64)?,
        (_, ElementClass::Bool) => x.detach().ne(0f32)?,
    })
}

/// Multiplies the last two dimensions of each as matrices. A vector is a row on the left and a column on the right.
pub fn matmul() -> Result<Run> {
    one(|inputs| {
        let (a, b) = (inputs.real(0)?, inputs.real(1)?);
        if a.rank() == 0 || b.rank() == 0 {
            return Err(Error::input("a single number is not a matrix"));
        }
        let left = if a.rank() == 1 { a.unsqueeze(0)? } else { a.clone() };
        let right = if b.rank() == 1 { b.unsqueeze(1)? } else { b.clone() };
        let mut y = product(&left, &right)?;
        if a.rank() == 1 {
            y = y.squeeze(y.rank() - 2)?;
        }
        if b.rank() == 1 {
            y = y.squeeze(y.rank() - 1)?;
        }
        Ok(y)
    })
}

pub(super) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a_dims, b_dims) = (a.dims(), b.dims());
    let (a_batch, a_matrix) = a_dims.split_at(a_dims.len() - 2);
    let (b_batch, b_matrix) = b_dims.split_at(b_dims.len() - 2);
    if a_matrix[1] != b_matrix[0] {
        return Err(Error::input(format!("{a_dims:?} and {b_dims:?} have no matrix product")));
    }
    let mut dims = broadcast_shape(a_batch, b_batch)?;
    // The copies that broadcasting makes count too.
    checked_count(&[&dims[..], a_matrix].concat())?;
    checked_count(&[&dims[..], b_matrix].concat())?;
    dims.extend([a_matrix[0], b_matrix[1]]);
    checked_count(&dims)?;
    if b.track_op() || b.rank() != 2 {
        return Ok(a.contiguous()?.broadcast_matmul(&b.contiguous()?)?);
    }
    // A constant matrix, whose gradient candle would compute too.
    let (flat, weight) = (a.contiguous()?.reshape(((), a_matrix[1]))?, b.contiguous()?);
    let y = flat.detach().matmul(&weight)?;
    let y = custom_vjp(&flat, y, move |_, _, g| Ok(g.contiguous()?.matmul(&weight.t()?.contiguous()?)?))?;
    Ok(y.reshape(dims)?)
}

pub fn gemm(a: &Attributes) -> Result<Run> {
    let (alpha, beta) = (a.float("alpha", 1.0)?, a.float("beta", 1.0)?);
    let (transpose_a, transpose_b) = (a.flag("transA", false)?, a.flag("transB", false)?);
    one(move |inputs| {
        let matrix = |i: usize, transpose: bool| -> Result<Tensor> {
            let t = inputs.real(i)?;
            if t.rank() != 2 {
                return Err(Error::input(format!("{:?} is not a matrix", t.dims())));
            }
            Ok(if transpose { t.t()? } else { t.clone() })
        };
        let scaled = |t: Tensor, by: f64| if by == 1.0 { Ok(t) } else { t * by };
        let y = scaled(product(&matrix(0, transpose_a)?, &matrix(1, transpose_b)?)?, alpha)?;
        match inputs.optional_real(2)? {
            None => Ok(y),
            Some(c) => {
                if broadcast_shape(y.dims(), c.dims())? != y.dims() {
                    return Err(Error::input(format!("{:?} cannot be added to {:?}", c.dims(), y.dims())));
                }
                apply(Binary::Add, &y, &scaled(c.clone(), beta)?)
            }
        }
    })
}
