//! Converts, writes and resizes images: 8-bit RGB for callers, tensors in [-1, 1] for networks.

use candle_core::{DType, Device, Tensor};
pub use image::RgbImage;
use image::imageops;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::image_file::{MAX_PIXELS, MAX_SIDE, decode, dimensions, load, room, too_large};
use crate::{Constants, Error, Result};

/// A resampling kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Resampling {
    /// The nearest pixel.
    Nearest,
    /// A triangle, widened when the image shrinks.
    Bilinear,
    /// Keys' cubic (a = −0.5), widened when the image shrinks: PyTorch's bicubic with antialias.
    #[default]
    Bicubic,
    /// Lanczos with three lobes, widened when the image shrinks.
    Lanczos,
}

/// Encodes an image as PNG with 8 bits for each channel, and with text chunks: keyword (1 to 79 characters of Latin-1) and
/// text.
///
/// # Errors
/// If a keyword is invalid.
pub fn png(picture: &RgbImage, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let (width, height) = picture.dimensions();
    let encode = || {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        for (keyword, text) in texts {
            let mut chunk = png::text_metadata::ITXtChunk::new(*keyword, *text);
            chunk.compressed = true;
            writer.write_text_chunk(&chunk)?;
        }
        writer.write_image_data(picture.as_raw())?;
        writer.finish()?;
        Ok(bytes)
    };
    encode().map_err(|e: png::EncodingError| Error::Input(format!("cannot encode a {width}×{height} PNG: {e}")))
}

/// The first bytes of every PNG file.
pub const PNG_SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// The most bytes of an uncompressed text in a PNG file; a longer text is an error.
const MAX_TEXT: usize = 64 << 20;

/// Reads the texts of a PNG file with these keywords, in their order; `None` for those that it does not have. Does not
/// decode the pixels.
///
/// # Errors
/// If it is not a PNG file, or a part that may hold a text is corrupt.
pub fn read_texts<const N: usize>(bytes: &[u8], keywords: [&str; N]) -> Result<[Option<String>; N]> {
    let broken = |e: png::DecodingError| Error::Input(format!("incomplete or corrupt PNG file: {e}"));
    let mut decoder = png::StreamingDecoder::new();
    // Otherwise a text with a wrong checksum would seem to be absent.
    decoder.set_skip_ancillary_crc_failures(false);
    let (mut rest, mut whole) = (bytes, false);
    while !rest.is_empty() && !whole {
        let (used, event) = decoder.update(rest, None).map_err(broken)?;
        rest = &rest[used..];
        whole = matches!(event, png::Decoded::ChunkComplete(png::chunk::IEND));
    }
    let mut found = keywords.map(|_| None);
    for (slot, keyword) in found.iter_mut().zip(keywords) {
        *slot = decoder.info().and_then(|info| text(info, keyword)).transpose().map_err(broken)?;
    }
    if !whole && found.iter().all(Option::is_none) {
        return Err(Error::input("incomplete or corrupt PNG file: it ends too early"));
    }
    Ok(found)
}

/// A text in any of PNG's three kinds of text chunks.
fn text(info: &png::Info<'_>, keyword: &str) -> Option<Result<String, png::DecodingError>> {
    if let Some(chunk) = info.utf8_text.iter().find(|chunk| chunk.keyword == keyword) {
        let mut chunk = chunk.clone();
        return Some(chunk.decompress_text_with_limit(MAX_TEXT).and_then(|()| chunk.get_text()));
    }
    if let Some(chunk) = info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == keyword) {
        let mut chunk = chunk.clone();
        return Some(chunk.decompress_text_with_limit(MAX_TEXT).and_then(|()| chunk.get_text()));
    }
    info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == keyword).map(|chunk| Ok(chunk.text.clone()))
}

