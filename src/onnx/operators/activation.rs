//! Elementwise functions, and softmax. At a kink the gradient is the one-sided gradient that torch has.

use candle_core::Tensor;
use lsregen_tensor::ops;

use super::arithmetic::{Binary, apply};
use super::{Run, one, real};
use crate::attributes::Attributes;
use crate::dims::checked_axis;
use crate::vjp::custom_vjp;
use crate::{Error, Result};

/// 1 where x > 0, else 0.
fn positive(x: &Tensor) -> Result<Tensor> {
    Ok(x.gt(0f32)?.to_dtype(x.dtype())?)
}

/// x where it is positive, `slope`·x elsewhere.
fn leaky(x: &Tensor, slope: f64) -> Result<Tensor> {
    let factors = move |x: &Tensor| -> Result<Tensor> { Ok(positive(x)?.affine(1.0 - slope, slope)?) };
    let y = if slope == 0.0 { x.detach().relu()? } else { (x.detach() * factors(&x.detach())?)? };
    custom_vjp(x, y, move |x, _, g| Ok((g * factors(x)?)?))
}

/// x clamped to [low, high]. At both bounds the gradient is 1, as in torch.
fn clamp(x: &Tensor, low: f32, high: f32) -> Result<Tensor> {
    let y = x.detach().clamp(low, high)?;
    custom_vjp(x, y, move |x, _, g| {
        let inside = (x.ge(low)? * x.le(high)?)?;
        Ok((g * inside.to_dtype(g.dtype())?)?)
    })
}

pub(super) fn sigmoid_of(x: &Tensor) -> Result<Tensor> {
    let y = (x.detach().neg()?.exp()? + 1.0)?.recip()?;
    custom_vjp(x, y, |_, y, g| Ok((g * (y - y.sqr()?)?)?))
}

