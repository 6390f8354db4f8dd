//! Scaled dot-product attention, with masks, a cache and grouped heads.

use candle_core::{DType, Device, Tensor};

use super::arithmetic::{Binary, apply};
use super::constant::placed;
use super::{Inputs, Run};
use crate::attributes::Attributes;
use crate::dims::{broadcast_shape, checked_count, checked_size};
use crate::vjp::custom_vjp;
use crate::{Error, Result};

/// The attributes of a node.
struct Settings {
    scale: Option<f32>,
    causal: bool,
    heads: Option<[usize; 2]>,
    softcap: f64,
    /// Which form of the scores is the fourth result.
    mode: i64,
    /// How many keys before and after its own position a query may see.
    window: [Option<i64>; 2],
}

impl Settings {
    fn new(a: &Attributes) -> Result<Self> {
        let size = |name| a.optional_int(name)?.map(|n| checked_size(n, name)).transpose();
        let heads = match (size("q_num_heads")?, size("kv_num_heads")?) {
            (Some(q), Some(kv)) if q > 0 && kv > 0 => Some([q, kv]),
            (None, None) => None,
            _ => return Err(Error::input("`q_num_heads` and `kv_num_heads` must both be given, and above 0")),
        };
        let side = |name| Ok::<_, Error>(Some(a.int(name, -1)?).filter(|n| *n >= 0));
        a.ignore("softmax_precision");
        Ok(Settings {
            scale: a.optional_float("scale")?,
            causal: a.flag("is_causal", false)?,
            heads,
            softcap: a.float("softcap", 0.0)?,
            mode: a.int("qk_matmul_output_mode", 0)?,
            window: [side("left_window_size")?, side("right_window_size")?],
        })
    }

    /// (B, S, H·D) as (B, H, S, D); (B, H, S, D) as it is.
    fn split(&self, t: &Tensor, which: usize) -> Result<Tensor> {
        match (t.dims(), self.heads) {
            ([_, _, _, _], _) => Ok(t.clone()),
            (&[b, s, n], Some(heads)) if n.is_multiple_of(heads[which]) => {
                Ok(t.contiguous()?.reshape((b, s, heads[which], n / heads[which]))?.transpose(1, 2)?.contiguous()?)
            }
            (dims, _) => Err(Error::input(format!("{dims:?} does not split into heads {:?}", self.heads))),
        }
    }
}

pub fn attention(a: &Attributes) -> Result<Run> {
    let settings = Settings::new(a)?;
    Ok(Box::new(move |inputs| {
        let given = inputs.real(0)?;
        let q = settings.split(given, 0)?;
        let [k, v] = [(1, 4), (2, 5)].map(|(i, past)| -> Result<Tensor> {
            let own = settings.split(inputs.real(i)?, 1)?;
            match inputs.optional(past).filter(|t| t.elem_count() > 0) {
                Some(_) => Ok(Tensor::cat(&[inputs.real(past)?, &own], 2)?),
                None => Ok(own),
            }
        });
        let (k, v) = (k?, v?);
        let ((b, heads, s, d), (_, _, t, dv)) = (q.dims4()?, v.dims4()?);
        let fits = k.dims4()? == (b, v.dim(1)?, t, d) && v.dim(0)? == b && heads.is_multiple_of(v.dim(1)?);
        if !fits {
            return Err(Error::input(format!("{:?}, {:?} and {:?} do not fit", q.dims(), k.dims(), v.dims())));
        }
        checked_count(&[b, heads, s, t.max(dv)])?;
        let scale = settings.scale.map_or(1.0 / (d as f64).sqrt(), f64::from).sqrt();
        let keys = (repeated(&k, heads)?.transpose(2, 3)?.contiguous()? * scale)?;
        let raw = (q.contiguous()? * scale)?.matmul(&keys)?;
        let capped = match settings.softcap {
            0.0 => raw.clone(),
            cap => ((&raw / cap)?.tanh()? * cap)?,
        };
        let bias = bias(&settings, inputs, [b, heads, s, t])?;
        let biased = match &bias {
            Some(bias) => apply(Binary::Add, &capped, bias)?,
            None => capped.clone(),
        };
        let weights = softmax(&biased, bias.as_ref())?;
        let y = weights.matmul(&repeated(&v, heads)?)?;
        let y = match given.rank() {
            3 => y.transpose(1, 2)?.contiguous()?.reshape((b, s, heads * dv))?,
            _ => y,
        };
        let scores = match settings.mode {
            0 => raw,
            1 => capped,
            2 => biased,
            _ => weights,
        };
        Ok(vec![y, k, v, scores])
    }))
}

