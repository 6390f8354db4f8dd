//! Convolution and its transposition, each of which is the other's gradient.
//!
//! Weights are constants. On the CPU square windows without dilation or groups go to [`Convolution`]. The
//! transposition is a convolution at stride 1 that gives all phases of the stride as channels, which are then put side
//! by side: it multiplies no zeros that a stride would put between numbers.

use std::sync::{Arc, Mutex, OnceLock};

use candle_core::{Tensor, TensorId};

use super::super::attributes::Attributes;
use super::super::axes::{every, reframe, spread};
use super::super::tape::differentiable;
use super::super::{room, size};
use super::arithmetic::{Binary, apply};
use super::window::{AutoPad, Window, picture, unpicture};
use super::{Inputs, Run, one};
use crate::{Error, Result};
use lsregen_tensor::ops::Convolution;

/// Stride and dilation of both axes.
#[derive(Clone, Copy, PartialEq)]
struct Steps {
    stride: [usize; 2],
    dilation: [usize; 2],
}

/// Weights (O, C/groups, kh, kw), how they step, and what is prepared from them when it is first needed.
struct Weights {
    weight: Tensor,
    groups: usize,
    steps: Steps,
    packed: OnceLock<Option<Convolution>>,
    turned: OnceLock<Box<Weights>>,
}

impl Weights {
    fn new(weight: Tensor, groups: usize, steps: Steps) -> Self {
        Weights { weight, groups, steps, packed: OnceLock::new(), turned: OnceLock::new() }
    }

    /// (O, C, kh, kw), C the channels of a group.
    fn dims(&self) -> Result<(usize, usize, usize, usize)> {
        Ok(self.weight.dims4()?)
    }

    /// Our kernel for these weights, if it suits.
    fn packed(&self) -> Result<Option<&Convolution>> {
        if self.packed.get().is_none() {
            let ((.., kh, kw), [stride, other]) = (self.dims()?, self.steps.stride);
            let plain = self.groups == 1 && kh == kw && stride == other && self.steps.dilation == [1, 1];
            let suits = plain && stride <= 2 && self.weight.device().is_cpu();
            let packed = if suits { Some(Convolution::new(&self.weight, None, stride, (0, 0))?) } else { None };
            let _ = self.packed.set(packed);
        }
        Ok(self.packed.get().and_then(Option::as_ref))
    }

    /// Cross-correlation off the tape; every entry of `x` is used.
    fn correlate(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(packed) = self.packed()? {
            return Ok(packed.forward(&x.contiguous()?)?);
        }
        let (o, c, kh, kw) = self.dims()?;
        let (b, _, h, w) = x.dims4()?;
        let ([sh, sw], [dh, dw]) = (self.steps.stride, self.steps.dilation);
        let (oh, ow) = ((h - (kh - 1) * dh - 1) / sh + 1, (w - (kw - 1) * dw - 1) / sw + 1);
        room(&[b, o, oh, ow])?;
        if c == 1 && self.groups > 1 {
            return self.depthwise(x, (oh, ow));
        }
        if sh == sw && dh == dw {
            return Ok(x.contiguous()?.conv2d(&self.weight, 0, sh, dh, self.groups)?);
        }
        // candle has one stride and one dilation: zeros between the weights, and of the results every so many.
        let y = x.contiguous()?.conv2d(&self.undilated()?, 0, 1, 1, self.groups)?;
        Ok(every(&every(&y, 2, 0, sh, oh)?, 3, 0, sw, ow)?.contiguous()?)
    }

    /// Each channel by itself: a sum over the window's entries, which is far cheaper than a convolution a channel.
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
        let sum = sum.ok_or_else(|| Error::input("an empty window"))?;
        Ok(sum.reshape((b, o, oh, ow))?)
    }

    /// The weights with zeros for what dilation skips.
    fn undilated(&self) -> Result<Tensor> {
        let ((.., kh, kw), [dh, dw]) = (self.dims()?, self.steps.dilation);
        let rows = spread(&self.weight, 2, 0, dh, (kh - 1) * dh + 1)?;
        Ok(spread(&rows, 3, 0, dw, (kw - 1) * dw + 1)?.contiguous()?)
    }

    /// The adjoint of [`Weights::correlate`] off the tape; its result is as small as `y` allows.
    fn transposed(&self, y: &Tensor) -> Result<Tensor> {
        let ((.., kh, kw), [sh, sw], [dh, dw]) = (self.dims()?, self.steps.stride, self.steps.dilation);
        let (b, _, h, w) = y.dims4()?;
        let turned = self.turned()?;
        let (.., th, tw) = turned.dims()?;
        let (mh, mw) = ((th - 1) * turned.steps.dilation[0], (tw - 1) * turned.steps.dilation[1]);
        let phases = turned.correlate(&reframe(&reframe(y, 2, mh as i64, mh as i64)?, 3, mw as i64, mw as i64)?)?;
        if [sh, sw] == [1, 1] {
            return Ok(phases);
        }
        let c = phases.dim(1)? / (sh * sw);
        let side_by_side = phases.reshape(vec![b, c, sh, sw, h + mh, w + mw])?.permute([0, 1, 4, 2, 5, 3])?;
        let full = side_by_side.contiguous()?.reshape((b, c, (h + mh) * sh, (w + mw) * sw))?;
        let used = ((h - 1) * sh + (kh - 1) * dh + 1, (w - 1) * sw + (kw - 1) * dw + 1);
        Ok(full.narrow(2, 0, used.0)?.narrow(3, 0, used.1)?.contiguous()?)
    }

    /// In and out exchanged within each group, the window turned round; an output for each phase of the stride.
    fn turned(&self) -> Result<&Weights> {
        if self.turned.get().is_none() {
            let [sh, sw] = self.steps.stride;
            let strided = [sh, sw] != [1, 1];
            let weight = if strided { self.undilated()? } else { self.weight.clone() };
            let (o, c, kh, kw) = weight.dims4()?;
            let (th, tw, g) = (kh.div_ceil(sh), kw.div_ceil(sw), self.groups);
            let weight = weight.pad_with_zeros(2, 0, th * sh - kh)?.pad_with_zeros(3, 0, tw * sw - kw)?;
            let split = weight.contiguous()?.reshape(vec![g, o / g, c, th, sh, tw, sw])?;
            let phases = split.permute(vec![0, 2, 4, 6, 1, 3, 5])?.contiguous()?;
            let turned = phases.reshape((g * c * sh * sw, o / g, th, tw))?.flip(&[2, 3])?.contiguous()?;
            let dilation = if strided { [1, 1] } else { self.steps.dilation };
            let steps = Steps { stride: [1, 1], dilation };
            let _ = self.turned.set(Box::new(Weights::new(turned, self.groups, steps)));
        }
        self.turned.get().map(|turned| &**turned).ok_or_else(|| Error::input("weights were lost"))
    }
}

