//! Maps along one axis of a tensor, and their adjoints. f32 on any device.

use candle_core::Tensor;

use super::room;
use super::tape::differentiable;
use crate::{Error, Result};

/// `count` entries of `axis`, from `start` on, every `stride`-th. They have to be there.
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

/// The adjoint of [`every`]: the entries of `axis` at `start`, `start + stride`, … of `total`, zeros between them.
pub fn spread(y: &Tensor, axis: usize, start: usize, stride: usize, total: usize) -> Result<Tensor> {
    let count = y.dim(axis)?;
    let span = (count - 1) * stride + 1;
    let mut dims = y.dims().to_vec();
    dims[axis] = total;
    room(&dims)?;
    let y = if stride == 1 {
        y.clone()
    } else {
        dims[axis] = count * stride;
        let spaced = y.unsqueeze(axis + 1)?.pad_with_zeros(axis + 1, 0, stride - 1)?;
        spaced.reshape(dims)?.narrow(axis, 0, span)?
    };
    Ok(y.pad_with_zeros(axis, start, total - start - span)?)
}

/// More entries (zeros) or fewer (negative numbers) at both ends of `axis`.
pub fn reframe(x: &Tensor, axis: usize, before: i64, after: i64) -> Result<Tensor> {
    let n = x.dim(axis)?;
    let (pad_before, pad_after) = (before.max(0) as usize, after.max(0) as usize);
    let padded = n.saturating_add(pad_before).saturating_add(pad_after);
    let mut dims = x.dims().to_vec();
    dims[axis] = padded;
    room(&dims)?;
    let x = x.pad_with_zeros(axis, pad_before, pad_after)?;
    let (cut_before, cut_after) = (before.min(0).unsigned_abs() as usize, after.min(0).unsigned_abs() as usize);
    match padded.checked_sub(cut_before.saturating_add(cut_after)) {
        Some(kept) if kept == padded => Ok(x),
        Some(kept) if kept > 0 => Ok(x.narrow(axis, cut_before, kept)?),
        _ => Err(Error::input(format!("nothing is left of {n} entries of axis {axis}"))),
    }
}

/// A linear map of `axis`, `matrix` (out, in): what pooling by means and resizing are.
pub fn along(x: &Tensor, axis: usize, matrix: &Tensor) -> Result<Tensor> {
    let matrix = matrix.clone();
    let y = product(&x.detach(), axis, &matrix)?;
    differentiable(x, y, move |_, _, g| product(g, axis, &matrix.t()?))
}

fn product(x: &Tensor, axis: usize, matrix: &Tensor) -> Result<Tensor> {
    let (out, n) = matrix.dims2()?;
    let mut dims = x.dims().to_vec();
    let (before, after): (usize, usize) = (dims[..axis].iter().product(), dims[axis + 1..].iter().product());
    dims[axis] = out;
    room(&dims)?;
    let transposed = matrix.t()?.contiguous()?;
    if after == 1 {
        return Ok(x.contiguous()?.reshape((before, n))?.matmul(&transposed)?.reshape(dims)?);
    }
    let lines = x.contiguous()?.reshape((before, n, after))?.transpose(1, 2)?.contiguous()?;
    let lines = lines.reshape((before * after, n))?.matmul(&transposed)?.reshape((before, after, out))?;
    Ok(lines.transpose(1, 2)?.contiguous()?.reshape(dims)?)
}
