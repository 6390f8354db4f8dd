//! Normalisation, in the form of a trained network.

use candle_core::Tensor;
use lsregen_tensor::ops;

use super::arithmetic::{Binary, apply};
use super::{Inputs, Run, one};
use crate::attributes::Attributes;
use crate::dims::{checked_axis, checked_size};
use crate::{Error, Result};

/// One number for each channel as (1, C, 1, …), for a tensor of rank `rank`.
fn per_channel(t: &Tensor, channels: usize, rank: usize) -> Result<Tensor> {
    if t.dims() != [channels] {
        return Err(Error::input(format!("{:?} numbers do not fit {channels} channels", t.dims())));
    }
    let mut dims = vec![1; rank.max(2)];
    dims[1] = channels;
    Ok(t.reshape(dims)?)
}

fn channels(x: &Tensor) -> Result<usize> {
    match x.dims() {
        [_, c, ..] => Ok(*c),
        dims => Err(Error::input(format!("{dims:?} has no channels"))),
    }
}

/// Normalises by the moments of the training set: an affine map of each channel.
pub fn batch(a: &Attributes) -> Result<Run> {
    let eps = a.float("epsilon", 1e-5)?;
    a.only("training_mode", 0).map_err(|e| Error::input(format!("{e}; export the network in evaluation mode")))?;
    a.only("spatial", 1)?;
    a.ignore("momentum");
    one(move |inputs| {
        let x = inputs.real(0)?;
        let c = channels(x)?;
        let [weight, bias, mean, variance] = [1, 2, 3, 4].map(|i| inputs.real(i));
        let factor = (weight? / (variance? + eps)?.sqrt()?)?;
        let offset = (bias? - (mean? * &factor)?)?;
        let scaled = apply(Binary::Mul, x, &per_channel(&factor, c, x.rank())?)?;
        apply(Binary::Add, &scaled, &per_channel(&offset, c, x.rank())?)
    })
}

/// (B, C, …), `weight` and `bias` (C).
fn grouped(x: &Tensor, groups: usize, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let c = channels(x)?;
    per_channel(weight, c, 2)?;
    per_channel(bias, c, 2)?;
    if groups == 0 || !c.is_multiple_of(groups) {
        return Err(Error::input(format!("{c} channels do not split into {groups} groups")));
    }
    let b = x.dims()[0];
    let map = x.contiguous()?.reshape((b, c, (), 1))?;
    Ok(ops::group_norm(&map, groups, weight, bias, eps, false)?.reshape(x.shape())?)
}

pub fn instance(a: &Attributes) -> Result<Run> {
    let eps = a.float("epsilon", 1e-5)?;
    one(move |inputs| {
        let x = inputs.real(0)?;
        grouped(x, channels(x)?, inputs.real(1)?, inputs.real(2)?, eps)
    })
}

/// Weight and bias have a number for each group in opset 18, and for each channel from opset 21 on.
pub fn group(a: &Attributes) -> Result<Run> {
    let eps = a.float("epsilon", 1e-5)?;
    let groups = a.optional_int("num_groups")?.ok_or_else(|| Error::input("`num_groups` is missing"))?;
    let groups = checked_size(groups, "num_groups")?;
    a.ignore("stash_type");
    let of_groups = a.opset < 21;
    one(move |inputs| {
        let x = inputs.real(0)?;
        let c = channels(x)?;
        let wide = |t: &Tensor| -> Result<Tensor> {
            if !of_groups || t.dims() != [groups] || groups == 0 || !c.is_multiple_of(groups) {
                return Ok(t.clone());
            }
            Ok(t.unsqueeze(1)?.broadcast_as((groups, c / groups))?.contiguous()?.reshape(c)?)
        };
        grouped(x, groups, &wide(inputs.real(1)?)?, &wide(inputs.real(2)?)?, eps)
    })
}

/// The common part of [`layer`] and [`rms`]: normalises over the dimensions from `axis` on.
fn trailing(
    a: &Attributes,
    f: impl Fn(&Inputs, &Tensor, usize) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Run> {
    let from = a.int("axis", -1)?;
    a.ignore("stash_type");
    one(move |inputs| {
        let x = inputs.real(0)?;
        let from = checked_axis(from, x.rank())?;
        let inner: usize = x.dims()[from..].iter().product();
        let rows = x.contiguous()?.reshape(((), inner))?;
        Ok(f(inputs, &rows, inner)?.reshape(x.shape())?)
    })
}

fn row(t: &Tensor, n: usize) -> Result<Tensor> {
    if t.elem_count() != n {
        return Err(Error::input(format!("{:?} numbers do not fit rows of {n}", t.dims())));
    }
    Ok(t.contiguous()?.reshape(n)?)
}

pub fn layer(a: &Attributes) -> Result<Run> {
    let eps = a.float("epsilon", 1e-5)?;
    trailing(a, move |inputs, x, n| {
        let weight = row(inputs.real(1)?, n)?;
        let bias = match inputs.optional_real(2)? {
            Some(bias) => row(bias, n)?,
            None => weight.zeros_like()?,
        };
        Ok(ops::layer_norm(x, &weight, &bias, eps)?)
    })
}

pub fn rms(a: &Attributes) -> Result<Run> {
    let eps = a.float("epsilon", 1e-5)?;
    trailing(a, move |inputs, x, n| {
        let square = (x.sqr()?.sum_keepdim(1)? / n as f64)?;
        let normal = x.broadcast_div(&(square + eps)?.sqrt()?)?;
        apply(Binary::Mul, &normal, &row(inputs.real(1)?, n)?)
    })
}
