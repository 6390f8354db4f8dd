//! Convolution and transposed convolution. Each is the VJP of the other.
//!
//! Weights are constants. On the CPU, square windows without dilation or groups use [`Convolution`]. A transposed
//! convolution is computed as a convolution of stride 1 whose channels are the phases of the stride, which are then
//! interleaved. So it multiplies no zeros between the numbers of its input.

use std::sync::{Arc, Mutex, OnceLock};

use candle_core::{DType, Tensor, TensorId};
use lsregen_tensor::ops::Convolution;

use super::arithmetic::{Binary, apply};
use super::window::{AutoPad, Window, as_given, as_image};
use super::{Inputs, Run, one};
use crate::attributes::Attributes;
use crate::axes::{every, reframe, spread};
use crate::dims::{checked_count, checked_size};
use crate::vjp::custom_vjp;
use crate::{Error, Result};

/// How many numbers of a band are in memory at once.
const BAND: usize = 1 << 20;

/// Stride and dilation of both axes.
#[derive(Clone, Copy, PartialEq)]
struct Steps {
    stride: [usize; 2],
    dilation: [usize; 2],
}

/// Weights (O, C/groups, kh, kw) with their stride and dilation, and the forms of them that are prepared on first use.
struct Weights {
    weight: Tensor,
    groups: usize,
    steps: Steps,
    packed: OnceLock<Option<Convolution>>,
    flipped: OnceLock<Box<Weights>>,
}

impl Weights {
    fn new(weight: Tensor, groups: usize, steps: Steps) -> Self {
        Weights { weight, groups, steps, packed: OnceLock::new(), flipped: OnceLock::new() }
    }

    /// (O, C, kh, kw), C the channels of a group.
    fn dims(&self) -> Result<(usize, usize, usize, usize)> {
        Ok(self.weight.dims4()?)
    }

    /// The kernel of lsregen-tensor for these weights, if it supports them.
    fn packed(&self) -> Result<Option<&Convolution>> {
        if self.packed.get().is_none() {
            let ((.., kh, kw), [stride, other]) = (self.dims()?, self.steps.stride);
            let plain = self.groups == 1 && kh == kw && stride == other && self.steps.dilation == [1, 1];
            let suits = plain && stride <= 2 && self.weight.device().is_cpu() && self.weight.dtype() == DType::F32;
            let packed = if suits { Some(Convolution::new(&self.weight, None, stride, (0, 0))?) } else { None };
            let _ = self.packed.set(packed);
        }
        Ok(self.packed.get().and_then(Option::as_ref))
    }

    /// Cross-correlation, not tracked by autodiff. Every entry of `x` must be covered by a window.
    fn correlate(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(packed) = self.packed()? {
            return Ok(packed.forward(&x.contiguous()?)?);
        }
        let (o, c, kh, kw) = self.dims()?;
        let (b, _, h, w) = x.dims4()?;
        let ([sh, sw], [dh, dw]) = (self.steps.stride, self.steps.dilation);
        let (oh, ow) = ((h - (kh - 1) * dh - 1) / sh + 1, (w - (kw - 1) * dw - 1) / sw + 1);
        checked_count(&[b, o, oh, ow])?;
        if c == 1 && self.groups > 1 {
            return self.depthwise(x, (oh, ow));
        }
        if self.groups == 1 && self.weight.dtype() == DType::F64 {
            return self.in_bands(x, (oh, ow));
        }
        if sh == sw && dh == dw {
            return Ok(x.contiguous()?.conv2d(&self.weight, 0, sh, dh, self.groups)?);
        }
        // candle supports one stride and one dilation for both axes: put zeros between the weights, and keep every s-th result.
        let y = x.contiguous()?.conv2d(&self.undilated()?, 0, 1, 1, self.groups)?;
        Ok(every(&every(&y, 2, 0, sh, oh)?, 3, 0, sw, ow)?.contiguous()?)
    }

    /// Convolution in f64, as a matrix product for each band of rows: on the CPU several times as fast as candle's, and on a CUDA
    /// device without cuDNN, which has few kernels for f64.
    fn in_bands(&self, x: &Tensor, (oh, ow): (usize, usize)) -> Result<Tensor> {
        let (o, c, kh, kw) = self.dims()?;
        let ([sh, sw], [dh, dw], b) = (self.steps.stride, self.steps.dilation, x.dim(0)?);
        let weight = self.weight.reshape((1, o, c * kh * kw))?;
        let rows = (BAND / (c * kh * kw * ow)).clamp(1, oh);
        let mut bands = vec![];
        for top in (0..oh).step_by(rows) {
            let count = rows.min(oh - top);
            let mut taps = Vec::with_capacity(kh * kw);
            for i in 0..kh {
                let lines = every(x, 2, top * sh + i * dh, sh, count)?;
                for j in 0..kw {
                    taps.push(every(&lines, 3, j * dw, sw, ow)?);
                }
            }
            let columns = Tensor::stack(&taps, 2)?.reshape((b, c * kh * kw, count * ow))?;
            bands.push(weight.broadcast_matmul(&columns)?.reshape((b, o, count, ow))?);
        }
        Ok(Tensor::cat(&bands, 2)?)
    }

