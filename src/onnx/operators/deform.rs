//! Deformable convolution: each entry of the window is read at a place that the network computes.

use candle_core::{Device, Tensor};

use super::constant::placed;
use super::sample::{Kernel, Outside, sample};
use super::window::Window;
use super::{Run, one};
use crate::attributes::Attributes;
use crate::dims::{checked_count, checked_size};
use crate::{Error, Result};

pub fn deform_conv(a: &Attributes) -> Result<Run> {
    let window = Window::new(a)?;
    let groups = checked_size(a.int("group", 1)?, "group")?;
    let offset_groups = checked_size(a.int("offset_group", 1)?, "offset_group")?;
    one(move |inputs| {
        let (x, weight, offset) = (inputs.real(0)?, inputs.real(1)?, inputs.real(2)?);
        let ((n, c, ..), (o, _, kh, kw)) = (x.dims4()?, weight.dims4()?);
        let lines = window.along_axes(x, [kh, kw])?;
        let (oh, ow) = (lines[0].results()?, lines[1].results()?);
        let (taps, positions) = (kh * kw, oh * ow);
        let whole = groups > 0 && offset_groups > 0 && c.is_multiple_of(groups) && o.is_multiple_of(groups);
        let fits = whole && c.is_multiple_of(offset_groups) && weight.dim(1)? == c / groups;
        if !fits || offset.dims() != [n, offset_groups * taps * 2, oh, ow] {
            let (a, b, d) = (x.dims(), weight.dims(), offset.dims());
            return Err(Error::input(format!("{a:?}, weights {b:?} and offsets {d:?} do not fit")));
        }
        checked_count(&[n, c, taps, positions])?;
        let offset = offset.contiguous()?.reshape((n, offset_groups, taps, 2, positions))?;
        // Where each entry of the window would be without offsets, (taps, positions).
        let base = |axis: usize| -> Result<Tensor> {
            let (line, mut places) = (lines[axis], Vec::with_capacity(taps * positions));
            for tap in 0..taps {
                let tap = if axis == 0 { tap / kw } else { tap % kw };
                for position in 0..positions {
                    let position = if axis == 0 { position / ow } else { position % ow };
                    places.push((position * line.stride + tap * line.dilation) as f32 - line.before as f32);
                }
            }
            placed(&Tensor::from_vec(places, (taps, positions), &Device::Cpu)?, inputs)
        };
        let bases = [base(0)?, base(1)?];
        let mut columns = Vec::with_capacity(offset_groups);
        let each = c / offset_groups;
        for group in 0..offset_groups {
            let own = offset.narrow(1, group, 1)?.squeeze(1)?;
            let points = |axis: usize| -> Result<Tensor> {
                let moved = own.narrow(2, axis, 1)?.squeeze(2)?.broadcast_add(&bases[axis])?;
                Ok(moved.contiguous()?.reshape((n, taps * positions))?)
            };
            let part = x.narrow(1, group * each, each)?;
            let read = sample(&part, [&points(0)?, &points(1)?], Kernel::Linear, Outside::Zeros)?;
            let read = read.reshape((n, each, taps, positions))?;
            columns.push(match inputs.optional_real(4)? {
                None => read,
                Some(mask) if mask.dims() == [n, offset_groups * taps, oh, ow] => {
                    let mask = mask.contiguous()?.reshape((n, offset_groups, taps, positions))?;
                    read.broadcast_mul(&mask.narrow(1, group, 1)?)?
                }
                Some(mask) => return Err(Error::input(format!("a mask {:?} does not fit", mask.dims()))),
            });
        }
        let columns = Tensor::cat(&columns, 1)?.reshape((n, groups, c / groups * taps, positions))?;
        let weight = weight.contiguous()?.reshape((1, groups, o / groups, c / groups * taps))?;
        let y = weight.broadcast_matmul(&columns)?.reshape((n, o, oh, ow))?;
        match inputs.optional_real(3)? {
            None => Ok(y),
            Some(bias) if bias.dims() == [o] => Ok(y.broadcast_add(&bias.reshape((1, o, 1, 1))?)?),
            Some(bias) => Err(Error::input(format!("bias {:?} does not fit {o} channels", bias.dims()))),
        }
    })
}
