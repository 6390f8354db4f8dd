//! Attention on the CPU, block by block, so that the N×M weights never exist at once.
//!
//! For each block of queries the kernel iterates over chunks of keys. The scores of a chunk, their exponentials, and the
//! running maximum and sum of each query stay in the L1 and L2 caches (Milakov and Gimelshein, "Online normalizer
//! calculation for softmax"; Dao et al., "FlashAttention"). Queries lie beside each other in memory, so that softmax runs
//! down the columns without horizontal sums, and both products use [`super::tile`]. Other devices use
//! [`plain::attention`], which processes the queries in chunks.

use candle_core::{DType, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::attention_vjp::{Backward, Source, weights};
#[cfg(feature = "cudnn")]
use super::kernel::on_device;
use super::kernel::{Arg, Kernel, apply2, apply3, either};
use super::simd::{Shared, Unwritten, dispatch, exp, load, store, written};
use super::tile::{ROWS, Steps, VECTORS, tile};
use super::{plain, plain_vjp};

/// Keys of a chunk. With the 48 queries of a full tile its scores take 24 KiB.
const CHUNK: usize = 128;

/// Queries of a unit of work: a whole number of tiles for vectors of 1, 4, 8 and 16 lanes.
const STRIP: usize = 192;

/// Multiply-adds below which one thread is faster than several.
const WORTH_THREADS: usize = 1 << 20;

/// Multi-head attention `softmax(q kᵀ / √d) v`, features first except for the values: `q` (B, heads·d, N),
/// `k` (B, heads·d, M), `v` (B, M, heads·d) → (B, heads·d, N). With `causal`, position i attends to positions 0..=i.
///
/// # Errors
/// If shapes do not match, or the features do not split into `heads`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let ((b, c, n), (kb, kc, m)) = (q.dims3()?, k.dims3()?);
    if heads == 0
        || c == 0
        || c % heads != 0
        || (kb, kc) != (b, c)
        || v.dims() != [b, m, c]
        || m == 0
        || (causal && n != m)
    {
        candle_core::bail!("attention: {heads} heads, q {:?}, k {:?}, v {:?}", q.shape(), k.shape(), v.shape());
    }
    let dtype = q.dtype();
    if q.device().is_cpu() && matches!(dtype, DType::F16 | DType::BF16) {
        // The kernel computes in f32, and softmax needs f32 anyway.
        let wide = |t: &Tensor| t.to_dtype(DType::F32);
        return apply3(Attention { heads, causal }, &wide(q)?, &wide(k)?, &wide(v)?)?.to_dtype(dtype);
    }
    apply3(Attention { heads, causal }, q, k, v)
}

/// The attention weights `softmax(qᵀ k / √d)`: `q` (B, heads·d, N), `k` (B, heads·d, M) → (B, heads, N, M).
///
/// # Errors
/// If shapes do not match, or the features do not split into `heads`.
pub fn attention_weights(q: &Tensor, k: &Tensor, heads: usize) -> Result<Tensor> {
    let ((b, c, _), (kb, kc, m)) = (q.dims3()?, k.dims3()?);
    if heads == 0 || c == 0 || !c.is_multiple_of(heads) || (kb, kc) != (b, c) || m == 0 {
        candle_core::bail!("attention weights: {heads} heads, q {:?}, k {:?}", q.shape(), k.shape());
    }
    let dtype = q.dtype();
    if q.device().is_cpu() && matches!(dtype, DType::F16 | DType::BF16) {
        let wide = |t: &Tensor| t.to_dtype(DType::F32);
        return apply2(AttentionWeights { heads }, &wide(q)?, &wide(k)?)?.to_dtype(dtype);
    }
    apply2(AttentionWeights { heads }, q, k)
}

struct AttentionWeights {
    heads: usize,
}

impl Kernel<2> for AttentionWeights {
    const NAME: &'static str = "attention weights";

    fn fast(&self, [q, k]: [Arg; 2]) -> Result<(Vec<f32>, Shape)> {
        weights(q, k, self.heads)
    }

    fn plain(&self, [q, k]: [&Tensor; 2]) -> Result<Tensor> {
        plain::attention_weights(q, k, self.heads)
    }

