//! Layers of a convolutional network over a large map, a band of rows at a time.
//!
//! A layer walks down its input and lets go of the rows that it no longer needs, while its result grows band by band:
//! of two layers' maps about one is ever in memory, and what a layer needs beside them (the normalised input, the
//! padded copy) is a band's. Each row of a result is computed once, from all the rows that it depends on, and group
//! norms take the moments of the whole map: so the result is that of the whole map at once but for rounding, wherever
//! the bands are cut. There is nothing to blend. Knows no network.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;

use candle_core::Tensor;

use crate::models::layers::{Conv2d, GroupNorm};
use crate::ops::Moments;
use crate::{Error, Result};

/// How a large map is worked through.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Numbers of a map that are taken at a time. Less saves memory, and costs time: every band computes two rows more
    /// than it keeps.
    pub numbers: usize,
    /// Told how many layers are done, of how many, after each band of a map that is not taken at once; an error stops
    /// the work.
    pub on_step: &'a (dyn Fn(usize, usize) -> Result<()> + Sync),
}

impl Work<'_> {
    /// Every map at once, whatever memory that takes.
    pub const WHOLE: Work<'static> = Work { numbers: usize::MAX, ..Work::DEFAULT };

    /// 128 MiB in f32: bands of 65 rows of a picture of 1920 pixels at 256 channels.
    const DEFAULT: Work<'static> = Work { numbers: 1 << 25, on_step: &|_, _| Ok(()) };
}

impl Default for Work<'_> {
    fn default() -> Self {
        Work::DEFAULT
    }
}

/// A map (B, C, H, W) in bands of rows, without those from above that are no longer needed. Clones share the bands.
#[derive(Clone)]
pub(super) struct Map {
    bands: VecDeque<Tensor>,
    /// The row that the first band begins with.
    first: usize,
    /// The row after the last band.
    end: usize,
}

impl Map {
    fn empty() -> Self {
        Map { bands: VecDeque::new(), first: 0, end: 0 }
    }

    /// A map in one band.
    pub fn of(x: Tensor) -> Result<Self> {
        let mut map = Map::empty();
        map.push(x)?;
        Ok(map)
    }

    /// The map in one.
    pub fn join(self) -> Result<Tensor> {
        self.rows(&(self.first..self.end))
    }

    fn push(&mut self, band: Tensor) -> Result<()> {
        self.end += band.dims4()?.2;
        self.bands.push_back(band);
        Ok(())
    }

    /// These rows, contiguous.
    fn rows(&self, rows: &Range<usize>) -> Result<Tensor> {
        let mut parts = Vec::new();
        let mut start = self.first;
        for band in &self.bands {
            let end = start + band.dim(2)?;
            let (from, to) = (rows.start.max(start), rows.end.min(end));
            if (from, to) == (start, end) {
                parts.push(band.contiguous()?);
            } else if from < to {
                parts.push(band.narrow(2, from - start, to - from)?.contiguous()?);
            }
            start = end;
        }
        match &parts[..] {
            [part] => Ok(part.clone()),
            parts => Ok(Tensor::cat(parts, 2)?),
        }
    }

    /// Lets go of the bands above this row.
    fn release(&mut self, row: usize) -> Result<()> {
        while let Some(band) = self.bands.front() {
            let end = self.first + band.dim(2)?;
            if end > row {
                break;
            }
            self.first = end;
            self.bands.pop_front();
        }
        Ok(())
    }

    /// What the whole map is normalised by.
    fn moments(&self, norm: &GroupNorm) -> Result<Moments> {
        let mut bands = self.bands.iter().map(|band| norm.moments(band));
        let first = bands.next().unwrap_or_else(|| Err(Error::input("a map without rows")))?;
        bands.try_fold(first, |all, band| Ok(all.join(&band?)?))
    }
}

/// What a layer does to a map's height, and which rows it looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// A row of the result comes from its own and both neighbours: 3×3, padding 1.
    Around,
    /// The same, on the map with each pixel four times.
    Doubled,
    /// Row i comes from rows 2i to 2i + 2: 3×3, stride 2, padding below.
    Halved,
}

impl Reach {
    fn height(self, height: usize) -> usize {
        match self {
            Reach::Around => height,
            Reach::Doubled => 2 * height,
            Reach::Halved => height / 2,
        }
    }

