//! Feature maps with channels last: tensors (B, C, H, W) whose numbers lie in memory as (B, H, W, C).
//!
//! Tensor cores read channels beside each other, and so do our kernels. Shapes stay as they are everywhere; only strides
//! change. What needs another order makes a copy.

use candle_core::{Result, Tensor};

use super::elementwise::contiguous;
use super::launch::{Arg, Module, Size, address, form, int, launch, new_tensor, threads};

/// The numbers of (B, C, …) as a contiguous tensor (B, …, C). A copy only if they lie otherwise.
pub fn pixels_first(x: &Tensor) -> Result<Tensor> {
    let mut order: Vec<usize> = (0..x.rank()).filter(|i| *i != 1).collect();
    order.push(1);
    contiguous(&x.permute(order)?)
}

/// The reverse of [`pixels_first`]: (B, …, C) as (B, C, …), without a copy.
pub fn channels_second(x: &Tensor) -> Result<Tensor> {
    let last = x.rank() - 1;
    let mut order: Vec<usize> = (0..last).collect();
    order.insert(1, last);
    x.permute(order)
}

/// Joins feature maps (B, Cᵢ, H, W) along their channels.
pub fn join(parts: &[&Tensor]) -> Result<Tensor> {
    let parts = parts.iter().map(|t| pixels_first(t)).collect::<Result<Vec<_>>>()?;
    channels_second(&Tensor::cat(&parts, 3)?)
}

/// Adds a number for each channel of each sample: `x` (B, C, H, W), `add` (B, C).
pub fn add_channels(x: &Tensor, add: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if add.dims() != [b, c] || add.dtype() != x.dtype() {
        candle_core::bail!("cannot add {:?} to the channels of {:?}", add.shape(), x.shape());
    }
    let (x, add) = (pixels_first(x)?, add.contiguous()?);
    let (from, add_at) = (address(&x)?, address(&add)?);
    let y = new_tensor(&x, x.shape(), x.dtype(), |device, y| {
        let (name, vector) = form("add_channels", x.dtype(), &[c], &[from, add_at, y]);
        let size = Size { blocks: (h * w, b), threads: threads(c / vector, 256), shared: 0 };
        let args = [Arg::Address(from), Arg::Address(add_at), Arg::Address(y), int(h * w)?, int(c)?];
        launch(device, Module::Elementwise, &name, size, &args)
    })?;
    channels_second(&y)
}

/// Nearest-neighbour upsampling by 2: (B, C, H, W) → (B, C, 2H, 2W).
pub fn double(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    resize(x, "double_pixels", (b, h, w, c), (b, 2 * h, 2 * w, c))
}

/// The VJP of [`double`], the sum of every four pixels: (B, C, 2H, 2W) → (B, C, H, W).
pub fn sum_2x2(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if h % 2 != 0 || w % 2 != 0 {
        candle_core::bail!("sum of four pixels: {w}×{h} is odd");
    }
    resize(x, "sum_pixels", (b, h / 2, w / 2, c), (b, h / 2, w / 2, c))
}

/// A kernel with a block for each pixel of the `small` map.
fn resize(
    x: &Tensor,
    name: &str,
    (b, h, w, c): (usize, usize, usize, usize),
    result: (usize, usize, usize, usize),
) -> Result<Tensor> {
    let x = pixels_first(x)?;
    let from = address(&x)?;
    let y = new_tensor(&x, result, x.dtype(), |device, y| {
        let (name, vector) = form(name, x.dtype(), &[c], &[from, y]);
        let size = Size { blocks: (b * h * w, 1), threads: threads(c / vector, 256), shared: 0 };
        launch(device, Module::Elementwise, &name, size, &[Arg::Address(from), Arg::Address(y), int(w)?, int(c)?])
    })?;
    channels_second(&y)
}
