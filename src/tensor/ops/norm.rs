//! Group and layer normalisation on the CPU, each in one walk over memory and a second over the cache.

use candle_core::{Device, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::elementwise::{Activation, Slope};
use super::gradients::Group as PlainGroup;
use super::kernel::{Arg, Kernel, apply1, apply2, either, read};
use super::simd::{Function, Unwritten, assume_written, dispatch, map, sigmoid, written};
use super::{gradients, plain};

/// Numbers below which threads cost more than they bring.
const WORTH_THREADS: usize = 1 << 15;

/// Numbers whose sums of squares are taken at once: they stay in the nearest cache between two passes.
const BLOCK: usize = 4096;

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

/// The gradient of [`group_norm`]'s input from that of its result, neither of them tracked by autodiff.
pub fn group_norm_gradient(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    activate: bool,
    dy: &Tensor,
) -> Result<Tensor> {
    GroupNorm { groups, weight: weight.clone(), bias: bias.clone(), eps, activate }.input_gradient(x, dy)
}

/// Mean and variance of each group of channels over some pixels, to be joined with those of others.
///
/// What [`group_norm`] does at once to a map, these do to a map in parts: the moments of all parts, joined, are those of
/// the whole, and each part is then normalised by them.
#[derive(Clone, Debug)]
pub struct Moments {
    /// (B, groups, 2): mean and (biased) variance; f32 at least.
    values: Tensor,
    /// Numbers that each group has.
    count: usize,
}

impl Moments {
    /// Of (B, C, H, W).
    pub fn of(x: &Tensor, groups: usize) -> Result<Self> {
        let (_, c, h, w) = x.dims4()?;
        if groups == 0 || !c.is_multiple_of(groups) || c * h * w == 0 {
            candle_core::bail!("group norm: {c} channels of {w}×{h} in {groups} groups");
        }
        Ok(Moments { values: apply1(GroupMoments { groups }, x)?, count: c / groups * h * w })
    }

    /// Those of both parts together, by Chan's formula.
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

/// Layer normalisation over the last dimension.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    apply1(LayerNorm { weight: weight.clone(), bias: bias.clone(), eps }, x)
}

/// The gradient of [`layer_norm`]'s input from that of its result, neither of them tracked by autodiff.
pub fn layer_norm_gradient(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, dy: &Tensor) -> Result<Tensor> {
    LayerNorm { weight: weight.clone(), bias: bias.clone(), eps }.input_gradient(x, dy)
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
            candle_core::bail!("group norm: {c} channels in {} groups, weight {:?}", self.groups, self.weight.dims());
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
        // SAFETY: the groups are the whole.
        let y = read(&self.weight, |w| read(&self.bias, |b| unsafe { written(n, |y| write(w, b, y)) }))??;
        Ok((y, Shape::from(x.dims)))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::group_norm(x, self.groups, &self.weight, &self.bias, self.eps, self.activate)
    }

    fn gradient(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(self.input_gradient(x, dy)?)])
    }
}

impl GroupNorm {
    fn input_gradient(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let GroupNorm { groups, weight, bias, eps, activate } = self;
        let plain = PlainGroup { groups: *groups, weight, bias, eps: *eps, activate: *activate };
        let fast = |[x, dy, weight, bias]: [Arg; 4]| {
            Ok(group_gradient(x, None, dy, *groups, (weight.data, bias.data), *eps, *activate)?.0)
        };
        either([x, dy, weight, bias], fast, |[x, dy, ..]| Ok(plain.gradient(x, None, dy)?.0))
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

    fn gradient(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let fast = |[x, dy]: [Arg; 2]| {
            let size = x.data.len() / (dy.data.len() / 2).max(1);
            let write = |dx: &mut [Unwritten]| {
                let groups = x.data.par_chunks_exact(size).zip(dy.data.par_chunks_exact(2));
                groups.zip(dx.par_chunks_exact_mut(size)).for_each(|((x, dy), dx)| dispatch(OfMoments { x, dy, dx }));
            };
            // SAFETY: the groups are the whole.
            Tensor::from_vec(unsafe { written(x.data.len(), write) }, x.dims, &Device::Cpu)
        };
        Ok([Some(either([x, dy], fast, |[x, dy]| gradients::group_moments(x, self.groups, dy))?)])
    }
}

/// The gradient of a group from that of its mean and variance.
struct OfMoments<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [Unwritten],
}

