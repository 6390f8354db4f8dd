//! What moves numbers without changing them, for features and for the arithmetic of shapes alike.

use candle_core::{DType, Device, Tensor};

use super::super::attributes::Attributes;
use super::super::{MOST, axis, common, load, room, size};
use super::{Run, ints, one};
use crate::{Error, Result};

pub fn identity() -> Result<Run> {
    one(|inputs| Ok(inputs.get(0)?.clone()))
}

/// Without effect once a network is trained.
pub fn dropout(a: &Attributes) -> Result<Run> {
    a.ignore("ratio");
    a.ignore("seed");
    one(|inputs| {
        if let Some(training) = inputs.optional(2)
            && training.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? != 0.0
        {
            return Err(Error::input("is in training mode: export the network in evaluation mode"));
        }
        Ok(inputs.get(0)?.clone())
    })
}

fn whole(numbers: Vec<i64>) -> Result<Tensor> {
    let n = numbers.len();
    Ok(Tensor::from_vec(numbers, n, &Device::Cpu)?)
}

pub fn shape(a: &Attributes) -> Result<Run> {
    let (start, end) = (a.int("start", 0)?, a.int("end", i64::MAX)?);
    one(move |inputs| {
        let dims: Vec<i64> = inputs.get(0)?.dims().iter().map(|d| *d as i64).collect();
        let n = dims.len() as i64;
        let place = |i: i64| (if i < 0 { i.saturating_add(n) } else { i }).clamp(0, n) as usize;
        whole(dims.get(place(start)..place(end)).unwrap_or_default().to_vec())
    })
}

pub fn size_of() -> Result<Run> {
    one(|inputs| Ok(Tensor::new(inputs.get(0)?.elem_count() as i64, &Device::Cpu)?))
}

/// Floats to where the features are.
fn placed(t: &Tensor, device: &Device) -> Result<Tensor> {
    if t.dtype() == DType::F32 { Ok(t.to_device(device)?) } else { Ok(t.clone()) }
}

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
        whole(values)?
    } else {
        return Err(Error::input("has no value that is a number"));
    };
    one(move |inputs| placed(&value, inputs.device))
}

pub fn constant_of_shape(a: &Attributes) -> Result<Run> {
    let value = match a.tensor("value")? {
        Some(t) => load::constant(t)?,
        None => Tensor::zeros(1, DType::F32, &Device::Cpu)?,
    };
    if value.elem_count() != 1 {
        return Err(Error::input("its value has to be a single number"));
    }
    let value = value.flatten_all()?;
    one(move |inputs| {
        let dims = inputs.ints(0)?.into_iter().map(|n| size(n, "dimension")).collect::<Result<Vec<_>>>()?;
        if room(&dims)? == 0 {
            return Ok(Tensor::zeros(dims, value.dtype(), &Device::Cpu)?);
        }
        placed(&value.squeeze(0)?.broadcast_as(dims)?.contiguous()?, inputs.device)
    })
}

pub fn range() -> Result<Run> {
    one(|inputs| {
        let get = |i| inputs.get(i);
        let single = || Error::input("start, limit and step have to be single numbers");
        if get(0)?.dtype() == DType::F32 {
            let one = |i| inputs.floats(i)?.filter(|v| v.len() == 1).map(|v| f64::from(v[0])).ok_or_else(single);
            let (start, limit, step) = (one(0)?, one(1)?, one(2)?);
            let count = ((limit - start) / step).ceil();
            if !count.is_finite() || count > MOST as f64 {
                return Err(Error::input(format!("no range from {start} to {limit} by {step}")));
            }
            let values: Vec<f32> = (0..count.max(0.0) as usize).map(|i| (start + i as f64 * step) as f32).collect();
            let n = values.len();
            return Ok(Tensor::from_vec(values, n, inputs.device)?);
        }
        let one = |i| inputs.ints(i)?.first().copied().ok_or_else(single);
        let (start, limit, step) = (i128::from(one(0)?), i128::from(one(1)?), i128::from(one(2)?));
        let count = match step {
            0 => -1,
            step if step > 0 => (limit - start + step - 1).div_euclid(step).max(0),
            step => (start - limit - step - 1).div_euclid(-step).max(0),
        };
        if !(0..=MOST as i128).contains(&count) {
            return Err(Error::input(format!("no range from {start} to {limit} by {step}")));
        }
        whole((0..count).map(|i| (start + i * step) as i64).collect())
    })
}

