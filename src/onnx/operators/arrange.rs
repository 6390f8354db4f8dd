//! Operators that join, split and rearrange tensors.

use candle_core::Tensor;

use super::index::select;
use super::{Run, one};
use crate::attributes::Attributes;
use crate::dims::{checked_axis, checked_count, checked_size};
use crate::{Error, Result};

pub fn concat(a: &Attributes) -> Result<Run> {
    let at = a.optional_int("axis")?.ok_or_else(|| Error::input("`axis` is missing"))?;
    one(move |inputs| {
        let parts = (0..inputs.values.len()).map(|i| inputs.get(i)).collect::<Result<Vec<_>>>()?;
        let first = inputs.get(0)?;
        let at = checked_axis(at, first.rank())?;
        let mut dims = first.dims().to_vec();
        dims[at] = 0;
        for part in &parts {
            let same = part.rank() == dims.len() && part.dtype() == first.dtype();
            if !same || (0..dims.len()).any(|i| i != at && part.dims()[i] != dims[i]) {
                return Err(Error::input(format!("{:?} and {:?} cannot be concatenated", first.dims(), part.dims())));
            }
            dims[at] += part.dims()[at];
        }
        checked_count(&dims)?;
        let full: Vec<&Tensor> = parts.into_iter().filter(|p| p.elem_count() > 0).collect();
        if full.is_empty() {
            Ok(Tensor::zeros(dims, first.dtype(), first.device())?)
        } else {
            Ok(Tensor::cat(&full, at)?)
        }
    })
}

/// The sizes are an attribute in old files or an argument in newer ones; by default the parts are equal but for the last.
pub fn split(a: &Attributes) -> Result<Run> {
    let (at, given) = (a.int("axis", 0)?, a.ints("split")?);
    let parts = a.outputs();
    a.ignore("num_outputs");
    Ok(Box::new(move |inputs| {
        let x = inputs.get(0)?;
        let at = checked_axis(at, x.rank())?;
        let n = x.dims()[at];
        let sizes = match inputs.optional_ints(1)?.or_else(|| given.clone()) {
            Some(sizes) => sizes.into_iter().map(|n| checked_size(n, "size")).collect::<Result<Vec<_>>>()?,
            None => {
                let each = n.div_ceil(parts.max(1));
                (0..parts).map(|i| each.min(n.saturating_sub(i * each))).collect()
            }
        };
        if sizes.len() != parts || sizes.iter().sum::<usize>() != n {
            return Err(Error::input(format!("axis {at} of {:?} cannot be split into {sizes:?}", x.dims())));
        }
        let starts = sizes.iter().scan(0, |end, size| Some(std::mem::replace(end, *end + size)));
        starts.zip(&sizes).map(|(start, size)| Ok(x.narrow(at, start, *size)?)).collect()
    }))
}

pub fn tile() -> Result<Run> {
    one(|inputs| {
        let x = inputs.get(0)?;
        let repeats = inputs.ints(1)?.into_iter().map(|n| checked_size(n, "repeat")).collect::<Result<Vec<_>>>()?;
        if repeats.len() != x.rank() || repeats.contains(&0) {
            return Err(Error::input(format!("{:?} cannot be repeated {repeats:?} times", x.dims())));
        }
        let dims: Vec<usize> = x.dims().iter().zip(&repeats).map(|(d, r)| d.saturating_mul(*r)).collect();
        checked_count(&dims)?;
        let mut y = x.clone();
        for (axis, (d, r)) in x.dims().iter().zip(&repeats).enumerate() {
            if *r > 1 {
                y = select(&y, axis, (0..d * r).map(|i| (i % d) as u32).collect())?;
            }
        }
        Ok(y)
    })
}

fn blocks(a: &Attributes) -> Result<usize> {
    let n = a.optional_int("blocksize")?.ok_or_else(|| Error::input("`blocksize` is missing"))?;
    let n = checked_size(n, "blocksize")?;
    if n == 0 || n > 1 << 10 { Err(Error::input(format!("blocksize {n} is invalid"))) } else { Ok(n) }
}

/// Pixel shuffle.
pub fn depth_to_space(a: &Attributes) -> Result<Run> {
    let n = blocks(a)?;
    let columns_first = match a.text("mode", "DCR")?.as_str() {
        "DCR" => false,
        "CRD" => true,
        other => return Err(Error::input(format!("mode {other:?} is not supported"))),
    };
    one(move |inputs| {
        let x = inputs.real(0)?.contiguous()?;
        let (b, c, h, w) = x.dims4()?;
        if !c.is_multiple_of(n * n) {
            return Err(Error::input(format!("{c} channels do not split into blocks of {n}×{n}")));
        }
        let c = c / (n * n);
        let split = if columns_first {
            x.reshape(vec![b, c, n, n, h, w])?.permute([0, 1, 4, 2, 5, 3])?
        } else {
            x.reshape(vec![b, n, n, c, h, w])?.permute([0, 3, 4, 1, 5, 2])?
        };
        Ok(split.contiguous()?.reshape((b, c, h * n, w * n))?)
    })
}

pub fn space_to_depth(a: &Attributes) -> Result<Run> {
    let n = blocks(a)?;
    let order = match a.text("mode", "DCR")?.as_str() {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => return Err(Error::input(format!("mode {other:?} is not supported"))),
    };
    one(move |inputs| {
        let x = inputs.real(0)?.contiguous()?;
        let (b, c, h, w) = x.dims4()?;
        if !h.is_multiple_of(n) || !w.is_multiple_of(n) {
            return Err(Error::input(format!("{w}×{h} does not split into blocks of {n}×{n}")));
        }
        let split = x.reshape(vec![b, c, h / n, n, w / n, n])?.permute(order)?;
        Ok(split.contiguous()?.reshape((b, c * n * n, h / n, w / n))?)
    })
}
