//! Group normalisation, by the moments of its input or by given moments.

use candle_core::{Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::WORTH_THREADS;
use super::group_vjp::group_vjp;
use super::moments::Moments;
use super::vectors::{Activated, Affine, moments};
#[cfg(feature = "cuda")]
use crate::cuda::norm as cuda;
use crate::ops::kernel::{Arg, Kernel, apply1, apply2, either, read};
#[cfg(feature = "cuda")]
use crate::ops::kernel::{alike_on_device, on_device};
use crate::ops::plain;
use crate::ops::plain_vjp::Group as PlainGroup;
use crate::ops::simd::{Unwritten, dispatch, map, written};

/// Group normalisation of (B, C, H, W), followed by SiLU if `activate`.
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    activate: bool,
) -> Result<Tensor> {
    apply1(GroupNorm { groups, weight: weight.clone(), bias: bias.clone(), eps, activate }, x)
}

/// The VJP of [`group_norm`] with respect to its input. Autodiff must track no tensor.
pub fn group_norm_vjp(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    activate: bool,
    dy: &Tensor,
) -> Result<Tensor> {
    GroupNorm { groups, weight: weight.clone(), bias: bias.clone(), eps, activate }.input_vjp(x, dy)
}

/// [`group_norm`] by these moments in place of x's own.
pub fn group_norm_by(
    x: &Tensor,
    moments: &Moments,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    activate: bool,
) -> Result<Tensor> {
    apply2(GroupNormBy { weight: weight.clone(), bias: bias.clone(), eps, activate }, x, &moments.values)
}

struct GroupNorm {
    groups: usize,
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    activate: bool,
}

impl Kernel<1> for GroupNorm {
    const NAME: &'static str = "group norm";

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.weight), Some(&self.bias)]
    }

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        let &[_, c, h, w] = x.dims else { candle_core::bail!("group norm: needs (B, C, H, W)") };
        if self.groups == 0 || !c.is_multiple_of(self.groups) || self.weight.dims() != [c] || self.bias.dims() != [c] {
            candle_core::bail!(
                "group norm: {c} channels do not fit {} groups and weight {:?}",
                self.groups,
                self.weight.dims()
            );
        }
        let channels = c / self.groups;
        let (plane, size) = (h * w, channels * h * w);
        if size == 0 {
            return Ok((vec![], Shape::from(x.dims)));
        }
        let write = |weight: &[f32], bias: &[f32], y: &mut [Unwritten]| {
            let group = |(i, (x, y)): (usize, (&[f32], &mut [Unwritten]))| {
                let c = i % self.groups * channels..(i % self.groups + 1) * channels;
                let (weight, bias) = (&weight[c.clone()], &bias[c]);
                dispatch(Group { x, y, plane, weight, bias, eps: self.eps, activate: self.activate });
            };
            if x.data.len() < WORTH_THREADS {
                x.data.chunks_exact(size).zip(y.chunks_exact_mut(size)).enumerate().for_each(group);
            } else {
                x.data.par_chunks_exact(size).zip(y.par_chunks_exact_mut(size)).enumerate().for_each(group);
            }
        };
        let n = x.data.len();
        // SAFETY: the groups together write every element.
        let y = read(&self.weight, |w| read(&self.bias, |b| unsafe { written(n, |y| write(w, b, y)) }))??;
        Ok((y, Shape::from(x.dims)))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::group_norm(x, self.groups, &self.weight, &self.bias, self.eps, self.activate)
    }

    #[cfg(feature = "cuda")]
    fn device(&self, [x]: [&Tensor; 1]) -> Result<Option<Tensor>> {
        self.on_cuda(x)?.map(|group| group.forward(x, None)).transpose()
    }

    fn vjp(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(self.input_vjp(x, dy)?)])
    }
}

impl GroupNorm {
    /// The norm for the kernels on a CUDA device, if they apply.
    #[cfg(feature = "cuda")]
    fn on_cuda(&self, x: &Tensor) -> Result<Option<cuda::Group<'_>>> {
        let GroupNorm { groups, weight, bias, eps, activate } = self;
        let applies = alike_on_device([x, weight, bias]) && cuda::fits(x.dtype(), x.dim(1)?, *groups);
        Ok(applies.then_some(cuda::Group { groups: *groups, weight, bias, eps: *eps, activate: *activate }))
    }

    fn input_vjp(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if alike_on_device([x, dy])
            && let Some(group) = self.on_cuda(x)?
        {
            return Ok(group.vjp(x, None, dy)?.0);
        }
        let GroupNorm { groups, weight, bias, eps, activate } = self;
        let plain = PlainGroup { groups: *groups, weight, bias, eps: *eps, activate: *activate };
        let fast = |[x, dy, weight, bias]: [Arg; 4]| {
            Ok(group_vjp(x, None, dy, *groups, (weight.data, bias.data), *eps, *activate)?.0)
        };
        either([x, dy, weight, bias], fast, |[x, dy, ..]| Ok(plain.vjp(x, None, dy)?.0))
    }
}

/// One group of one sample.
struct Group<'a> {
    x: &'a [f32],
    y: &'a mut [Unwritten],
    plane: usize,
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f64,
    activate: bool,
}

