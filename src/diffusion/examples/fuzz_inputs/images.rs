//! Mutated images: those of `lsregen-tensor`'s tests, which carry EXIF data.

use std::path::Path;

use lsregen_tensor::image::{dimensions, load};

use super::Corpus;
use super::dice::Dice;

/// The images, each with the ending of its name.
pub struct Images(Vec<(&'static str, Vec<u8>)>);

/// The bytes of memory that a pixel may take: as many as in an image of f32.
const OF_PIXEL: usize = 12;

/// The size of a partition of a VP8 frame (RFC 6386, 9.5) has 24 bits, and the decoder allocates it before it reads it.
const PARTITION: usize = 1 << 24;

/// The first bytes of other formats.
const FOREIGN: [&[u8]; 5] =
    [b"GIF89a\x40\0\x40\0", b"BM\x36\x30", b"II*\0\x08\0\0\0", b"\0\0\0\x1cftypavif", b"RIFF\xff\xff\xff\x7fWEBPVP8X"];

impl Images {
    /// # Panics
    /// If the images are missing.
    pub fn read() -> Images {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tensor/tests/fixtures/images");
        let images = (1..=8).flat_map(|i| ["png", "jpg", "webp"].map(|ending| (ending, format!("{i}.{ending}"))));
        Images(images.map(|(ending, name)| (ending, std::fs::read(folder.join(name)).unwrap())).collect())
    }
}

impl Corpus for Images {
    fn file(&self, dice: &mut Dice) -> (&'static str, &'static str, Vec<u8>) {
        let (ending, bytes) = &self.0[dice.roll(self.0.len())];
        let mut bytes = bytes.clone();
        let way = match dice.roll(8) {
            0 => {
                bytes.truncate(dice.roll(bytes.len()));
                "cut"
            }
            1 => {
                let other = &self.0[dice.roll(self.0.len())].1;
                bytes.truncate(dice.roll(bytes.len()));
                bytes.extend_from_slice(&other[dice.roll(other.len())..]);
                "spliced"
            }
            2 => {
                let at = dice.roll(bytes.len());
                let end = at + dice.roll((bytes.len() - at).min(64));
                if dice.one_in(2) {
                    bytes.drain(at..end);
                } else {
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                "shifted"
            }
            3 => {
                state_size(ending, &mut bytes, dice);
                "size"
            }
            4 => {
                let exif = find(&bytes, &[b"Exif", b"EXIF", b"eXIf", b"II*\0", b"MM\0*"]).unwrap_or(0);
                for _ in 0..1 + dice.roll(4) {
                    let at = (exif + dice.roll(48)).min(bytes.len() - 1);
                    bytes[at] = extreme(dice);
                }
                "exif"
            }
            5 => {
                let head = FOREIGN[dice.roll(FOREIGN.len())];
                let length = head.len().min(bytes.len());
                bytes[..length].copy_from_slice(&head[..length]);
                "foreign"
            }
            _ => {
                for _ in 0..1 + dice.roll(8) {
                    // Headers are at the start.
                    let range = if dice.one_in(2) { bytes.len() } else { bytes.len().min(256) };
                    let at = dice.roll(range);
                    bytes[at] = extreme(dice);
                }
                "bytes"
            }
        };
        // With wrong sums most PNG files would be refused at once.
        if *ending == "png" && !dice.one_in(4) {
            mend_sums(&mut bytes);
        }
        (way, ending, bytes)
    }

    fn read(&self, path: &Path) -> (usize, Result<bool, String>) {
        let size = dimensions(path);
        let pixels = size.as_ref().map_or(0, |(width, height)| *width as usize * *height as usize);
        let tables = if path.extension() == Some("webp".as_ref()) { PARTITION } else { 0 };
        let whole = load(path).map(|picture| size.is_ok_and(|size| size == picture.dimensions()));
        (OF_PIXEL * pixels + tables, whole.map_err(|error| error.to_string()))
    }
}

fn extreme(dice: &mut Dice) -> u8 {
    match dice.roll(4) {
        0 => 0,
        1 => 0xff,
        2 => 0x7f,
        _ => dice.roll(256) as u8,
    }
}

fn find(bytes: &[u8], marks: &[&[u8]]) -> Option<usize> {
    marks.iter().find_map(|mark| bytes.windows(mark.len()).position(|window| window == *mark))
}

/// Writes another width and height into the header.
fn state_size(ending: &str, bytes: &mut [u8], dice: &mut Dice) {
    let side = |dice: &mut Dice| -> u32 {
        match dice.roll(16) {
            0 => u32::MAX >> dice.roll(32),
            1 => 16_384 + dice.roll(3) as u32 - 1,
            2 => 0,
            n => (dice.roll(16) * n * n) as u32,
        }
    };
    let (width, height) = (side(dice), side(dice));
    let mut put = |at: usize, field: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
    };
    match ending {
        "png" => {
            put(16, &width.to_be_bytes());
            put(20, &height.to_be_bytes());
        }
        "jpg" => {
            let Some(at) = find(bytes, &[b"\xff\xc0", b"\xff\xc2"]) else { return };
            let mut put = |at: usize, field: [u8; 2]| bytes[at..at + 2].copy_from_slice(&field);
            put(at + 5, (height as u16).to_be_bytes());
            put(at + 7, (width as u16).to_be_bytes());
        }
        // VP8X: 24 bits each, less one.
        _ => {
            put(24, &width.to_le_bytes()[..3]);
            put(27, &height.to_le_bytes()[..3]);
        }
    }
}

/// Writes the right sum after every chunk of a PNG file.
fn mend_sums(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map(u32::from_be_bytes) {
        let end = at.saturating_add(8).saturating_add(length as usize);
        let Some(sum) = bytes.get(at + 4..end).map(crc) else { return };
        let Some(place) = bytes.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

/// CRC-32 (ISO 3309), as in PNG.
fn crc(bytes: &[u8]) -> u32 {
    let shift = |sum: u32, _| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), shift))
}
