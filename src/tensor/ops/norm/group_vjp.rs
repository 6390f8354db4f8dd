//! The VJP of a group norm.

use candle_core::{Device, Result, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::WORTH_THREADS;
use super::vectors::{Affine, Centre, along, in_place, moments};
use crate::ops::elementwise::Derivative;
use crate::ops::kernel::Arg;
use crate::ops::plain::Activation;
use crate::ops::simd::{Function, Unwritten, assume_written, dispatch, map, written};

/// The gradients of x and, if they are an argument, of the moments (B, groups, 2).
pub(super) fn group_vjp(
    x: Arg,
    moments: Option<&[f32]>,
    dy: Arg,
    groups: usize,
    (weight, bias): (&[f32], &[f32]),
    eps: f64,
    activate: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let &[b, c, h, w] = x.dims else { candle_core::bail!("group norm: needs (B, C, H, W)") };
    let (channels, plane) = (c / groups, h * w);
    let size = channels * plane;
    let mut of_moments = vec![0f32; b * groups * 2];
    let write = |dx: &mut [Unwritten]| {
        if size == 0 {
            return;
        }
        let parts = x.data.par_chunks_exact(size).zip(dy.data.par_chunks_exact(size));
        let parts = parts.zip(dx.par_chunks_exact_mut(size)).zip(of_moments.par_chunks_exact_mut(2));
        let together = if x.data.len() < WORTH_THREADS { b * groups } else { 1 };
        parts.enumerate().with_min_len(together).for_each(|(i, (((x, dy), dx), out))| {
            let c = i % groups * channels..(i % groups + 1) * channels;
            let moments = moments.map(|m| (m[2 * i] as f64, m[2 * i + 1] as f64));
            let (weight, bias) = (&weight[c.clone()], &bias[c]);
            out.copy_from_slice(&dispatch(GroupVjp { x, dy, dx, plane, weight, bias, moments, eps, activate }));
        });
    };
    // SAFETY: the groups together write every element.
    let dx = Tensor::from_vec(unsafe { written(x.data.len(), write) }, x.dims, &Device::Cpu)?;
    let of_moments = moments.map(|_| Tensor::from_vec(of_moments, (b, groups, 2), &Device::Cpu)).transpose()?;
    Ok((dx, of_moments))
}

/// The VJP for one group of one sample. Returns the gradients of mean and variance, if they are arguments.
struct GroupVjp<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [Unwritten],
    plane: usize,
    weight: &'a [f32],
    bias: &'a [f32],
    moments: Option<(f64, f64)>,
    eps: f64,
    activate: bool,
}

impl WithSimd for GroupVjp<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> [f32; 2] {
        let (mean, variance) = self.moments.unwrap_or_else(|| moments(s, self.x));
        let scale = 1.0 / (variance + self.eps).sqrt();
        let mean = mean as f32;
        // First the gradient of the normalised numbers, times the weight.
        let mut sums = (0.0, 0.0);
        let planes = self.x.chunks_exact(self.plane).zip(self.dy.chunks_exact(self.plane));
        for (((x, dy), dx), (weight, bias)) in
            planes.zip(self.dx.chunks_exact_mut(self.plane)).zip(self.weight.iter().zip(self.bias))
        {
            let f = Affine { mean, scale: (*weight as f64 * scale) as f32, bias: *bias };
            if self.activate {
                map(s, [x, dy], dx, ActivatedVjp { f, weight: *weight });
            } else {
                map(s, [dy], dx, Affine { mean: 0.0, scale: *weight, bias: 0.0 });
            }
            // SAFETY: `map` has written all of it.
            let (sum, along) = along(s, x, unsafe { assume_written(dx) }, mean);
            sums = (sums.0 + sum, sums.1 + along);
        }
        // SAFETY: the planes together write every element.
        let dx = unsafe { assume_written(self.dx) };
        if self.moments.is_some() {
            in_place(s, self.x, dx, Centre { scale: scale as f32, mean, slope: 0.0, shift: 0.0 });
            return [(-scale * sums.0) as f32, (-0.5 * scale.powi(3) * sums.1) as f32];
        }
        in_place(s, self.x, dx, Centre::new(mean, scale, sums, self.x.len()));
        [0.0; 2]
    }
}

/// dy times the derivative of SiLU at the normalised x, times the weight.
#[derive(Clone, Copy)]
struct ActivatedVjp {
    f: Affine,
    weight: f32,
}

impl Function<2> for ActivatedVjp {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x, dy]: [S::f32s; 2]) -> S::f32s {
        let slope = Derivative(Activation::Silu).of(s, [self.f.of(s, [x]), dy]);
        s.mul_f32s(slope, s.splat_f32s(self.weight))
    }
}
