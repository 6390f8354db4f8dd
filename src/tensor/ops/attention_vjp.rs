//! The VJP of attention on the CPU, some queries at a time, so that the N×M weights never exist at once.
//!
//! For a strip of queries of one head it recomputes the scores and their softmax; its five products use `gemm`. If there
//! are enough heads, each thread has heads of its own; otherwise all threads share every product.

use std::ops::Range;

use candle_core::{Device, Result, Shape, Tensor};
use gemm::{Parallelism, gemm};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{Arg, result_len};
use super::simd::{Shared, dispatch, exp};

/// Scores of a strip: 512 KiB, and as much for their gradient.
const STRIP: usize = 1 << 17;

/// Multiply-adds below which one thread is faster than several.
const WORTH_THREADS: usize = 1 << 20;

/// Numbers that one thread processes at a time, in whole rows.
const BLOCK: usize = 1 << 14;

/// The source of the gradient of the attention weights.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The values v (B, M, heads·d), and the gradient of the result of attention (B, heads·d, N).
    Result { v: &'a [f32], dy: &'a [f32] },
    /// The gradient of the weights itself, (B, heads, N, M).
    Weights(&'a [f32]),
}

/// The arguments of the VJP of attention.
pub(super) struct Backward<'a> {
    /// (B, heads·d, N)
    pub q: Arg<'a>,
    /// (B, heads·d, M)
    pub k: Arg<'a>,
    pub from: Source<'a>,
    pub heads: usize,
    pub causal: bool,
    /// Which of the gradients of q, k and v are wanted.
    pub wanted: [bool; 3],
}

/// The sizes of one head.
#[derive(Clone, Copy)]
struct Sizes {
    c: usize,
    d: usize,
    n: usize,
    m: usize,
}

impl Backward<'_> {
    /// The wanted gradients of q, k and v.
    pub fn run(&self) -> Result<[Option<Tensor>; 3]> {
        let (&[b, c, n], &[.., m]) = (self.q.dims, self.k.dims) else {
            candle_core::bail!("attention: needs three dimensions")
        };
        let z = Sizes { c, d: c / self.heads, n, m };
        let shapes = [(b, c, n), (b, c, m), (b, m, c)];
        let mut results: Vec<Vec<f32>> = (0..3)
            .map(|i| {
                let (b, x, y) = shapes[i];
                if self.wanted[i] { vec![0f32; b * x * y] } else { vec![] }
            })
            .collect();
        let places: Vec<Shared> = results.iter_mut().map(|r| Shared::of(r)).collect();
        let head = |room: &mut Vec<f32>, i: usize, threads: usize| {
            self.head(z, i, [places[0], places[1], places[2]], room, threads)
        };
        let (heads, threads) = (b * self.heads, rayon::current_num_threads());
        if heads * n * m * z.d <= WORTH_THREADS {
            let mut room = Vec::new();
            (0..heads).for_each(|i| head(&mut room, i, 1));
        } else if heads >= threads {
            (0..heads).into_par_iter().for_each_init(Vec::new, |room, i| head(room, i, 1));
        } else {
            let mut room = Vec::new();
            (0..heads).for_each(|i| head(&mut room, i, threads));
        }
        let mut tensors = [None, None, None];
        for (i, (tensor, result)) in tensors.iter_mut().zip(results).enumerate() {
            if self.wanted[i] {
                *tensor = Some(Tensor::from_vec(result, Shape::from(shapes[i]), &Device::Cpu)?);
            }
        }
        Ok(tensors)
    }

    /// Computes the gradients of head `i` of all heads, which no other call writes.
    fn head(&self, z: Sizes, i: usize, [dq, dk, dv]: [Shared; 3], room: &mut Vec<f32>, threads: usize) {
        let Sizes { c, d, n, m } = z;
        let (q, k) = (&self.q.data[i * d * n..][..d * n], &self.k.data[i * d * m..][..d * m]);
        let (sample, column) = (i / self.heads, i % self.heads * d);
        let scale = 1.0 / (d as f32).sqrt();
        let most = (STRIP / m).clamp(32, 256).min(n.max(1));
        room.resize(2 * most * m, 0.0);
        let (weights, of_scores) = room.split_at_mut(most * m);
        for first in (0..n).step_by(most) {
            let rows = most.min(n - first);
            let (weights, of_scores) = (&mut weights[..rows * m], &mut of_scores[..rows * m]);
            let queries = first..first + rows;
            scores(q, k, z, queries, scale, weights, threads);
            in_rows(weights, m, threads, |first_row, block| {
                dispatch(Softmax { rows: block, m, seen: self.causal.then_some(first + first_row + 1) })
            });
            match self.from {
                Source::Weights(dw) => of_scores.copy_from_slice(&dw[(i * n + first) * m..][..rows * m]),
                Source::Result { v, dy } => {
                    let (v, dy) = (&v[sample * m * c + column..], &dy[i * d * n + first..]);
                    // (queries, d) · (d, keys)
                    let (left, right) = (Matrix::new(dy, 1, n), Matrix::new(v, 1, c));
                    multiply((rows, m, d), 1.0, left, right, Place::new(of_scores, m, 1), false, threads);
                    if self.wanted[2] {
                        // SAFETY: only this head writes these columns of dv.
                        let dv = unsafe { Place::at(dv, sample * m * c + column, (m, d), c, 1) };
                        // (keys, queries) · (queries, d)
                        let (left, right) = (Matrix::new(weights, 1, m), Matrix::new(dy, 1, n));
                        multiply((m, d, rows), 1.0, left, right, dv, true, threads);
                    }
                }
            }
            let weights = &*weights;
            in_rows(of_scores, m, threads, |first_row, block| {
                let weights = &weights[first_row * m..][..block.len()];
                dispatch(OfScores { weights, rows: block, m })
            });
            let of_scores = &*of_scores;
            if self.wanted[0] {
                // SAFETY: only this head writes these rows of dq.
                let dq = unsafe { Place::at(dq, i * d * n + first, (d, rows), n, 1) };
                // (d, keys) · (keys, queries)
                multiply((d, rows, m), scale, Matrix::new(k, m, 1), Matrix::new(of_scores, 1, m), dq, false, threads);
            }
            if self.wanted[1] {
                // SAFETY: only this head writes these rows of dk.
                let dk = unsafe { Place::at(dk, i * d * m, (d, m), m, 1) };
                // (d, queries) · (queries, keys)
                let (left, right) = (Matrix::new(&q[first..], n, 1), Matrix::new(of_scores, m, 1));
                multiply((d, m, rows), scale, left, right, dk, true, threads);
            }
        }
    }
}