    /// Depthwise convolution as a sum over the entries of the window, far cheaper than a convolution for each channel.
    fn depthwise(&self, x: &Tensor, (oh, ow): (usize, usize)) -> Result<Tensor> {
        let (o, _, kh, kw) = self.dims()?;
        let (b, c, ..) = x.dims4()?;
        let ([sh, sw], [dh, dw]) = (self.steps.stride, self.steps.dilation);
        let mut sum: Option<Tensor> = None;
        for i in 0..kh {
            let rows = every(x, 2, i * dh, sh, oh)?;
            for j in 0..kw {
                let tap = every(&rows, 3, j * dw, sw, ow)?.unsqueeze(2)?;
                let weight = self.weight.narrow(2, i, 1)?.narrow(3, j, 1)?.reshape((1, c, o / c, 1, 1))?;
                let term = tap.broadcast_mul(&weight)?;
                sum = Some(match sum {
                    Some(sum) => (sum + term)?,
                    None => term,
                });
            }
        }
        let sum = sum.ok_or_else(|| Error::input("the window is empty"))?;
        Ok(sum.reshape((b, o, oh, ow))?)
    }

    /// The weights with zeros at the entries that dilation skips.
    fn undilated(&self) -> Result<Tensor> {
        let ((.., kh, kw), [dh, dw]) = (self.dims()?, self.steps.dilation);
        let rows = spread(&self.weight, 2, 0, dh, (kh - 1) * dh + 1)?;
        Ok(spread(&rows, 3, 0, dw, (kw - 1) * dw + 1)?.contiguous()?)
    }

    /// The adjoint of [`Weights::correlate`], not tracked by autodiff; its result has the least size that fits `y`.
    fn transposed(&self, y: &Tensor) -> Result<Tensor> {
        let ((.., kh, kw), [sh, sw], [dh, dw]) = (self.dims()?, self.steps.stride, self.steps.dilation);
        let (b, _, h, w) = y.dims4()?;
        let flipped = self.flipped()?;
        let (.., th, tw) = flipped.dims()?;
        let (mh, mw) = ((th - 1) * flipped.steps.dilation[0], (tw - 1) * flipped.steps.dilation[1]);
        let phases = flipped.correlate(&reframe(&reframe(y, 2, mh as i64, mh as i64)?, 3, mw as i64, mw as i64)?)?;
        if [sh, sw] == [1, 1] {
            return Ok(phases);
        }
        let c = phases.dim(1)? / (sh * sw);
        let side_by_side = phases.reshape(vec![b, c, sh, sw, h + mh, w + mw])?.permute([0, 1, 4, 2, 5, 3])?;
        let full = side_by_side.contiguous()?.reshape((b, c, (h + mh) * sh, (w + mw) * sw))?;
        let used = ((h - 1) * sh + (kh - 1) * dh + 1, (w - 1) * sw + (kw - 1) * dw + 1);
        Ok(full.narrow(2, 0, used.0)?.narrow(3, 0, used.1)?.contiguous()?)
    }

    /// The weights with inputs and outputs exchanged in each group and the window flipped, with an output for each phase of
    /// the stride.
    fn flipped(&self) -> Result<&Weights> {
        if self.flipped.get().is_none() {
            let [sh, sw] = self.steps.stride;
            let strided = [sh, sw] != [1, 1];
            let weight = if strided { self.undilated()? } else { self.weight.clone() };
            let (o, c, kh, kw) = weight.dims4()?;
            let (th, tw, g) = (kh.div_ceil(sh), kw.div_ceil(sw), self.groups);
            let weight = weight.pad_with_zeros(2, 0, th * sh - kh)?.pad_with_zeros(3, 0, tw * sw - kw)?;
            let split = weight.contiguous()?.reshape(vec![g, o / g, c, th, sh, tw, sw])?;
            let phases = split.permute(vec![0, 2, 4, 6, 1, 3, 5])?.contiguous()?;
            let flipped = phases.reshape((g * c * sh * sw, o / g, th, tw))?.flip(&[2, 3])?.contiguous()?;
            let dilation = if strided { [1, 1] } else { self.steps.dilation };
            let steps = Steps { stride: [1, 1], dilation };
            let _ = self.flipped.set(Box::new(Weights::new(flipped, self.groups, steps)));
        }
        self.flipped.get().map(|flipped| &**flipped).ok_or_else(|| Error::input("the weights are missing"))
    }
}

/// The prepared weights of the last run. The next run uses them again, unless the network itself computes its weights.
#[derive(Default)]
struct Prepared(Mutex<Option<(TensorId, Arc<Weights>)>>);