/// log(1 + eˣ), without overflow.
fn softplus_of(x: &Tensor) -> Result<Tensor> {
    let d = x.detach();
    let y = (d.relu()? + (d.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    custom_vjp(x, y, |x, _, g| Ok((g * sigmoid_of(x)?)?))
}

/// x where it is positive, `alpha`·(e^(x/`scale`) − 1) elsewhere.
fn elu_of(x: &Tensor, alpha: f64, scale: f64) -> Result<Tensor> {
    let exp = move |x: &Tensor| -> Result<Tensor> { Ok((x.minimum(0f32)? / scale)?.exp()?) };
    let d = x.detach();
    let y = (d.relu()? + exp(&d)?.affine(alpha, -alpha)?)?;
    custom_vjp(x, y, move |x, _, g| {
        let positive = positive(x)?;
        let below = (exp(x)? * positive.affine(-alpha / scale, alpha / scale)?)?;
        Ok((g * (positive + below)?)?)
    })
}

pub fn relu() -> Result<Run> {
    real(|x| leaky(x, 0.0))
}

pub fn leaky_relu(a: &Attributes) -> Result<Run> {
    let slope = a.float("alpha", 0.01)?;
    real(move |x| leaky(x, slope))
}

/// The slope has any shape that broadcasts, usually a number for each channel.
pub fn prelu() -> Result<Run> {
    one(|inputs| {
        let (x, slope) = (inputs.real(0)?, inputs.real(1)?);
        let below = apply(Binary::Mul, &(x - leaky(x, 0.0)?)?, slope)?;
        Ok((leaky(x, 0.0)? + below)?)
    })
}

pub fn thresholded_relu(a: &Attributes) -> Result<Run> {
    let alpha = a.float("alpha", 1.0)?;
    real(move |x| Ok((x * x.detach().gt(alpha as f32)?.to_dtype(x.dtype())?)?))
}

/// The bounds are attributes in old files and arguments in newer ones. Integers occur in computations of shapes.
pub fn clip(a: &Attributes) -> Result<Run> {
    let (min, max) = (a.optional_float("min")?, a.optional_float("max")?);
    one(move |inputs| {
        let x = inputs.get(0)?;
        if !x.dtype().is_float() {
            let bounded = |x: Tensor, i, bound| match inputs.optional(i) {
                Some(t) => apply(bound, &x, t),
                None => Ok(x),
            };
            return bounded(bounded(x.clone(), 1, Binary::Max)?, 2, Binary::Min);
        }
        let bound = |i: usize, given: Option<f32>, default: f32| match inputs.floats(i)?.as_deref() {
            None => Ok(given.unwrap_or(default)),
            Some([bound]) => Ok(*bound),
            Some(_) => Err(Error::input("its bounds must be single numbers")),
        };
        clamp(inputs.real(0)?, bound(1, min, f32::NEG_INFINITY)?, bound(2, max, f32::INFINITY)?)
    })
}

pub fn hard_sigmoid(a: &Attributes) -> Result<Run> {
    let (alpha, beta) = (a.float("alpha", 0.2)?, a.float("beta", 0.5)?);
    real(move |x| clamp(&x.affine(alpha, beta)?, 0.0, 1.0))
}

pub fn hard_swish() -> Result<Run> {
    real(|x| Ok((x * clamp(&x.affine(1.0 / 6.0, 0.5)?, 0.0, 1.0)?)?))
}

pub fn sigmoid() -> Result<Run> {
    real(sigmoid_of)
}

pub fn softplus() -> Result<Run> {
    real(softplus_of)
}

pub fn softsign() -> Result<Run> {
    real(|x| {
        let d = x.detach();
        let y = (&d / (d.abs()? + 1.0)?)?;
        custom_vjp(x, y, |x, _, g| Ok((g / (x.abs()? + 1.0)?.sqr()?)?))
    })
}

pub fn mish() -> Result<Run> {
    real(|x| Ok((x * softplus_of(x)?.tanh()?)?))
}

pub fn elu(a: &Attributes) -> Result<Run> {
    let alpha = a.float("alpha", 1.0)?;
    real(move |x| elu_of(x, alpha, 1.0))
}

pub fn celu(a: &Attributes) -> Result<Run> {
    let alpha = a.float("alpha", 1.0)?;
    if alpha == 0.0 {
        return Err(Error::input("`alpha` must not be 0"));
    }
    real(move |x| elu_of(x, alpha, alpha))
}

pub fn selu(a: &Attributes) -> Result<Run> {
    let (alpha, gamma) = (a.float("alpha", 1.673_263_2)?, a.float("gamma", 1.050_701)?);
    real(move |x| Ok((elu_of(x, alpha, 1.0)? * gamma)?))
}

pub fn gelu(a: &Attributes) -> Result<Run> {
    match a.text("approximate", "none")?.as_str() {
        "none" => real(|x| Ok(ops::gelu(x)?)),
        "tanh" => real(|x| {
            let inner = ((x + (x.sqr()? * x)? * 0.044715)? * (2.0 / std::f64::consts::PI).sqrt())?;
            Ok((x * inner.tanh()?.affine(0.5, 0.5)?)?)
        }),
        other => Err(Error::input(format!("`approximate` = {other:?} is not supported"))),
    }
}

fn softmax_of(x: &Tensor, axis: usize) -> Result<Tensor> {
    let y = candle_nn::ops::softmax(&x.detach(), axis)?;
    custom_vjp(x, y, move |_, y, g| {
        // A row whose numbers are all −∞ is NaN. Networks replace it afterwards, and no gradient comes from it.
        let y = y.eq(y)?.where_cond(y, &y.zeros_like()?)?;
        let weighted = (&y * g)?;
        Ok((&weighted - y.broadcast_mul(&weighted.sum_keepdim(axis)?)?)?)
    })
}

pub(super) fn log_softmax_of(x: &Tensor, axis: usize) -> Result<Tensor> {
    let y = candle_nn::ops::log_softmax(&x.detach(), axis)?;
    custom_vjp(x, y, move |_, y, g| Ok((g - y.exp()?.broadcast_mul(&g.sum_keepdim(axis)?)?)?))
}

/// Up to opset 12 over all dimensions from `axis` on (by default 1); later over `axis` alone (by default the last).
fn over(a: &Attributes, f: fn(&Tensor, usize) -> Result<Tensor>) -> Result<Run> {
    let flattened = a.opset < 13;
    let at = a.int("axis", if flattened { 1 } else { -1 })?;
    real(move |x| {
        if !flattened || checked_axis(at, x.rank())? + 1 == x.rank() {
            return f(x, checked_axis(at, x.rank())?);
        }
        let from = checked_axis(at, x.rank())?;
        let flat = x.flatten_from(from)?;
        f(&flat, flat.rank() - 1)?.reshape(x.shape()).map_err(Error::from)
    })
}

pub fn softmax(a: &Attributes) -> Result<Run> {
    over(a, softmax_of)
}

pub fn log_softmax(a: &Attributes) -> Result<Run> {
    over(a, log_softmax_of)
}
