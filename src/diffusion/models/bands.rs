//! Runs the layers of a convolutional network over a large feature map, a band of rows at a time.
//!
//! A layer processes its input from top to bottom. It frees the rows that it no longer needs while its result grows band
//! by band, so that two feature maps together take about the memory of one, and the temporary tensors of a layer (the
//! normalised input, the padded copy) have the size of a band. Each row of a result is computed once, from all rows that
//! it depends on, and group norms use the moments of the whole map. So the result does not depend on the bands, except for
//! rounding, and there are no seams to blend.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;

use candle_core::Tensor;

use crate::models::layers::{Conv2d, GroupNorm};
use crate::ops::Moments;
use crate::{Error, Result};

/// How large feature maps are processed in bands.
#[derive(Clone, Copy)]
pub struct BandOptions<'a> {
    /// Elements of a feature map that are processed at a time. Fewer save memory and cost time, because every band computes
    /// two rows more than it keeps.
    pub elements: usize,
    /// Called with the number of finished layers and of all layers, after each band of a map that needs several bands. An
    /// error stops the computation.
    pub on_step: &'a (dyn Fn(usize, usize) -> Result<()> + Sync),
}

impl BandOptions<'_> {
    /// Every feature map in one band, whatever memory that takes.
    pub const WHOLE: BandOptions<'static> = BandOptions { elements: usize::MAX, ..BandOptions::DEFAULT };

    /// 128 MiB in f32: bands of 65 rows for an image 1920 pixels wide at 256 channels.
    const DEFAULT: BandOptions<'static> = BandOptions { elements: 1 << 25, on_step: &|_, _| Ok(()) };
}

impl Default for BandOptions<'_> {
    fn default() -> Self {
        BandOptions::DEFAULT
    }
}

/// A feature map (B, C, H, W) in bands of rows, without the rows from the top that have been freed. Clones share the
/// bands.
#[derive(Clone)]
pub(super) struct FeatureMap {
    bands: VecDeque<Tensor>,
    /// The first row of the first band.
    first: usize,
    /// The row after the last band.
    end: usize,
}

impl FeatureMap {
    fn empty() -> Self {
        FeatureMap { bands: VecDeque::new(), first: 0, end: 0 }
    }

    /// A feature map in one band.
    pub fn of(x: Tensor) -> Result<Self> {
        let mut map = FeatureMap::empty();
        map.push(x)?;
        Ok(map)
    }

    /// Joins the bands.
    pub fn join(self) -> Result<Tensor> {
        self.rows(&(self.first..self.end))
    }

    fn push(&mut self, band: Tensor) -> Result<()> {
        self.end += band.dims4()?.2;
        self.bands.push_back(band);
        Ok(())
    }

    /// Returns these rows, contiguous.
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

    /// Frees the bands above this row.
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

    /// The moments of the whole map.
    fn moments(&self, norm: &GroupNorm) -> Result<Moments> {
        let mut bands = self.bands.iter().map(|band| norm.moments(band));
        let first = bands.next().unwrap_or_else(|| Err(Error::input("a feature map without rows")))?;
        bands.try_fold(first, |all, band| Ok(all.join(&band?)?))
    }
}

/// The receptive field of a layer along the height, and how the layer changes the height.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceptiveField {
    /// A row of the result depends on the same row and both neighbours: 3×3, padding 1.
    Around,
    /// The same, after upsampling by 2.
    Doubled,
    /// Row i depends on rows 2i to 2i + 2: 3×3, stride 2, padding below.
    Halved,
}

impl ReceptiveField {
    fn height(self, height: usize) -> usize {
        match self {
            ReceptiveField::Around => height,
            ReceptiveField::Doubled => 2 * height,
            ReceptiveField::Halved => height / 2,
        }
    }

    /// The rows of a map of that height that `rows` of the result depend on. At the edge of a band the layer pads with zeros
    /// that are not in the map. So it gets more rows, and the rows of its result that depend on such zeros are dropped.
    fn window(self, rows: Range<usize>, height: usize) -> BandWindow {
        let (start, end) = (rows.start, rows.end);
        let (from, first) = match self {
            ReceptiveField::Around => (start.saturating_sub(1)..(end + 1).min(height), start.saturating_sub(1)),
            ReceptiveField::Doubled => {
                let first = start.saturating_sub(1) / 2;
                (first..(end + 1).div_ceil(2).min(height), 2 * first)
            }
            ReceptiveField::Halved => (2 * start..(2 * end + 1).min(height), start),
        };
        BandWindow { above: start - first, rows, from }
    }
}