impl WithSimd for OfMoments<'_> {
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

struct GroupNormBy {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    activate: bool,
}

impl Kernel<2> for GroupNormBy {
    const NAME: &'static str = "group norm by moments";

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.weight), Some(&self.bias)]
    }

    fn fast(&self, [x, moments]: [Arg; 2]) -> Result<(Vec<f32>, Shape)> {
        let (&[b, c, h, w], &[samples, groups, 2]) = (x.dims, moments.dims) else {
            candle_core::bail!("group norm: moments {:?} for {:?}", moments.dims, x.dims)
        };
        if samples != b || !c.is_multiple_of(groups) || self.weight.dims() != [c] || self.bias.dims() != [c] {
            candle_core::bail!("group norm: {c} channels in {groups} groups, weight {:?}", self.weight.dims());
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
        // SAFETY: the planes are the whole.
        let y = read(&self.weight, |w| read(&self.bias, |b| unsafe { written(n, |y| write(w, b, y)) }))??;
        Ok((y, Shape::from(x.dims)))
    }

    fn plain(&self, [x, moments]: [&Tensor; 2]) -> Result<Tensor> {
        plain::group_norm_by(x, moments, &self.weight, &self.bias, self.eps, self.activate)
    }

    fn gradient(&self, [x, moments]: [&Tensor; 2], _: [bool; 2], dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let GroupNormBy { weight, bias, eps, activate } = self;
        let groups = moments.dim(1)?;
        let plain = PlainGroup { groups, weight, bias, eps: *eps, activate: *activate };
        let fast = |[x, moments, dy, weight, bias]: [Arg; 5]| {
            group_gradient(x, Some(moments.data), dy, groups, (weight.data, bias.data), *eps, *activate)
        };
        let plain = |[x, moments, dy, ..]: [&Tensor; 5]| plain.gradient(x, Some(moments), dy);
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

/// (x − mean) · scale + bias
#[derive(Clone, Copy)]
struct Affine {
    mean: f32,
    scale: f32,
    bias: f32,
}

impl Function<1> for Affine {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x]: [S::f32s; 1]) -> S::f32s {
        let centred = s.sub_f32s(x, s.splat_f32s(self.mean));
        s.mul_add_e_f32s(centred, s.splat_f32s(self.scale), s.splat_f32s(self.bias))
    }
}

/// SiLU of it.
#[derive(Clone, Copy)]
struct Activated(Affine);

impl Function<1> for Activated {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: [S::f32s; 1]) -> S::f32s {
        let v = self.0.of(s, x);
        s.mul_f32s(v, sigmoid(s, v))
    }
}

/// The gradient of a group norm: of x, and of the moments (B, groups, 2) where they are given and not x's own.
fn group_gradient(
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
            out.copy_from_slice(&dispatch(GroupBack { x, dy, dx, plane, weight, bias, moments, eps, activate }));
        });
    };
    // SAFETY: the groups are the whole.
    let dx = Tensor::from_vec(unsafe { written(x.data.len(), write) }, x.dims, &Device::Cpu)?;
    let of_moments = moments.map(|_| Tensor::from_vec(of_moments, (b, groups, 2), &Device::Cpu)).transpose()?;
    Ok((dx, of_moments))
}

/// The gradient of one group of one sample; of mean and variance, if they are given.
struct GroupBack<'a> {
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

