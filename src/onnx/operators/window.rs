//! Sliding windows of convolution and pooling over one or two axes: sizes, strides, dilations, padding.

use candle_core::Tensor;

use crate::attributes::Attributes;
use crate::dims::{MOST, checked_size};
use crate::{Error, Result};

/// The greatest stride, dilation or padding. A greater one is corrupt, and sums of a few such numbers cannot overflow.
const LARGEST: usize = 1 << 20;

/// The greatest kernel, each of whose entries takes a step.
const LARGEST_KERNEL: usize = 1 << 14;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AutoPad {
    No,
    /// ⌈n / stride⌉ results; of an odd number of zeros, the larger part at the end.
    Upper,
    /// The same with the larger part at the beginning.
    Lower,
}

/// The window of a node, for two axes. For a node with one axis, that axis is the second one here, and the first has
/// size 1.
#[derive(Clone, Debug)]
pub struct Window {
    /// `None` if the attributes do not give it.
    pub kernel: Option<[usize; 2]>,
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Zeros before and after, for each axis.
    pub pads: [(usize, usize); 2],
    pub auto_pad: AutoPad,
    /// Number of axes that the attributes have.
    axes: Option<usize>,
}

/// A window along one axis, with the size of the axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisWindow {
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: usize,
    pub after: usize,
}

impl AxisWindow {
    /// Entries from the first to the last of the window, both included.
    pub fn extent(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Number of results, where every window lies inside the padded axis.
    pub fn results(&self) -> Result<usize> {
        let padded = self.size + self.before + self.after;
        match padded.checked_sub(self.extent()) {
            Some(free) => Ok(free / self.stride + 1),
            None => Err(Error::input(format!(
                "{padded} entries with padding are too few for a window of {}",
                self.extent()
            ))),
        }
    }

    /// Number of results where the last window may reach past the end, if it starts before the padding there.
    pub fn results_ceil(&self) -> Result<usize> {
        let padded = self.size + self.before + self.after;
        let free = padded.saturating_sub(self.extent());
        if padded < self.extent() {
            return self.results();
        }
        let n = free.div_ceil(self.stride) + 1;
        Ok(if (n - 1) * self.stride >= self.size + self.before { n - 1 } else { n })
    }
}

fn pair(values: Option<Vec<usize>>, default: usize, what: &str, most: usize) -> Result<([usize; 2], Option<usize>)> {
    let Some(values) = values else { return Ok(([default; 2], None)) };
    if values.iter().any(|n| *n < 1 || *n > most) {
        return Err(Error::input(format!("{what} {values:?} is out of range")));
    }
    match values[..] {
        [n] => Ok(([default, n], Some(1))),
        [m, n] => Ok(([m, n], Some(2))),
        _ => Err(Error::input(format!("{what} {values:?}: only one or two axes are supported"))),
    }
}

impl Window {
    pub fn new(a: &Attributes) -> Result<Self> {
        let (kernel, axes) = pair(a.sizes("kernel_shape")?, 1, "kernel_shape", LARGEST_KERNEL)?;
        let (stride, _) = pair(a.sizes("strides")?, 1, "strides", LARGEST)?;
        let (dilation, _) = pair(a.sizes("dilations")?, 1, "dilations", LARGEST)?;
        let pads = a.ints("pads")?.unwrap_or_default();
        let pads = pads.into_iter().map(|n| checked_size(n, "padding")).collect::<Result<Vec<_>>>()?;
        if pads.iter().any(|n| *n > LARGEST) {
            return Err(Error::input(format!("padding {pads:?} is out of range")));
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
            other => return Err(Error::input(format!("auto_pad {other:?} is not supported"))),
        };
        Ok(Window { kernel: axes.map(|_| kernel), stride, dilation, pads, auto_pad, axes })
    }

    /// The window along both axes of an image (B, C, H, W), with the padding resolved.
    pub fn along_axes(&self, image: &Tensor, kernel: [usize; 2]) -> Result<[AxisWindow; 2]> {
        let (_, _, h, w) = image.dims4()?;
        if kernel.iter().any(|k| *k == 0 || *k > LARGEST) || h.max(w) > MOST {
            return Err(Error::input(format!("a window {kernel:?} is out of range")));
        }
        let line = |i: usize, size: usize| {
            let (before, after) = self.pads[i];
            let mut line = AxisWindow {
                size,
                kernel: kernel[i],
                stride: self.stride[i],
                dilation: self.dilation[i],
                before,
                after,
            };
            if self.auto_pad != AutoPad::No {
                let results = size.div_ceil(line.stride);
                let total = ((results.saturating_sub(1)) * line.stride + line.extent()).saturating_sub(size);
                let less = total / 2;
                let (before, after) =
                    if self.auto_pad == AutoPad::Upper { (less, total - less) } else { (total - less, less) };
                (line.before, line.after) = (before, after);
            }
            line
        };
        Ok([line(0, h), line(1, w)])
    }

    /// The kernel of a pooling operator, which must be given.
    pub fn required(&self) -> Result<[usize; 2]> {
        self.kernel.ok_or_else(|| Error::input("`kernel_shape` is missing"))
    }

    /// Checks that the attributes fit a tensor (B, C, …) of that rank.
    pub fn check_rank(&self, rank: usize) -> Result<()> {
        match self.axes {
            Some(axes) if axes + 2 != rank => {
                Err(Error::input(format!("a window of {axes} axes does not fit a tensor with {rank} dimensions")))
            }
            _ => Ok(()),
        }
    }
}

/// Turns (B, C, W) into (B, C, 1, W), and returns (B, C, H, W) unchanged.
pub fn as_image(x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        3 => Ok(x.unsqueeze(2)?),
        4 => Ok(x.clone()),
        _ => Err(Error::input(format!("{:?} is neither (B, C, W) nor (B, C, H, W)", x.dims()))),
    }
}

/// Undoes [`as_image`]: gives `y` the rank of `x`.
pub fn as_given(y: Tensor, x: &Tensor) -> Result<Tensor> {
    if x.rank() == 3 { Ok(y.squeeze(2)?) } else { Ok(y) }
}
