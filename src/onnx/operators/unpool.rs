//! Where the maxima of max pooling are, and its partial inverse.

use candle_core::{DType, Device, Tensor};

use super::window::{AxisWindow, Window, as_given, as_image};
use super::{Run, ints, one};
use crate::attributes::Attributes;
use crate::dims::{checked_count, checked_size};
use crate::{Error, Result};

/// For each result of max pooling an image (B, C, H, W), the index of the first maximum in the whole image, as if it were
/// flat. With `columns_first`, rows are counted before columns.
pub fn argmax(x: &Tensor, [down, right]: [AxisWindow; 2], results: [usize; 2], columns_first: bool) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let numbers: Vec<f64> = x.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    let taps = |l: AxisWindow, i: usize| {
        let places = (0..l.kernel).map(move |t| i * l.stride + t * l.dilation);
        places.filter_map(move |at| at.checked_sub(l.before).filter(|at| *at < l.size)).collect::<Vec<_>>()
    };
    let mut found = Vec::with_capacity(checked_count(&[b, c, results[0], results[1]])?);
    let across: Vec<_> = (0..results[1]).map(|j| taps(right, j)).collect();
    for (plane, numbers) in numbers.chunks_exact(h * w).enumerate() {
        for i in 0..results[0] {
            let rows = taps(down, i);
            for columns in &across {
                let mut best = (f64::NEG_INFINITY, 0);
                for &row in &rows {
                    for &column in columns {
                        if numbers[row * w + column] > best.0 {
                            best = (
                                numbers[row * w + column],
                                if columns_first { column * h + row } else { row * w + column },
                            );
                        }
                    }
                }
                found.push((plane * h * w + best.1) as i64);
            }
        }
    }
    Ok(Tensor::from_vec(found, (b, c, results[0], results[1]), &Device::Cpu)?)
}

/// Puts numbers where the maxima were, with zeros between.
pub fn max_unpool(a: &Attributes) -> Result<Run> {
    let window = Window::new(a)?;
    let kernel = window.required()?;
    one(move |inputs| {
        let (given, index) = (inputs.real(0)?, inputs.get(1)?);
        window.check_rank(given.rank())?;
        let x = as_image(given)?;
        let (b, c, h, w) = x.dims4()?;
        let mut dims = [b, c, h, w];
        for (i, (before, after)) in window.pads.into_iter().enumerate() {
            let full = (dims[i + 2] - 1).saturating_mul(window.stride[i]).saturating_add(kernel[i]);
            let size = full.checked_sub(before + after).filter(|n| *n > 0);
            dims[i + 2] = size.ok_or_else(|| Error::input("nothing is left beside the padding"))?;
        }
        let total = checked_count(&dims)?;
        let place = |at: i64| usize::try_from(at).ok().filter(|at| *at < total).map(|at| at as u32);
        let places: Option<Vec<u32>> = ints(index)?.into_iter().map(place).collect();
        let count = b * c * h * w;
        let places = places.filter(|places| places.len() == count);
        let places = places.ok_or_else(|| Error::input(format!("the indices do not lie in {dims:?}")))?;
        let places = Tensor::from_vec(places, count, x.device())?;
        let zeros = Tensor::zeros(total, x.dtype(), x.device())?;
        let mut y = zeros.index_add(&places, &x.contiguous()?.flatten_all()?, 0)?.reshape(&dims[..])?;
        if let Some(wanted) = inputs.optional_ints(2)? {
            let wanted = wanted.into_iter().map(|n| checked_size(n, "dimension")).collect::<Result<Vec<_>>>()?;
            let spatial = wanted.get(2..).unwrap_or_default();
            if wanted.len() != given.rank() || wanted[..2] != [b, c] {
                return Err(Error::input(format!("{:?} cannot be unpooled to {wanted:?}", given.dims())));
            }
            for (i, size) in spatial.iter().rev().enumerate() {
                let axis = 3 - i;
                let more = size.checked_sub(dims[axis]);
                let more = more.ok_or_else(|| Error::input(format!("{wanted:?} is smaller than {dims:?}")))?;
                dims[axis] = *size;
                checked_count(&dims)?;
                y = y.pad_with_zeros(axis, 0, more)?;
            }
        }
        as_given(y, given)
    })
}
