//! Constants and ranges.

use candle_core::{DType, Device, Tensor};

use super::{Inputs, Run, one};
use crate::attributes::Attributes;
use crate::dims::{MOST, checked_count, checked_size};
use crate::{Error, Result, load};

pub fn constant(a: &Attributes) -> Result<Run> {
    let cpu = &Device::Cpu;
    let value = if let Some(t) = a.tensor("value")? {
        load::constant(t)?
    } else if let Some(x) = a.optional_float("value_float")? {
        Tensor::new(x, cpu)?
    } else if let Some(n) = a.optional_int("value_int")? {
        Tensor::new(n, cpu)?
    } else if let Some(values) = a.floats("value_floats")? {
        let n = values.len();
        Tensor::from_vec(values, n, cpu)?
    } else if let Some(values) = a.ints("value_ints")? {
        int_vector(values)?
    } else {
        return Err(Error::input("has no numeric value"));
    };
    one(move |inputs| placed(&value, inputs))
}

pub fn constant_of_shape(a: &Attributes) -> Result<Run> {
    let value = match a.tensor("value")? {
        Some(t) => load::constant(t)?,
        None => Tensor::zeros(1, DType::F32, &Device::Cpu)?,
    };
    if value.elem_count() != 1 {
        return Err(Error::input("its value must be a single number"));
    }
    let value = value.flatten_all()?;
    one(move |inputs| {
        let dims = inputs.ints(0)?.into_iter().map(|n| checked_size(n, "dimension")).collect::<Result<Vec<_>>>()?;
        if checked_count(&dims)? == 0 {
            return placed(&Tensor::zeros(dims, value.dtype(), &Device::Cpu)?, inputs);
        }
        placed(&value.squeeze(0)?.broadcast_as(dims)?.contiguous()?, inputs)
    })
}

pub fn range() -> Result<Run> {
    one(|inputs| {
        let get = |i| inputs.get(i);
        let single = || Error::input("start, limit and step must be single numbers");
        if get(0)?.dtype().is_float() {
            let one = |i| inputs.floats(i)?.filter(|v| v.len() == 1).map(|v| f64::from(v[0])).ok_or_else(single);
            let (start, limit, step) = (one(0)?, one(1)?, one(2)?);
            let count = ((limit - start) / step).ceil();
            if !count.is_finite() || count > MOST as f64 {
                return Err(Error::input(format!("there is no range from {start} to {limit} by {step}")));
            }
            let values: Vec<f32> = (0..count.max(0.0) as usize).map(|i| (start + i as f64 * step) as f32).collect();
            let n = values.len();
            return placed(&Tensor::from_vec(values, n, &Device::Cpu)?, inputs);
        }
        let one = |i| inputs.ints(i)?.first().copied().ok_or_else(single);
        let (start, limit, step) = (i128::from(one(0)?), i128::from(one(1)?), i128::from(one(2)?));
        let count = match step {
            0 => -1,
            step if step > 0 => (limit - start + step - 1).div_euclid(step).max(0),
            step => (start - limit - step - 1).div_euclid(-step).max(0),
        };
        if !(0..=MOST as i128).contains(&count) {
            return Err(Error::input(format!("there is no range from {start} to {limit} by {step}")));
        }
        int_vector((0..count).map(|i| (start + i * step) as i64).collect())
    })
}

/// Gives floats the type and the device of the features.
pub(super) fn placed(t: &Tensor, inputs: &Inputs) -> Result<Tensor> {
    if t.dtype().is_float() { Ok(t.to_device(inputs.device)?.to_dtype(inputs.float)?) } else { Ok(t.clone()) }
}

pub(super) fn int_vector(numbers: Vec<i64>) -> Result<Tensor> {
    let n = numbers.len();
    Ok(Tensor::from_vec(numbers, n, &Device::Cpu)?)
}
