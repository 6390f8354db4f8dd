//! Windows that slide over pictures (and over lines, which are pictures of height 1): sizes, strides, dilations, padding.

use candle_core::Tensor;

use super::super::attributes::Attributes;
use super::super::{MOST, size};
use crate::{Error, Result};

/// Largest kernel, stride, dilation or padding: beyond it, it is damage, and sums of a few cannot overflow.
const LARGEST: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AutoPad {
    No,
    /// As many results as ⌈n / stride⌉, the odd zero at the end.
    Upper,
    /// The odd zero at the beginning.
    Lower,
}

/// A window as a node's attributes give it, for 2 axes; `None` where they give none.
#[derive(Clone, Debug)]
pub struct Window {
    pub kernel: Option<[usize; 2]>,
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Zeros before and after, an axis each; may not be negative.
    pub pads: [(usize, usize); 2],
    pub auto_pad: AutoPad,
    /// How many axes the attributes were about.
    axes: Option<usize>,
}

/// The same along one axis, with the size it is applied to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: usize,
    pub after: usize,
}

impl Line {
    /// From the first to the last entry of the window.
    pub fn reach(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Results where every window lies within the padding.
    pub fn results(&self) -> Result<usize> {
        let padded = self.size + self.before + self.after;
        match padded.checked_sub(self.reach()) {
            Some(free) => Ok(free / self.stride + 1),
            None => Err(Error::input(format!("{padded} entries, padding included, for a window of {}", self.reach()))),
        }
    }

    /// Results where the last window may hang over the end, if it begins before the padding there.
    pub fn results_ceil(&self) -> Result<usize> {
        let padded = self.size + self.before + self.after;
        let free = padded.saturating_sub(self.reach());
        if padded < self.reach() {
            return self.results();
        }
        let n = free.div_ceil(self.stride) + 1;
        Ok(if (n - 1) * self.stride >= self.size + self.before { n - 1 } else { n })
    }
}

fn pair(values: Option<Vec<usize>>, default: usize, what: &str, least: usize) -> Result<([usize; 2], Option<usize>)> {
    let Some(values) = values else { return Ok(([default; 2], None)) };
    if values.iter().any(|n| *n < least || *n > LARGEST) {
        return Err(Error::input(format!("{what} {values:?} is not possible")));
    }
    match values[..] {
        [n] => Ok(([default, n], Some(1))),
        [m, n] => Ok(([m, n], Some(2))),
        _ => Err(Error::input(format!("{what} {values:?}: only one or two axes are supported"))),
    }
}

impl Window {
    pub fn new(a: &Attributes) -> Result<Self> {
        let (kernel, axes) = pair(a.sizes("kernel_shape")?, 1, "kernel_shape", 1)?;
        let (stride, _) = pair(a.sizes("strides")?, 1, "strides", 1)?;
        let (dilation, _) = pair(a.sizes("dilations")?, 1, "dilations", 1)?;
        let pads = a.ints("pads")?.unwrap_or_default();
        let pads = pads.into_iter().map(|n| size(n, "padding")).collect::<Result<Vec<_>>>()?;
        if pads.iter().any(|n| *n > LARGEST) {
            return Err(Error::input(format!("padding {pads:?} is not possible")));
        }
        let pads = match pads[..] {
            [] => [(0, 0); 2],
            [before, after] => [(0, 0), (before, after)],
            [top, left, bottom, right] => [(top, bottom), (left, right)],
            _ => return Err(Error::input(format!("pads {pads:?}: only one or two axes are supported"))),
        };
        let auto_pad = match a.text("auto_pad", "NOTSET")?.as_str() {
            "NOTSET" | "VALID" => AutoPad::No,
            "SAME_UPPER" => AutoPad::Upper,
            "SAME_LOWER" => AutoPad::Lower,
            other => return Err(Error::input(format!("auto_pad {other:?} is not known"))),
        };
        Ok(Window { kernel: axes.map(|_| kernel), stride, dilation, pads, auto_pad, axes })
    }

    /// Along both axes of a picture, padding worked out.
    pub fn lines(&self, picture: &Tensor, kernel: [usize; 2]) -> Result<[Line; 2]> {
        let (_, _, h, w) = picture.dims4()?;
        if kernel.iter().any(|k| *k == 0 || *k > LARGEST) || h.max(w) > MOST {
            return Err(Error::input(format!("a window {kernel:?} is not possible")));
        }
        let line = |i: usize, size: usize| {
            let (before, after) = self.pads[i];
            let mut line =
                Line { size, kernel: kernel[i], stride: self.stride[i], dilation: self.dilation[i], before, after };
            if self.auto_pad != AutoPad::No {
                let results = size.div_ceil(line.stride);
                let total = ((results.saturating_sub(1)) * line.stride + line.reach()).saturating_sub(size);
                let less = total / 2;
                let (before, after) =
                    if self.auto_pad == AutoPad::Upper { (less, total - less) } else { (total - less, less) };
                (line.before, line.after) = (before, after);
            }
            line
        };
        Ok([line(0, h), line(1, w)])
    }

    /// The kernel of a pooling.
    pub fn required(&self) -> Result<[usize; 2]> {
        self.kernel.ok_or_else(|| Error::input("`kernel_shape` is missing"))
    }

    /// Whether the attributes fit a tensor (B, C, …) of that rank.
    pub fn fits(&self, rank: usize) -> Result<()> {
        match self.axes {
            Some(axes) if axes + 2 != rank => {
                Err(Error::input(format!("a window of {axes} axes over a tensor with {rank} dimensions")))
            }
            _ => Ok(()),
        }
    }
}

/// (B, C, W) as (B, C, 1, W); (B, C, H, W) as it is.
pub fn picture(x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        3 => Ok(x.unsqueeze(2)?),
        4 => Ok(x.clone()),
        _ => Err(Error::input(format!("{:?} is neither (B, C, W) nor (B, C, H, W)", x.dims()))),
    }
}

/// Back to the rank of `x`.
pub fn unpicture(y: Tensor, x: &Tensor) -> Result<Tensor> {
    if x.rank() == 3 { Ok(y.squeeze(2)?) } else { Ok(y) }
}
