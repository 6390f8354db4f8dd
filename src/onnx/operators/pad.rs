//! Padding.

use candle_core::Tensor;

use super::index::select;
use super::{Run, one};
use crate::attributes::Attributes;
use crate::dims::{MOST, checked_axis, checked_count, checked_size};
use crate::{Error, Result};

#[derive(Clone, Copy)]
enum PadMode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// The widths are an attribute in old files and an argument in newer ones. Negative widths crop.
pub fn pad(a: &Attributes) -> Result<Run> {
    let mode = match a.text("mode", "constant")?.as_str() {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        "wrap" => PadMode::Wrap,
        other => return Err(Error::input(format!("mode {other:?} is not supported"))),
    };
    let (given, value) = (a.ints("pads")?, a.float("value", 0.0)? as f32);
    one(move |inputs| {
        let x = inputs.real(0)?;
        let pads =
            inputs.optional_ints(1)?.or_else(|| given.clone()).ok_or_else(|| Error::input("its pads are missing"))?;
        let value = inputs.floats(2)?.and_then(|v| v.first().copied()).unwrap_or(value);
        let axes = match inputs.optional_ints(3)? {
            Some(axes) => axes.into_iter().map(|n| checked_axis(n, x.rank())).collect::<Result<Vec<_>>>()?,
            None => (0..x.rank()).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(Error::input(format!("{} pads do not fit {} axes", pads.len(), axes.len())));
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

fn padded(x: &Tensor, axis: usize, before: i64, after: i64, mode: PadMode, value: f32) -> Result<Tensor> {
    let n = x.dims()[axis] as i64;
    let most = MOST as i64;
    let total = (before.clamp(-most, most) + n).saturating_add(after.clamp(-most, most));
    let mut dims = x.dims().to_vec();
    dims[axis] = checked_size(total, "padded size")?;
    if checked_count(&dims)? == 0 {
        return Err(Error::input(format!("axis {axis} of {:?} would be empty", x.dims())));
    }
    if let PadMode::Constant = mode {
        let (from, to) = ((-before).clamp(0, n), (n + after.min(0)).clamp(0, n));
        let kept = if from < to { Some(x.narrow(axis, from as usize, (to - from) as usize)?) } else { None };
        let block = |count: i64| -> Result<Option<Tensor>> {
            let mut dims = x.dims().to_vec();
            dims[axis] = count.max(0) as usize;
            Ok(if count > 0 { Some(Tensor::full(value, dims, x.device())?.to_dtype(x.dtype())?) } else { None })
        };
        let left = block(if kept.is_some() { before } else { total })?;
        let right = block(if kept.is_some() { after } else { 0 })?;
        let parts: Vec<Tensor> = [left, kept, right].into_iter().flatten().collect();
        return Ok(Tensor::cat(&parts, axis)?);
    }
    let source = |i: i64| match mode {
        PadMode::Edge | PadMode::Constant => i.clamp(0, n - 1),
        PadMode::Wrap => i.rem_euclid(n),
        PadMode::Reflect if n == 1 => 0,
        PadMode::Reflect => {
            let i = i.rem_euclid(2 * (n - 1));
            i.min(2 * (n - 1) - i)
        }
    };
    select(x, axis, (-before..n + after).map(|i| source(i) as u32).collect())
}
