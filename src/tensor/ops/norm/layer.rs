//! Layer normalisation over the last dimension, and its VJP.

use candle_core::{Device, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::WORTH_THREADS;
use super::vectors::{Centre, along, in_place, moments};
#[cfg(feature = "cuda")]
use crate::cuda;
#[cfg(feature = "cuda")]
use crate::ops::kernel::alike_on_device;
use crate::ops::kernel::{Arg, Kernel, apply1, either, read};
use crate::ops::simd::{Function, Unwritten, assume_written, dispatch, map, written};
use crate::ops::{plain, plain_vjp};

/// Layer normalisation over the last dimension.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    apply1(LayerNorm { weight: weight.clone(), bias: bias.clone(), eps }, x)
}

/// The VJP of [`layer_norm`] with respect to its input. Autodiff must track no tensor.
pub fn layer_norm_vjp(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, dy: &Tensor) -> Result<Tensor> {
    LayerNorm { weight: weight.clone(), bias: bias.clone(), eps }.input_vjp(x, dy)
}

struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Kernel<1> for LayerNorm {
    const NAME: &'static str = "layer norm";

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.weight), Some(&self.bias)]
    }

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        let d = x.dims.last().copied().unwrap_or(0);
        if d == 0 || self.weight.dims() != [d] || self.bias.dims() != [d] {
            candle_core::bail!("layer norm: weight {:?} does not fit {:?}", self.weight.dims(), x.dims);
        }
        let write = |weight: &[f32], bias: &[f32], y: &mut [Unwritten]| {
            let rows = |(x, y): (&[f32], &mut [Unwritten])| dispatch(Rows { x, y, weight, bias, eps: self.eps });
            if x.data.len() < WORTH_THREADS {
                rows((x.data, y));
            } else {
                let block = (WORTH_THREADS / 4).div_ceil(d) * d;
                x.data.par_chunks(block).zip(y.par_chunks_mut(block)).for_each(rows);
            }
        };
        let n = x.data.len();
        // SAFETY: the rows together write every element.
        let y = read(&self.weight, |w| read(&self.bias, |b| unsafe { written(n, |y| write(w, b, y)) }))??;
        Ok((y, Shape::from(x.dims)))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::layer_norm(x, &self.weight, &self.bias, self.eps)
    }

    #[cfg(feature = "cuda")]
    fn device(&self, [x]: [&Tensor; 1]) -> Result<Option<Tensor>> {
        let alike = alike_on_device([x, &self.weight, &self.bias]);
        alike.then(|| cuda::norm::layer_norm(x, &self.weight, &self.bias, self.eps)).transpose()
    }

    fn vjp(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(self.input_vjp(x, dy)?)])
    }
}

impl LayerNorm {
    fn input_vjp(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let fast = |[x, dy, weight]: [Arg; 3]| {
            let (weight, d) = (weight.data, weight.data.len());
            let block = (WORTH_THREADS / 4).div_ceil(d) * d;
            let write = |dx: &mut [Unwritten]| {
                let blocks = x.data.par_chunks(block).zip(dy.data.par_chunks(block)).zip(dx.par_chunks_mut(block));
                blocks.for_each(|((x, dy), dx)| dispatch(RowsVjp { x, dy, dx, weight, eps: self.eps }));
            };
            // SAFETY: the rows together write every element.
            Tensor::from_vec(unsafe { written(x.data.len(), write) }, x.dims, &Device::Cpu)
        };
        #[cfg(feature = "cuda")]
        if alike_on_device([x, dy, &self.weight]) {
            return cuda::norm::layer_norm_vjp(x, &self.weight, self.eps, dy);
        }
        let plain = |[x, dy, weight]: [&Tensor; 3]| plain_vjp::layer_norm(x, weight, self.eps, dy);
        either([x, dy, &self.weight], fast, plain)
    }
}

/// Some rows of a layer norm.
struct Rows<'a> {
    x: &'a [f32],
    y: &'a mut [Unwritten],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f64,
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let d = self.weight.len();
        for (x, y) in self.x.chunks_exact(d).zip(self.y.chunks_exact_mut(d)) {
            let (mean, variance) = moments(s, x);
            let f = Normal { mean: mean as f32, scale: (1.0 / (variance + self.eps).sqrt()) as f32 };
            map(s, [x, self.weight, self.bias], y, f);
        }
    }
}

/// The VJP for some rows of a layer norm.
struct RowsVjp<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [Unwritten],
    weight: &'a [f32],
    eps: f64,
}

impl WithSimd for RowsVjp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let d = self.weight.len();
        let rows = self.x.chunks_exact(d).zip(self.dy.chunks_exact(d));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(d)) {
            let (mean, variance) = moments(s, x);
            map(s, [dy, self.weight], dx, Product);
            // SAFETY: `map` has written all of it.
            let dx = unsafe { assume_written(dx) };
            let sums = along(s, x, dx, mean as f32);
            let scale = 1.0 / (variance + self.eps).sqrt();
            in_place(s, x, dx, Centre::new(mean as f32, scale, sums, d));
        }
    }
}

#[derive(Clone, Copy)]
struct Product;

impl Function<2> for Product {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [a, b]: [S::f32s; 2]) -> S::f32s {
        s.mul_f32s(a, b)
    }
}

/// (x − mean) · scale · weight + bias
#[derive(Clone, Copy)]
struct Normal {
    mean: f32,
    scale: f32,
}

impl Function<3> for Normal {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x, weight, bias]: [S::f32s; 3]) -> S::f32s {
        let centred = s.sub_f32s(x, s.splat_f32s(self.mean));
        s.mul_add_e_f32s(s.mul_f32s(centred, s.splat_f32s(self.scale)), weight, bias)
    }
}