/// Computes the scores of some queries, (queries, M).
fn scores(q: &[f32], k: &[f32], z: Sizes, queries: Range<usize>, scale: f32, to: &mut [f32], threads: usize) {
    // (queries, d) · (d, keys)
    let (left, right) = (Matrix::new(&q[queries.start..], 1, z.n), Matrix::new(k, z.m, 1));
    multiply((queries.len(), z.m, z.d), scale, left, right, Place::new(to, z.m, 1), false, threads);
}

/// Computes the weights `softmax(qᵀ k / √d)`, (B, heads, N, M).
pub(super) fn weights(q: Arg, k: Arg, heads: usize) -> Result<(Vec<f32>, Shape)> {
    let (&[b, c, n], &[.., m]) = (q.dims, k.dims) else { candle_core::bail!("attention: needs three dimensions") };
    let z = Sizes { c, d: c / heads, n, m };
    let scale = 1.0 / (z.d as f32).sqrt();
    let mut weights = vec![0f32; result_len(&[b, heads, n, m])?];
    let threads = if b * heads * n * m * z.d > WORTH_THREADS { rayon::current_num_threads() } else { 1 };
    for (i, weights) in weights.chunks_exact_mut((n * m).max(1)).enumerate() {
        let (q, k) = (&q.data[i * z.d * n..][..z.d * n], &k.data[i * z.d * m..][..z.d * m]);
        scores(q, k, z, 0..n, scale, weights, threads);
        in_rows(weights, m, threads, |_, rows| dispatch(Softmax { rows, m, seen: None }));
    }
    Ok((weights, Shape::from((b, heads, n, m))))
}

/// A matrix to read, with element (i, j) at i·row + j·column.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    fn new(data: &'a [f32], row: usize, column: usize) -> Self {
        Matrix { data, row, column }
    }

    /// Whether the matrix has that many rows and columns.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// A matrix to write, which no other thread accesses.
struct Place {
    at: *mut f32,
    row: usize,
    column: usize,
}

impl Place {
    fn new(data: &mut [f32], row: usize, column: usize) -> Self {
        Place { at: data.as_mut_ptr(), row, column }
    }

