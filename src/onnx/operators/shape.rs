//! Operators that change the shape of a tensor, or return it as one.

use candle_core::{DType, Device, Tensor};

use super::constant::int_vector;
use super::{Run, one};
use crate::attributes::Attributes;
use crate::dims::{broadcast_shape, checked_axis, checked_count, checked_size};
use crate::{Error, Result};

pub fn identity() -> Result<Run> {
    one(|inputs| Ok(inputs.get(0)?.clone()))
}

/// The identity: dropout has no effect on a trained network.
pub fn dropout(a: &Attributes) -> Result<Run> {
    a.ignore("ratio");
    a.ignore("seed");
    one(|inputs| {
        if let Some(training) = inputs.optional(2)
            && training.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? != 0.0
        {
            return Err(Error::input("is in training mode; export the network in evaluation mode"));
        }
        Ok(inputs.get(0)?.clone())
    })
}

pub fn shape(a: &Attributes) -> Result<Run> {
    let (start, end) = (a.int("start", 0)?, a.int("end", i64::MAX)?);
    one(move |inputs| {
        let dims: Vec<i64> = inputs.get(0)?.dims().iter().map(|d| *d as i64).collect();
        let n = dims.len() as i64;
        let place = |i: i64| (if i < 0 { i.saturating_add(n) } else { i }).clamp(0, n) as usize;
        int_vector(dims.get(place(start)..place(end)).unwrap_or_default().to_vec())
    })
}

pub fn size_of() -> Result<Run> {
    one(|inputs| Ok(Tensor::new(inputs.get(0)?.elem_count() as i64, &Device::Cpu)?))
}

/// A size of 0 keeps a dimension (unless `allowzero`), and −1 is inferred from the others.
pub fn reshape(a: &Attributes) -> Result<Run> {
    let literal_zero = a.flag("allowzero", false)?;
    one(move |inputs| {
        let (x, wanted) = (inputs.get(0)?, inputs.ints(1)?);
        let impossible = || Error::input(format!("{:?} cannot be reshaped to {wanted:?}", x.dims()));
        let mut dims = Vec::with_capacity(wanted.len());
        for (i, n) in wanted.iter().enumerate() {
            dims.push(match *n {
                0 if !literal_zero => x.dims().get(i).copied().ok_or_else(impossible)?,
                -1 => 1,
                n => checked_size(n, "dimension").map_err(|_| impossible())?,
            });
        }
        let known = checked_count(&dims)?;
        match wanted.iter().filter(|n| **n == -1).count() {
            0 if known == x.elem_count() => {}
            1 if known > 0 && x.elem_count().is_multiple_of(known) => {
                let at = wanted.iter().position(|n| *n == -1).unwrap_or_default();
                dims[at] = x.elem_count() / known;
            }
            _ => return Err(impossible()),
        }
        Ok(x.reshape(dims)?)
    })
}

pub fn flatten(a: &Attributes) -> Result<Run> {
    let at = a.int("axis", 1)?;
    one(move |inputs| {
        let x = inputs.get(0)?;
        let at = if at == x.rank() as i64 { x.rank() } else { checked_axis(at, x.rank())? };
        let rows: usize = x.dims()[..at].iter().product();
        let columns: usize = x.dims()[at..].iter().product();
        Ok(x.reshape((rows, columns))?)
    })
}

/// Removes the axes that an attribute (in old files) or an argument names, by default all of size 1.
pub fn squeeze(a: &Attributes) -> Result<Run> {
    let given = a.ints("axes")?;
    one(move |inputs| {
        let x = inputs.get(0)?;
        let axes = match inputs.optional_ints(1)?.or_else(|| given.clone()) {
            Some(axes) => axes.into_iter().map(|n| checked_axis(n, x.rank())).collect::<Result<Vec<_>>>()?,
            None => (0..x.rank()).filter(|i| x.dims()[*i] == 1).collect(),
        };
        if let Some(wrong) = axes.iter().find(|i| x.dims()[**i] != 1) {
            return Err(Error::input(format!("axis {wrong} of {:?} does not have size 1", x.dims())));
        }
        let kept = x.dims().iter().enumerate().filter(|(i, _)| !axes.contains(i));
        Ok(x.reshape(kept.map(|(_, d)| *d).collect::<Vec<_>>())?)
    })
}

pub fn unsqueeze(a: &Attributes) -> Result<Run> {
    let given = a.ints("axes")?;
    one(move |inputs| {
        let x = inputs.get(0)?;
        let axes = inputs.optional_ints(1)?.or_else(|| given.clone());
        let axes = axes.ok_or_else(|| Error::input("its axes are missing"))?;
        let rank = x.rank() + axes.len();
        let mut axes = axes.into_iter().map(|n| checked_axis(n, rank)).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        let mut dims = x.dims().to_vec();
        for axis in axes {
            if axis > dims.len() {
                return Err(Error::input(format!("{:?} cannot get an axis {axis}", x.dims())));
            }
            dims.insert(axis, 1);
        }
        Ok(x.reshape(dims)?)
    })
}

pub fn transpose(a: &Attributes) -> Result<Run> {
    let given = a.sizes("perm")?;
    one(move |inputs| {
        let x = inputs.get(0)?;
        let order = given.clone().unwrap_or_else(|| (0..x.rank()).rev().collect());
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted != (0..x.rank()).collect::<Vec<_>>() {
            return Err(Error::input(format!("{order:?} is not a permutation of the axes of {:?}", x.dims())));
        }
        Ok(x.permute(order)?.contiguous()?)
    })
}

pub fn expand() -> Result<Run> {
    one(|inputs| {
        let x = inputs.get(0)?;
        let wanted = inputs.ints(1)?.into_iter().map(|n| checked_size(n, "dimension")).collect::<Result<Vec<_>>>()?;
        Ok(x.broadcast_as(broadcast_shape(x.dims(), &wanted)?)?.contiguous()?)
    })
}
