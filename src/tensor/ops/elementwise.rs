//! Activation functions on the CPU, a vector at a time.

use candle_core::{Device, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::kernel::alike_on_device;
use super::kernel::{Arg, Kernel, apply1, either};
use super::plain::{self, Activation};
use super::plain_vjp;
use super::simd::{Function, Unwritten, dispatch, exp, map, normal_cdf, sigmoid, written};
#[cfg(feature = "cuda")]
use crate::cuda::elementwise as cuda;

/// Numbers that one thread processes at a time; fewer numbers use one thread.
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

/// The VJP of [`geglu`]: the gradient of its input (…, 2d) from that of its result (…, d). Autodiff must track neither.
pub fn geglu_vjp(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let fast = |[x, dy]: [Arg; 2]| {
        let d = dy.dims.last().copied().unwrap_or(1).max(1);
        let rows = BLOCK.div_ceil(2 * d);
        let write = |dx: &mut [Unwritten]| {
            let dx = dx.par_chunks_mut(rows * 2 * d);
            let blocks = x.data.par_chunks(rows * 2 * d).zip(dy.data.par_chunks(rows * d)).zip(dx);
            blocks.for_each(|((x, dy), dx)| dispatch(GegluVjpRows { x, dy, dx, d }));
        };
        // SAFETY: every row is written.
        Tensor::from_vec(unsafe { written(x.data.len(), write) }, x.dims, &Device::Cpu)
    };
    #[cfg(feature = "cuda")]
    if alike_on_device([x, dy]) {
        return cuda::geglu_vjp(x, dy);
    }
    either([x, dy], fast, |[x, dy]| plain_vjp::geglu(x, dy))
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

/// The derivative of an activation function at x, times dy.
#[derive(Clone, Copy)]
pub(super) struct Derivative(pub Activation);

impl Function<2> for Derivative {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x, dy]: [S::f32s; 2]) -> S::f32s {
        let derivative = match self.0 {
            Activation::Gelu => {
                let density = exp(s, s.mul_f32s(s.mul_f32s(x, x), s.splat_f32s(-0.5)));
                let density = s.mul_f32s(density, s.splat_f32s(INVERSE_ROOT_TAU));
                s.mul_add_e_f32s(x, density, normal_cdf(s, x))
            }
            Activation::QuickGelu => sigmoid_gate_derivative(s, s.mul_f32s(x, s.splat_f32s(1.702))),
            Activation::Silu => sigmoid_gate_derivative(s, x),
        };
        s.mul_f32s(dy, derivative)
    }
}

/// The derivative of x σ(x): σ(x) (1 + x (1 − σ(x))).
#[inline(always)]
fn sigmoid_gate_derivative<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let (one, gate) = (s.splat_f32s(1.0), sigmoid(s, x));
    s.mul_f32s(gate, s.mul_add_e_f32s(x, s.sub_f32s(one, gate), one))
}

/// 1 / √(2π).
const INVERSE_ROOT_TAU: f32 = 0.398_942_3;

impl Kernel<1> for Activation {
    const NAME: &'static str = "activation";

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

    fn vjp(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let fast = |[x, dy]: [Arg; 2]| {
            let write = |y: &mut [Unwritten]| {
                let blocks = x.data.par_chunks(BLOCK).zip(dy.data.par_chunks(BLOCK)).zip(y.par_chunks_mut(BLOCK));
                blocks.for_each(|((x, dy), y)| dispatch(ActivationVjpBlock { x, dy, y, activation: *self }));
            };
            // SAFETY: every block is mapped.
            Tensor::from_vec(unsafe { written(x.data.len(), write) }, x.dims, &Device::Cpu)
        };
        #[cfg(feature = "cuda")]
        if alike_on_device([x, dy]) {
            return Ok([Some(cuda::activation_vjp(*self as i32, x, dy)?)]);
        }
        Ok([Some(either([x, dy], fast, |[x, dy]| plain_vjp::activation(*self, x, dy))?)])
    }
}

struct ActivationVjpBlock<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    y: &'a mut [Unwritten],
    activation: Activation,
}

impl WithSimd for ActivationVjpBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        match self.activation {
            Activation::Gelu => map(s, [self.x, self.dy], self.y, Derivative(Activation::Gelu)),
            Activation::QuickGelu => map(s, [self.x, self.dy], self.y, Derivative(Activation::QuickGelu)),
            Activation::Silu => map(s, [self.x, self.dy], self.y, Derivative(Activation::Silu)),
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
        // A loop for each activation, so that no loop has a branch.
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

/// The gradient of the gate: value · dy · GELU′(gate).
#[derive(Clone, Copy)]
struct GateVjp;

impl Function<3> for GateVjp {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [value, gate, dy]: [S::f32s; 3]) -> S::f32s {
        Derivative(Activation::Gelu).of(s, [gate, s.mul_f32s(value, dy)])
    }
}

impl Kernel<1> for Geglu {
    const NAME: &'static str = "geglu";

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        let [rest @ .., width] = x.dims else { candle_core::bail!("geglu: needs at least one dimension") };
        if !width.is_multiple_of(2) || *width == 0 {
            candle_core::bail!("geglu: cannot halve {width} features");
        }
        let d = width / 2;
        let rows = BLOCK.div_ceil(2 * d);
        let write = |y: &mut [Unwritten]| {
            let blocks = x.data.par_chunks(rows * 2 * d).zip(y.par_chunks_mut(rows * d));
            blocks.for_each(|(x, y)| dispatch(GegluRows { x, y, d }));
        };
        // SAFETY: every row is written.
        Ok((unsafe { written(x.data.len() / 2, write) }, Shape::from([rest, &[d]].concat())))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::geglu(x)
    }

    #[cfg(feature = "cuda")]
    fn device(&self, [x]: [&Tensor; 1]) -> Result<Option<Tensor>> {
        cuda::geglu(x).map(Some)
    }

    fn vjp(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(geglu_vjp(x, dy)?)])
    }
}

/// The VJP of some rows: gradients of 2d numbers from those of d.
struct GegluVjpRows<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [Unwritten],
    d: usize,
}

impl WithSimd for GegluVjpRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let rows = self.x.chunks_exact(2 * self.d).zip(self.dy.chunks_exact(self.d));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(2 * self.d)) {
            let ((value, gate), (dvalue, dgate)) = (x.split_at(self.d), dx.split_at_mut(self.d));
            // The value's gradient is dy · GELU(gate), as in the forward pass.
            map(s, [dy, gate], dvalue, Geglu);
            map(s, [value, gate, dy], dgate, GateVjp);
        }
    }
}

/// Some rows, from 2d numbers to d.
struct GegluRows<'a> {
    x: &'a [f32],
    y: &'a mut [Unwritten],
    d: usize,
}

impl WithSimd for GegluRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks_exact(2 * self.d).zip(self.y.chunks_exact_mut(self.d)) {
            let (value, gate) = x.split_at(self.d);
            map(s, [value, gate], y, Geglu);
        }
    }
}
