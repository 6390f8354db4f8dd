//! Resizing: along each axis a selection of entries (nearest) or a product with a matrix (linear, cubic).

use candle_core::{Device, Tensor};

use super::{Inputs, Run, one};
use crate::attributes::Attributes;
use crate::axes::along;
use crate::dims::{checked_axis, checked_count, checked_size};
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Nearest(Rounding),
    Linear,
    /// With the coefficient of the kernel.
    Cubic(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    RoundDown,
    RoundUp,
    Floor,
    Ceil,
}

/// How the coordinate of a result maps to a coordinate of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    HalfPixelOrFirst,
    AlignCorners,
    Asymmetric,
}

impl Coordinates {
    fn source(self, i: usize, from: usize, to: usize, scale: f64) -> f64 {
        let i = i as f64;
        match self {
            Coordinates::HalfPixelOrFirst if to == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::HalfPixelOrFirst => (i + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = to as f64 / (from as f64 * scale);
                from as f64 / 2.0 * (1.0 - adjustment) + (i + 0.5) / scale - 0.5
            }
            Coordinates::AlignCorners if to == 1 => 0.0,
            Coordinates::AlignCorners => i * (from - 1) as f64 / (to - 1) as f64,
            Coordinates::Asymmetric => i / scale,
        }
    }
}

/// `Resize`, and the older `Upsample`, which only has other defaults.
pub fn resize(a: &Attributes) -> Result<Run> {
    let given_scales = a.floats("scales")?;
    let old = a.opset < 11;
    let rounding = match a.text("nearest_mode", if old { "floor" } else { "round_prefer_floor" })?.as_str() {
        "round_prefer_floor" => Rounding::RoundDown,
        "round_prefer_ceil" => Rounding::RoundUp,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        other => return Err(Error::input(format!("nearest_mode {other:?} is not supported"))),
    };
    let cubic = a.float("cubic_coeff_a", -0.75)?;
    let mode = match a.text("mode", "nearest")?.as_str() {
        "nearest" => Mode::Nearest(rounding),
        "linear" | "bilinear" => Mode::Linear,
        "cubic" => Mode::Cubic(cubic),
        other => return Err(Error::input(format!("mode {other:?} is not supported"))),
    };
    let default = if old { "asymmetric" } else { "half_pixel" };
    let coordinates = match a.text("coordinate_transformation_mode", default)?.as_str() {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::HalfPixelOrFirst,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        other => return Err(Error::input(format!("coordinate_transformation_mode {other:?} is not supported"))),
    };
    let antialias = a.flag("antialias", false)?;
    let inside = a.flag("exclude_outside", false)?;
    let axes = a.ints("axes")?;
    a.ignore("extrapolation_value");
    let policy = a.text("keep_aspect_ratio_policy", "stretch")?;
    if policy != "stretch" {
        return Err(Error::input(format!("keep_aspect_ratio_policy {policy:?} is not supported")));
    }
    one(move |inputs| {
        let x = inputs.real(0)?;
        let axes = match &axes {
            Some(axes) => axes.iter().map(|n| checked_axis(*n, x.rank())).collect::<Result<Vec<_>>>()?,
            None => (0..x.rank()).collect(),
        };
        let targets = targets(inputs, x, &axes, given_scales.as_deref(), old)?;
        let mut y = x.clone();
        for (&axis, (to, scale)) in axes.iter().zip(targets) {
            let from = x.dims()[axis];
            if to == from && scale == 1.0 {
                continue;
            }
            let source = |i: usize| coordinates.source(i, from, to, scale);
            y = match mode {
                Mode::Nearest(rounding) => {
                    y.index_select(&nearest_indices(rounding, source, from, to, x.device())?, axis)?
                }
                Mode::Linear | Mode::Cubic(_) => {
                    let stretch = if antialias && scale < 1.0 { scale } else { 1.0 };
                    along(&y, axis, &weights(mode, source, from, to, stretch, inside, x.device())?)?
                }
            };
        }
        Ok(y)
    })
}

