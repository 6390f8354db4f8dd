//! Rotary position embeddings.

use candle_core::{D, Tensor};

use super::index::{indices, select};
use super::{Inputs, Run, ints, one};
use crate::attributes::Attributes;
use crate::axes::every;
use crate::dims::checked_size;
use crate::{Error, Result};

pub fn rotary_embedding(a: &Attributes) -> Result<Run> {
    let heads = checked_size(a.int("num_heads", 0)?, "num_heads")?;
    let rotated = checked_size(a.int("rotary_embedding_dim", 0)?, "rotary_embedding_dim")?;
    let interleaved = a.flag("interleaved", false)?;
    one(move |inputs| {
        let given = inputs.real(0)?;
        let x = match *given.dims() {
            [_, _, _, _] => given.clone(),
            [b, s, n] if heads > 0 && n.is_multiple_of(heads) => {
                given.contiguous()?.reshape((b, s, heads, n / heads))?.transpose(1, 2)?
            }
            _ => return Err(Error::input(format!("{:?} does not split into {heads} heads", given.dims()))),
        };
        let (b, _, s, d) = x.dims4()?;
        let rotated = if rotated == 0 { d } else { rotated };
        if rotated > d || !rotated.is_multiple_of(2) || rotated == 0 {
            return Err(Error::input(format!("{rotated} of {d} numbers cannot be rotated in pairs")));
        }
        let half = rotated / 2;
        let [cos, sin] = [1, 2].map(|i| angles(inputs, i, (b, s, half)));
        let (cos, sin, part) = (cos?, sin?, x.narrow(3, 0, rotated)?);
        let (first, second) = match interleaved {
            true => (every(&part, 3, 0, 2, half)?, every(&part, 3, 1, 2, half)?),
            false => (part.narrow(3, 0, half)?, part.narrow(3, half, half)?),
        };
        let real = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let imaginary = (first.broadcast_mul(&sin)? + second.broadcast_mul(&cos)?)?;
        let turned = match interleaved {
            true => Tensor::stack(&[real, imaginary], D::Minus1)?.flatten_from(3)?,
            false => Tensor::cat(&[real, imaginary], 3)?,
        };
        let y = if rotated < d { Tensor::cat(&[turned, x.narrow(3, rotated, d - rotated)?], 3)? } else { turned };
        match given.rank() {
            3 => Ok(y.transpose(1, 2)?.contiguous()?.reshape(given.shape())?),
            _ => Ok(y),
        }
    })
}

/// The cosines or sines (B, 1, S, D / 2) at the positions of the tokens.
fn angles(inputs: &Inputs, i: usize, (b, s, half): (usize, usize, usize)) -> Result<Tensor> {
    let cache = inputs.real(i)?;
    let found = match (inputs.optional(3), cache.dims()) {
        (Some(positions), &[n, _]) => {
            let picked = select(cache, 0, indices(ints(positions)?, n)?)?;
            picked.reshape([positions.dims(), &cache.dims()[1..]].concat())?
        }
        (None, _) => cache.clone(),
        _ => return Err(Error::input(format!("a cache {:?} has no axis of positions", cache.dims()))),
    };
    let fits = matches!(*found.dims(), [m, n, h] if (m == b || m == 1) && n == s && h == half);
    if !fits {
        return Err(Error::input(format!("a cache {:?} does not fit {b} × {s} × {half} angles", found.dims())));
    }
    Ok(found.unsqueeze(1)?)
}
