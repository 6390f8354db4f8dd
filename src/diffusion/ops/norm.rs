//! Group and layer normalisation on the CPU, each in one walk over memory and a second over the cache.

use candle_core::{Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{Arg, Kernel, apply1, read};
use super::plain;
use super::simd::{Function, Unwritten, dispatch, map, sigmoid, written};

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

/// Layer normalisation over the last dimension.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    apply1(LayerNorm { weight: weight.clone(), bias: bias.clone(), eps }, x)
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
