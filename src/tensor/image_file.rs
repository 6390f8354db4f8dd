//! Reads image files: PNG, JPEG and WebP, as 8-bit RGB.
//!
//! An image is turned upright as its EXIF orientation says, and transparent parts are laid over white. Sizes are judged
//! before pixels are decoded, because a small file can claim an enormous image.

mod bounds;

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use lsregen_files::Kind;

use crate::{Error, Result};

/// The longest side of an image in pixels.
pub const MAX_SIDE: u32 = 16384;

/// The most pixels of an image: 3.2 GB as f32.
pub const MAX_PIXELS: u64 = 1 << 28;

/// The most bytes of colour profiles and other parts of a PNG file that are decompressed.
const PNG_PARTS: u64 = 64 << 20;

/// Reads a PNG, JPEG or WebP file.
///
/// # Errors
/// If the file cannot be read or decoded, or if the image is too large.
pub fn load(path: &Path) -> Result<RgbImage> {
    let bytes = lsregen_files::read(path, Kind::IMAGE).map_err(Error::io(path))?;
    decode(&bytes).map_err(|what| Error::Input(format!("{}: {what}", path.display())))
}

/// Decodes the bytes of a PNG, JPEG or WebP file.
///
/// # Errors
/// If the format is not supported, if the data are corrupt or incomplete, if the image is too large, or if the memory
/// cannot be had.
pub fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let format = format(bytes)?;
    check_end(bytes, format)?;
    let mut decoder = decoder(bytes, format)?;
    let orientation = decoder.orientation().map_err(corrupt)?;
    // A decoder ends the process if it cannot allocate. It takes no more than the pixels take later as f32.
    let (width, height) = decoder.dimensions();
    drop(room::<[f32; 3]>(width as usize * height as usize)?);
    let mut picture = DynamicImage::ImageRgb8(match DynamicImage::from_decoder(decoder).map_err(corrupt)? {
        p if !p.color().has_alpha() => p.into_rgb8(),
        p => {
            let rgba = p.into_rgba8();
            RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
                let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u32::from);
                image::Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
            })
        }
    });
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// Returns width and height of an image file, upright, without decoding its pixels.
///
/// # Errors
/// As for [`load`], as far as the file shows it before its pixels are decoded.
pub fn dimensions(path: &Path) -> Result<(u32, u32)> {
    let bytes = lsregen_files::read(path, Kind::IMAGE).map_err(Error::io(path))?;
    let read = || {
        let format = format(&bytes)?;
        check_end(&bytes, format)?;
        let mut decoder = decoder(&bytes, format)?;
        let (width, height) = decoder.dimensions();
        let sideways = decoder.orientation().map_err(corrupt)?.to_exif() >= 5;
        Ok(if sideways { (height, width) } else { (width, height) })
    };
    read().map_err(|what: Error| Error::Input(format!("{}: {what}", path.display())))
}

/// Allocates an empty vector for `n` numbers.
///
/// # Errors
/// If the memory cannot be had.
pub fn room<T>(n: usize) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    match vector.try_reserve_exact(n) {
        Ok(()) => Ok(vector),
        Err(_) => Err(Error::Input(format!("not enough memory: an image needs {} MB", n * size_of::<T>() / 1_000_000))),
    }
}

fn format(bytes: &[u8]) -> Result<ImageFormat> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => Ok(format),
        _ => Err(Error::input("not an image in a supported format (PNG, JPEG, WebP)")),
    }
}

/// Reads the start of a file, and judges the size that it states.
fn decoder(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder + '_> {
    let bytes = if format == ImageFormat::WebP { bounds::webp(bytes)? } else { bytes };
    let mut limits = Limits::no_limits();
    // The PNG decoder's limit is of all but the pixels. It counts a part of a file up to three times.
    limits.max_alloc = Some(PNG_PARTS + 4 * bytes.len() as u64);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    if let Some(message) = too_large(width.into(), height.into()) {
        return Err(Error::Input(message));
    }
    if u64::from(width) * u64::from(height) > bounds::most_pixels(format, bytes) {
        let length = bytes.len();
        return Err(Error::input(format!("incomplete image: {length} bytes cannot hold {width}×{height} pixels")));
    }
    Ok(decoder)
}

/// Returns what to say of an image of this size, if it is too large.
pub fn too_large(width: u64, height: u64) -> Option<String> {
    (width.max(height) > MAX_SIDE.into())
        .then(|| format!("an image of {width}×{height} is too large: a side may have at most {MAX_SIDE} pixels"))
}

/// Checks that a file has the end of its image. The decoder fills what is missing of a JPEG file with grey.
fn check_end(bytes: &[u8], format: ImageFormat) -> Result<()> {
    let is_whole = match format {
        ImageFormat::Jpeg => jpeg_ends(bytes),
        ImageFormat::Png => png_ends(bytes),
        _ => true,
    };
    if !is_whole {
        return Err(Error::input("incomplete image: the file ends too early"));
    }
    Ok(())
}

