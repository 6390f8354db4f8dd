//! Normalisation, in the form of a trained network.

use candle_core::{Device, Tensor};
use lsregen_tensor::ops;

use super::arithmetic::{Binary, apply};
use super::{Inputs, Run, one};
use crate::attributes::Attributes;
use crate::axes::along;
use crate::dims::{checked_axis, checked_count, checked_size};
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
    f: impl Fn(&Inputs, &Tensor, usize) -> Result<Vec<Tensor>> + Send + Sync + 'static,
) -> Result<Run> {
    let from = a.int("axis", -1)?;
    a.ignore("stash_type");
    Ok(Box::new(move |inputs| {
        let x = inputs.real(0)?;
        let from = checked_axis(from, x.rank())?;
        let inner: usize = x.dims()[from..].iter().product();
        let rows = x.contiguous()?.reshape(((), inner))?;
        let mut results = f(inputs, &rows, inner)?.into_iter();
        let mut all: Vec<Tensor> = results.next().map(|y| y.reshape(x.shape())).transpose()?.into_iter().collect();
        // Statistics have a number for each row.
        let mut dims = x.dims().to_vec();
        dims[from..].fill(1);
        for statistic in results {
            all.push(statistic.reshape(dims.as_slice())?);
        }
        Ok(all)
    }))
}

/// Divides by a power of the sum of squares in neighbouring channels.
pub fn local_response(a: &Attributes) -> Result<Run> {
    let (alpha, beta, bias) = (a.float("alpha", 1e-4)?, a.float("beta", 0.75)?, a.float("bias", 1.0)?);
    let size = checked_size(a.int("size", 0)?, "size")?;
    if size == 0 {
        return Err(Error::input("`size` is missing, or 0"));
    }
    let (before, after) = ((size - 1) / 2, size / 2);
    one(move |inputs| {
        let x = inputs.real(0)?;
        let c = channels(x)?;
        let near =
            |at: usize| f32::from(u8::from((at / c).saturating_sub(before) <= at % c && at % c <= at / c + after));
        let band = (0..checked_count(&[c, c])?).map(near).collect();
        let band = Tensor::from_vec(band, (c, c), &Device::Cpu)?.to_device(x.device())?;
        let sums = along(&x.sqr()?, 1, &band)?;
        Ok((x * sums.affine(alpha / size as f64, bias)?.powf(-beta)?)?)
    })
}

/// Subtracts the mean over axes, and divides by the standard deviation.
pub fn mean_variance(a: &Attributes) -> Result<Run> {
    let axes = a.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    one(move |inputs| {
        let x = inputs.real(0)?;
        let axes = axes.iter().map(|n| checked_axis(*n, x.rank())).collect::<Result<Vec<_>>>()?;
        let centred = x.broadcast_sub(&x.mean_keepdim(axes.clone())?)?;
        let deviation = (centred.sqr()?.mean_keepdim(axes)?.sqrt()? + 1e-9)?;
        Ok(centred.broadcast_div(&deviation)?)
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
    let statistics = a.wants(1) || a.wants(2);
    trailing(a, move |inputs, x, n| {
        let weight = row(inputs.real(1)?, n)?;
        let bias = match inputs.optional_real(2)? {
            Some(bias) => row(bias, n)?,
            None => weight.zeros_like()?,
        };
        let mut all = vec![ops::layer_norm(x, &weight, &bias, eps)?];
        if statistics {
            let mean = x.mean_keepdim(1)?;
            let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(1)?;
            all.extend([mean, (variance + eps)?.sqrt()?.recip()?]);
        }
        Ok(all)
    })
}

pub fn rms(a: &Attributes) -> Result<Run> {
    let eps = a.float("epsilon", 1e-5)?;
    trailing(a, move |inputs, x, n| {
        let square = (x.sqr()?.sum_keepdim(1)? / n as f64)?;
        let normal = x.broadcast_div(&(square + eps)?.sqrt()?)?;
        Ok(vec![apply(Binary::Mul, &normal, &row(inputs.real(1)?, n)?)?])
    })
}
