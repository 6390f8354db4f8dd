//! Activations on the CPU, a vector of numbers at a time.

use candle_core::{Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{Arg, Kernel, apply1};
use super::plain;
use super::simd::{dispatch, normal_cdf, sigmoid};

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

impl Activation {
    /// Without a branch on the kind: it is known where this is inlined.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
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
        let mut y = vec![0f32; x.data.len()];
        let blocks = x.data.par_chunks(BLOCK).zip(y.par_chunks_mut(BLOCK));
        blocks.for_each(|(x, y)| dispatch(Map { x, y, activation: *self }));
        Ok((y, Shape::from(x.dims)))
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
    y: &'a mut [f32],
    activation: Activation,
}

impl WithSimd for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        match self.activation {
            Activation::Gelu => self.run(s, Activation::Gelu),
            Activation::QuickGelu => self.run(s, Activation::QuickGelu),
            Activation::Silu => self.run(s, Activation::Silu),
        }
    }
}

impl Map<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S, activation: Activation) {
        let (x, x_tail) = S::as_simd_f32s(self.x);
        let (y, y_tail) = S::as_mut_simd_f32s(self.y);
        for (y, x) in y.iter_mut().zip(x) {
            *y = activation.of(s, *x);
        }
        if !x_tail.is_empty() {
            s.partial_store_f32s(y_tail, activation.of(s, s.partial_load_f32s(x_tail)));
        }
    }
}

struct Geglu;

impl Kernel<1> for Geglu {
    const NAME: &'static str = "geglu";

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [None, None]
    }

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        let [rest @ .., width] = x.dims else { candle_core::bail!("geglu: needs at least one dimension") };
        if width % 2 != 0 || *width == 0 {
            candle_core::bail!("geglu: cannot halve {width} features");
        }
        let d = width / 2;
        let mut y = vec![0f32; x.data.len() / 2];
        let rows = BLOCK.div_ceil(2 * d);
        let blocks = x.data.par_chunks(rows * 2 * d).zip(y.par_chunks_mut(rows * d));
        blocks.for_each(|(x, y)| dispatch(GatedRows { x, y, d }));
        Ok((y, Shape::from([rest, &[d]].concat())))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::geglu(x)
    }
}

/// Rows of 2d, each to d.
struct GatedRows<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    d: usize,
}

impl WithSimd for GatedRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks_exact(2 * self.d).zip(self.y.chunks_exact_mut(self.d)) {
            let (value, gate) = x.split_at(self.d);
            let ((value, value_tail), (gate, gate_tail)) = (S::as_simd_f32s(value), S::as_simd_f32s(gate));
            let (y, y_tail) = S::as_mut_simd_f32s(y);
            for (y, (v, g)) in y.iter_mut().zip(value.iter().zip(gate)) {
                *y = s.mul_f32s(*v, Activation::Gelu.of(s, *g));
            }
            if !y_tail.is_empty() {
                let (v, g) = (s.partial_load_f32s(value_tail), s.partial_load_f32s(gate_tail));
                s.partial_store_f32s(y_tail, s.mul_f32s(v, Activation::Gelu.of(s, g)));
            }
        }
    }
}