impl WithSimd for GroupBack<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> [f32; 2] {
        let (mean, variance) = self.moments.unwrap_or_else(|| moments(s, self.x));
        let scale = 1.0 / (variance + self.eps).sqrt();
        let mean = mean as f32;
        // First the gradient of the normal numbers, times the weight.
        let mut sums = (0.0, 0.0);
        let planes = self.x.chunks_exact(self.plane).zip(self.dy.chunks_exact(self.plane));
        for (((x, dy), dx), (weight, bias)) in
            planes.zip(self.dx.chunks_exact_mut(self.plane)).zip(self.weight.iter().zip(self.bias))
        {
            let f = Affine { mean, scale: (*weight as f64 * scale) as f32, bias: *bias };
            if self.activate {
                map(s, [x, dy], dx, ActivatedSlope { f, weight: *weight });
            } else {
                map(s, [dy], dx, Affine { mean: 0.0, scale: *weight, bias: 0.0 });
            }
            // SAFETY: `map` has written all of it.
            let (sum, along) = along(s, x, unsafe { assume_written(dx) }, mean);
            sums = (sums.0 + sum, sums.1 + along);
        }
        // SAFETY: the planes are the whole.
        let dx = unsafe { assume_written(self.dx) };
        if self.moments.is_some() {
            in_place(s, self.x, dx, Centre { scale: scale as f32, mean, slope: 0.0, shift: 0.0 });
            return [(-scale * sums.0) as f32, (-0.5 * scale.powi(3) * sums.1) as f32];
        }
        in_place(s, self.x, dx, Centre::new(mean, scale, sums, self.x.len()));
        [0.0; 2]
    }
}

/// dy times the slope of SiLU at the normalised x, times the weight.
#[derive(Clone, Copy)]
struct ActivatedSlope {
    f: Affine,
    weight: f32,
}

impl Function<2> for ActivatedSlope {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x, dy]: [S::f32s; 2]) -> S::f32s {
        let slope = Slope(Activation::Silu).of(s, [self.f.of(s, [x]), dy]);
        s.mul_f32s(slope, s.splat_f32s(self.weight))
    }
}

/// What normalisation lets pass of a gradient d: d without its mean and without its part along x, scaled as x is.
#[derive(Clone, Copy)]
struct Centre {
    scale: f32,
    mean: f32,
    slope: f32,
    shift: f32,
}

impl Centre {
    /// Of `n` numbers x; `sums`: Σ d and Σ d (x − mean).
    fn new(mean: f32, scale: f64, sums: (f64, f64), n: usize) -> Self {
        let (slope, shift) = (-scale.powi(3) * sums.1 / n as f64, -scale * sums.0 / n as f64);
        Centre { scale: scale as f32, mean, slope: slope as f32, shift: shift as f32 }
    }
}

impl Function<2> for Centre {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x, d]: [S::f32s; 2]) -> S::f32s {
        let x = s.sub_f32s(x, s.splat_f32s(self.mean));
        let along = s.mul_add_e_f32s(x, s.splat_f32s(self.slope), s.splat_f32s(self.shift));
        s.mul_add_e_f32s(d, s.splat_f32s(self.scale), along)
    }
}

/// `d[i] = f(x[i], d[i])`.
#[inline(always)]
fn in_place<S: Simd>(s: S, x: &[f32], d: &mut [f32], f: impl Function<2>) {
    let ((x, x_tail), (d, d_tail)) = (S::as_simd_f32s(x), S::as_mut_simd_f32s(d));
    for (x, d) in x.iter().zip(d) {
        *d = f.of(s, [*x, *d]);
    }
    if !x_tail.is_empty() {
        let last = f.of(s, [s.partial_load_f32s(x_tail), s.partial_load_f32s(d_tail)]);
        s.partial_store_f32s(d_tail, last);
    }
}

