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
    /// Of a region, as in TensorFlow's `crop_and_resize`.
    Region,
}

impl Coordinates {
    fn source(self, i: usize, from: usize, to: usize, scale: f64, (start, end): (f64, f64)) -> f64 {
        let (i, last) = (i as f64, from as f64 - 1.0);
        match self {
            Coordinates::HalfPixelOrFirst if to == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::HalfPixelOrFirst => (i + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = to as f64 / (from as f64 * scale);
                from as f64 / 2.0 * (1.0 - adjustment) + (i + 0.5) / scale - 0.5
            }
            Coordinates::AlignCorners if to == 1 => 0.0,
            Coordinates::AlignCorners => i * last / (to - 1) as f64,
            Coordinates::Asymmetric => i / scale,
            Coordinates::Region if to == 1 => 0.5 * (start + end) * last,
            Coordinates::Region => start * last + i * (end - start) * last / (to - 1) as f64,
        }
    }
}

/// How sizes that would change the aspect ratio are used.
#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

/// The attributes of a node.
struct Settings {
    mode: Mode,
    coordinates: Coordinates,
    antialias: bool,
    /// Whether the kernel leaves out what lies outside.
    inside: bool,
    axes: Option<Vec<i64>>,
    scales: Option<Vec<f32>>,
    policy: Policy,
    /// The value outside of the image, if a region is resized.
    outside: f64,
    old: bool,
}

/// An axis to resize.
#[derive(Clone, Copy, Debug)]
struct Target {
    axis: usize,
    to: usize,
    scale: f64,
    /// Start and end of the region, from 0 to 1.
    region: (f64, f64),
}

impl Settings {
    fn new(a: &Attributes) -> Result<Self> {
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
            "tf_crop_and_resize" => Coordinates::Region,
            other => return Err(Error::input(format!("coordinate_transformation_mode {other:?} is not supported"))),
        };
        let policy = match a.text("keep_aspect_ratio_policy", "stretch")?.as_str() {
            "stretch" => Policy::Stretch,
            "not_larger" => Policy::NotLarger,
            "not_smaller" => Policy::NotSmaller,
            other => return Err(Error::input(format!("keep_aspect_ratio_policy {other:?} is not supported"))),
        };
        Ok(Settings {
            mode,
            coordinates,
            antialias: a.flag("antialias", false)?,
            inside: a.flag("exclude_outside", false)?,
            axes: a.ints("axes")?,
            scales: a.floats("scales")?,
            policy,
            outside: a.float("extrapolation_value", 0.0)?,
            old,
        })
    }

    fn resize(&self, inputs: &Inputs) -> Result<Tensor> {
        let x = inputs.real(0)?;
        let mut y = x.clone();
        for target in self.targets(inputs, x)? {
            let Target { axis, to, scale, region } = target;
            let from = x.dims()[axis];
            if to == from && scale == 1.0 && self.coordinates != Coordinates::Region {
                continue;
            }
            let source = |i: usize| self.coordinates.source(i, from, to, scale, region);
            y = match self.mode {
                Mode::Nearest(rounding) => {
                    y.index_select(&nearest_indices(rounding, source, from, to, x.device())?, axis)?
                }
                mode => {
                    let stretch = if self.antialias && scale < 1.0 { scale } else { 1.0 };
                    along(&y, axis, &weights(mode, source, from, to, stretch, self.inside, x.device())?)?
                }
            };
            if self.coordinates == Coordinates::Region {
                let inside = |i: usize| u8::from((0.0..=(from - 1) as f64).contains(&source(i)));
                let mut row = vec![1; x.rank()];
                row[axis] = to;
                let inside =
                    Tensor::from_vec((0..to).map(inside).collect(), row, x.device())?.broadcast_as(y.shape())?;
                let outside = (y.detach().zeros_like()? + self.outside)?;
                y = inside.contiguous()?.where_cond(&y, &outside)?;
            }
        }
        Ok(y)
    }

    /// The axes to resize, by the argument that gives their sizes.
    fn targets(&self, inputs: &Inputs, x: &Tensor) -> Result<Vec<Target>> {
        let axes = match &self.axes {
            Some(axes) => axes.iter().map(|n| checked_axis(*n, x.rank())).collect::<Result<Vec<_>>>()?,
            None => (0..x.rank()).collect(),
        };
        let mut regions = vec![(0.0, 1.0); axes.len()];
        if self.coordinates == Coordinates::Region {
            let roi = inputs.floats(1)?.filter(|roi| roi.len() == 2 * axes.len() && roi.iter().all(|x| x.is_finite()));
            let roi = roi.ok_or_else(|| Error::input("its region must have a start and an end for each axis"))?;
            let (starts, ends) = roi.split_at(axes.len());
            regions = starts.iter().zip(ends).map(|(start, end)| (f64::from(*start), f64::from(*end))).collect();
        }
        // The arguments are (X, scales) up to opset 10, and (X, roi, scales, sizes) later.
        let argument = inputs.floats(if self.old { 1 } else { 2 })?.filter(|s| !s.is_empty());
        let scales = argument.or_else(|| self.scales.clone());
        let from = |axis: usize| x.dims()[axis] as f64;
        let sizes: Vec<(usize, f64)> = match (scales, inputs.optional(3)) {
            (_, Some(_)) => {
                let sizes = inputs.ints(3)?.into_iter().map(|n| checked_size(n, "size")).collect::<Result<Vec<_>>>()?;
                let each = axes.iter().zip(sizes).map(|(axis, to)| (to, to as f64 / from(*axis)));
                let ratios = each.clone().map(|(_, scale)| scale);
                let common = match self.policy {
                    Policy::Stretch => None,
                    Policy::NotLarger => ratios.min_by(f64::total_cmp),
                    Policy::NotSmaller => ratios.max_by(f64::total_cmp),
                };
                match common {
                    None => each.collect(),
                    Some(scale) => {
                        axes.iter().map(|axis| ((scale * from(*axis) + 0.5).floor() as usize, scale)).collect()
                    }
                }
            }
            (Some(scales), None) => {
                let sized = axes.iter().zip(&regions).zip(scales).map(|((axis, (start, end)), scale)| {
                    ((from(*axis) * (end - start) * f64::from(scale)).floor() as usize, f64::from(scale))
                });
                sized.collect()
            }
            (None, None) => return Err(Error::input("scales and sizes are both missing")),
        };
        let possible = sizes.iter().all(|(to, scale)| *to > 0 && scale.is_finite() && *scale > 0.0);
        if sizes.len() != axes.len() || !possible {
            return Err(Error::input(format!("{:?} cannot be resized to {sizes:?} (size, scale)", x.dims())));
        }
        let mut dims = x.dims().to_vec();
        for (axis, (to, _)) in axes.iter().zip(&sizes) {
            dims[*axis] = *to;
            checked_count(&dims)?;
        }
        let targets = axes.into_iter().zip(sizes).zip(regions);
        Ok(targets.map(|((axis, (to, scale)), region)| Target { axis, to, scale, region }).collect())
    }
}

/// `Resize`, and the older `Upsample`, which only has other defaults.
pub fn resize(a: &Attributes) -> Result<Run> {
    let settings = Settings::new(a)?;
    one(move |inputs| settings.resize(inputs))
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
