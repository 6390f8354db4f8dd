//! Reads images at points between their pixels: GridSample, and what RoiAlign and DeformConv need.
//!
//! A sample is a sum of pixels, each with a weight that is a polynomial of the point's coordinates. It is differentiable
//! with respect to the image and to the points.

use candle_core::{DType, Device, Tensor};

use super::{Run, one};
use crate::attributes::Attributes;
use crate::dims::checked_count;
use crate::{Error, Result};

/// What lies outside of an image.
#[derive(Clone, Copy, PartialEq)]
pub enum Outside {
    Zeros,
    Border,
    /// Mirrored at these places, the same for each axis: the centre of the border pixels (0), or their edge (0.5).
    Mirror(f64),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kernel {
    Nearest,
    Linear,
    Cubic,
}

/// The pixels along one axis that the samples of (N, P) points take, with their weights.
struct AxisTaps {
    /// For each tap the pixel at each point; `None` outside of the image.
    pixels: Vec<Vec<Option<u32>>>,
    /// For each tap the weights (N, P).
    weights: Vec<Tensor>,
}

/// The place of `x`, mirrored at `low` and `high` until it is between them, and whether it runs backwards there.
fn mirrored(x: f64, low: f64, high: f64) -> (f64, bool) {
    let range = high - low;
    if range <= 0.0 {
        return (low, false);
    }
    let along = (x - low).rem_euclid(2.0 * range);
    if along > range { (low + 2.0 * range - along, true) } else { (low + along, false) }
}

impl AxisTaps {
    /// `points` (N, P) are coordinates of an axis with `n` pixels; 0 is the centre of the first.
    fn new(points: &Tensor, n: usize, kernel: Kernel, outside: Outside) -> Result<Self> {
        let places: Vec<f64> = points.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let last = (n - 1) as f64;
        let (low, high) = match outside {
            Outside::Mirror(edge) => (-edge, last + edge),
            _ => (-0.5, last + 0.5),
        };
        // The coordinate within a pixel is factor · point + offset.
        let (mut first, mut factors, mut offsets) = (vec![], vec![], vec![]);
        for place in places {
            let place = if place.is_finite() { place.clamp(-1e9, 1e9) } else { -1e9 };
            let (moved, factor) = match outside {
                Outside::Border if place < low || place > high => (place.clamp(0.0, last), 0.0),
                Outside::Border if kernel == Kernel::Linear => {
                    (place.clamp(0.0, last), f64::from(u8::from((0.0..=last).contains(&place))))
                }
                Outside::Mirror(_) => {
                    let (moved, back) = mirrored(place, low, high);
                    (moved, if back { -1.0 } else { 1.0 })
                }
                _ => (place, 1.0),
            };
            let start = if kernel == Kernel::Nearest { moved.round_ties_even() } else { moved.floor() };
            first.push(start as i64);
            factors.push(factor as f32);
            offsets.push(moved - factor * place - start);
        }
        let reach = match kernel {
            Kernel::Nearest => 0..=0,
            Kernel::Linear => 0..=1,
            Kernel::Cubic => -1..=2,
        };
        let pixel = |at: i64| match outside {
            Outside::Zeros => (0..n as i64).contains(&at).then_some(at as u32),
            Outside::Border => Some(at.clamp(0, n as i64 - 1) as u32),
            Outside::Mirror(_) => Some((mirrored(at as f64, low, high).0.round().clamp(0.0, last)) as u32),
        };
        let pixels = reach.map(|tap| first.iter().map(|start| pixel(start + tap)).collect()).collect();
        let like =
            |numbers: Tensor| numbers.reshape(points.shape())?.to_dtype(points.dtype())?.to_device(points.device());
        let count = factors.len();
        let factors = like(Tensor::from_vec(factors, count, &Device::Cpu)?)?;
        let offsets = like(Tensor::from_vec(offsets, count, &Device::Cpu)?)?;
        let t = ((points * factors)? + offsets)?;
        let weights = match kernel {
            Kernel::Nearest => vec![t.detach().ones_like()?],
            Kernel::Linear => vec![t.affine(-1.0, 1.0)?, t],
            Kernel::Cubic => {
                vec![far((&t + 1.0)?)?, near(t.clone())?, near(t.affine(-1.0, 1.0)?)?, far(t.affine(-1.0, 2.0)?)?]
            }
        };
        Ok(AxisTaps { pixels, weights })
    }
}

/// The coefficient of the cubic kernel, as in torch.
const CUBIC: f64 = -0.75;

/// The cubic kernel at a distance of at most 1.
fn near(t: Tensor) -> Result<Tensor> {
    Ok(((t.affine(CUBIC + 2.0, -(CUBIC + 3.0))? * t.sqr()?)? + 1.0)?)
}

/// The cubic kernel at a distance of 1 to 2.
fn far(t: Tensor) -> Result<Tensor> {
    Ok(((((t.affine(CUBIC, -5.0 * CUBIC)? * &t)? + 8.0 * CUBIC)? * &t)? + -4.0 * CUBIC)?)
}

/// The pixels of an image (N, C, H, W) at points (N, P), each times its weight: tensors (N, C, P), whose sum is the sample.
pub fn products(image: &Tensor, [y, x]: [&Tensor; 2], kernel: Kernel, outside: Outside) -> Result<Vec<Tensor>> {
    let (n, c, h, w) = image.dims4()?;
    let (_, p) = y.dims2()?;
    checked_count(&[n, c, p])?;
    let flat = image.contiguous()?.reshape((n, c, h * w))?;
    let (rows, columns) = (AxisTaps::new(y, h, kernel, outside)?, AxisTaps::new(x, w, kernel, outside)?);
    let mut products = Vec::with_capacity(rows.pixels.len() * columns.pixels.len());
    for (row, across) in rows.pixels.iter().zip(&rows.weights) {
        for (column, along) in columns.pixels.iter().zip(&columns.weights) {
            let places = row.iter().zip(column).map(|(i, j)| Some((*i)? * w as u32 + (*j)?));
            let (index, inside): (Vec<u32>, Vec<f32>) =
                places.map(|place| (place.unwrap_or(0), f32::from(u8::from(place.is_some())))).unzip();
            let inside = Tensor::from_vec(inside, (n, p), image.device())?.to_dtype(image.dtype())?;
            let index = Tensor::from_vec(index, (n, 1, p), image.device())?;
            let pixels = flat.gather(&index.broadcast_as((n, c, p))?.contiguous()?, 2)?;
            let weight = ((across * along)? * inside)?.unsqueeze(1)?;
            products.push(pixels.broadcast_mul(&weight)?);
        }
    }
    Ok(products)
}

/// Samples an image (N, C, H, W) at points (N, P): (N, C, P).
pub fn sample(image: &Tensor, points: [&Tensor; 2], kernel: Kernel, outside: Outside) -> Result<Tensor> {
    let mut products = products(image, points, kernel, outside)?.into_iter();
    let first = products.next().ok_or_else(|| Error::input("there is no tap"))?;
    Ok(products.try_fold(first, |sum, term| sum + term)?)
}

pub fn grid_sample(a: &Attributes) -> Result<Run> {
    let kernel = match a.text("mode", "linear")?.as_str() {
        "linear" | "bilinear" => Kernel::Linear,
        "nearest" => Kernel::Nearest,
        "cubic" | "bicubic" => Kernel::Cubic,
        other => return Err(Error::input(format!("mode {other:?} is not supported"))),
    };
    let corners = a.flag("align_corners", false)?;
    let outside = match a.text("padding_mode", "zeros")?.as_str() {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Mirror(if corners { 0.0 } else { 0.5 }),
        other => return Err(Error::input(format!("padding_mode {other:?} is not supported"))),
    };
    one(move |inputs| {
        let (image, grid) = (inputs.real(0)?, inputs.real(1)?);
        let (&[n, c, h, w], &[m, rows, columns, 2]) = (image.dims(), grid.dims()) else {
            let (a, b) = (image.dims(), grid.dims());
            return Err(Error::input(format!("{a:?} and {b:?} are not (N, C, H, W) and (N, H, W, 2)")));
        };
        if n != m {
            return Err(Error::input(format!("a batch of {n} does not fit a grid for {m}")));
        }
        // From [-1, 1] to pixels.
        let points = |i: usize, size: usize| -> Result<Tensor> {
            let size = size as f64;
            let (factor, offset) =
                if corners { ((size - 1.0) / 2.0, (size - 1.0) / 2.0) } else { (size / 2.0, (size - 1.0) / 2.0) };
            Ok(grid.narrow(3, i, 1)?.contiguous()?.reshape((n, rows * columns))?.affine(factor, offset)?)
        };
        let y = sample(image, [&points(1, h)?, &points(0, w)?], kernel, outside)?;
        Ok(y.reshape((n, c, rows, columns))?)
    })
}
