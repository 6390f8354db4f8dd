//! Draws on images: text, the frames of a layout, contact sheets.
//!
//! Deals with pixels and one embedded typeface (DejaVu Sans Condensed), not with tensors or models.

use std::borrow::Borrow;
use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use image::{Rgb, RgbImage, imageops};

use crate::image::{MAX_SIDE, fit, room, too_large};
use crate::layout::GroundedPhrase;
use crate::{Error, Result};

static TYPEFACE: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(dejavu::sans_condensed::regular()).expect("the embedded typeface is a whole TrueType file")
});

/// The background of contact sheets.
pub const WHITE: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([24; 3]);

/// Colours that most people can distinguish (Okabe and Ito's, without black). Boxes use them in turn.
const PALETTE: [Rgb<u8>; 7] = [
    Rgb([230, 159, 0]),
    Rgb([86, 180, 233]),
    Rgb([0, 158, 115]),
    Rgb([240, 228, 66]),
    Rgb([0, 114, 178]),
    Rgb([213, 94, 0]),
    Rgb([204, 121, 167]),
];

/// Returns the width in pixels of a line of text that is `size` pixels high.
pub fn text_width(text: &str, size: f32) -> f32 {
    let font = TYPEFACE.as_scaled(PxScale::from(size));
    let glyphs: Vec<_> = text.chars().map(|c| font.glyph_id(c)).collect();
    let advance: f32 = glyphs.iter().map(|&g| font.h_advance(g)).sum();
    advance + glyphs.windows(2).map(|pair| font.kern(pair[0], pair[1])).sum::<f32>()
}

/// Writes a line of text, `size` pixels high, with its upper left corner at (x, y). Clips it at the edges of the image.
pub fn text(picture: &mut RgbImage, x: f32, y: f32, size: f32, colour: Rgb<u8>, text: &str) {
    let font = TYPEFACE.as_scaled(PxScale::from(size));
    let mut pen = x;
    let mut before = None;
    for c in text.chars() {
        let id = font.glyph_id(c);
        pen += before.map_or(0.0, |b| font.kern(b, id));
        before = Some(id);
        let glyph = id.with_scale_and_position(size, point(pen, y + font.ascent()));
        pen += font.h_advance(id);
        let Some(outline) = TYPEFACE.outline_glyph(glyph) else { continue };
        let corner = outline.px_bounds().min;
        outline.draw(|dx, dy, coverage| {
            blend(picture, corner.x as i64 + i64::from(dx), corner.y as i64 + i64::from(dy), colour, coverage);
        });
    }
}

/// Blends a colour over a pixel, if the pixel is inside the image.
fn blend(picture: &mut RgbImage, x: i64, y: i64, colour: Rgb<u8>, opacity: f32) {
    let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
    if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
        for (old, new) in pixel.0.iter_mut().zip(colour.0) {
            *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * opacity.clamp(0.0, 1.0)).round() as u8;
        }
    }
}

/// A rectangle in pixels. The right and lower edges are exclusive.
#[derive(Clone, Copy)]
struct Area {
    x0: i64,
    y0: i64,
    x1: i64,
    y1: i64,
}

impl Area {
    fn fill(self, picture: &mut RgbImage, colour: Rgb<u8>) {
        for y in self.y0..self.y1 {
            for x in self.x0..self.x1 {
                blend(picture, x, y, colour, 1.0);
            }
        }
    }

    /// Returns the four sides of the border, `line` pixels wide, inside the rectangle.
    fn frame(self, picture: &mut RgbImage, line: i64, colour: Rgb<u8>) {
        let Area { x0, y0, x1, y1 } = self;
        for side in [
            Area { y1: y0 + line, ..self },
            Area { y0: y1 - line, ..self },
            Area { x1: x0 + line, ..self },
            Area { x0: x1 - line, ..self },
        ] {
            side.fill(picture, colour);
        }
    }

    fn grown(self, by: i64) -> Area {
        Area { x0: self.x0 - by, y0: self.y0 - by, x1: self.x1 + by, y1: self.y1 + by }
    }

    fn meets(self, other: Area) -> bool {
        self.x0 < other.x1 && other.x0 < self.x1 && self.y0 < other.y1 && other.y0 < self.y1
    }
}