impl Prepared {
    /// Prepares the weight argument, which has three or four axes.
    fn get(&self, inputs: &Inputs, groups: usize, window: &Window) -> Result<Arc<Weights>> {
        let weight = inputs.real(1)?;
        if weight.track_op() {
            return Err(Error::input("its weights depend on the network's input"));
        }
        let mut last = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((id, weights)) = &*last
            && *id == weight.id()
        {
            return Ok(weights.clone());
        }
        let weight_2d = as_image(weight)?.contiguous()?;
        let (o, _, kh, kw) = weight_2d.dims4()?;
        if groups == 0 || !o.is_multiple_of(groups) {
            return Err(Error::input(format!("{o} channels do not split into {groups} groups")));
        }
        if window.kernel.is_some_and(|k| k != [kh, kw]) {
            return Err(Error::input(format!("kernel_shape does not fit weights {:?}", weight.dims())));
        }
        let steps = Steps { stride: window.stride, dilation: window.dilation };
        let weights = Arc::new(Weights::new(weight_2d, groups, steps));
        *last = Some((weight.id(), weights.clone()));
        Ok(weights)
    }
}

/// Adds a number to each channel of (B, C, H, W).
fn biased(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let Some(bias) = bias else { return Ok(y) };
    let c = y.dim(1)?;
    if bias.dims() != [c] {
        return Err(Error::input(format!("bias {:?} does not fit {c} channels", bias.dims())));
    }
    apply(Binary::Add, &y, &bias.reshape((1, c, 1, 1))?)
}

fn groups(a: &Attributes) -> Result<usize> {
    checked_size(a.int("group", 1)?, "group")
}

pub fn conv(a: &Attributes) -> Result<Run> {
    let (window, groups, prepared) = (Window::new(a)?, groups(a)?, Prepared::default());
    one(move |inputs| {
        let given = inputs.real(0)?;
        window.check_rank(given.rank())?;
        let x = as_image(given)?;
        let weights = prepared.get(inputs, groups, &window)?;
        let (o, c, kh, kw) = weights.dims()?;
        if x.dim(1)? != c * groups {
            return Err(Error::input(format!("{:?} does not fit {groups} groups of {c} channels", given.dims())));
        }
        // Pad, and drop the entries that no window covers.
        let mut framed = x.clone();
        let mut dims = [x.dim(0)?, o, 0, 0];
        for (i, l) in window.along_axes(&x, [kh, kw])?.into_iter().enumerate() {
            dims[i + 2] = l.results()?;
            let used = (dims[i + 2] - 1) * l.stride + l.extent();
            framed = reframe(&framed, i + 2, l.before as i64, used as i64 - (l.size + l.before) as i64)?;
        }
        checked_count(&dims)?;
        let y = weights.correlate(&framed.detach())?;
        let y = custom_vjp(&framed, y, move |_, _, g| weights.transposed(g))?;
        as_given(biased(y, inputs.optional_real(2)?)?, given)
    })
}

pub fn conv_transpose(a: &Attributes) -> Result<Run> {
    let (window, groups, prepared) = (Window::new(a)?, groups(a)?, Prepared::default());
    let two = |values: Option<Vec<usize>>, default: usize, what: &str| match values.as_deref() {
        None => Ok([default; 2]),
        Some([n]) => Ok([default, *n]),
        Some([m, n]) => Ok([*m, *n]),
        Some(other) => Err(Error::input(format!("{what} {other:?}: only one or two axes are supported"))),
    };
    let extra = two(a.sizes("output_padding")?, 0, "output_padding")?;
    let wanted = a.sizes("output_shape")?;
    let wanted = if wanted.is_some() { Some(two(wanted, 1, "output_shape")?) } else { None };
    one(move |inputs| {
        let given = inputs.real(0)?;
        window.check_rank(given.rank())?;
        let x = as_image(given)?;
        let weights = prepared.get(inputs, groups, &window)?;
        let (o, c, kh, kw) = weights.dims()?;
        if x.dim(1)? != o {
            return Err(Error::input(format!("{:?} does not fit weights for {o} channels", given.dims())));
        }
        let steps = weights.steps;
        let mut full = [x.dim(0)?, c * groups, 0, 0];
        let mut frame = [(0i64, 0i64); 2];
        for (i, k) in [kh, kw].into_iter().enumerate() {
            let n = x.dim(i + 2)?;
            full[i + 2] = (n - 1).saturating_mul(steps.stride[i]).saturating_add((k - 1) * steps.dilation[i] + 1);
            // How much to crop at both ends; negative numbers add zeros.
            let (mut before, after) = window.pads[i];
            let mut total = before as i64 + after as i64 - extra[i] as i64;
            let size = match (wanted, window.auto_pad) {
                (Some(wanted), _) => Some(wanted[i]),
                (None, AutoPad::No) => None,
                _ => Some(n.saturating_mul(steps.stride[i])),
            };
            if let Some(size) = size {
                total = full[i + 2] as i64 - size as i64;
                let half = total.max(0) as usize / 2;
                before = if window.auto_pad == AutoPad::Upper { half } else { total.max(0) as usize - half };
            }
            frame[i] = (-(before as i64), before as i64 - total);
        }
        checked_count(&full)?;
        let y = weights.transposed(&x.detach())?;
        let mut y = custom_vjp(&x, y, move |_, _, g| weights.correlate(g))?;
        for (i, (before, after)) in frame.into_iter().enumerate() {
            y = reframe(&y, i + 2, before, after)?;
        }
        as_given(biased(y, inputs.optional_real(2)?)?, given)
    })
}
