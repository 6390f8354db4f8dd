//! Compares what an image file states with the bytes that it has.
//!
//! The decoders allocate what is stated before they read it.

use image::ImageFormat;

use super::{Error, Result};

/// The most bytes that Deflate makes of one: two bits can repeat 258 bytes.
const DEFLATE: u64 = 1032;

/// Returns the most pixels that a file can hold.
pub fn most_pixels(format: ImageFormat, bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    match format {
        // Each block of 8×8 samples has a code of at least one bit, for its DC coefficient (T.81, F.1.2.1 and G.1.2.1). The
        // other scans of a progressive file can skip many blocks with one code.
        ImageFormat::Jpeg => 512 * length,
        // IHDR is the first chunk: its byte 8 holds the bits of a sample.
        ImageFormat::Png => 8 * DEFLATE * length / bytes.get(24).map_or(1, |bits| u64::from(*bits).max(1)),
        // An image of one colour needs no data beyond its tables.
        _ => u64::MAX,
    }
}

/// Checks the chunks of a WebP file and returns the bytes that belong to it.
///
/// # Errors
/// If a chunk does not lie within the file, or if a frame is larger than the image.
pub fn webp(bytes: &[u8]) -> Result<&[u8]> {
    let size = bytes.get(4..8).map_or(0, number);
    let whole = &bytes[..bytes.len().min(size.saturating_add(8))];
    let mut parts = chunks(whole.get(12..).unwrap_or_default())?;
    let canvas = parts.iter().find(|(name, _)| name == b"VP8X").and_then(|(_, data)| data.get(4..10));
    let canvas = canvas.map(|sizes| [&sizes[..3], &sizes[3..]].map(|side| number(side) + 1));
    // A frame of an animation has 16 bytes of its own, then chunks.
    let frames =
        parts.iter().filter(|(name, _)| name == b"ANMF").map(|(_, data)| chunks(data.get(16..).unwrap_or_default()));
    let inner = frames.collect::<Result<Vec<_>>>()?;
    parts.extend(inner.into_iter().flatten());
    for (_, data) in parts.iter().filter(|(name, _)| name == b"VP8 ") {
        // RFC 6386, 9.1: three bytes, a start code of three, then the sizes with their scales in the upper bits.
        let sides = data.get(6..10).map(|sizes| [&sizes[..2], &sizes[2..]].map(|side| number(side) & 0x3fff));
        if let (Some([width, height]), Some([most_width, most_height])) = (sides, canvas)
            && (width > most_width || height > most_height)
        {
            return Err(Error::input(format!(
                "corrupt image: a frame of {width}×{height} in an image of {most_width}×{most_height}"
            )));
        }
    }
    Ok(whole)
}

/// A chunk's name and its data.
type Chunk<'b> = ([u8; 4], &'b [u8]);

fn chunks(bytes: &[u8]) -> Result<Vec<Chunk<'_>>> {
    let (mut chunks, mut rest) = (vec![], bytes);
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, size @ ..] = *head;
        let size = number(&size);
        let Some(data) = after.get(..size) else {
            return Err(Error::input("incomplete image: a part of it lies beyond the end of the file"));
        };
        chunks.push(([a, b, c, d], data));
        let padding = size % 2;
        rest = after.get(size + padding..).unwrap_or_default();
    }
    Ok(chunks)
}

/// Little-endian.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::image::decode;

    /// A grey JPEG file whose every code has one bit. `frame` is C0 (baseline) or C2 (progressive).
    fn jpeg(frame: u8, side: u16, data: usize) -> Vec<u8> {
        let [high, low] = side.to_be_bytes();
        // Of the AC coefficients, a baseline scan has the end of each block; a progressive one leaves them out.
        let last = if frame == 0xc0 { 63 } else { 0 };
        let table = |class: u8| {
            let mut table = [0; 22];
            table[..6].copy_from_slice(&[0xff, 0xc4, 0, 20, class << 4, 1]);
            table
        };
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
        bytes.extend([1; 64]);
        bytes.extend([0xff, frame, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0]);
        bytes.extend(table(0).into_iter().chain(table(1)));
        bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, last, 0]);
        bytes.resize(bytes.len() + data, 0);
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    /// A PNG file of one bit a pixel, of one colour.
    fn png(side: u32, is_whole: bool) -> Vec<u8> {
        let mut bytes = vec![];
        let mut encoder = png::Encoder::new(&mut bytes, side, side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header().unwrap();
        match is_whole {
            true => writer.write_image_data(&vec![0xff; (side * side / 8) as usize]).unwrap(),
            false => writer.write_chunk(png::chunk::IDAT, b"\x78\x9c").unwrap(),
        }
        drop(writer);
        bytes
    }

    /// The smallest files of an image of one colour are read; those that state more than they hold are not.
    #[test]
    fn a_file_states_no_more_pixels_than_it_can_hold() {
        let side = 4096u16;
        let blocks = usize::from(side / 8).pow(2);
        for (name, whole, empty) in [
            ("baseline", jpeg(0xc0, side, blocks / 4), jpeg(0xc0, side, 0)),
            ("progressive", jpeg(0xc2, side, blocks / 8), jpeg(0xc2, side, 0)),
            ("png", png(side.into(), true), png(side.into(), false)),
        ] {
            let picture = decode(&whole).unwrap_or_else(|error| panic!("{name}, {} bytes: {error}", whole.len()));
            assert!(
                picture.width() == u32::from(side) && picture.pixels().all(|p| p == picture.get_pixel(0, 0)),
                "{name}"
            );
            let error = decode(&empty).unwrap_err().to_string();
            assert!(error.contains("bytes cannot hold 4096×4096 pixels"), "{name}: {error}");
        }
    }

    #[test]
    fn a_webp_frame_is_no_larger_than_its_image() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images/6.webp");
        let mut bytes = std::fs::read(path).unwrap();
        decode(&bytes).unwrap();
        let frame = bytes.windows(4).position(|name| name == b"VP8 ").unwrap() + 8;
        bytes[frame + 6..frame + 10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
        let error = decode(&bytes).unwrap_err().to_string();
        assert!(error.contains("a frame of 16383×16383 in an image of"), "{error}");
    }

    /// The decoder looks into the first frame of an animation for all parts.
    #[test]
    fn a_part_of_a_frame_lies_in_the_frame() {
        let chunk = |name: &[u8; 4], size: u32, data: &[u8]| [name, &size.to_le_bytes()[..], data].concat();
        let file = |exif: u32| {
            let frame =
                [&[0; 16][..], &chunk(b"VP8L", 6, &[0x2f, 0, 0, 0, 0, 0]), &chunk(b"EXIF", exif, b"II*\0")].concat();
            let header = chunk(b"VP8X", 10, &[0b1010, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let frame = chunk(b"ANMF", frame.len() as u32, &frame);
            let parts = [&b"WEBP"[..], &header, &chunk(b"ANIM", 6, &[0; 6]), &frame].concat();
            chunk(b"RIFF", parts.len() as u32, &parts)
        };
        assert!(webp(&file(4)).is_ok());
        for claimed in [5, u32::MAX] {
            let error = decode(&file(claimed)).unwrap_err().to_string();
            assert!(error.contains("beyond the end"), "{claimed}: {error}");
        }
    }
}
