//! Mean and variance of groups of channels, computed for parts of a feature map and combined.

use candle_core::{Device, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::WORTH_THREADS;
use super::vectors::{Affine, moments};
use crate::ops::kernel::{Arg, Kernel, apply1, either};
use crate::ops::simd::{Unwritten, dispatch, map, written};
use crate::ops::{plain, plain_vjp};

/// Mean and variance of each group of channels over a part of a feature map.
///
/// The combined moments of all parts are those of the whole map, by which [`group_norm_by`](super::group_norm_by)
/// normalises each part. The result is that of [`group_norm`](super::group_norm) on the whole map.
#[derive(Clone, Debug)]
pub struct Moments {
    /// (B, groups, 2): mean and (biased) variance; f32 at least.
    pub(super) values: Tensor,
    /// Numbers in each group.
    count: usize,
}

impl Moments {
    /// The moments of (B, C, H, W).
    ///
    /// # Errors
    /// If the channels do not split into `groups`, or `x` is empty.
    pub fn of(x: &Tensor, groups: usize) -> Result<Self> {
        let (_, c, h, w) = x.dims4()?;
        if groups == 0 || !c.is_multiple_of(groups) || c * h * w == 0 {
            candle_core::bail!("group norm: {c} channels of {w}×{h} do not fit {groups} groups");
        }
        Ok(Moments { values: apply1(GroupMoments { groups }, x)?, count: c / groups * h * w })
    }

    /// The moments of both parts together, by Chan's formula.
    ///
    /// # Errors
    /// If the parts differ in samples or groups.
    pub fn join(&self, other: &Moments) -> Result<Self> {
        let count = self.count + other.count;
        let (here, there) = (self.count as f64 / count as f64, other.count as f64 / count as f64);
        let parts = |m: &Moments| -> Result<_> { Ok((m.values.narrow(2, 0, 1)?, m.values.narrow(2, 1, 1)?)) };
        let ((mean, variance), (other_mean, other_variance)) = (parts(self)?, parts(other)?);
        let step = (other_mean - &mean)?;
        let variance = (((variance * here)? + (other_variance * there)?)? + (step.sqr()? * (here * there))?)?;
        let mean = (mean + (step * there)?)?;
        Ok(Moments { values: Tensor::cat(&[mean, variance], 2)?, count })
    }
}

struct GroupMoments {
    groups: usize,
}

impl Kernel<1> for GroupMoments {
    const NAME: &'static str = "moments";

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        let &[b, c, h, w] = x.dims else { candle_core::bail!("moments: needs (B, C, H, W)") };
        let size = c / self.groups * h * w;
        let mut y = vec![0f32; b * self.groups * 2];
        let group = |(x, y): (&[f32], &mut [f32])| {
            let (mean, variance) = dispatch(MomentsOf(x));
            y.copy_from_slice(&[mean as f32, variance as f32]);
        };
        if x.data.len() < WORTH_THREADS {
            x.data.chunks_exact(size).zip(y.chunks_exact_mut(2)).for_each(group);
        } else {
            x.data.par_chunks_exact(size).zip(y.par_chunks_exact_mut(2)).for_each(group);
        }
        Ok((y, Shape::from((b, self.groups, 2))))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::group_moments(x, self.groups)
    }

    #[cfg(feature = "cuda")]
    fn device(&self, [x]: [&Tensor; 1]) -> Result<Option<Tensor>> {
        use crate::cuda::norm::{fits, group_moments};
        fits(x.dtype(), x.dim(1)?, self.groups).then(|| group_moments(x, self.groups)).transpose()
    }

    fn vjp(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let fast = |[x, dy]: [Arg; 2]| {
            let size = x.data.len() / (dy.data.len() / 2).max(1);
            let write = |dx: &mut [Unwritten]| {
                let groups = x.data.par_chunks_exact(size).zip(dy.data.par_chunks_exact(2));
                groups
                    .zip(dx.par_chunks_exact_mut(size))
                    .for_each(|((x, dy), dx)| dispatch(GroupMomentsVjp { x, dy, dx }));
            };
            // SAFETY: the groups together write every element.
            Tensor::from_vec(unsafe { written(x.data.len(), write) }, x.dims, &Device::Cpu)
        };
        Ok([Some(either([x, dy], fast, |[x, dy]| plain_vjp::group_moments(x, self.groups, dy))?)])
    }
}

/// The VJP of the moments of one group.
struct GroupMomentsVjp<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [Unwritten],
}

impl WithSimd for GroupMomentsVjp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let (n, (mean, _)) = (self.x.len() as f32, moments(s, self.x));
        let f = Affine { mean: mean as f32, scale: 2.0 * self.dy[1] / n, bias: self.dy[0] / n };
        map(s, [self.x], self.dx, f);
    }
}

struct MomentsOf<'a>(&'a [f32]);

impl WithSimd for MomentsOf<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> (f64, f64) {
        moments(s, self.0)
    }
}