    /// Where `rows` of the result come from, in a map of that height. At a band's edge inside the map the layer pads with
    /// zeros, which are not the map's: so it gets the rows with which those of its result that see them are others.
    fn window(self, rows: Range<usize>, height: usize) -> Window {
        let (start, end) = (rows.start, rows.end);
        let (from, first) = match self {
            Reach::Around => (start.saturating_sub(1)..(end + 1).min(height), start.saturating_sub(1)),
            Reach::Doubled => {
                let first = start.saturating_sub(1) / 2;
                (first..(end + 1).div_ceil(2).min(height), 2 * first)
            }
            Reach::Halved => (2 * start..(2 * end + 1).min(height), start),
        };
        Window { above: start - first, rows, from }
    }
}

/// A band of a layer's result.
pub(super) struct Window {
    /// Its rows.
    rows: Range<usize>,
    /// The rows of the input that it is computed from.
    from: Range<usize>,
    /// Rows that are computed above it and not kept.
    above: usize,
}

impl Window {
    /// Of what is computed, what is kept.
    pub fn kept(&self, y: Tensor) -> Result<Tensor> {
        if y.dim(2)? == self.rows.len() {
            return Ok(y);
        }
        Ok(y.narrow(2, self.above, self.rows.len())?.contiguous()?)
    }

    /// The input's rows at those of the result, for a layer that keeps the height.
    pub fn inner(&self, x: &Tensor) -> Result<Tensor> {
        self.kept(x.clone())
    }
}

/// A network at work: its layers in turn, each over the whole map.
pub(super) struct Walk<'a> {
    work: &'a Work<'a>,
    done: Cell<usize>,
    layers: usize,
}

impl<'a> Walk<'a> {
    /// Through a network of that many layers.
    pub fn new(work: &'a Work<'a>, layers: usize) -> Self {
        Walk { work, done: Cell::new(0), layers }
    }

    /// A convolution of `x`, normalised before if `norm`, plus `add`, which only a layer that keeps the height takes.
    pub fn convolve(
        &self,
        conv: &Conv2d,
        reach: Reach,
        norm: Option<&GroupNorm>,
        x: Map,
        mut add: Option<Map>,
    ) -> Result<Map> {
        let layer = |_: Tensor, activated: Tensor, window: &Window| {
            let Some(add) = &mut add else {
                let y =
                    if reach == Reach::Doubled { conv.forward_doubled(&activated)? } else { conv.forward(&activated)? };
                return Ok([window.kept(y)?]);
            };
            let rows = add.rows(&window.rows)?;
            add.release(window.rows.end)?;
            let below = window.from.len() - window.above - window.rows.len();
            let rows = if window.above + below == 0 { rows } else { rows.pad_with_zeros(2, window.above, below)? };
            Ok([window.kept(conv.forward_add(&activated, &rows)?)?])
        };
        let [y] = self.layer(reach, norm, x, conv.channels(), layer)?;
        Ok(y)
    }

    /// A layer with `N` results of up to `channels`. `f` gets rows of `x`, the same normalised if `norm`, and what they
    /// are for.
    pub fn layer<const N: usize>(
        &self,
        reach: Reach,
        norm: Option<&GroupNorm>,
        mut x: Map,
        channels: usize,
        mut f: impl FnMut(Tensor, Tensor, &Window) -> Result<[Tensor; N]>,
    ) -> Result<[Map; N]> {
        let band = x.bands.front().ok_or_else(|| Error::input("a map without rows"))?;
        let ((b, c, _, w), height) = (band.dims4()?, x.end);
        let of = reach.height(height);
        // Numbers of a row of the result, or of the rows that it comes from.
        let row = b * match reach {
            Reach::Around => w * c.max(channels),
            Reach::Doubled => 2 * w * c.max(channels),
            Reach::Halved => w * (2 * c).max(channels.div_ceil(2)),
        };
        let bands = of.div_ceil((self.work.numbers / row.max(1)).max(1)).max(1);
        let rows = of.div_ceil(bands).max(1);
        let moments = match norm {
            Some(norm) if rows < of => Some(x.moments(norm)?),
            _ => None,
        };
        let mut results = std::array::from_fn(|_| Map::empty());
        for start in (0..of).step_by(rows) {
            let window = reach.window(start..(start + rows).min(of), height);
            let input = x.rows(&window.from)?;
            x.release(reach.window(window.rows.end..window.rows.end, height).from.start)?;
            let activated = match (norm, &moments) {
                (Some(norm), Some(moments)) => norm.forward_silu_by(&input, moments)?,
                (Some(norm), None) => norm.forward_silu(&input)?,
                (None, _) => input.clone(),
            };
            for (result, band) in results.iter_mut().zip(f(input, activated, &window)?) {
                result.push(band)?;
            }
            if rows < of {
                let done = self.done.get() + usize::from(window.rows.end == of);
                (self.work.on_step)(done, self.layers)?;
            }
        }
        self.done.set(self.done.get() + 1);
        Ok(results)
    }
}
