//! The sums of products of a convolution: tiles of panels of weights and segments of planes, distributed to threads.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::grid::Grid;
use crate::ops::simd::{Function, LONGEST, Shared, dispatch, map, store};
use crate::ops::tile::{ROWS, Steps, VECTORS, tile};
use crate::ops::widen::WeightSlice;

/// Positions of the output in a unit of work: a whole number of tiles for vectors of 1, 4, 8 and 16 lanes.
const STRIP: usize = 192;

#[derive(Clone, Copy)]
struct Sum;

impl Function<2> for Sum {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [a, b]: [S::f32s; 2]) -> S::f32s {
        s.add_f32s(a, b)
    }
}

/// The computation of one band.
pub(super) struct Work<'a> {
    pub grid: &'a Grid,
    pub weight: WeightSlice<'a>,
    pub padded: &'a [f32],
    pub offsets: &'a [usize],
    pub start: &'a [f32],
    pub add: Option<&'a [f32]>,
    /// The first sample of `padded`.
    pub first: usize,
    pub c: usize,
    pub o: usize,
}

impl Work<'_> {
    /// Computes the band of each of these samples into `y`.
    pub fn run(&self, samples: usize, threads: usize, y: Shared) {
        let (strips, panels) = (self.grid.positions.div_ceil(STRIP), self.o.div_ceil(ROWS));
        let wanted = if threads > 1 { 4 * threads } else { 1 };
        let groups = wanted.div_ceil((samples * strips).max(1)).clamp(1, panels.max(1));
        let unit = |room: &mut Vec<f32>, u: usize| {
            let (sample, strip, group) = (u / groups / strips, u / groups % strips, u % groups);
            let positions = strip * STRIP..((strip + 1) * STRIP).min(self.grid.positions);
            let panels = group * panels / groups..(group + 1) * panels / groups;
            dispatch(Unit { work: self, sample, positions, panels, room, y });
        };
        let units = 0..samples * strips * groups;
        if threads > 1 {
            units.into_par_iter().for_each_init(Vec::new, unit);
        } else {
            let mut room = Vec::new();
            units.for_each(|u| unit(&mut room, u));
        }
    }
}

/// The part of a band that one thread computes at a time.
struct Unit<'a> {
    work: &'a Work<'a>,
    /// Counted from `work.first`.
    sample: usize,
    positions: Range<usize>,
    panels: Range<usize>,
    /// Space for a widened panel.
    room: &'a mut Vec<f32>,
    y: Shared,
}

impl WithSimd for Unit<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let (work, room) = (self.work, self.room);
        let panel_size = work.c * work.offsets.len() * ROWS;
        for panel in self.panels {
            let weight = work.weight.widened(panel * panel_size..(panel + 1) * panel_size, room);
            let stripe = Stripe { work, sample: self.sample, panel, weight, end: self.positions.end, y: self.y };
            let mut at = self.positions.start;
            while at < stripe.end {
                let n = (stripe.end - at).div_ceil(S::F32_LANES).min(VECTORS);
                match n {
                    1 => stripe.tile::<S, 1>(s, at),
                    2 => stripe.tile::<S, 2>(s, at),
                    _ => stripe.tile::<S, VECTORS>(s, at),
                }
                at += n * S::F32_LANES;
            }
        }
    }
}

/// The part of a unit with one panel of weights.
struct Stripe<'a> {
    work: &'a Work<'a>,
    sample: usize,
    panel: usize,
    /// The panel.
    weight: &'a [f32],
    /// The end of the positions.
    end: usize,
    y: Shared,
}

impl Stripe<'_> {
    /// Computes all channels of the panel at `N` vectors of positions from `at` on.
    #[inline(always)]
    fn tile<S: Simd, const N: usize>(&self, s: S, at: usize) {
        let mut sums = [0f32; ROWS * VECTORS * LONGEST];
        if S::REGISTER_COUNT >= 32 {
            self.rows::<S, ROWS, N>(s, 0, at, &mut sums);
        } else {
            self.rows::<S, { ROWS / 2 }, N>(s, 0, at, &mut sums);
            self.rows::<S, { ROWS / 2 }, N>(s, ROWS / 2, at, &mut sums);
        }
        self.write(s, at, N * S::F32_LANES, &sums);
    }

    #[inline(always)]
    fn rows<S: Simd, const R: usize, const N: usize>(&self, s: S, row: usize, at: usize, sums: &mut [f32]) {
        let w = self.work;
        let steps = Steps { planes: w.c, plane: w.grid.plane, offsets: w.offsets };
        let mut acc = [[s.splat_f32s(0.0); N]; R];
        let first = ((w.first + self.sample) * w.o.div_ceil(ROWS) + self.panel) * ROWS + row;
        for (i, acc) in acc.iter_mut().enumerate() {
            *acc = [s.splat_f32s(w.start[first + i]); N];
        }
        // SAFETY: `Grid` lays out planes so that every entry of the window at every position is inside, and leaves room
        // for the rest of the last tile; the panel has ROWS entries for each of c·k² steps.
        unsafe {
            let panel = self.weight.as_ptr().add(row);
            let columns = w.padded.as_ptr().add(self.sample * w.c * w.grid.plane + at);
            tile::<S, R, N>(s, &mut acc, panel, columns, steps);
            for (i, acc) in acc.iter().enumerate() {
                for (j, v) in acc.iter().enumerate() {
                    store::<S>(sums.as_mut_ptr().add(((row + i) * N + j) * S::F32_LANES), *v);
                }
            }
        }
    }

    /// Writes the part of a tile that lies in the image.
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, at: usize, n: usize, sums: &[f32]) {
        let w = self.work;
        let ((ho, wo), line) = (w.grid.out, w.grid.line);
        let end = (at + n).min(self.end);
        let first = (w.first + self.sample) * w.o + self.panel * ROWS;
        let mut p = at;
        while p < end {
            let (y, x) = (w.grid.top + p / line, p % line);
            let run = (line - x).min(end - p);
            let inside = run.min(wo.saturating_sub(x));
            let channels = if inside == 0 { 0 } else { ROWS.min(w.o - self.panel * ROWS) };
            for i in 0..channels {
                let to = ((first + i) * ho + y) * wo + x;
                let from = &sums[i * n + p - at..][..inside];
                // SAFETY: `to..to + inside` is a piece of one line of the output, which no other unit covers.
                unsafe {
                    let target = self.y.at(to, inside);
                    match w.add {
                        Some(add) => {
                            map(s, [from, &add[to..]], std::slice::from_raw_parts_mut(target.cast(), inside), Sum)
                        }
                        None => target.copy_from_nonoverlapping(from.as_ptr(), inside),
                    }
                }
            }
            p += run;
        }
    }
}
