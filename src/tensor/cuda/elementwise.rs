//! Functions of single numbers by our own kernels: the gate of the feed-forward net, VJPs of activation functions, sums of
//! latents, copies.

use candle_core::{Result, Tensor};

use super::launch::{Arg, Module, Size, address, form, int, known, launch, new_tensor, threads};

/// Gated GELU: (…, 2d) → (…, d), first half times the exact GELU of the second.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (from, mut dims) = (address(&x)?, x.dims().to_vec());
    let Some(last) = dims.last_mut().filter(|n| n.is_multiple_of(2)) else {
        candle_core::bail!("geglu: {:?} has no two halves", x.shape())
    };
    *last /= 2;
    let d = *last;
    new_tensor(&x, dims, x.dtype(), |device, y| {
        let (name, vector) = form("geglu", x.dtype(), &[d], &[from, y]);
        let size = Size { blocks: (x.elem_count() / (2 * d).max(1), 1), threads: threads(d / vector, 256), shared: 0 };
        launch(device, Module::Elementwise, &name, size, &[Arg::Address(from), Arg::Address(y), int(d)?])
    })
}

/// The VJP of [`geglu`].
pub fn geglu_vjp(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (x, dy) = (x.contiguous()?, dy.contiguous()?);
    let d = dy.dims().last().copied().unwrap_or(0);
    if x.elem_count() != 2 * dy.elem_count() || x.dims().last() != Some(&(2 * d)) || x.dtype() != dy.dtype() {
        candle_core::bail!("geglu: a gradient {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    let (from, g) = (address(&x)?, address(&dy)?);
    new_tensor(&x, x.shape(), x.dtype(), |device, dx| {
        let (name, vector) = form("geglu_vjp", x.dtype(), &[d], &[from, g, dx]);
        let size = Size { blocks: (dy.elem_count() / d.max(1), 1), threads: threads(d / vector, 256), shared: 0 };
        let args = [Arg::Address(from), Arg::Address(g), Arg::Address(dx), int(d)?];
        launch(device, Module::Elementwise, &name, size, &args)
    })
}

/// The derivative of an activation function at `x`, times `dy`. `kind`: 0 is GELU, 1 x σ(1.702 x), 2 SiLU.
pub fn activation_vjp(kind: i32, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (x, dy) = (x.contiguous()?, dy.contiguous()?);
    if x.shape() != dy.shape() || x.dtype() != dy.dtype() {
        candle_core::bail!("activation: a gradient {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    let (from, g, n) = (address(&x)?, address(&dy)?, x.elem_count());
    new_tensor(&x, x.shape(), x.dtype(), |device, dx| {
        let (name, vector) = form("activation_vjp", x.dtype(), &[n], &[from, g, dx]);
        let size = Size { blocks: (n.div_ceil(256 * vector), 1), threads: 256, shared: 0 };
        let args = [Arg::Address(from), Arg::Address(g), Arg::Address(dx), Arg::Long(n as i64), Arg::Int(kind)];
        launch(device, Module::Elementwise, &name, size, &args)
    })
}

/// A sum of two tensors of one shape and dtype. `kind`: 0 is a x + b y, 1 x + a (y − x), 2 (x − a y)/b.
pub fn mix(kind: i32, x: &Tensor, y: &Tensor, a: f64, b: f64) -> Result<Tensor> {
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    if x.shape() != y.shape() || x.dtype() != y.dtype() {
        candle_core::bail!("a sum of {:?} and {:?}: they differ", x.shape(), y.shape());
    }
    let (first, second, n) = (address(&x)?, address(&y)?, x.elem_count());
    new_tensor(&x, x.shape(), x.dtype(), |device, out| {
        let (name, vector) = form("mix", x.dtype(), &[n], &[first, second, out]);
        let size = Size { blocks: (n.div_ceil(256 * vector), 1), threads: 256, shared: 0 };
        let addresses = [Arg::Address(first), Arg::Address(second), Arg::Address(out)];
        let numbers = [Arg::Long(n as i64), Arg::Int(kind), Arg::Float(a as f32), Arg::Float(b as f32)];
        launch(device, Module::Elementwise, &name, size, &[addresses.as_slice(), &numbers].concat())
    })
}

/// A tensor whose numbers lie one after another: `x` itself, or a copy. Unlike candle's copy, this one sends the kernel no sizes
/// from the host's memory, so that it may be part of a recording. It is candle's under autodiff and for more than 4 dimensions.
pub fn contiguous(x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() || x.track_op() || x.rank() > 4 || x.elem_count() == 0 || !known(x.dtype()) {
        return x.contiguous();
    }
    let (mut dims, mut strides) = ([1; 4], [0; 4]);
    let first = dims.len() - x.rank();
    dims[first..].copy_from_slice(x.dims());
    strides[first..].copy_from_slice(x.stride());
    let (from, [d0, d1, d2, length]) = (address(x)?, dims);
    new_tensor(x, x.shape(), x.dtype(), |device, y| {
        let name = format!("strided_{}", x.dtype().as_str());
        let size = Size { blocks: (d0 * d1 * d2, 1), threads: threads(length, 256), shared: 0 };
        let sizes = [Arg::Address(from), Arg::Address(y), int(length)?, int(d1)?, int(d2)?];
        let steps = strides.map(|step| Arg::Long(step as i64));
        launch(device, Module::Elementwise, &name, size, &[sizes.as_slice(), &steps].concat())
    })
}
