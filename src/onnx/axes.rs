//! Linear maps along one axis of a tensor, and their adjoints, for f32 on any device.

use candle_core::Tensor;

use crate::dims::checked_count;
use crate::vjp::custom_vjp;
use crate::{Error, Result};

/// Returns `count` entries of `axis`, from `start` on, every `stride`-th. All of them must exist.
pub fn every(x: &Tensor, axis: usize, start: usize, stride: usize, count: usize) -> Result<Tensor> {
    let span = (count - 1) * stride + 1;
    let x = x.narrow(axis, start, span)?;
    if stride == 1 {
        return Ok(x);
    }
    let mut dims = x.dims().to_vec();
    dims.splice(axis..=axis, [count, stride]);
    Ok(x.pad_with_zeros(axis, 0, stride - 1)?.reshape(dims)?.narrow(axis + 1, 0, 1)?.squeeze(axis + 1)?)
}

/// The adjoint of [`every`]: puts the entries of `axis` at `start`, `start + stride`, … of `total`, with zeros between.
pub fn spread(y: &Tensor, axis: usize, start: usize, stride: usize, total: usize) -> Result<Tensor> {
    let count = y.dim(axis)?;
    let span = (count - 1) * stride + 1;
    let mut dims = y.dims().to_vec();
    dims[axis] = total;
    checked_count(&dims)?;
    let y = if stride == 1 {
        y.clone()
    } else {
        dims[axis] = count * stride;
        let spaced = y.unsqueeze(axis + 1)?.pad_with_zeros(axis + 1, 0, stride - 1)?;
        spaced.reshape(dims)?.narrow(axis, 0, span)?
    };
    Ok(y.pad_with_zeros(axis, start, total - start - span)?)
}

/// Pads `axis` with zeros at both ends, or crops it where the number is negative.
pub fn reframe(x: &Tensor, axis: usize, before: i64, after: i64) -> Result<Tensor> {
    let n = x.dim(axis)?;
    let (pad_before, pad_after) = (before.max(0) as usize, after.max(0) as usize);
    let padded = n.saturating_add(pad_before).saturating_add(pad_after);
    let mut dims = x.dims().to_vec();
    dims[axis] = padded;
    checked_count(&dims)?;
    let x = x.pad_with_zeros(axis, pad_before, pad_after)?;
    let (cut_before, cut_after) = (before.min(0).unsigned_abs() as usize, after.min(0).unsigned_abs() as usize);
    match padded.checked_sub(cut_before.saturating_add(cut_after)) {
        Some(kept) if kept == padded => Ok(x),
        Some(kept) if kept > 0 => Ok(x.narrow(axis, cut_before, kept)?),
        _ => Err(Error::input(format!("axis {axis} of {n} entries would be empty"))),
    }
}

/// Applies `matrix` (out, in) along `axis`, as average pooling and resizing do.
pub fn along(x: &Tensor, axis: usize, matrix: &Tensor) -> Result<Tensor> {
    let matrix = matrix.to_dtype(x.dtype())?;
    let y = product(&x.detach(), axis, &matrix)?;
    custom_vjp(x, y, move |_, _, g| product(g, axis, &matrix.t()?))
}

fn product(x: &Tensor, axis: usize, matrix: &Tensor) -> Result<Tensor> {
    let (out, n) = matrix.dims2()?;
    let mut dims = x.dims().to_vec();
    let (before, after): (usize, usize) = (dims[..axis].iter().product(), dims[axis + 1..].iter().product());
    dims[axis] = out;
    checked_count(&dims)?;
    let transposed = matrix.t()?.contiguous()?;
    if after == 1 {
        return Ok(x.contiguous()?.reshape((before, n))?.matmul(&transposed)?.reshape(dims)?);
    }
    let lines = x.contiguous()?.reshape((before, n, after))?.transpose(1, 2)?.contiguous()?;
    let lines = lines.reshape((before * after, n))?.matmul(&transposed)?.reshape((before, after, out))?;
    Ok(lines.transpose(1, 2)?.contiguous()?.reshape(dims)?)
}
