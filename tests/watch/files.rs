//! The files that the tests of `lsregen watch` edit.

use std::fs;
use std::path::Path;

/// A PNG file of 24 by 16 pixels with stripes of one colour. The pixels are stored without compression.
pub fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut pixels = vec![];
    for _ in 0..16 {
        pixels.push(0);
        pixels.extend((0..24).flat_map(|x| colour.map(|c| c.wrapping_mul(x % 5))));
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for &byte in &pixels {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    let length = pixels.len() as u16;
    let mut data = vec![0x78, 1, 1];
    data.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
    data.extend(&pixels);
    data.extend((b << 16 | a).to_be_bytes());
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        let crc = body.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        });
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(body);
        file.extend((!crc).to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 24, 0, 0, 0, 16, 8, 2, 0, 0, 0]);
    chunk(b"IDAT", &data);
    chunk(b"IEND", &[]);
    file
}

pub const RED: [u8; 3] = [200, 30, 20];
pub const BLUE: [u8; 3] = [20, 30, 200];

/// A graph of two branches, each an image that is resized and saved. The first branch resizes twice.
#[derive(Clone)]
pub struct Text {
    pub width: u32,
    pub height: u32,
    pub other: u32,
    pub name: &'static str,
    pub comment: String,
}

impl Text {
    pub fn new() -> Text {
        Text { width: 8, height: 8, other: 8, name: "big", comment: String::new() }
    }

    pub fn yaml(&self) -> String {
        let Text { width, height, other, name, comment } = self;
        format!(
            "lsregen: 1\n{comment}\nnodes:\n\
            \x20 picture: {{ type: LoadImage, path: picture.png }}\n\
            \x20 small: {{ type: Upsample, image: picture, width: {width}, height: 8 }}\n\
            \x20 {name}: {{ type: Upsample, image: small, width: 8, height: {height} }}\n\
            \x20 save: {{ type: SaveImage, image: {name}, path: out/first.png }}\n\
            \x20 picture2: {{ type: LoadImage, path: picture2.png }}\n\
            \x20 small2: {{ type: Upsample, image: picture2, width: {other}, height: 8 }}\n\
            \x20 save2: {{ type: SaveImage, image: small2, path: out/second.png }}\n"
        )
    }

    /// Writes the graph in place.
    pub fn write(&self, folder: &Path) {
        fs::write(folder.join("graph.yaml"), self.yaml()).unwrap();
    }

    /// Writes another file and renames it to the graph, as editors do.
    pub fn replace(&self, folder: &Path) {
        replace(&folder.join("graph.yaml"), self.yaml().as_bytes());
    }
}

/// Replaces a file by another one, as editors do.
pub fn replace(path: &Path, bytes: &[u8]) {
    let temporary = path.with_extension("temporary");
    fs::write(&temporary, bytes).unwrap();
    fs::rename(temporary, path).unwrap();
}

/// Sets the time of the last write to now.
pub fn touch(path: &Path) {
    fs::File::options().append(true).open(path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
}