/// The weights of the last run: the same ones again, unless they are computed anew each time.
#[derive(Default)]
struct Prepared(Mutex<Option<(TensorId, Arc<Weights>)>>);

impl Prepared {
    /// `weight` for a line has one axis less.
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
        let picture = picture(weight)?.contiguous()?;
        let (o, _, kh, kw) = picture.dims4()?;
        if groups == 0 || !o.is_multiple_of(groups) {
            return Err(Error::input(format!("{o} channels in {groups} groups")));
        }
        if window.kernel.is_some_and(|k| k != [kh, kw]) {
            return Err(Error::input(format!("kernel_shape does not fit weights {:?}", weight.dims())));
        }
        let steps = Steps { stride: window.stride, dilation: window.dilation };
        let weights = Arc::new(Weights::new(picture, groups, steps));
        *last = Some((weight.id(), weights.clone()));
        Ok(weights)
    }
}

/// A number added to each channel of (B, C, H, W).
fn biased(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let Some(bias) = bias else { return Ok(y) };
    let c = y.dim(1)?;
    if bias.dims() != [c] {
        return Err(Error::input(format!("bias {:?} for {c} channels", bias.dims())));
    }
    apply(Binary::Add, &y, &bias.reshape((1, c, 1, 1))?)
}

fn groups(a: &Attributes) -> Result<usize> {
    size(a.int("group", 1)?, "group")
}

pub fn conv(a: &Attributes) -> Result<Run> {
    let (window, groups, prepared) = (Window::new(a)?, groups(a)?, Prepared::default());
    one(move |inputs| {
        let line = inputs.real(0)?;
        window.fits(line.rank())?;
        let x = picture(line)?;
        let weights = prepared.get(inputs, groups, &window)?;
        let (o, c, kh, kw) = weights.dims()?;
        if x.dim(1)? != c * groups {
            return Err(Error::input(format!("{:?} into {groups} groups of {c} channels", line.dims())));
        }
        // Pad, and leave off what no window reaches.
        let mut framed = x.clone();
        let mut dims = [x.dim(0)?, o, 0, 0];
        for (i, l) in window.lines(&x, [kh, kw])?.into_iter().enumerate() {
            dims[i + 2] = l.results()?;
            let used = (dims[i + 2] - 1) * l.stride + l.reach();
            framed = reframe(&framed, i + 2, l.before as i64, used as i64 - (l.size + l.before) as i64)?;
        }
        room(&dims)?;
        let y = weights.correlate(&framed.detach())?;
        let y = differentiable(&framed, y, move |_, _, g| weights.transposed(g))?;
        unpicture(biased(y, inputs.optional_real(2)?)?, line)
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
        let line = inputs.real(0)?;
        window.fits(line.rank())?;
        let x = picture(line)?;
        let weights = prepared.get(inputs, groups, &window)?;
        let (o, c, kh, kw) = weights.dims()?;
        if x.dim(1)? != o {
            return Err(Error::input(format!("{:?} into weights for {o} channels", line.dims())));
        }
        let steps = weights.steps;
        let mut full = [x.dim(0)?, c * groups, 0, 0];
        let mut frame = [(0i64, 0i64); 2];
        for (i, k) in [kh, kw].into_iter().enumerate() {
            let n = x.dim(i + 2)?;
            full[i + 2] = (n - 1).saturating_mul(steps.stride[i]).saturating_add((k - 1) * steps.dilation[i] + 1);
            // How much is cut off at both ends; negative where zeros are added.
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
        room(&full)?;
        let y = weights.transposed(&x.detach())?;
        let mut y = differentiable(&x, y, move |_, _, g| weights.correlate(g))?;
        for (i, (before, after)) in frame.into_iter().enumerate() {
            y = reframe(&y, i + 2, before, after)?;
        }
        unpicture(biased(y, inputs.optional_real(2)?)?, line)
    })
}