/// Whether a PNG file has its last chunk.
fn png_ends(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((&[a, b, c, d, ref name @ ..], _)) = rest.split_first_chunk::<8>() {
        if name == b"IEND" {
            return true;
        }
        // The length is that of the data: before it are 8 bytes, after it 4.
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        rest = rest.get(length.saturating_add(12)..).unwrap_or_default();
    }
    false
}

/// Whether a JPEG file has its marker of the end. Other data, such as a film, may follow it.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Of compressed data, only FF 00 and the restarts FF D0 to FF D7 look like markers.
        let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0xd0..=0xd7);
        let Some(next) = bytes.get(at..).and_then(|rest| rest.windows(2).position(is_marker)) else { return false };
        at += next;
        match (bytes[at + 1], bytes.get(at + 2..at + 4)) {
            (0xd9, _) => return true,
            (0x01, _) => at += 2,
            (_, Some(&[high, low])) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
            _ => return false,
        }
    }
}

fn corrupt(error: ImageError) -> Error {
    match error {
        ImageError::Limits(_) => {
            Error::Input(format!("the image is too large: a side may have at most {MAX_SIDE} pixels"))
        }
        ImageError::Unsupported(what) => Error::Input(format!("not supported: {what}")),
        error => Error::Input(format!("incomplete or corrupt image: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::PathBuf;

    use serde_json::Value as Json;

    fn images() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
    }

    /// Every orientation in every format gives what Pillow's `exif_transpose` gives.
    #[test]
    fn images_are_upright() {
        let upright: Json = serde_json::from_slice(&std::fs::read(images().join("upright.json")).unwrap()).unwrap();
        let upright = upright.as_object().unwrap();
        assert_eq!(upright.len(), 24);
        for (name, expected) in upright {
            let path = images().join(name);
            let picture = load(&path).unwrap();
            let size = [expected["size"][0].as_u64().unwrap() as u32, expected["size"][1].as_u64().unwrap() as u32];
            assert_eq!([picture.width(), picture.height()], size, "{name}");
            assert_eq!(dimensions(&path).unwrap(), size.into(), "{name}");
            for (i, row) in expected["blocks"].as_array().unwrap().iter().enumerate() {
                for (j, colour) in row.as_array().unwrap().iter().enumerate() {
                    let pixel = picture.get_pixel(8 + 16 * j as u32, 8 + 16 * i as u32);
                    let near = (0..3).all(|c| colour[c].as_i64().unwrap().abs_diff(pixel[c].into()) <= 3);
                    assert!(near, "{name}: block {i} {j}: {pixel:?} for {colour}");
                }
            }
        }
    }

    #[test]
    fn an_incomplete_file_is_an_error() {
        for kind in ["png", "jpg", "webp"] {
            let whole = std::fs::read(images().join(format!("6.{kind}"))).unwrap();
            decode(&whole).unwrap();
            for cut in [whole.len() / 2, whole.len() - 20, whole.len() - 2] {
                // A PNG file may lack the checksum of its end.
                let complete = kind == "png" && cut > whole.len() - 12;
                assert_eq!(decode(&whole[..cut]).is_ok(), complete, "{kind}: {cut} of {}", whole.len());
            }
        }
        for other in [&b""[..], b"GIF89a\x01\0\x01\0\0\0\0;", b"lsregen: 1"] {
            assert!(decode(other).unwrap_err().to_string().contains("PNG, JPEG, WebP"));
        }
    }

    /// A file of 190 bytes whose EXIF data claim 4 GB made the decoder allocate them.
    #[test]
    fn a_chunk_beyond_the_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.webp");
        let whole = std::fs::read(images().join("6.webp")).unwrap();
        let exif = whole.windows(4).position(|name| name == b"EXIF").unwrap();
        let size = u32::from_le_bytes(whole[exif + 4..exif + 8].try_into().unwrap());
        for (claimed, is_good) in [(size, true), (size + 2, false), (u32::MAX, false), (u32::MAX >> 2, false)] {
            let mut bytes = whole.clone();
            bytes[exif + 4..exif + 8].copy_from_slice(&claimed.to_le_bytes());
            std::fs::write(&path, &bytes).unwrap();
            for result in [load(&path).map(|_| ()), dimensions(&path).map(|_| ())] {
                assert_eq!(result.is_ok(), is_good, "{claimed}");
                let incomplete = |error: Error| error.to_string().contains("incomplete");
                assert!(result.err().is_none_or(incomplete), "{claimed}");
            }
        }
    }

    /// A small file that claims an enormous image is refused by its first bytes.
    #[test]
    fn an_enormous_image_is_refused_by_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.png");
        for (width, height) in [(23_000, 23_000), (16_385, 1), (u32::MAX >> 1, u32::MAX >> 1)] {
            let mut bytes = vec![];
            let mut encoder = png::Encoder::new(&mut bytes, width, height);
            encoder.set_color(png::ColorType::Rgb);
            let mut writer = encoder.write_header().unwrap();
            writer.write_chunk(png::chunk::IDAT, b"\x78\x9c").unwrap();
            drop(writer);
            std::fs::write(&path, &bytes).unwrap();
            for error in [load(&path).unwrap_err(), dimensions(&path).unwrap_err()] {
                assert!(error.to_string().contains("at most 16384 pixels"), "{width}×{height}: {error}");
            }
        }
    }
}