    /// The matrix of (rows, columns) from element `i` of a shared slice on.
    ///
    /// # Safety
    /// No other thread may access the elements that are written.
    unsafe fn at(memory: Shared, i: usize, (rows, columns): (usize, usize), row: usize, column: usize) -> Self {
        let count = rows.saturating_sub(1) * row + columns.saturating_sub(1) * column + 1;
        // SAFETY: guaranteed by the caller.
        Place { at: unsafe { memory.at(i, count) }, row, column }
    }
}

/// `to = scale · left · right`, or adds that to `to`: (rows, inner) by (inner, columns).
fn multiply(
    (rows, columns, inner): (usize, usize, usize),
    scale: f32,
    left: Matrix,
    right: Matrix,
    to: Place,
    add: bool,
    threads: usize,
) {
    assert!(left.holds(rows, inner) && right.holds(inner, columns));
    let threads = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    // SAFETY: both operands are in bounds, and so is the result: the callers' places have these rows and columns.
    unsafe {
        gemm(
            rows,
            columns,
            inner,
            to.at,
            to.column as isize,
            to.row as isize,
            add,
            left.data.as_ptr(),
            left.column as isize,
            left.row as isize,
            right.data.as_ptr(),
            right.column as isize,
            right.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            threads,
        );
    }
}

/// Calls `f` with some rows at a time and the index of the first of them.
fn in_rows(data: &mut [f32], m: usize, threads: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if threads == 1 {
        return f(0, data);
    }
    let rows = BLOCK.div_ceil(m);
    data.par_chunks_mut(rows * m).enumerate().for_each(|(i, block)| f(i * rows, block));
}

/// Softmax of each row of scores.
struct Softmax<'a> {
    rows: &'a mut [f32],
    m: usize,
    /// Number of keys that the first query attends to, one more for each later query. `None`: all.
    seen: Option<usize>,
}

impl WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        for (i, row) in self.rows.chunks_exact_mut(self.m).enumerate() {
            let seen = self.seen.map_or(self.m, |seen| (seen + i).min(self.m));
            let (row, hidden) = row.split_at_mut(seen);
            hidden.fill(0.0);
            let (vectors, tail) = S::as_mut_simd_f32s(row);
            let mut highest = s.splat_f32s(f32::NEG_INFINITY);
            for v in &*vectors {
                highest = s.max_f32s(highest, *v);
            }
            let highest = tail.iter().fold(s.reduce_max_f32s(highest), |a, b| a.max(*b));
            let mut total = s.splat_f32s(0.0);
            for v in &mut *vectors {
                *v = exp(s, s.sub_f32s(*v, s.splat_f32s(highest)));
                total = s.add_f32s(total, *v);
            }
            let mut total = s.reduce_sum_f32s(total);
            if !tail.is_empty() {
                let last = exp(s, s.sub_f32s(s.partial_load_f32s(tail), s.splat_f32s(highest)));
                s.partial_store_f32s(tail, last);
                total += tail.iter().sum::<f32>();
            }
            let share = s.splat_f32s(1.0 / total);
            for v in vectors {
                *v = s.mul_f32s(*v, share);
            }
            tail.iter_mut().for_each(|v| *v /= total);
        }
    }
}

/// Turns rows of the gradient of the weights into the gradient of the scores: w (d − Σ w d).
struct OfScores<'a> {
    weights: &'a [f32],
    rows: &'a mut [f32],
    m: usize,
}

impl WithSimd for OfScores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        for (weights, row) in self.weights.chunks_exact(self.m).zip(self.rows.chunks_exact_mut(self.m)) {
            let ((w, w_tail), (d, d_tail)) = (S::as_simd_f32s(weights), S::as_mut_simd_f32s(row));
            let mut mean = s.splat_f32s(0.0);
            for (w, d) in w.iter().zip(&*d) {
                mean = s.mul_add_e_f32s(*w, *d, mean);
            }
            let mean = s.reduce_sum_f32s(mean) + w_tail.iter().zip(&*d_tail).map(|(w, d)| w * d).sum::<f32>();
            let means = s.splat_f32s(mean);
            for (w, d) in w.iter().zip(d) {
                *d = s.mul_f32s(*w, s.sub_f32s(*d, means));
            }
            w_tail.iter().zip(d_tail).for_each(|(w, d)| *d = w * (*d - mean));
        }
    }
}