/// 0 keeps a dimension (unless `allowzero`), −1 is what is left.
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
                n => size(n, "dimension").map_err(|_| impossible())?,
            });
        }
        let known = room(&dims)?;
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
        let at = if at == x.rank() as i64 { x.rank() } else { axis(at, x.rank())? };
        let rows: usize = x.dims()[..at].iter().product();
        let columns: usize = x.dims()[at..].iter().product();
        Ok(x.reshape((rows, columns))?)
    })
}

/// All axes of size 1, or those named by an attribute (old files) or an argument.
pub fn squeeze(a: &Attributes) -> Result<Run> {
    let given = a.ints("axes")?;
    one(move |inputs| {
        let x = inputs.get(0)?;
        let axes = match inputs.optional_ints(1)?.or_else(|| given.clone()) {
            Some(axes) => axes.into_iter().map(|n| axis(n, x.rank())).collect::<Result<Vec<_>>>()?,
            None => (0..x.rank()).filter(|i| x.dims()[*i] == 1).collect(),
        };
        if let Some(wrong) = axes.iter().find(|i| x.dims()[**i] != 1) {
            return Err(Error::input(format!("axis {wrong} of {:?} is not 1", x.dims())));
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
        let mut axes = axes.into_iter().map(|n| axis(n, rank)).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        let mut dims = x.dims().to_vec();
        for axis in axes {
            if axis > dims.len() {
                return Err(Error::input(format!("no axis {axis} for {:?}", x.dims())));
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
            return Err(Error::input(format!("{order:?} is no order of the axes of {:?}", x.dims())));
        }
        Ok(x.permute(order)?.contiguous()?)
    })
}

pub fn concat(a: &Attributes) -> Result<Run> {
    let at = a.optional_int("axis")?.ok_or_else(|| Error::input("`axis` is missing"))?;
    one(move |inputs| {
        let parts = (0..inputs.values.len()).map(|i| inputs.get(i)).collect::<Result<Vec<_>>>()?;
        let first = inputs.get(0)?;
        let at = axis(at, first.rank())?;
        let mut dims = first.dims().to_vec();
        dims[at] = 0;
        for part in &parts {
            let same = part.rank() == dims.len() && part.dtype() == first.dtype();
            if !same || (0..dims.len()).any(|i| i != at && part.dims()[i] != dims[i]) {
                return Err(Error::input(format!("{:?} and {:?} do not go together", first.dims(), part.dims())));
            }
            dims[at] += part.dims()[at];
        }
        room(&dims)?;
        let full: Vec<&Tensor> = parts.into_iter().filter(|p| p.elem_count() > 0).collect();
        if full.is_empty() {
            Ok(Tensor::zeros(dims, first.dtype(), first.device())?)
        } else {
            Ok(Tensor::cat(&full, at)?)
        }
    })
}

/// Sizes from an attribute (old files), an argument, or as equal as can be.
pub fn split(a: &Attributes) -> Result<Run> {
    let (at, given) = (a.int("axis", 0)?, a.ints("split")?);
    let parts = a.outputs();
    a.ignore("num_outputs");
    Ok(Box::new(move |inputs| {
        let x = inputs.get(0)?;
        let at = axis(at, x.rank())?;
        let n = x.dims()[at];
        let sizes = match inputs.optional_ints(1)?.or_else(|| given.clone()) {
            Some(sizes) => sizes.into_iter().map(|n| size(n, "size")).collect::<Result<Vec<_>>>()?,
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

/// The entries `index` of an axis, on the tape.
fn select(x: &Tensor, axis: usize, index: Vec<u32>) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    dims[axis] = index.len();
    if room(&dims)? == 0 {
        return Ok(Tensor::zeros(dims, x.dtype(), x.device())?);
    }
    let n = index.len();
    Ok(x.contiguous()?.index_select(&Tensor::from_vec(index, n, x.device())?, axis)?)
}

/// From attributes in old files, arguments since.
pub fn slice(a: &Attributes) -> Result<Run> {
    let (starts, ends, axes) = (a.ints("starts")?, a.ints("ends")?, a.ints("axes")?);
    one(move |inputs| {
        let x = inputs.get(0)?;
        let get = |i, given: &Option<Vec<i64>>| Ok::<_, Error>(inputs.optional_ints(i)?.or_else(|| given.clone()));
        let missing = || Error::input("its starts or ends are missing");
        let (starts, ends) = (get(1, &starts)?.ok_or_else(missing)?, get(2, &ends)?.ok_or_else(missing)?);
        let axes = get(3, &axes)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = get(4, &None)?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(Error::input("starts, ends, axes and steps differ in number"));
        }
        let mut y = x.clone();
        for (((start, end), at), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
            let at = axis(at, x.rank())?;
            let n = y.dims()[at] as i64;
            let from_start = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
            let (start, end) = (from_start(start), from_start(end));
            y = match step {
                0 => return Err(Error::input("a step of 0")),
                1 => {
                    let (start, end) = (start.clamp(0, n), end.clamp(0, n));
                    y.narrow(at, start as usize, (end - start).max(0) as usize)?
                }
                step if step > 0 => {
                    let index = (start.clamp(0, n)..end.clamp(0, n)).step_by(step as usize);
                    select(&y, at, index.map(|i| i as u32).collect())?
                }
                step => {
                    let (start, end) = (start.clamp(-1, n - 1), end.clamp(-1, n - 1));
                    let index = (end + 1..=start).rev().step_by(step.unsigned_abs() as usize);
                    select(&y, at, index.map(|i| i as u32).collect())?
                }
            };
        }
        Ok(y)
    })
}

fn indices(numbers: Vec<i64>, n: usize) -> Result<Vec<u32>> {
    let place = |i: i64| {
        let at = if i < 0 { i.saturating_add(n as i64) } else { i };
        let inside = (0..n as i64).contains(&at).then_some(at as u32);
        inside.ok_or_else(|| Error::input(format!("entry {i} of {n}")))
    };
    numbers.into_iter().map(place).collect()
}

pub fn gather(a: &Attributes) -> Result<Run> {
    let at = a.int("axis", 0)?;
    one(move |inputs| {
        let (x, index) = (inputs.get(0)?, inputs.get(1)?);
        let at = axis(at, x.rank())?;
        let picked = select(x, at, indices(ints(index)?, x.dims()[at])?)?;
        let mut dims = x.dims().to_vec();
        dims.splice(at..=at, index.dims().iter().copied());
        Ok(picked.reshape(dims)?)
    })
}

pub fn gather_elements(a: &Attributes) -> Result<Run> {
    let at = a.int("axis", 0)?;
    one(move |inputs| {
        let (x, index) = (inputs.real(0)?, inputs.get(1)?);
        let at = axis(at, x.rank())?;
        let fits = |i: usize| i == at || index.dims()[i] <= x.dims()[i];
        if index.rank() != x.rank() || !(0..x.rank()).all(fits) || index.elem_count() == 0 {
            return Err(Error::input(format!("indices {:?} into {:?}", index.dims(), x.dims())));
        }
        let picked = indices(ints(index)?, x.dims()[at])?;
        // candle's gradient needs the other axes to be as long as those of the indices.
        let mut part = x.clone();
        for i in (0..x.rank()).filter(|i| *i != at) {
            part = part.narrow(i, 0, index.dims()[i])?;
        }
        let index = Tensor::from_vec(picked, index.shape(), x.device())?;
        Ok(part.contiguous()?.gather(&index, at)?)
    })
}

/// A tensor whose leading axes are one, and which of its entries each row of `index` names.
fn named(x: &Tensor, index: &Tensor) -> Result<(Tensor, Vec<u32>)> {
    let Some((&depth, rows)) = index.dims().split_last().filter(|(depth, _)| (1..=x.rank()).contains(*depth)) else {
        return Err(Error::input(format!("indices {:?} into {:?}", index.dims(), x.dims())));
    };
    let (leading, rest) = x.dims().split_at(depth);
    let mut places = vec![0u32; room(rows)?];
    for (place, row) in places.iter_mut().zip(ints(index)?.chunks_exact(depth)) {
        for (n, i) in leading.iter().zip(row) {
            *place = *place * *n as u32 + indices(vec![*i], *n)?[0];
        }
    }
    Ok((x.contiguous()?.reshape([&[leading.iter().product()], rest].concat())?, places))
}

/// Each row of the indices names a place of the leading axes.
pub fn gather_nd(a: &Attributes) -> Result<Run> {
    a.only("batch_dims", 0)?;
    one(|inputs| {
        let (x, index) = (inputs.get(0)?, inputs.get(1)?);
        let (flat, places) = named(x, index)?;
        let dims = [&index.dims()[..index.rank() - 1], &flat.dims()[1..]].concat();
        Ok(select(&flat, 0, places)?.reshape(dims)?)
    })
}

/// What [`gather_nd`] would read is replaced; of several updates of a place the last one counts.
pub fn scatter_nd(a: &Attributes) -> Result<Run> {
    let reduction = a.text("reduction", "none")?;
    if reduction != "none" {
        return Err(Error::input(format!("reduction {reduction:?} is not supported")));
    }
    one(|inputs| {
        let (x, index, updates) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let (flat, places) = named(x, index)?;
        let wanted = [&index.dims()[..index.rank() - 1], &flat.dims()[1..]].concat();
        if updates.dims() != wanted || updates.dtype() != x.dtype() {
            return Err(Error::input(format!("updates {:?} where {wanted:?} are read", updates.dims())));
        }
        if updates.elem_count() == 0 {
            return Ok(x.clone());
        }
        let n = flat.dims()[0];
        let mut source: Vec<u32> = (0..n as u32).collect();
        for (i, place) in places.iter().enumerate() {
            source[*place as usize] = (n + i) as u32;
        }
        let rows = updates.contiguous()?.reshape([&[places.len()], &flat.dims()[1..]].concat())?;
        Ok(select(&Tensor::cat(&[&flat, &rows], 0)?, 0, source)?.reshape(x.shape())?)
    })
}

#[derive(Clone, Copy)]
enum Pad {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// Pads from an attribute (old files) or an argument; negative ones cut off.
pub fn pad(a: &Attributes) -> Result<Run> {
    let mode = match a.text("mode", "constant")?.as_str() {
        "constant" => Pad::Constant,
        "reflect" => Pad::Reflect,
        "edge" => Pad::Edge,
        "wrap" => Pad::Wrap,
        other => return Err(Error::input(format!("mode {other:?} is not supported"))),
    };
    let (given, value) = (a.ints("pads")?, a.float("value", 0.0)? as f32);
    one(move |inputs| {
        let x = inputs.real(0)?;
        let pads =
            inputs.optional_ints(1)?.or_else(|| given.clone()).ok_or_else(|| Error::input("its pads are missing"))?;
        let value = inputs.floats(2)?.and_then(|v| v.first().copied()).unwrap_or(value);
        let axes = match inputs.optional_ints(3)? {
            Some(axes) => axes.into_iter().map(|n| axis(n, x.rank())).collect::<Result<Vec<_>>>()?,
            None => (0..x.rank()).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(Error::input(format!("{} pads for {} axes", pads.len(), axes.len())));
        }
        let (before, after) = pads.split_at(axes.len());
        let mut y = x.clone();
        for ((&axis, &before), &after) in axes.iter().zip(before).zip(after) {
            if (before, after) != (0, 0) {
                y = padded(&y, axis, before, after, mode, value)?;
            }
        }
        Ok(y)
    })
}

fn padded(x: &Tensor, axis: usize, before: i64, after: i64, mode: Pad, value: f32) -> Result<Tensor> {
    let n = x.dims()[axis] as i64;
    let most = MOST as i64;
    let total = (before.clamp(-most, most) + n).saturating_add(after.clamp(-most, most));
    let mut dims = x.dims().to_vec();
    dims[axis] = size(total, "padded size")?;
    if room(&dims)? == 0 {
        return Err(Error::input(format!("nothing is left of axis {axis} of {:?}", x.dims())));
    }
    if let Pad::Constant = mode {
        let (from, to) = ((-before).clamp(0, n), (n + after.min(0)).clamp(0, n));
        let kept = if from < to { Some(x.narrow(axis, from as usize, (to - from) as usize)?) } else { None };
        let block = |count: i64| -> Result<Option<Tensor>> {
            let mut dims = x.dims().to_vec();
            dims[axis] = count.max(0) as usize;
            Ok(if count > 0 { Some(Tensor::full(value, dims, x.device())?) } else { None })
        };
        let left = block(if kept.is_some() { before } else { total })?;
        let right = block(if kept.is_some() { after } else { 0 })?;
        let parts: Vec<Tensor> = [left, kept, right].into_iter().flatten().collect();
        return Ok(Tensor::cat(&parts, axis)?);
    }
    let source = |i: i64| match mode {
        Pad::Edge | Pad::Constant => i.clamp(0, n - 1),
        Pad::Wrap => i.rem_euclid(n),
        Pad::Reflect if n == 1 => 0,
        Pad::Reflect => {
            let i = i.rem_euclid(2 * (n - 1));
            i.min(2 * (n - 1) - i)
        }
    };
    select(x, axis, (-before..n + after).map(|i| source(i) as u32).collect())
}

pub fn expand() -> Result<Run> {
    one(|inputs| {
        let x = inputs.get(0)?;
        let wanted = inputs.ints(1)?.into_iter().map(|n| size(n, "dimension")).collect::<Result<Vec<_>>>()?;
        Ok(x.broadcast_as(common(x.dims(), &wanted)?)?.contiguous()?)
    })
}

pub fn tile() -> Result<Run> {
    one(|inputs| {
        let x = inputs.get(0)?;
        let repeats = inputs.ints(1)?.into_iter().map(|n| size(n, "repeat")).collect::<Result<Vec<_>>>()?;
        if repeats.len() != x.rank() || repeats.contains(&0) {
            return Err(Error::input(format!("{:?} cannot be repeated {repeats:?} times", x.dims())));
        }
        let dims: Vec<usize> = x.dims().iter().zip(&repeats).map(|(d, r)| d.saturating_mul(*r)).collect();
        room(&dims)?;
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
    let n = size(n, "blocksize")?;
    if n == 0 || n > 1 << 10 { Err(Error::input(format!("blocksize {n} is not possible"))) } else { Ok(n) }
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
            return Err(Error::input(format!("{c} channels in blocks of {n}×{n}")));
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
    one(move |inputs| {
        let x = inputs.real(0)?.contiguous()?;
        let (b, c, h, w) = x.dims4()?;
        if !h.is_multiple_of(n) || !w.is_multiple_of(n) {
            return Err(Error::input(format!("{w}×{h} in blocks of {n}×{n}")));
        }
        let split = x.reshape(vec![b, c, h / n, n, w / n, n])?.permute([0, 3, 5, 1, 2, 4])?;
        Ok(split.contiguous()?.reshape((b, c * n * n, h / n, w / n))?)
    })
}