/// Converts (3, H, W) or (1, 3, H, W) in [-1, 1] to 8-bit RGB, rounding half to even like diffusers' image processor.
///
/// # Errors
/// If the tensor does not have three channels, or has numbers that are not finite, or if the memory cannot be had.
pub fn from_tensor(x: &Tensor) -> Result<RgbImage> {
    let x = if x.rank() == 4 { x.squeeze(0)? } else { x.clone() };
    let (c, h, w) = x.dims3()?;
    if c != 3 {
        return Err(Error::input(format!("an image has 3 channels, not {c}")));
    }
    // Two copies, and the bytes.
    can_have(&Device::Cpu, 3 * x.elem_count())?;
    let x = x.to_dtype(DType::F32)?.permute((1, 2, 0))?.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
    if x.iter().any(|v| !v.is_finite()) {
        return Err(Error::input("the image has NaN or infinity: the sampling diverged"));
    }
    let bytes = x.iter().map(|v| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8).collect();
    RgbImage::from_raw(w as u32, h as u32, bytes).ok_or_else(|| Error::input("an image of size 0"))
}

/// Converts 8-bit RGB to (1, 3, H, W) in [-1, 1].
///
/// # Errors
/// If the device is out of memory.
pub fn to_tensor(picture: &RgbImage, dtype: DType, device: &Device) -> Result<Tensor> {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let mut x: Vec<f32> = room(picture.as_raw().len())?;
    x.extend(picture.as_raw().iter().map(|&v| f32::from(v) / 255.0 * 2.0 - 1.0));
    Ok(Tensor::from_vec(x, (1, h, w, 3), &Device::Cpu)?
        .permute((0, 3, 1, 2))?
        .contiguous()?
        .to_dtype(dtype)?
        .to_device(device)?)
}

/// Checks that the processor's memory has room for `n` numbers: a tensor that cannot have its memory ends the process.
fn can_have(device: &Device, n: usize) -> Result<()> {
    if device.is_cpu() { room::<f32>(n).map(drop) } else { Ok(()) }
}

/// Resizes (B, C, H, W) to (B, C, h, w) without clamping, by a product with a matrix in each direction. The kernels are
/// those of PyTorch's antialiased `interpolate` and of PIL. Differentiable.
///
/// # Errors
/// If a size is 0, or if the memory cannot be had.
pub fn resize(x: &Tensor, height: usize, width: usize, how: Resampling) -> Result<Tensor> {
    Resizer::default().resize(x, height, width, how)
}

/// Resizes images as [`resize`] does, and keeps the matrices for further images.
#[derive(Debug, Default)]
pub struct Resizer(Constants<(usize, usize, Resampling)>);

impl Resizer {
    /// [`resize`].
    ///
    /// # Errors
    /// As [`resize`].
    pub fn resize(&self, x: &Tensor, height: usize, width: usize, how: Resampling) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        if height == 0 || width == 0 || h == 0 || w == 0 {
            return Err(Error::input(format!("cannot resize {w}×{h} to {width}×{height}")));
        }
        // The matrices, the image with its new width, and the result with the copy that a caller makes of it.
        can_have(x.device(), h * height + w * width + b * c * width * (h + 2 * height))?;
        let matrix = |from: usize, to: usize| {
            self.0.get((from, to, how), x.dtype(), x.device(), || kernel_matrix(from, to, how, x.device()))
        };
        let (rows, columns) = (matrix(h, height)?, matrix(w, width)?.t()?);
        Ok(rows.broadcast_matmul(&x.contiguous()?.broadcast_matmul(&columns)?)?)
    }
}