impl WithSimd for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let (mean, variance) = moments(s, self.x);
        let deviation = (variance + self.eps).sqrt();
        let planes = self.x.chunks_exact(self.plane).zip(self.y.chunks_exact_mut(self.plane));
        for ((x, y), (weight, bias)) in planes.zip(self.weight.iter().zip(self.bias)) {
            let f = Affine { mean: mean as f32, scale: (*weight as f64 / deviation) as f32, bias: *bias };
            if self.activate { map(s, [x], y, Activated(f)) } else { map(s, [x], y, f) }
        }
    }
}

struct GroupNormBy {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    activate: bool,
}

impl GroupNormBy {
    /// The norm for the kernels on a CUDA device, if they apply.
    #[cfg(feature = "cuda")]
    fn on_cuda(&self, x: &Tensor, moments: &Tensor) -> Result<Option<cuda::Group<'_>>> {
        let GroupNormBy { weight, bias, eps, activate } = self;
        let (groups, wide) = (moments.dim(1)?, moments.dtype() == candle_core::DType::F32);
        let applies = alike_on_device([x, weight, bias]) && on_device([moments]) && wide;
        let applies = applies && cuda::fits(x.dtype(), x.dim(1)?, groups);
        Ok(applies.then_some(cuda::Group { groups, weight, bias, eps: *eps, activate: *activate }))
    }
}

impl Kernel<2> for GroupNormBy {
    const NAME: &'static str = "group norm by moments";

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.weight), Some(&self.bias)]
    }

    fn fast(&self, [x, moments]: [Arg; 2]) -> Result<(Vec<f32>, Shape)> {
        let (&[b, c, h, w], &[samples, groups, 2]) = (x.dims, moments.dims) else {
            candle_core::bail!("group norm: moments {:?} do not fit {:?}", moments.dims, x.dims)
        };
        if samples != b || !c.is_multiple_of(groups) || self.weight.dims() != [c] || self.bias.dims() != [c] {
            candle_core::bail!(
                "group norm: {c} channels do not fit {groups} groups and weight {:?}",
                self.weight.dims()
            );
        }
        if x.data.is_empty() {
            return Ok((vec![], Shape::from(x.dims)));
        }
        let size = h * w;
        let write = |weight: &[f32], bias: &[f32], y: &mut [Unwritten]| {
            let plane = |(i, (x, y)): (usize, (&[f32], &mut [Unwritten]))| {
                let (group, channel) = (i / (c / groups), i % c);
                let [mean, variance] = [0, 1].map(|j| moments.data[2 * group + j]);
                let scale = weight[channel] as f64 / (variance as f64 + self.eps).sqrt();
                let f = Affine { mean, scale: scale as f32, bias: bias[channel] };
                dispatch(Plane { x, y, f, activate: self.activate });
            };
            if x.data.len() < WORTH_THREADS {
                x.data.chunks_exact(size).zip(y.chunks_exact_mut(size)).enumerate().for_each(plane);
            } else {
                x.data.par_chunks_exact(size).zip(y.par_chunks_exact_mut(size)).enumerate().for_each(plane);
            }
        };
        let n = x.data.len();
        // SAFETY: the planes together write every element.
        let y = read(&self.weight, |w| read(&self.bias, |b| unsafe { written(n, |y| write(w, b, y)) }))??;
        Ok((y, Shape::from(x.dims)))
    }

    fn plain(&self, [x, moments]: [&Tensor; 2]) -> Result<Tensor> {
        plain::group_norm_by(x, moments, &self.weight, &self.bias, self.eps, self.activate)
    }

    #[cfg(feature = "cuda")]
    fn device(&self, [x, moments]: [&Tensor; 2]) -> Result<Option<Tensor>> {
        self.on_cuda(x, moments)?.map(|group| group.forward(x, Some(moments))).transpose()
    }

    fn vjp(&self, [x, moments]: [&Tensor; 2], _: [bool; 2], dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        #[cfg(feature = "cuda")]
        if alike_on_device([x, dy])
            && let Some(group) = self.on_cuda(x, moments)?
        {
            let (dx, of_moments) = group.vjp(x, Some(moments), dy)?;
            return Ok([Some(dx), of_moments]);
        }
        let GroupNormBy { weight, bias, eps, activate } = self;
        let groups = moments.dim(1)?;
        let plain = PlainGroup { groups, weight, bias, eps: *eps, activate: *activate };
        let fast = |[x, moments, dy, weight, bias]: [Arg; 5]| {
            group_vjp(x, Some(moments.data), dy, groups, (weight.data, bias.data), *eps, *activate)
        };
        let plain = |[x, moments, dy, ..]: [&Tensor; 5]| plain.vjp(x, Some(moments), dy);
        let (dx, of_moments) = either([x, moments, dy, weight, bias], fast, plain)?;
        Ok([Some(dx), of_moments])
    }
}

/// One channel of one sample.
struct Plane<'a> {
    x: &'a [f32],
    y: &'a mut [Unwritten],
    f: Affine,
    activate: bool,
}

impl WithSimd for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        if self.activate { map(s, [self.x], self.y, Activated(self.f)) } else { map(s, [self.x], self.y, self.f) }
    }
}