    fn vjp(&self, [q, k]: [&Tensor; 2], wanted: [bool; 2], dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let (heads, causal, wanted) = (self.heads, false, [wanted[0], wanted[1], false]);
        let fast = |[q, k, dy]: [Arg; 3]| {
            let [dq, dk, _] = Backward { q, k, from: Source::Weights(dy.data), heads, causal, wanted }.run()?;
            Ok([dq, dk])
        };
        either([q, k, dy], fast, |[q, k, dy]| plain_vjp::attention_weights([q, k], heads, dy))
    }
}

struct Attention {
    heads: usize,
    causal: bool,
}

impl Kernel<3> for Attention {
    const NAME: &'static str = "attention";

    fn fast(&self, [q, k, v]: [Arg; 3]) -> Result<(Vec<f32>, Shape)> {
        let (&[b, c, n], &[.., m]) = (q.dims, k.dims) else { candle_core::bail!("attention: needs three dimensions") };
        let d = c / self.heads;
        let threaded = b * n * m * c > WORTH_THREADS;
        let (keys, values) = (m.div_ceil(ROWS) * ROWS * d, m * d.div_ceil(ROWS) * ROWS);

        // Panels of keys and of values for each head of each sample.
        let mut panels = vec![0f32; b * self.heads * (keys + values)];
        let scale = 1.0 / (d as f32).sqrt();
        let pack = |(head, panels): (usize, &mut [f32])| {
            let (key_panels, value_panels) = panels.split_at_mut(keys);
            let k = &k.data[head * d * m..][..d * m];
            for (i, row) in k.chunks_exact(m).enumerate() {
                for (panel, eight) in row.chunks(ROWS).enumerate() {
                    let to = &mut key_panels[(panel * d + i) * ROWS..][..eight.len()];
                    to.iter_mut().zip(eight).for_each(|(to, k)| *to = k * scale);
                }
            }
            let (sample, column) = (head / self.heads, head % self.heads * d);
            for j in 0..m {
                let row = &v.data[(sample * m + j) * c + column..][..d];
                for (panel, eight) in row.chunks(ROWS).enumerate() {
                    value_panels[(panel * m + j) * ROWS..][..eight.len()].copy_from_slice(eight);
                }
            }
        };
        let strips = n.div_ceil(STRIP);
        let unit = |panels: &[f32], out: Shared, u: usize| {
            let (head, strip) = (u / strips, u % strips);
            let (key_panels, value_panels) = panels[head * (keys + values)..][..keys + values].split_at(keys);
            let queries = strip * STRIP..((strip + 1) * STRIP).min(n);
            let q = &q.data[head * d * n..][..d * n];
            let y = head * d * n;
            dispatch(Unit { q, key_panels, value_panels, d, n, m, queries, causal: self.causal, y, out });
        };
        let units = 0..b * self.heads * strips;
        if threaded {
            panels.par_chunks_exact_mut(keys + values).enumerate().for_each(pack);
        } else {
            panels.chunks_exact_mut(keys + values).enumerate().for_each(pack);
        }
        let write = |y: &mut [Unwritten]| {
            let out = Shared::new(y);
            if threaded {
                units.into_par_iter().for_each(|u| unit(&panels, out, u));
            } else {
                units.for_each(|u| unit(&panels, out, u));
            }
        };
        // SAFETY: the strips of all heads and samples write every element.
        let y = unsafe { written(q.data.len(), write) };
        Ok((y, Shape::from(q.dims)))
    }

    fn plain(&self, [q, k, v]: [&Tensor; 3]) -> Result<Tensor> {
        plain::attention(q, k, v, self.heads, self.causal)
    }

    /// By cuDNN, which has other limits than our own kernel, or by that.
    #[cfg(feature = "cuda")]
    fn device(&self, [q, k, v]: [&Tensor; 3]) -> Result<Option<Tensor>> {
        #[cfg(feature = "cudnn")]
        if let Some(y) = crate::cuda::sdpa::attention([q, k, v], self.heads, self.causal)? {
            return Ok(Some(y));
        }
        let (q, k) = (q.transpose(1, 2)?, k.transpose(1, 2)?);
        let y = crate::cuda::flash::attention([&q, &k, v], self.heads, self.causal)?;
        y.map(|y| y.transpose(1, 2)).transpose()
    }