/// Draws a frame around each box in a colour of its own and, with `labels`, its phrase on a tag of that colour. Lines
/// and letters scale with the image. A tag stays inside the image and, if there is room, does not overlap other tags.
pub fn layout(picture: &mut RgbImage, objects: &[GroundedPhrase], labels: bool) {
    let (w, h) = (i64::from(picture.width()), i64::from(picture.height()));
    let line = ((w.min(h) as f32 / 160.0).round() as i64).max(1);
    let rim = 1 + line / 4;
    let place = |object: &GroundedPhrase| {
        let [x0, y0, x1, y1] = object.bounds;
        let at = |fraction: f32, side: i64| (fraction * side as f32).round() as i64;
        Area { x0: at(x0, w), y0: at(y0, h), x1: at(x1, w), y1: at(y1, h) }
    };
    let coloured = || objects.iter().zip(PALETTE.iter().cycle());
    for (object, &colour) in coloured() {
        // A dark outline keeps the frame visible on a background of its own colour.
        place(object).grown(rim).frame(picture, line + 2 * rim, INK);
        place(object).frame(picture, line, colour);
    }
    if !labels {
        return;
    }
    let size = (w.min(h) as f32).sqrt().clamp(10.0, 64.0);
    let margin = (size / 5.0).ceil() as i64;
    let mut tags: Vec<Area> = Vec::new();
    for (object, &colour) in coloured() {
        let phrase = shortened(&object.phrase, size, (w - 2 * margin) as f32);
        let (width, height) = (text_width(&phrase, size).ceil() as i64 + 2 * margin, size.ceil() as i64 + 2);
        let Area { x0, y0, y1, .. } = place(object);
        let x = x0.min(w - width).max(0);
        let at = |y: i64| Area { x0: x, y0: y, x1: x + width, y1: y + height };
        // Above the box, or in one of its corners, or else in the nearest free place.
        let mut anywhere: Vec<i64> = (0..=h - height).collect();
        anywhere.sort_by_key(|y| (y - y0).abs());
        let rows = [y0 - height, y0, y1, y1 - height].into_iter().chain(anywhere);
        let mut inside = rows.filter(|y| (0..=h - height).contains(y)).map(at).peekable();
        let nearest = *inside.peek().unwrap_or(&at(0));
        let tag = inside.find(|tag| !tags.iter().any(|other| other.meets(*tag))).unwrap_or(nearest);
        tag.fill(picture, colour);
        let [r, g, b] = colour.0.map(f32::from);
        let ink = if 0.299 * r + 0.587 * g + 0.114 * b > 120.0 { INK } else { WHITE };
        text(picture, (x + margin) as f32, tag.y0 as f32 + 1.0, size, ink, &phrase);
        tags.push(tag);
    }
}

/// Returns the text, or as much of its beginning as fits, with an ellipsis.
fn shortened(text: &str, size: f32, width: f32) -> String {
    let text = start_of(text);
    if text_width(text, size) <= width {
        return text.to_string();
    }
    let mut kept = text.to_string();
    while kept.pop().is_some() {
        let shown = format!("{}…", kept.trim_end());
        if text_width(&shown, size) <= width {
            return shown;
        }
    }
    String::new()
}

/// The part of a text that could fit at all. A stranger's text may have megabytes, and measuring it takes time.
fn start_of(text: &str) -> &str {
    const LONGEST: usize = 2000;
    text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end])
}

/// Breaks a text into lines that fit. Shortens a word that is too long for a line.
fn wrapped(text: &str, size: f32, width: f32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in start_of(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size) <= width => *line = format!("{line} {word}"),
            _ => lines.push(word.to_string()),
        }
    }
    lines.iter().map(|line| shortened(line, size, width)).collect()
}