/// Maps numbers in [0, 1] to colours from black over violet and orange to light yellow: (B, 1, H, W) → (B, 3, H, W) in
/// [-1, 1].
///
/// # Errors
/// If the tensor does not have one channel.
pub fn heat(x: &Tensor) -> Result<Tensor> {
    const STOPS: [[f64; 3]; 5] =
        [[0.0, 0.0, 0.02], [0.34, 0.06, 0.43], [0.73, 0.22, 0.33], [0.98, 0.55, 0.04], [0.99, 1.0, 0.64]];
    let x = (x.clamp(0f32, 1f32)? * (STOPS.len() - 1) as f64)?;
    // The weight of each colour stop is a triangle around it.
    let tent = |i: usize| (x.affine(1.0, -(i as f64))?.abs()?).affine(-1.0, 1.0)?.relu();
    let channel = |c: usize| -> Result<Tensor> {
        let parts = (0..STOPS.len()).map(|i| Ok((tent(i)? * STOPS[i][c])?)).collect::<Result<Vec<_>>>()?;
        Ok(parts[1..].iter().try_fold(parts[0].clone(), |sum, part| sum + part)?)
    };
    Ok(Tensor::cat(&[channel(0)?, channel(1)?, channel(2)?], 1)?.affine(2.0, -1.0)?)
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

/// A copy of `picture` fitted into a cell and centred on the colour `ground`, for contact sheets.
pub fn fit(picture: &RgbImage, width: u32, height: u32, ground: image::Rgb<u8>) -> RgbImage {
    let scale = (f64::from(width) / f64::from(picture.width())).min(f64::from(height) / f64::from(picture.height()));
    let side = |n: u32, most: u32| ((f64::from(n) * scale).round() as u32).clamp(1, most);
    let (w, h) = (side(picture.width(), width), side(picture.height(), height));
    let scaled = imageops::resize(picture, w, h, imageops::FilterType::CatmullRom);
    let mut cell = RgbImage::from_pixel(width, height, ground);
    imageops::overlay(&mut cell, &scaled, i64::from((width - w) / 2), i64::from((height - h) / 2));
    cell
}

/// Luma of red, green and blue (ITU-R BT.601).
const LUMA: [f64; 3] = [0.299, 0.587, 0.114];

/// Converts an image (B, 3, H, W) in [-1, 1] to grey in [0, 1], (B, 1, H, W). Differentiable.
///
/// # Errors
/// If the tensor does not have three channels.
pub fn grey(picture: &Tensor) -> Result<Tensor> {
    let (_, channels, _, _) = picture.dims4()?;
    if channels != 3 {
        return Err(Error::input(format!("an image has 3 channels, not {channels}")));
    }
    // Numbers, not a tensor of them, which each call would copy to the device.
    let part = |c: usize| picture.narrow(1, c, 1)? * LUMA[c];
    let luma = ((part(0)? + part(1)?)? + part(2)?)?;
    Ok((luma * 0.5)?.affine(1.0, 0.5)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(17, 9, |x, y| image::Rgb([x * 15, y * 28, x * y].map(|v| v as u8)))
    }

    const LONG: &str = "a: ünï — «long» ";

    #[test]
    fn texts_come_back_and_pixels_stay() {
        let long = LONG.repeat(200_000);
        let bytes = png(&picture(), &[("Software", "lsregen"), ("lsregen", &long)]).unwrap();
        let [program, missing, record] = read_texts(&bytes, ["Software", "Comment", "lsregen"]).unwrap();
        assert_eq!((program.as_deref(), missing), (Some("lsregen"), None));
        assert!(record.as_deref() == Some(&long) && bytes.len() < long.len() / 20, "{} bytes", bytes.len());
        assert_eq!(image::load_from_memory(&bytes).unwrap().into_rgb8(), picture());
        assert_eq!(read_texts(&png(&picture(), &[]).unwrap(), ["lsregen"]).unwrap(), [None]);
    }

    /// The oldest kind of text chunk, which other programs write, and a text after the pixels.
    #[test]
    fn texts_of_other_programs() {
        let mut bytes = vec![];
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        encoder.add_text_chunk("prompt".into(), "{}".into()).unwrap();
        encoder.add_ztxt_chunk("workflow".into(), "[]".into()).unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0]).unwrap();
        writer.write_text_chunk(&png::text_metadata::ITXtChunk::new("late", "yes")).unwrap();
        writer.finish().unwrap();
        let found = read_texts(&bytes, ["prompt", "workflow", "late"]).unwrap();
        assert_eq!(found.each_ref().map(Option::as_deref), [Some("{}"), Some("[]"), Some("yes")]);
    }

    #[test]
    fn damage_is_an_error() {
        let whole = png(&picture(), &[("lsregen", LONG)]).unwrap();
        let at = whole.windows(4).position(|w| w == b"iTXt").unwrap();
        let mut changed = whole.clone();
        changed[at + 20] ^= 1;
        for (bytes, words) in [
            (&b"no PNG at all"[..], "incomplete or corrupt PNG file"),
            (&whole[..0], "ends too early"),
            (&whole[..at + 20], "ends too early"),
            (&changed, "incomplete or corrupt PNG file"),
        ] {
            let error = read_texts(bytes, ["lsregen"]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        // The end of the pixels is not part of the text.
        assert_eq!(read_texts(&whole[..whole.len() - 30], ["lsregen"]).unwrap()[0].as_deref(), Some(LONG));
    }
}