/// Repeats each head of (B, H, T, D), so that there are `heads`.
fn repeated(t: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, h, n, d) = t.dims4()?;
    if h == heads {
        return Ok(t.contiguous()?);
    }
    let dims = [b, h, heads / h, n, d];
    checked_count(&dims)?;
    Ok(t.unsqueeze(2)?.broadcast_as(&dims[..])?.contiguous()?.reshape((b, heads, n, d))?)
}

/// What is added to the scores (B, H, S, T): the mask, and −∞ at keys that a query may not see. `None` if nothing is.
fn bias(settings: &Settings, inputs: &Inputs, dims: [usize; 4]) -> Result<Option<Tensor>> {
    let [b, _, s, t] = dims;
    let mask = match inputs.optional(3) {
        None => None,
        Some(mask) => {
            let mask = match mask.dtype() {
                DType::U8 => {
                    let open = mask.zeros_like()?.to_dtype(inputs.float)?.to_device(inputs.device)?;
                    mask.to_device(inputs.device)?.where_cond(&open, &(&open + f64::NEG_INFINITY)?)?
                }
                _ => inputs.real(3)?.clone(),
            };
            let last = mask.rank().checked_sub(1).ok_or_else(|| Error::input("its mask is a single number"))?;
            let mut short = mask.dims().to_vec();
            short[last] = t.saturating_sub(mask.dim(last)?);
            let mask = match (short[last], mask.dim(last)?) {
                (0, _) => mask,
                (_, 1) if t > 1 && inputs.optional(6).is_none() => mask,
                _ => Tensor::cat(
                    &[&mask, &(Tensor::zeros(short, mask.dtype(), mask.device())? + f64::NEG_INFINITY)?],
                    last,
                )?,
            };
            if broadcast_shape(&dims, mask.dims())? != dims {
                return Err(Error::input(format!("a mask {:?} does not fit scores {dims:?}", mask.dims())));
            }
            Some(mask)
        }
    };
    let lengths = inputs.optional_ints(6)?;
    let past = inputs.optional(4).map_or(0, |past| past.dims().get(2).copied().unwrap_or(0)) as i64;
    if lengths.as_ref().is_some_and(|lengths| lengths.len() != b) {
        return Err(Error::input(format!("{} lengths do not fit a batch of {b}", lengths.map_or(0, |l| l.len()))));
    }
    let [left, right] = settings.window;
    if !settings.causal && lengths.is_none() && left.or(right).is_none() {
        return Ok(mask);
    }
    let rows = lengths.as_ref().map_or(1, Vec::len);
    let mut numbers = Vec::with_capacity(checked_count(&[rows, s, t])?);
    for row in 0..rows {
        let length = lengths.as_ref().map(|lengths| lengths[row]);
        let offset = length.map_or(past, |length| length.saturating_sub(s as i64));
        for i in 0..s as i64 {
            let at = offset.saturating_add(i);
            numbers.extend((0..t as i64).map(|j| {
                let seen = (!settings.causal || j <= at)
                    && left.is_none_or(|n| j >= at.saturating_sub(n))
                    && right.is_none_or(|n| j <= at.saturating_add(n))
                    && length.is_none_or(|length| j < length);
                if seen { 0.0 } else { f32::NEG_INFINITY }
            }));
        }
    }
    let hidden = placed(&Tensor::from_vec(numbers, (rows, 1, s, t), &Device::Cpu)?, inputs)?;
    Ok(Some(match mask {
        Some(mask) => apply(Binary::Add, &mask, &hidden)?,
        None => hidden,
    }))
}

/// Softmax over the last axis. A row whose bias is −∞ throughout is zero, and passes no gradient.
fn softmax(scores: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let d = scores.detach();
    let axis = d.rank() - 1;
    let most = d.max_keepdim(axis)?;
    let most = most.eq(f32::NEG_INFINITY)?.where_cond(&most.zeros_like()?, &most)?;
    let weights = d.broadcast_sub(&most)?.exp()?;
    let sum = weights.sum_keepdim(axis)?;
    let sum = sum.eq(0f32)?.where_cond(&sum.ones_like()?, &sum)?;
    let mut y = weights.broadcast_div(&sum)?;
    if let Some(bias) = bias {
        let hidden = bias.detach().max_keepdim(bias.rank() - 1)?.eq(f32::NEG_INFINITY)?;
        y = hidden.broadcast_as(y.shape())?.where_cond(&y.zeros_like()?, &y)?;
    }
    custom_vjp(scores, y, move |_, y, g| {
        let weighted = (y * g)?;
        Ok((&weighted - y.broadcast_mul(&weighted.sum_keepdim(axis)?)?)?)
    })
}
