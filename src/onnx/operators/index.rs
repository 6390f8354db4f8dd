//! Operators that select entries of a tensor, or replace them.

use candle_core::Tensor;

use super::{Run, ints, one};
use crate::attributes::Attributes;
use crate::dims::{checked_axis, checked_count};
use crate::{Error, Result};

/// Selects the entries `index` of an axis; differentiable.
pub(super) fn select(x: &Tensor, axis: usize, index: Vec<u32>) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    dims[axis] = index.len();
    if checked_count(&dims)? == 0 {
        return Ok(Tensor::zeros(dims, x.dtype(), x.device())?);
    }
    let n = index.len();
    Ok(x.contiguous()?.index_select(&Tensor::from_vec(index, n, x.device())?, axis)?)
}

/// The ranges are attributes in old files and arguments in newer ones.
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
            return Err(Error::input("starts, ends, axes and steps must have the same length"));
        }
        let mut y = x.clone();
        for (((start, end), at), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
            let at = checked_axis(at, x.rank())?;
            let n = y.dims()[at] as i64;
            let from_start = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
            let (start, end) = (from_start(start), from_start(end));
            y = match step {
                0 => return Err(Error::input("a step must not be 0")),
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

pub(super) fn indices(numbers: Vec<i64>, n: usize) -> Result<Vec<u32>> {
    let place = |i: i64| {
        let at = if i < 0 { i.saturating_add(n as i64) } else { i };
        let inside = (0..n as i64).contains(&at).then_some(at as u32);
        inside.ok_or_else(|| Error::input(format!("there is no entry {i} among {n}")))
    };
    numbers.into_iter().map(place).collect()
}

pub fn gather(a: &Attributes) -> Result<Run> {
    let at = a.int("axis", 0)?;
    one(move |inputs| {
        let (x, index) = (inputs.get(0)?, inputs.get(1)?);
        let at = checked_axis(at, x.rank())?;
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
        let at = checked_axis(at, x.rank())?;
        let fits = |i: usize| i == at || index.dims()[i] <= x.dims()[i];
        if index.rank() != x.rank() || !(0..x.rank()).all(fits) || index.elem_count() == 0 {
            return Err(Error::input(format!("indices {:?} do not fit {:?}", index.dims(), x.dims())));
        }
        let picked = indices(ints(index)?, x.dims()[at])?;
        // candle's gradient requires the other axes to be as long as those of the indices.
        let mut part = x.clone();
        for i in (0..x.rank()).filter(|i| *i != at) {
            part = part.narrow(i, 0, index.dims()[i])?;
        }
        let index = Tensor::from_vec(picked, index.shape(), x.device())?;
        Ok(part.contiguous()?.gather(&index, at)?)
    })
}

/// Flattens the leading axes of `x`. Returns the result, and the entry of it that each row of `index` addresses.
fn addressed(x: &Tensor, index: &Tensor) -> Result<(Tensor, Vec<u32>)> {
    let Some((&depth, rows)) = index.dims().split_last().filter(|(depth, _)| (1..=x.rank()).contains(*depth)) else {
        return Err(Error::input(format!("indices {:?} do not fit {:?}", index.dims(), x.dims())));
    };
    let (leading, rest) = x.dims().split_at(depth);
    let mut places = vec![0u32; checked_count(rows)?];
    for (place, row) in places.iter_mut().zip(ints(index)?.chunks_exact(depth)) {
        for (n, i) in leading.iter().zip(row) {
            *place = *place * *n as u32 + indices(vec![*i], *n)?[0];
        }
    }
    Ok((x.contiguous()?.reshape([&[leading.iter().product()], rest].concat())?, places))
}

/// Writes updates into a cache (B, …), for each of the batch from an index of `axis` on.
pub fn tensor_scatter(a: &Attributes) -> Result<Run> {
    let at = a.int("axis", -2)?;
    let circular = match a.text("mode", "linear")?.as_str() {
        "linear" => false,
        "circular" => true,
        other => return Err(Error::input(format!("mode {other:?} is not supported"))),
    };
    one(move |inputs| {
        let (cache, update) = (inputs.real(0)?, inputs.real(1)?);
        let at = checked_axis(at, cache.rank())?;
        let fits =
            |i: usize| if i == at { update.dims()[i] <= cache.dims()[i] } else { update.dims()[i] == cache.dims()[i] };
        if at == 0 || update.rank() != cache.rank() || !(0..cache.rank()).all(fits) {
            return Err(Error::input(format!("updates {:?} do not fit {:?}", update.dims(), cache.dims())));
        }
        let (b, n, m) = (cache.dims()[0], cache.dims()[at], update.dims()[at]);
        let starts = inputs.optional_ints(2)?.unwrap_or_else(|| vec![0; b]);
        if starts.len() != b {
            return Err(Error::input(format!("{} indices do not fit a batch of {b}", starts.len())));
        }
        let mut parts = Vec::with_capacity(b);
        for (i, start) in starts.into_iter().enumerate() {
            let mut source: Vec<u32> = (0..n as u32).collect();
            for j in 0..m {
                let place = start.saturating_add(j as i64);
                let place = if circular { place.rem_euclid(n as i64) } else { place };
                let place = usize::try_from(place).ok().filter(|place| *place < n);
                let place = place.ok_or_else(|| Error::input(format!("there is no room for {m} from {start} on")))?;
                source[place] = (n + j) as u32;
            }
            let both = Tensor::cat(&[&cache.narrow(0, i, 1)?, &update.narrow(0, i, 1)?], at)?;
            parts.push(select(&both, at, source)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    })
}

/// Each row of the indices addresses an entry of the leading axes.
pub fn gather_nd(a: &Attributes) -> Result<Run> {
    a.only("batch_dims", 0)?;
    one(|inputs| {
        let (x, index) = (inputs.get(0)?, inputs.get(1)?);
        let (flat, places) = addressed(x, index)?;
        let dims = [&index.dims()[..index.rank() - 1], &flat.dims()[1..]].concat();
        Ok(select(&flat, 0, places)?.reshape(dims)?)
    })
}

/// Replaces the entries that [`gather_nd`] would read. If several updates address one entry, the last one counts.
pub fn scatter_nd(a: &Attributes) -> Result<Run> {
    let reduction = a.text("reduction", "none")?;
    if reduction != "none" {
        return Err(Error::input(format!("reduction {reduction:?} is not supported")));
    }
    one(|inputs| {
        let (x, index, updates) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let (flat, places) = addressed(x, index)?;
        let wanted = [&index.dims()[..index.rank() - 1], &flat.dims()[1..]].concat();
        if updates.dims() != wanted || updates.dtype() != x.dtype() {
            return Err(Error::input(format!("updates {:?} do not fit {wanted:?}", updates.dims())));
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
