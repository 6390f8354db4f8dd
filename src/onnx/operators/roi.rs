//! RoiAlign: means or maxima of samples in the bins of regions.

use candle_core::{DType, Tensor};

use super::reduce::extreme;
use super::sample::{Kernel, Outside, products};
use super::{Run, one};
use crate::attributes::Attributes;
use crate::dims::{checked_count, checked_size};
use crate::{Error, Result};

/// The attributes of a node.
struct Settings {
    mean: bool,
    half_pixel: bool,
    /// How many bins a region has along each axis.
    bins: [usize; 2],
    /// How many samples a bin has along each axis; 0 for about one in each pixel.
    ratio: usize,
    scale: f64,
}

/// The regions are constants: they pass no gradient.
pub fn roi_align(a: &Attributes) -> Result<Run> {
    let mean = match a.text("mode", "avg")?.as_str() {
        "avg" => true,
        "max" => false,
        other => return Err(Error::input(format!("mode {other:?} is not supported"))),
    };
    let default = if a.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = match a.text("coordinate_transformation_mode", default)?.as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return Err(Error::input(format!("coordinate_transformation_mode {other:?} is not supported"))),
    };
    let size = |name, default| checked_size(a.int(name, default)?, name);
    let bins = [size("output_height", 1)?.max(1), size("output_width", 1)?.max(1)];
    let settings =
        Settings { mean, half_pixel, bins, ratio: size("sampling_ratio", 0)?, scale: a.float("spatial_scale", 1.0)? };
    one(move |inputs| {
        let (image, rois, batch) = (inputs.real(0)?, inputs.real(1)?, inputs.ints(2)?);
        let (n, c, ..) = image.dims4()?;
        let rois: Vec<Vec<f64>> = rois.detach().to_dtype(DType::F64)?.to_vec2()?;
        if rois.len() != batch.len() || rois.iter().any(|roi| roi.len() != 4 || roi.iter().any(|x| !x.is_finite())) {
            return Err(Error::input("each region must have four finite coordinates and an image"));
        }
        checked_count(&[rois.len(), c, settings.bins[0], settings.bins[1]])?;
        let mut regions = Vec::with_capacity(rois.len());
        for (roi, index) in rois.iter().zip(&batch) {
            let at = usize::try_from(*index).ok().filter(|i| *i < n);
            let at = at.ok_or_else(|| Error::input(format!("there is no image {index} among {n}")))?;
            regions.push(settings.region(&image.narrow(0, at, 1)?, roi)?);
        }
        Ok(Tensor::stack(&regions, 0)?)
    })
}

impl Settings {
    /// One region [x₀, y₀, x₁, y₁] of an image (1, C, H, W), (C, bins, bins).
    fn region(&self, image: &Tensor, roi: &[f64]) -> Result<Tensor> {
        let (_, c, h, w) = image.dims4()?;
        let (mut points, mut ratios) = (vec![], [0; 2]);
        for (i, size) in [h, w].into_iter().enumerate() {
            let offset = if self.half_pixel { 0.5 } else { 0.0 };
            let (start, end) = (roi[1 - i] * self.scale - offset, roi[3 - i] * self.scale - offset);
            let length = if self.half_pixel { end - start } else { (end - start).max(1.0) };
            let adaptive = (length / self.bins[i] as f64).ceil().clamp(1.0, 1e6) as usize;
            ratios[i] = if self.ratio > 0 { self.ratio } else { adaptive };
            checked_count(&[c, self.bins[i], ratios[i]])?;
            points.push(places(start, length, self.bins[i], ratios[i], size));
        }
        let (rows, columns) = (points[0].len(), points[1].len());
        checked_count(&[c, rows, columns])?;
        let grid = |numbers: Vec<f32>| -> Result<Tensor> {
            Ok(Tensor::from_vec(numbers, (1, rows * columns), image.device())?.to_dtype(image.dtype())?)
        };
        let y = grid(points[0].iter().flat_map(|y| std::iter::repeat_n(*y, columns)).collect())?;
        let x = grid(points[1].iter().copied().cycle().take(rows * columns).collect())?;
        let taps = products(image, [&y, &x], Kernel::Linear, Outside::Zeros)?;
        let taps = Tensor::stack(&taps, 0)?;
        let taps = taps.reshape(vec![taps.dim(0)?, c, self.bins[0], ratios[0], self.bins[1], ratios[1]])?;
        if self.mean {
            return Ok(taps.sum(0)?.mean((2, 4))?);
        }
        // The maximum is over pixels times weights, as in onnxruntime.
        Ok(extreme(&taps, &[0, 3, 5], true)?.squeeze(5)?.squeeze(3)?.squeeze(0)?)
    }
}

/// The places of samples along an axis with `size` pixels. Those beyond the image are far away.
fn places(start: f64, length: f64, bins: usize, ratio: usize, size: usize) -> Vec<f32> {
    let bin = length / bins as f64;
    let place = |i: usize| start + (i / ratio) as f64 * bin + ((i % ratio) as f64 + 0.5) * bin / ratio as f64;
    let within = |x: f64| if (-1.0..=size as f64).contains(&x) { x.clamp(0.0, (size - 1) as f64) } else { -9.0 };
    (0..bins * ratio).map(|i| within(place(i)) as f32).collect()
}