/// Size and scale of each axis, from the argument that gives them.
fn targets(
    inputs: &Inputs,
    x: &Tensor,
    axes: &[usize],
    scales: Option<&[f32]>,
    old: bool,
) -> Result<Vec<(usize, f64)>> {
    // The arguments are (X, scales) up to opset 10, and (X, roi, scales, sizes) later.
    let argument = inputs.floats(if old { 1 } else { 2 })?.filter(|s| !s.is_empty());
    let scales = argument.or_else(|| scales.map(<[f32]>::to_vec));
    let from = |axis: usize| x.dims()[axis] as f64;
    let targets: Vec<(usize, f64)> = match (scales, inputs.optional(3)) {
        (_, Some(_)) => {
            let sizes = inputs.ints(3)?.into_iter().map(|n| checked_size(n, "size")).collect::<Result<Vec<_>>>()?;
            axes.iter().zip(sizes).map(|(axis, to)| (to, to as f64 / from(*axis))).collect()
        }
        (Some(scales), None) => {
            let to = |axis: usize, scale: f32| (from(axis) * f64::from(scale)).floor();
            let sized = axes.iter().zip(scales).map(|(axis, scale)| (to(*axis, scale) as usize, f64::from(scale)));
            sized.collect()
        }
        (None, None) => return Err(Error::input("scales and sizes are both missing")),
    };
    let possible = targets.iter().all(|(to, scale)| *to > 0 && scale.is_finite() && *scale > 0.0);
    if targets.len() != axes.len() || !possible {
        return Err(Error::input(format!("{:?} cannot be resized to {targets:?} (size, scale)", x.dims())));
    }
    let mut dims = x.dims().to_vec();
    for (axis, (to, _)) in axes.iter().zip(&targets) {
        dims[*axis] = *to;
        checked_count(&dims)?;
    }
    Ok(targets)
}

fn nearest_indices(
    rounding: Rounding,
    source: impl Fn(usize) -> f64,
    from: usize,
    to: usize,
    device: &Device,
) -> Result<Tensor> {
    let round = |x: f64| match rounding {
        Rounding::RoundDown => (x - 0.5).ceil(),
        Rounding::RoundUp => (x + 0.5).floor(),
        Rounding::Floor => x.floor(),
        Rounding::Ceil => x.ceil(),
    };
    let index: Vec<u32> = (0..to).map(|i| round(source(i)).clamp(0.0, (from - 1) as f64) as u32).collect();
    Ok(Tensor::from_vec(index, to, device)?)
}

/// The matrix (to, from) of an axis. For antialiasing the kernel is `1 / stretch` times as wide. Beyond the ends the
/// border entry is repeated.
fn weights(
    mode: Mode,
    source: impl Fn(usize) -> f64,
    from: usize,
    to: usize,
    stretch: f64,
    inside: bool,
    device: &Device,
) -> Result<Tensor> {
    let (radius, kernel): (f64, Box<dyn Fn(f64) -> f64>) = match mode {
        Mode::Cubic(a) => (2.0, Box::new(move |x: f64| cubic(x.abs(), a))),
        _ => (1.0, Box::new(|x: f64| (1.0 - x.abs()).max(0.0))),
    };
    let mut matrix = vec![0f32; checked_count(&[to, from])?];
    let last = (from - 1) as i64;
    for (i, row) in matrix.chunks_exact_mut(from).enumerate() {
        let mut at = source(i);
        if mode == Mode::Linear && stretch == 1.0 {
            at = at.clamp(0.0, last as f64);
        }
        let (first, end) = ((at - radius / stretch).ceil() as i64, (at + radius / stretch).floor() as i64);
        let taps: Vec<(i64, f64)> = (first..=end).map(|j| (j, kernel((j as f64 - at) * stretch))).collect();
        let counted = taps.iter().filter(|(j, _)| !inside || (0..=last).contains(j));
        let sum: f64 = counted.clone().map(|(_, w)| w).sum();
        for (j, w) in counted {
            row[(*j).clamp(0, last) as usize] += (w / sum) as f32;
        }
    }
    Ok(Tensor::from_vec(matrix, (to, from), device)?)
}

fn cubic(x: f64, a: f64) -> f64 {
    match x {
        x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}