/// Σ d and Σ d (x − mean), in f64 beyond a block.
#[inline(always)]
fn along<S: Simd>(s: S, x: &[f32], d: &[f32], mean: f32) -> (f64, f64) {
    let mut sums = (0.0, 0.0);
    for (x, d) in x.chunks(BLOCK).zip(d.chunks(BLOCK)) {
        let ((x, x_tail), (d, d_tail)) = (S::as_simd_f32s(x), S::as_simd_f32s(d));
        let (mut sum, mut along) = ([s.splat_f32s(0.0); 2], [s.splat_f32s(0.0); 2]);
        for (i, (x, d)) in x.iter().zip(d).enumerate() {
            sum[i % 2] = s.add_f32s(sum[i % 2], *d);
            along[i % 2] = s.mul_add_e_f32s(*d, s.sub_f32s(*x, s.splat_f32s(mean)), along[i % 2]);
        }
        sums.0 += s.reduce_sum_f32s(s.add_f32s(sum[0], sum[1])) as f64;
        sums.1 += s.reduce_sum_f32s(s.add_f32s(along[0], along[1])) as f64;
        for (x, d) in x_tail.iter().zip(d_tail) {
            sums = (sums.0 + *d as f64, sums.1 + (d * (x - mean)) as f64);
        }
    }
    sums
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
            candle_core::bail!("layer norm: weight {:?} for {:?}", self.weight.dims(), x.dims);
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
        // SAFETY: the rows are the whole.
        let y = read(&self.weight, |w| read(&self.bias, |b| unsafe { written(n, |y| write(w, b, y)) }))??;
        Ok((y, Shape::from(x.dims)))
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        plain::layer_norm(x, &self.weight, &self.bias, self.eps)
    }

    fn gradient(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(self.input_gradient(x, dy)?)])
    }
}

impl LayerNorm {
    fn input_gradient(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let fast = |[x, dy, weight]: [Arg; 3]| {
            let (weight, d) = (weight.data, weight.data.len());
            let block = (WORTH_THREADS / 4).div_ceil(d) * d;
            let write = |dx: &mut [Unwritten]| {
                let blocks = x.data.par_chunks(block).zip(dy.data.par_chunks(block)).zip(dx.par_chunks_mut(block));
                blocks.for_each(|((x, dy), dx)| dispatch(RowsBack { x, dy, dx, weight, eps: self.eps }));
            };
            // SAFETY: the rows are the whole.
            Tensor::from_vec(unsafe { written(x.data.len(), write) }, x.dims, &Device::Cpu)
        };
        let plain = |[x, dy, weight]: [&Tensor; 3]| gradients::layer_norm(x, weight, self.eps, dy);
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

/// The gradient of some rows of a layer norm.
struct RowsBack<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [Unwritten],
    weight: &'a [f32],
    eps: f64,
}

impl WithSimd for RowsBack<'_> {
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

/// Mean and (biased) variance. Blocks are centred on their own means and joined by Chan's formula, in f64.
#[inline(always)]
fn moments<S: Simd>(s: S, x: &[f32]) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for block in x.chunks(BLOCK) {
        let n = block.len() as f64;
        let (vectors, tail) = S::as_simd_f32s(block);
        let centre = (sum(s, vectors, Same) as f64 + tail.iter().map(|&v| v as f64).sum::<f64>()) / n;
        // What rounding the centre to f32 leaves is far below the variance's own rounding.
        let around = sum(s, vectors, SquaredDistance(centre as f32)) as f64
            + tail.iter().map(|&v| (v as f64 - centre).powi(2)).sum::<f64>();
        let step = centre - mean;
        squares += around + step * step * count * n / (count + n);
        mean += step * n / (count + n);
        count += n;
    }
    (mean, squares / count)
}

#[derive(Clone, Copy)]
struct Same;

impl Function<1> for Same {
    #[inline(always)]
    fn of<S: Simd>(self, _: S, [x]: [S::f32s; 1]) -> S::f32s {
        x
    }
}

#[derive(Clone, Copy)]
struct SquaredDistance(f32);

impl Function<1> for SquaredDistance {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x]: [S::f32s; 1]) -> S::f32s {
        let d = s.sub_f32s(x, s.splat_f32s(self.0));
        s.mul_f32s(d, d)
    }
}

/// Σ f(v), in four lanes of vectors.
#[inline(always)]
fn sum<S: Simd>(s: S, x: &[S::f32s], f: impl Function<1>) -> f32 {
    let mut sums = [s.splat_f32s(0.0); 4];
    let fours = x.chunks_exact(4);
    for v in fours.remainder() {
        sums[0] = s.add_f32s(sums[0], f.of(s, [*v]));
    }
    for four in fours {
        for (sum, v) in sums.iter_mut().zip(four) {
            *sum = s.add_f32s(*sum, f.of(s, [*v]));
        }
    }
    s.reduce_sum_f32s(s.add_f32s(s.add_f32s(sums[0], sums[1]), s.add_f32s(sums[2], sums[3])))
}