/// Arranges images in rows of `columns`, with a label below each image. Every cell is `cell` pixels wide, and as high
/// as the tallest image requires. Takes no labels, or one for each image.
pub fn contact_sheet<P: Borrow<RgbImage>>(
    pictures: &[P],
    labels: &[String],
    columns: usize,
    cell: u32,
) -> Result<RgbImage> {
    if pictures.is_empty() || columns == 0 || cell == 0 {
        return Err(Error::input("a contact sheet requires at least one image, one column and a cell of one pixel"));
    }
    if !labels.is_empty() && labels.len() != pictures.len() {
        let (n, m) = (labels.len(), pictures.len());
        return Err(Error::input(format!("{n} labels do not fit {m} images: give one for each image, or none")));
    }
    let size = (cell as f32).sqrt().clamp(10.0, 64.0);
    let labels: Vec<Vec<String>> = labels.iter().map(|label| wrapped(label, size, cell as f32)).collect();
    let line = (size * 1.2).ceil() as u32;
    let gap = (cell / 24).max(4);
    let lines = labels.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let caption = if lines == 0 { 0 } else { lines * line + gap / 2 };
    let height = tallest(pictures, cell);

    let columns = columns.min(pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let side = |cells: usize, cell: u32| cells as u64 * u64::from(cell + gap) + u64::from(gap);
    let mut sheet = blank(side(columns, cell), side(rows, height + caption))?;
    for (i, picture) in pictures.iter().enumerate() {
        let x = gap + (i % columns) as u32 * (cell + gap);
        let y = gap + (i / columns) as u32 * (height + caption + gap);
        imageops::overlay(&mut sheet, &fit(picture.borrow(), cell, height, WHITE), i64::from(x), i64::from(y));
        for (j, words) in labels.get(i).into_iter().flatten().enumerate() {
            let left = x as f32 + (cell as f32 - text_width(words, size)) / 2.0;
            let top = y + height + gap / 2 + j as u32 * line;
            text(&mut sheet, left, top as f32, size, INK, words);
        }
    }
    Ok(sheet)
}

/// Returns the height of the tallest image at the width `cell`, as far as a sheet may be high.
fn tallest<P: Borrow<RgbImage>>(pictures: &[P], cell: u32) -> u32 {
    let tall = |p: &RgbImage| (f64::from(cell) * f64::from(p.height()) / f64::from(p.width().max(1))).round() as u32;
    pictures.iter().map(|p| tall(p.borrow())).max().unwrap_or(cell).clamp(1, MAX_SIDE)
}

/// Returns a white sheet.
fn blank(width: u64, height: u64) -> Result<RgbImage> {
    if let Some(message) = too_large(width, height) {
        return Err(Error::Input(format!("{message}; use smaller cells, other columns, or fewer images")));
    }
    let bytes = width as usize * height as usize * 3;
    let mut pixels = room(bytes)?;
    pixels.resize(bytes, 255);
    RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(|| Error::input("the sheet has no pixels"))
}

/// Arranges images in a table, row by row, with a title above each column and before each row. Every cell is `cell`
/// pixels wide, and as high as the tallest image requires.
pub fn table<P: Borrow<RgbImage>>(pictures: &[P], rows: &[String], columns: &[String], cell: u32) -> Result<RgbImage> {
    if pictures.is_empty() || cell == 0 || pictures.len() != rows.len() * columns.len() {
        let (n, r, c) = (pictures.len(), rows.len(), columns.len());
        return Err(Error::input(format!("{n} images do not fill a table of {r} rows and {c} columns")));
    }
    let size = (cell as f32).sqrt().clamp(10.0, 64.0);
    let line = (size * 1.2).ceil() as u32;
    let gap = (cell / 24).max(4);
    let heads: Vec<_> = columns.iter().map(|title| wrapped(title, size, cell as f32)).collect();
    let stubs: Vec<_> = rows.iter().map(|title| wrapped(title, size, cell as f32)).collect();
    let head = heads.iter().map(Vec::len).max().unwrap_or(0) as u32 * line + gap;
    let widths = stubs.iter().flatten().map(|words| text_width(words, size));
    let stub = widths.fold(0.0, f32::max).ceil() as u32 + gap;
    let height = tallest(pictures, cell);
    let side = |first: u32, cells: usize, cell: u32| u64::from(gap + first) + cells as u64 * u64::from(cell + gap);
    let mut sheet = blank(side(stub, columns.len(), cell), side(head, rows.len(), height))?;
    let left = |column: usize| gap + stub + column as u32 * (cell + gap);
    let top = |row: usize| gap + head + row as u32 * (height + gap);
    for (column, words) in heads.iter().enumerate().flat_map(|(i, lines)| lines.iter().enumerate().map(move |l| (i, l)))
    {
        let x = left(column) as f32 + (cell as f32 - text_width(words.1, size)) / 2.0;
        text(&mut sheet, x, (gap + words.0 as u32 * line) as f32, size, INK, words.1);
    }
    for (row, lines) in stubs.iter().enumerate() {
        let first = top(row) + height.saturating_sub(lines.len() as u32 * line) / 2;
        for (i, words) in lines.iter().enumerate() {
            text(&mut sheet, gap as f32, (first + i as u32 * line) as f32, size, INK, words);
        }
    }
    for (i, picture) in pictures.iter().enumerate() {
        let (x, y) = (left(i % columns.len()), top(i / columns.len()));
        imageops::overlay(&mut sheet, &fit(picture.borrow(), cell, height, WHITE), i64::from(x), i64::from(y));
    }
    Ok(sheet)
}

/// Draws the placeholder for a missing image: a grey cell with a cross.
pub fn missing(width: u32, height: u32) -> RgbImage {
    let mut cell = RgbImage::from_pixel(width, height, Rgb([225; 3]));
    let side = width.max(height).max(1);
    let line = i64::from(side / 64).max(1);
    for i in 0..side {
        let at = |n: u32| i64::from(i) * i64::from(n) / i64::from(side);
        for x in [at(width), i64::from(width) - 1 - at(width)] {
            Area { x0: x, y0: at(height), x1: x + line, y1: at(height) + line }.fill(&mut cell, Rgb([160; 3]));
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground(side: u32) -> RgbImage {
        RgbImage::from_pixel(side, side, Rgb([200, 180, 150]))
    }

    fn object(phrase: &str, bounds: [f32; 4]) -> GroundedPhrase {
        GroundedPhrase { phrase: phrase.into(), bounds }
    }

    #[test]
    fn a_frame_is_drawn_around_the_box() {
        let mut picture = ground(100);
        layout(&mut picture, &[object("x", [0.2, 0.3, 0.6, 0.8])], false);
        let coloured: Vec<_> = picture.enumerate_pixels().filter(|(.., p)| **p == PALETTE[0]).collect();
        let side = |pick: fn(u32, u32) -> u32| {
            let values = coloured.iter().map(|(x, y, _)| pick(*x, *y));
            (values.clone().min().unwrap(), values.max().unwrap())
        };
        assert_eq!(side(|x, _| x), (20, 59));
        assert_eq!(side(|_, y| y), (30, 79));
        assert_eq!(*picture.get_pixel(40, 50), Rgb([200, 180, 150]), "the inside is left alone");
    }

    /// Two boxes in the same place have two tags.
    #[test]
    fn tags_keep_clear_of_each_other() {
        let mut picture = ground(128);
        let twice = |phrase| object(phrase, [0.1, 0.3, 0.9, 0.9]);
        layout(&mut picture, &[twice("one"), twice("two"), twice("three")], true);
        for colour in &PALETTE[..3] {
            // The drawing covers more than a frame of one pixel.
            assert!(picture.pixels().filter(|p| *p == colour).count() > 100, "{colour:?}");
        }
    }

    /// Boxes at all edges, phrases that are too long, and many boxes in one place: drawing stays inside the image and
    /// does not panic.
    #[test]
    fn any_layout_can_be_drawn() {
        for side in [1, 8, 128, 1024] {
            let mut picture = ground(side);
            let long = "a very long phrase that no picture of this size has room for, so that it has to be cut";
            let full = object(long, [0.0, 0.0, 1.0, 1.0]);
            let objects = [full.clone(), object("b", [0.99, 0.99, 1.0, 1.0]), full.clone(), full.clone(), full];
            layout(&mut picture, &objects, true);
            assert_ne!(picture, ground(side));
        }
    }

    #[test]
    fn letters_are_as_wide_as_measured() {
        let mut picture = RgbImage::from_pixel(200, 40, WHITE);
        text(&mut picture, 10.0, 5.0, 20.0, INK, "a blue square");
        let width = text_width("a blue square", 20.0);
        let inked = picture.enumerate_pixels().filter(|(.., p)| p.0[0] < 128).map(|(x, ..)| x);
        let (first, last) = (inked.clone().min().unwrap() as f32, inked.max().unwrap() as f32);
        assert!(first >= 10.0 && last <= 10.0 + width && last - first > 0.9 * width, "{first} {last} {width}");
    }

    #[test]
    fn a_sheet_holds_every_picture() {
        let pictures = [ground(64), RgbImage::from_pixel(32, 64, Rgb([1, 2, 3])), ground(128)];
        let labels = ["one".to_string(), "two words".into(), "three".into()];
        let sheet = contact_sheet(&pictures, &labels, 2, 64).unwrap();
        assert_eq!(sheet.width(), 2 * 64 + 3 * 4);
        for picture in &pictures {
            assert!(sheet.pixels().any(|p| p == picture.get_pixel(0, 0)));
        }
        let error = contact_sheet(&pictures, &labels[..2], 2, 64).unwrap_err().to_string();
        assert!(error.contains("2 labels do not fit 3 images"), "{error}");
        assert!(contact_sheet::<RgbImage>(&[], &[], 2, 64).is_err());
    }

    #[test]
    fn a_table_has_every_picture_in_its_row_and_column() {
        let colour = |i: u8| Rgb([10 * i, 0, 200]);
        let cells: Vec<_> = (0..6).map(|i| RgbImage::from_pixel(64, 64, colour(i))).collect();
        let titles = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let (rows, columns) = (titles(&["cfg = 1", "cfg = 2"]), titles(&["seed = 1", "seed = 2", "seed = 3"]));
        let sheet = table(&cells, &rows, &columns, 64).unwrap();
        let place = |i: u8| sheet.enumerate_pixels().find(|(.., p)| **p == colour(i)).map(|(x, y, _)| (x, y)).unwrap();
        assert!(place(0).0 < place(1).0 && place(1).0 < place(2).0 && place(0).1 == place(2).1);
        assert!(place(0).1 < place(3).1 && place(0).0 == place(3).0 && place(5).0 == place(2).0);
        assert!(table(&cells[..5], &rows, &columns, 64).is_err());
        assert!(missing(64, 32).pixels().any(|p| *p == Rgb([160; 3])) && missing(1, 1).dimensions() == (1, 1));
    }
}