    fn vjp(&self, [q, k, v]: [&Tensor; 3], wanted: [bool; 3], dy: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let (heads, causal) = (self.heads, self.causal);
        #[cfg(feature = "cudnn")]
        if on_device([q, k, v, dy])
            && let Some(gradients) = crate::cuda::sdpa::attention_vjp([q, k, v], heads, causal, dy)?
        {
            return Ok(gradients);
        }
        let fast = |[q, k, v, dy]: [Arg; 4]| {
            Backward { q, k, from: Source::Result { v: v.data, dy: dy.data }, heads, causal, wanted }.run()
        };
        either([q, k, v, dy], fast, |[q, k, v, dy]| plain_vjp::attention([q, k, v], heads, causal, wanted, dy))
    }
}

/// A strip of queries of one head.
struct Unit<'a> {
    /// (d, n)
    q: &'a [f32],
    /// (⌈m/8⌉, d, 8), scaled.
    key_panels: &'a [f32],
    /// (⌈d/8⌉, m, 8)
    value_panels: &'a [f32],
    d: usize,
    n: usize,
    m: usize,
    queries: std::ops::Range<usize>,
    causal: bool,
    /// Where the (d, n) result of this head begins in `out`.
    y: usize,
    out: Shared,
}

impl WithSimd for Unit<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let width = VECTORS * S::F32_LANES;
        let mut memory = vec![0f32; (self.d + CHUNK + self.d.div_ceil(ROWS) * ROWS) * width];
        let (q, rest) = memory.split_at_mut(self.d * width);
        let (scores, result) = rest.split_at_mut(CHUNK * width);
        let mut at = self.queries.start;
        while at < self.queries.end {
            let n = (self.queries.end - at).div_ceil(S::F32_LANES).min(VECTORS);
            match n {
                1 => self.block::<S, 1>(s, at, q, scores, result),
                2 => self.block::<S, 2>(s, at, q, scores, result),
                _ => self.block::<S, VECTORS>(s, at, q, scores, result),
            }
            at += n * S::F32_LANES;
        }
    }
}

impl Unit<'_> {
    /// Computes the queries of `N` vectors from `at` on.
    #[inline(always)]
    fn block<S: Simd, const N: usize>(&self, s: S, at: usize, q: &mut [f32], scores: &mut [f32], result: &mut [f32]) {
        let width = N * S::F32_LANES;
        let inside = width.min(self.n - at);
        for (to, from) in q.chunks_exact_mut(width).zip(self.q.chunks_exact(self.n)) {
            to[..inside].copy_from_slice(&from[at..at + inside]);
            to[inside..].fill(0.0);
        }
        result.fill(0.0);
        let mut highest = [s.splat_f32s(f32::NEG_INFINITY); N];
        let mut total = [s.splat_f32s(0.0); N];
        let seen = if self.causal { self.m.min(at + inside) } else { self.m };
        let mut first = 0;
        while first < seen {
            let keys = CHUNK.min(seen - first);
            for panel in 0..keys.div_ceil(ROWS) {
                // SAFETY: panel `first / 8 + panel` is one of ⌈m/8⌉; `q` has d rows of `width`; scores have CHUNK.
                unsafe {
                    let left = self.key_panels.as_ptr().add((first + panel * ROWS) * self.d);
                    let to = scores.as_mut_ptr().add(panel * ROWS * width);
                    product::<S, N>(s, left, q.as_ptr(), self.d, to, None);
                }
            }
            if self.causal {
                for (i, row) in scores.chunks_exact_mut(width).take(keys).enumerate() {
                    let hidden = (first + i).saturating_sub(at).min(width);
                    row[..hidden].fill(f32::NEG_INFINITY);
                }
            }
            let shrink = softmax::<S, N>(s, &mut scores[..keys * width], &mut highest, &mut total);
            for panel in 0..self.d.div_ceil(ROWS) {
                // SAFETY: value panels have m ≥ first + keys entries; the result has ⌈d/8⌉·8 rows.
                unsafe {
                    let left = self.value_panels.as_ptr().add((panel * self.m + first) * ROWS);
                    let to = result.as_mut_ptr().add(panel * ROWS * width);
                    product::<S, N>(s, left, scores.as_ptr(), keys, to, Some(shrink));
                }
            }
            first += keys;
        }
        for (j, total) in total.iter().enumerate() {
            let share = s.div_f32s(s.splat_f32s(1.0), *total);
            for row in result.chunks_exact_mut(width) {
                // SAFETY: `row` holds N vectors.
                unsafe {
                    let p = row.as_mut_ptr().add(j * S::F32_LANES);
                    store::<S>(p, s.mul_f32s(load::<S>(p), share));
                }
            }
        }
        for (i, row) in result.chunks_exact(width).take(self.d).enumerate() {
            // SAFETY: within the rows of this head, and only this unit writes these queries.
            unsafe { self.out.at(self.y + i * self.n + at, inside).copy_from_nonoverlapping(row.as_ptr(), inside) };
        }
    }
}

