//! Activations on the CPU, a vector of numbers at a time.

use candle_core::{Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{Arg, Kernel, apply1};
use super::plain;
use super::simd::{Function, Unwritten, dispatch, map, normal_cdf, sigmoid, written};

/// Numbers that one thread takes at a time, and below which there is one thread.
const BLOCK: usize = 1 << 14;

/// GELU, the exact (erf) form.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    apply1(Activation::Gelu, x)
}

/// `x σ(1.702 x)`, the GELU of OpenAI's CLIP.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    apply1(Activation::QuickGelu, x)
}

/// `x σ(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    apply1(Activation::Silu, x)
}

/// Gated GELU: (…, 2d) → (…, d), first half times the exact GELU of the second.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    apply1(Geglu, x)
}

#[derive(Clone, Copy)]
enum Activation {
    Gelu,
    QuickGelu,
    Silu,
}

impl Function<1> for Activation {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x]: [S::f32s; 1]) -> S::f32s {
        let gate = match self {
            Activation::Gelu => normal_cdf(s, x),
            Activation::QuickGelu => sigmoid(s, s.mul_f32s(x, s.splat_f32s(1.702))),
            Activation::Silu => sigmoid(s, x),
        };
        s.mul_f32s(x, gate)
    }
}

impl Kernel<1> for Activation {
    const NAME: &'static str = "activation";

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [None, None]
    }

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        let write = |y: &mut [Unwritten]| {
            let blocks = x.data.par_chunks(BLOCK).zip(y.par_chunks_mut(BLOCK));
            blocks.for_each(|(x, y)| dispatch(Map { x, y, activation: *self }));
        };
        // SAFETY: every block is mapped.
        Ok((unsafe { written(x.data.len(), write) }, Shape::from(x.dims)))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        match self {
            Activation::Gelu => plain::gelu(x),
            Activation::QuickGelu => plain::quick_gelu(x),
            Activation::Silu => plain::silu(x),
        }
    }
}

struct Map<'a> {
    x: &'a [f32],
    y: &'a mut [Unwritten],
    activation: Activation,
}

impl WithSimd for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        // A loop for each, without a branch in it.
        match self.activation {
            Activation::Gelu => map(s, [self.x], self.y, Activation::Gelu),
            Activation::QuickGelu => map(s, [self.x], self.y, Activation::QuickGelu),
            Activation::Silu => map(s, [self.x], self.y, Activation::Silu),
        }
    }
}

#[derive(Clone, Copy)]
struct Geglu;

impl Function<2> for Geglu {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [value, gate]: [S::f32s; 2]) -> S::f32s {
        s.mul_f32s(value, Activation::Gelu.of(s, [gate]))
    }
}

impl Kernel<1> for Geglu {
    const NAME: &'static str = "geglu";

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [None, None]
    }

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        let [rest @ .., width] = x.dims else { candle_core::bail!("geglu: needs at least one dimension") };
        if !width.is_multiple_of(2) || *width == 0 {
            candle_core::bail!("geglu: cannot halve {width} features");
        }
        let d = width / 2;
        let rows = BLOCK.div_ceil(2 * d);
        let write = |y: &mut [Unwritten]| {
            let blocks = x.data.par_chunks(rows * 2 * d).zip(y.par_chunks_mut(rows * d));
            blocks.for_each(|(x, y)| dispatch(GatedRows { x, y, d }));
        };
        // SAFETY: every row is written.
        Ok((unsafe { written(x.data.len() / 2, write) }, Shape::from([rest, &[d]].concat())))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::geglu(x)
    }
}

/// Rows of 2d, each to d.
struct GatedRows<'a> {
    x: &'a [f32],
    y: &'a mut [Unwritten],
    d: usize,
}

impl WithSimd for GatedRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks_exact(2 * self.d).zip(self.y.chunks_exact_mut(self.d)) {
            let (value, gate) = x.split_at(self.d);
            map(s, [value, gate], y, Geglu);
        }
    }
}
