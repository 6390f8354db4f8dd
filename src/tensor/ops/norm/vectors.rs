//! The functions of normalisation on slices, a vector at a time.

use pulp::Simd;

use crate::ops::simd::{Function, sigmoid};

/// Numbers of a block, which stays in the L1 cache between two passes.
const BLOCK: usize = 4096;

/// (x − mean) · scale + bias
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub mean: f32,
    pub scale: f32,
    pub bias: f32,
}

impl Function<1> for Affine {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [x]: [S::f32s; 1]) -> S::f32s {
        let centred = s.sub_f32s(x, s.splat_f32s(self.mean));
        s.mul_add_e_f32s(centred, s.splat_f32s(self.scale), s.splat_f32s(self.bias))
    }
}

/// SiLU of an affine map.
#[derive(Clone, Copy)]
pub(super) struct Activated(pub Affine);

impl Function<1> for Activated {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: [S::f32s; 1]) -> S::f32s {
        let v = self.0.of(s, x);
        s.mul_f32s(v, sigmoid(s, v))
    }
}

/// The VJP of normalisation: d without its mean and its component along x, scaled as x is.
#[derive(Clone, Copy)]
pub(super) struct Centre {
    pub scale: f32,
    pub mean: f32,
    pub slope: f32,
    pub shift: f32,
}

impl Centre {
    /// For `n` numbers x, with the sums Σ d and Σ d (x − mean).
    pub fn new(mean: f32, scale: f64, sums: (f64, f64), n: usize) -> Self {
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
pub(super) fn in_place<S: Simd>(s: S, x: &[f32], d: &mut [f32], f: impl Function<2>) {
    let ((x, x_tail), (d, d_tail)) = (S::as_simd_f32s(x), S::as_mut_simd_f32s(d));
    for (x, d) in x.iter().zip(d) {
        *d = f.of(s, [*x, *d]);
    }
    if !x_tail.is_empty() {
        let last = f.of(s, [s.partial_load_f32s(x_tail), s.partial_load_f32s(d_tail)]);
        s.partial_store_f32s(d_tail, last);
    }
}

/// Σ d and Σ d (x − mean), in f64 across blocks.
#[inline(always)]
pub(super) fn along<S: Simd>(s: S, x: &[f32], d: &[f32], mean: f32) -> (f64, f64) {
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

/// Mean and (biased) variance. Blocks are centred on their own means and joined by Chan's formula, in f64.
#[inline(always)]
pub(super) fn moments<S: Simd>(s: S, x: &[f32]) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for block in x.chunks(BLOCK) {
        let n = block.len() as f64;
        let (vectors, tail) = S::as_simd_f32s(block);
        let centre = (sum(s, vectors, Same) as f64 + tail.iter().map(|&v| v as f64).sum::<f64>()) / n;
        // The error of rounding the centre to f32 is far below the rounding of the variance.
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