/// A band of a layer's result.
pub(super) struct BandWindow {
    /// The rows of the band.
    rows: Range<usize>,
    /// The rows of the input that the band is computed from.
    from: Range<usize>,
    /// Number of rows that are computed above the band and dropped.
    above: usize,
}

impl BandWindow {
    /// Drops the computed rows that are outside the band.
    pub fn kept(&self, y: Tensor) -> Result<Tensor> {
        if y.dim(2)? == self.rows.len() {
            return Ok(y);
        }
        Ok(y.narrow(2, self.above, self.rows.len())?.contiguous()?)
    }

    /// The rows of the input at the rows of the band, for a layer that keeps the height.
    pub fn inner(&self, x: &Tensor) -> Result<Tensor> {
        self.kept(x.clone())
    }
}

/// A pass through a network: one layer after the other, each over the whole feature map in bands.
pub(super) struct BandedPass<'a> {
    options: &'a BandOptions<'a>,
    done: Cell<usize>,
    layers: usize,
}

impl<'a> BandedPass<'a> {
    /// A pass through a network of that many layers.
    pub fn new(options: &'a BandOptions<'a>, layers: usize) -> Self {
        BandedPass { options, done: Cell::new(0), layers }
    }

    /// Runs a convolution of `x`, which is first normalised if there is a `norm`, and adds `add`, which needs a layer that
    /// keeps the height.
    pub fn convolve(
        &self,
        conv: &Conv2d,
        field: ReceptiveField,
        norm: Option<&GroupNorm>,
        x: FeatureMap,
        mut add: Option<FeatureMap>,
    ) -> Result<FeatureMap> {
        let layer = |_: Tensor, activated: Tensor, window: &BandWindow| {
            let Some(add) = &mut add else {
                let y = if field == ReceptiveField::Doubled {
                    conv.forward_doubled(&activated)?
                } else {
                    conv.forward(&activated)?
                };
                return Ok([window.kept(y)?]);
            };
            let rows = add.rows(&window.rows)?;
            add.release(window.rows.end)?;
            let below = window.from.len() - window.above - window.rows.len();
            let rows = if window.above + below == 0 { rows } else { rows.pad_with_zeros(2, window.above, below)? };
            Ok([window.kept(conv.forward_add(&activated, &rows)?)?])
        };
        let [y] = self.layer(field, norm, x, conv.channels(), layer)?;
        Ok(y)
    }

    /// Runs a layer with `N` results of up to `channels`. `f` gets rows of `x`, the same rows normalised if there is a
    /// `norm`, and the band that they are for.
    pub fn layer<const N: usize>(
        &self,
        field: ReceptiveField,
        norm: Option<&GroupNorm>,
        mut x: FeatureMap,
        channels: usize,
        mut f: impl FnMut(Tensor, Tensor, &BandWindow) -> Result<[Tensor; N]>,
    ) -> Result<[FeatureMap; N]> {
        let band = x.bands.front().ok_or_else(|| Error::input("a feature map without rows"))?;
        let ((b, c, _, w), height) = (band.dims4()?, x.end);
        let of = field.height(height);
        // Elements of a row of the result, or of the input rows that it depends on.
        let row = b * match field {
            ReceptiveField::Around => w * c.max(channels),
            ReceptiveField::Doubled => 2 * w * c.max(channels),
            ReceptiveField::Halved => w * (2 * c).max(channels.div_ceil(2)),
        };
        let bands = of.div_ceil((self.options.elements / row.max(1)).max(1)).max(1);
        let rows = of.div_ceil(bands).max(1);
        let moments = match norm {
            Some(norm) if rows < of => Some(x.moments(norm)?),
            _ => None,
        };
        let mut results = std::array::from_fn(|_| FeatureMap::empty());
        for start in (0..of).step_by(rows) {
            let window = field.window(start..(start + rows).min(of), height);
            let input = x.rows(&window.from)?;
            x.release(field.window(window.rows.end..window.rows.end, height).from.start)?;
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
                (self.options.on_step)(done, self.layers)?;
            }
        }
        self.done.set(self.done.get() + 1);
        Ok(results)
    }
}
