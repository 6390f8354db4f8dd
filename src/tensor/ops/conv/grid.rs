//! The memory layout of the padded input of a convolution.

use std::ops::Range;

use candle_core::Result;
use rayon::prelude::*;

use crate::ops::simd::{LONGEST, Unwritten};
use crate::ops::tile::VECTORS;

/// The memory layout of the padded input, for a band of rows of the output.
#[derive(Clone)]
pub(super) struct Grid {
    input: (usize, usize),
    pub out: (usize, usize),
    k: usize,
    stride: usize,
    padding: (usize, usize),
    upsample: bool,
    /// Distance between lines of a phase.
    pub line: usize,
    /// Zeros after the last line of a plane, which complete its right margin.
    over: usize,
    /// The first row of the band.
    pub top: usize,
    /// Lines of a phase.
    lines: usize,
    /// Distance between channels.
    pub plane: usize,
    /// Positions from the first pixel of the band to its last, along the lines of a plane.
    pub positions: usize,
}

impl Grid {
    /// The layout for the whole image.
    pub fn new(input: (usize, usize), k: usize, s: usize, padding: (usize, usize), upsample: bool) -> Result<Grid> {
        let (before, after) = padding;
        let scale = if upsample { 2 } else { 1 };
        let (h, w) = (input.0 * scale, input.1 * scale);
        let (full_h, full_w) = (h + before + after, w + before + after);
        if full_h < k || full_w < k {
            candle_core::bail!("convolution: {w}×{h} is smaller than its {k}×{k} window");
        }
        let out = ((full_h - k) / s + 1, (full_w - k) / s + 1);
        // With stride 1, the right margin of a line is the left margin of the next.
        let (line, over) = if s == 1 { (w + before.max(after), before.min(after)) } else { (full_w.div_ceil(s), 0) };
        let grid =
            Grid { input, out, k, stride: s, padding, upsample, line, over, top: 0, lines: 0, plane: 0, positions: 0 };
        Ok(grid.band(0..out.0))
    }

    /// The layout for these rows of the output.
    pub fn band(&self, rows: Range<usize>) -> Grid {
        let lines = rows.len() + (self.k - 1) / self.stride;
        let plane = self.stride * self.stride * lines * self.line + self.over;
        let positions = (rows.len() - 1) * self.line + self.out.1;
        Grid { top: rows.start, lines, plane, positions, ..self.clone() }
    }

    /// How many samples and rows of the output to compute at a time, so that the copy of the input does not grow with the
    /// image.
    pub fn part(&self, samples: usize, channels: usize, copy: usize) -> (usize, usize) {
        let rows = self.out.0;
        if samples * channels * self.plane <= copy {
            return (samples.max(1), rows);
        }
        let margin = (self.k - 1) / self.stride;
        let line = self.stride * self.stride * channels * self.line;
        // Two bands share lines, which are copied twice.
        let most = (copy / line).saturating_sub(margin).max(2 * margin + 1);
        (1, rows.div_ceil(rows.div_ceil(most)))
    }

    /// The offset of each entry of the window.
    pub fn offsets(&self) -> Vec<usize> {
        let (k, s) = (self.k, self.stride);
        let entry = |(y, x): (usize, usize)| ((y % s) * s + x % s) * self.lines * self.line + y / s * self.line + x / s;
        (0..k * k).map(|i| entry((i / k, i % k))).collect()
    }

    /// Copies the band of `planes` planes with their margins, and some space at the end, which the last tile reads.
    pub fn pad<'a>(&self, x: &[f32], planes: usize, threaded: bool, copy: &'a mut Vec<f32>) -> &'a [f32] {
        let (size, len) = (self.input.0 * self.input.1, planes * self.plane + VECTORS * LONGEST);
        copy.clear();
        if size == 0 {
            copy.resize(len, 0.0);
            return copy;
        }
        copy.reserve_exact(len);
        let (body, room) = copy.spare_capacity_mut()[..len].split_at_mut(planes * self.plane);
        room.fill(Unwritten::new(0.0));
        let fill = |(to, from): (&mut [Unwritten], &[f32])| self.fill(to, from);
        if threaded {
            body.par_chunks_exact_mut(self.plane).zip(x.par_chunks_exact(size)).with_min_len(4).for_each(fill);
        } else {
            body.chunks_exact_mut(self.plane).zip(x.chunks_exact(size)).for_each(fill);
        }
        // SAFETY: `fill` writes all of a plane.
        unsafe { copy.set_len(len) };
        copy
    }

    /// Writes one plane of the input and the zeros around it.
    fn fill(&self, to: &mut [Unwritten], from: &[f32]) {
        let (s, before, shift, zero) = (self.stride, self.padding.0, usize::from(self.upsample), Unwritten::new(0.0));
        let (h, w) = (self.input.0 << shift, self.input.1 << shift);
        let (lines, over) = to.split_at_mut(s * s * self.lines * self.line);
        over.fill(zero);
        for (i, line) in lines.chunks_exact_mut(self.line).enumerate() {
            let (phase, row) = (i / self.lines, i % self.lines);
            let y = (self.top + row) * s + phase / s;
            if y < before || y - before >= h {
                line.fill(zero);
                continue;
            }
            let source = &from[((y - before) >> shift) * self.input.1..][..self.input.1];
            // The first entry of this phase inside the image, and its column.
            let first = before.saturating_sub(phase % s).div_ceil(s).min(line.len());
            let column = first * s + phase % s - before.min(first * s + phase % s);
            let n = w.saturating_sub(column).div_ceil(s).min(line.len() - first);
            line[..first].fill(zero);
            line[first + n..].fill(zero);
            let target = &mut line[first..][..n];
            match (s, self.upsample) {
                (1, false) => target.iter_mut().zip(source).for_each(|(t, v)| *t = Unwritten::new(*v)),
                (1, true) => target.chunks_exact_mut(2).zip(source).for_each(|(t, v)| t.fill(Unwritten::new(*v))),
                _ => {
                    let columns = (column..w).step_by(s);
                    target.iter_mut().zip(columns).for_each(|(t, x)| *t = Unwritten::new(source[x >> shift]))
                }
            }
        }
    }
}