/// Turns scores (keys, N vectors) into e^(score − highest) and updates `highest` and `total`. Returns the factors by which
/// the results of earlier chunks shrink.
#[inline(always)]
fn softmax<S: Simd, const N: usize>(
    s: S,
    scores: &mut [f32],
    highest: &mut [S::f32s; N],
    total: &mut [S::f32s; N],
) -> [S::f32s; N] {
    let width = N * S::F32_LANES;
    let before = *highest;
    for row in scores.chunks_exact(width) {
        for (j, h) in highest.iter_mut().enumerate() {
            // SAFETY: `row` holds N vectors.
            *h = s.max_f32s(*h, unsafe { load::<S>(row.as_ptr().add(j * S::F32_LANES)) });
        }
    }
    let mut shrink = before;
    for j in 0..N {
        shrink[j] = exp(s, s.sub_f32s(before[j], highest[j]));
        total[j] = s.mul_f32s(total[j], shrink[j]);
    }
    for row in scores.chunks_exact_mut(width) {
        for j in 0..N {
            // SAFETY: `row` holds N vectors.
            unsafe {
                let p = row.as_mut_ptr().add(j * S::F32_LANES);
                let e = exp(s, s.sub_f32s(load::<S>(p), highest[j]));
                total[j] = s.add_f32s(total[j], e);
                store::<S>(p, e);
            }
        }
    }
    shrink
}

/// `to = panel · columns` or, with `shrink`, `to · shrink + panel · columns`: 8 rows of N vectors.
///
/// # Safety
/// `panel` holds 8 entries for each of `steps`, `columns` N vectors for each, `to` eight rows of N vectors.
#[inline(always)]
unsafe fn product<S: Simd, const N: usize>(
    s: S,
    panel: *const f32,
    columns: *const f32,
    steps: usize,
    to: *mut f32,
    shrink: Option<[S::f32s; N]>,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if S::REGISTER_COUNT >= 32 {
            product_rows::<S, ROWS, N>(s, panel, columns, steps, to, shrink);
        } else {
            let half = ROWS / 2;
            product_rows::<S, { ROWS / 2 }, N>(s, panel, columns, steps, to, shrink);
            product_rows::<S, { ROWS / 2 }, N>(
                s,
                panel.add(half),
                columns,
                steps,
                to.add(half * N * S::F32_LANES),
                shrink,
            );
        }
    }
}

/// [`product`] for `R` rows of a panel.
#[inline(always)]
unsafe fn product_rows<S: Simd, const R: usize, const N: usize>(
    s: S,
    panel: *const f32,
    columns: *const f32,
    steps: usize,
    to: *mut f32,
    shrink: Option<[S::f32s; N]>,
) {
    let width = N * S::F32_LANES;
    let mut acc = [[s.splat_f32s(0.0); N]; R];
    // SAFETY: guaranteed by the caller.
    unsafe {
        if let Some(shrink) = shrink {
            for (i, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = s.mul_f32s(load::<S>(to.add(i * width + j * S::F32_LANES)), shrink[j]);
                }
            }
        }
        tile::<S, R, N>(s, &mut acc, panel, columns, Steps { planes: steps, plane: width, offsets: &[0] });
        for (i, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                store::<S>(to.add(i * width + j * S::F32_LANES), *acc);
            }
        }
    }
}
