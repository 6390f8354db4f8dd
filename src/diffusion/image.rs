//! Pictures: 8-bit RGB at the edges, tensors in [-1, 1] inside.
//!
//! Knows files and resizing. Knows no model.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
pub use image::RgbImage;
use image::{DynamicImage, ImageError, ImageFormat, imageops};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How a picture is resized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// Nearest pixel.
    Nearest,
    /// Triangle kernel, widened when shrinking.
    Bilinear,
    /// Keys' cubic (a = −0.5), widened when shrinking: PyTorch's bicubic with antialias.
    #[default]
    Bicubic,
    /// Lanczos with three lobes, widened when shrinking.
    Lanczos,
}

/// Reads a PNG, JPEG or WebP as 8-bit RGB; transparency is laid over white.
pub fn load(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let picture = image::load_from_memory(&bytes).map_err(|e| {
        let what = match e {
            ImageError::Unsupported(_) => "not a picture in a format that is read here (PNG, JPEG, WebP)".to_string(),
            e => format!("not a whole picture: {e}"),
        };
        Error::Input(format!("{}: {what}", path.display()))
    })?;
    Ok(match picture {
        p if !p.color().has_alpha() => p.into_rgb8(),
        p => {
            let rgba = p.into_rgba8();
            RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
                let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u32::from);
                image::Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
            })
        }
    })
}

/// Encodes as PNG.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture.clone())
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|e| Error::Input(format!("cannot encode a {}×{} PNG: {e}", picture.width(), picture.height())))?;
    Ok(bytes.into_inner())
}

/// (3, H, W) or (1, 3, H, W) in [-1, 1] → 8-bit, rounded half to even as diffusers' image processor does.
pub fn from_tensor(x: &Tensor) -> Result<RgbImage> {
    let x = if x.rank() == 4 { x.squeeze(0)? } else { x.clone() };
    let (c, h, w) = x.dims3()?;
    if c != 3 {
        return Err(Error::input(format!("a picture has 3 channels, not {c}")));
    }
    let x = x.to_dtype(DType::F32)?.permute((1, 2, 0))?.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
    if x.iter().any(|v| !v.is_finite()) {
        return Err(Error::input("the picture holds NaN or infinity: the sampling diverged"));
    }
    let bytes = x.iter().map(|v| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8).collect();
    RgbImage::from_raw(w as u32, h as u32, bytes).ok_or_else(|| Error::input("a picture of no size"))
}

/// 8-bit → (1, 3, H, W) in [-1, 1].
pub fn to_tensor(picture: &RgbImage, dtype: DType, device: &Device) -> Result<Tensor> {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let x: Vec<f32> = picture.as_raw().iter().map(|&v| f32::from(v) / 255.0 * 2.0 - 1.0).collect();
    Ok(Tensor::from_vec(x, (1, h, w, 3), &Device::Cpu)?
        .permute((0, 3, 1, 2))?
        .contiguous()?
        .to_dtype(dtype)?
        .to_device(device)?)
}

/// Resizes (B, C, H, W) to (B, C, h, w), unclamped, in f32 on the CPU: a matrix a direction, so that it is exact and
/// plain to read. The kernels are those of PyTorch's antialiased `interpolate` and of PIL.
pub fn resize(x: &Tensor, height: usize, width: usize, how: Resampling) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    if height == 0 || width == 0 || h == 0 || w == 0 {
        return Err(Error::input(format!("cannot resize {w}×{h} to {width}×{height}")));
    }
    let rows = kernel_matrix(h, height, how, x.device())?.to_dtype(x.dtype())?;
    let columns = kernel_matrix(w, width, how, x.device())?.to_dtype(x.dtype())?.t()?;
    Ok(rows.broadcast_matmul(&x.contiguous()?.broadcast_matmul(&columns)?)?)
}

/// (to, from): row i holds the weights of the source pixels for output pixel i.
fn kernel_matrix(from: usize, to: usize, how: Resampling, device: &Device) -> Result<Tensor> {
    let scale = from as f64 / to as f64;
    let mut m = vec![0f32; from * to];
    for i in 0..to {
        let row = &mut m[i * from..(i + 1) * from];
        if how == Resampling::Nearest {
            row[((i as f64 * scale) as usize).min(from - 1)] = 1.0;
            continue;
        }
        let (support, kernel): (f64, fn(f64) -> f64) = match how {
            Resampling::Bilinear => (1.0, |x| (1.0 - x.abs()).max(0.0)),
            Resampling::Lanczos => (3.0, |x| if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 }),
            _ => (2.0, keys),
        };
        let stretch = scale.max(1.0);
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support * stretch + 0.5).floor().max(0.0) as usize;
        let last = ((centre + support * stretch + 0.5).floor() as usize).min(from);
        let weights: Vec<f64> = (first..last).map(|j| kernel((j as f64 - centre + 0.5) / stretch)).collect();
        let total: f64 = weights.iter().sum();
        for (j, weight) in weights.iter().enumerate() {
            row[first + j] = (weight / total) as f32;
        }
    }
    Ok(Tensor::from_vec(m, (to, from), &Device::Cpu)?.to_device(device)?)
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) }
}

/// Keys' cubic convolution kernel with a = −0.5.
fn keys(x: f64) -> f64 {
    let x = x.abs();
    let a = -0.5;
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// A copy of `picture` fitted into a cell, centred on `ground`: for contact sheets.
pub fn fit(picture: &RgbImage, width: u32, height: u32, ground: image::Rgb<u8>) -> RgbImage {
    let scale = (f64::from(width) / f64::from(picture.width())).min(f64::from(height) / f64::from(picture.height()));
    let side = |n: u32, most: u32| ((f64::from(n) * scale).round() as u32).clamp(1, most);
    let (w, h) = (side(picture.width(), width), side(picture.height(), height));
    let scaled = imageops::resize(picture, w, h, imageops::FilterType::CatmullRom);
    let mut cell = RgbImage::from_pixel(width, height, ground);
    imageops::overlay(&mut cell, &scaled, i64::from((width - w) / 2), i64::from((height - h) / 2));
    cell
}
