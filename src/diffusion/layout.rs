//! Layouts: phrases in boxes.
//!
//! Deals with boxes as fractions of an image and the JSON files that contain them, not with models or YAML.

use std::path::Path;

use lsregen_files::Kind;
use serde::Deserialize;

use crate::{Error, Result};

/// A box [x0, y0, x1, y1] in fractions of the image, with the origin at the top left.
pub type Bounds = [f32; 4];

/// An object of a layout: a phrase in a box.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundedPhrase {
    /// The content of the box.
    pub phrase: String,
    /// The box.
    pub bounds: Bounds,
}

/// Returns what is invalid about a box, if anything.
pub fn error(bounds: &[f32; 4]) -> Option<String> {
    let [x0, y0, x1, y1] = *bounds;
    if bounds.iter().any(|v| !v.is_finite()) {
        return Some("a box's numbers must be finite".into());
    }
    if bounds.iter().any(|v| !(0.0..=1.0).contains(v)) {
        return Some("a box is [x0, y0, x1, y1] in fractions of the image, each between 0 and 1".into());
    }
    if x1 <= x0 {
        return Some(format!("the box's right side x1 = {x1} must be right of its left side x0 = {x0}"));
    }
    if y1 <= y0 {
        return Some(format!("the box's lower side y1 = {y1} must be below its upper side y0 = {y0}"));
    }
    None
}

/// Returns the mask of boxes on a grid of `height` × `width` cells, row by row: 1 inside, falling to 0 over `feather`
/// outside.
///
/// `feather` is a fraction of the image's side. With 0, a cell is inside if its centre is inside.
pub fn mask(boxes: &[[f32; 4]], height: usize, width: usize, feather: f32) -> Vec<f32> {
    let centre = |i: usize, n: usize| (i as f32 + 0.5) / n as f32;
    let weight = |x: f32, y: f32, [x0, y0, x1, y1]: [f32; 4]| {
        let (dx, dy) = ((x0 - x).max(x - x1).max(0.0), (y0 - y).max(y - y1).max(0.0));
        match dx.hypot(dy) {
            0.0 => 1.0,
            outside if outside < feather => 1.0 - outside / feather,
            _ => 0.0,
        }
    };
    let cells = (0..height).flat_map(|i| (0..width).map(move |j| (centre(j, width), centre(i, height))));
    cells.map(|(x, y)| boxes.iter().map(|b| weight(x, y, *b)).fold(0.0, f32::max)).collect()
}

/// A layout as a JSON file holds it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutFile {
    /// Size of the image in pixels, for COCO's boxes.
    width: Option<f32>,
    height: Option<f32>,
    boxes: Vec<LayoutEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutEntry {
    phrase: String,
    /// x0 y0 x1 y1 in fractions.
    #[serde(rename = "box")]
    fractions: Option<[f32; 4]>,
    /// COCO: x, y, width, height in pixels.
    bbox: Option<[f32; 4]>,
}

/// Reads `{"boxes": [{"phrase": …, "box": [x0, y0, x1, y1]}]}` with fractions, or
/// `{"width": W, "height": H, "boxes": [{"phrase": …, "bbox": [x, y, w, h]}]}` with COCO's pixels.
///
/// # Errors
/// If the file cannot be read or parsed. The error names the file, and the object by its number from 0.
pub fn read(path: &Path) -> Result<Vec<GroundedPhrase>> {
    let text = lsregen_files::read_text(path, Kind::LAYOUT).map_err(Error::io(path))?;
    parse(&text).map_err(|e| Error::Input(format!("{}: {e}", path.display())))
}

fn parse(text: &str) -> std::result::Result<Vec<GroundedPhrase>, String> {
    let file: LayoutFile = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let objects = file.boxes.into_iter().enumerate().map(|(i, entry)| {
        let bounds = match (entry.fractions, entry.bbox) {
            (Some(b), None) => b,
            (None, Some([x, y, w, h])) => match (file.width, file.height) {
                (Some(width), Some(height)) if width > 0.0 && height > 0.0 => {
                    // Rounding may move a side out of the image by a pixel.
                    [x / width, y / height, ((x + w) / width).min(1.0), ((y + h) / height).min(1.0)]
                }
                _ => return Err("`bbox` is in pixels: the file must have the image's `width` and `height`".into()),
            },
            _ => return Err(format!("boxes[{i}] needs either `box` (fractions) or `bbox` (pixels)")),
        };
        match error(&bounds) {
            Some(what) => Err(format!("boxes[{i}]: {what}")),
            None => Ok(GroundedPhrase { phrase: entry.phrase, bounds }),
        }
    });
    objects.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coco_pixels_become_fractions() {
        let coco = r#"{"width": 200, "height": 100, "boxes": [{"phrase": "a", "bbox": [20, 10, 100, 50]}]}"#;
        let fractions = r#"{"boxes": [{"phrase": "a", "box": [0.1, 0.1, 0.6, 0.6]}]}"#;
        assert_eq!(parse(coco).unwrap(), parse(fractions).unwrap());
    }

    #[test]
    fn a_mask_is_hard_or_fades() {
        let boxes = [[0.25, 0.0, 0.5, 1.0]];
        assert_eq!(mask(&boxes, 1, 8, 0.0), [0., 0., 1., 1., 0., 0., 0., 0.]);
        let soft = mask(&boxes, 1, 8, 0.25);
        let expected = [0.25, 0.75, 1.0, 1.0, 0.75, 0.25, 0.0, 0.0];
        assert!(soft.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{soft:?}");
        assert_eq!(mask(&[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]], 2, 2, 0.0), [1., 0., 0., 1.]);
    }

    #[test]
    fn problems_are_named() {
        for (json, words) in [
            ("", "EOF"),
            (r#"{"boxes": [{"phrase": "a"}]}"#, "boxes[0] needs either"),
            (r#"{"boxes": [{"phrase": "a", "bbox": [0, 0, 1, 1]}]}"#, "`width`"),
            (r#"{"boxes": [{"phrase": "a", "box": [0.5, 0, 0.2, 1]}]}"#, "x1 = 0.2"),
            (r#"{"boxes": [{"phrase": "a", "box": [0, 0, 2, 1]}]}"#, "between 0 and 1"),
            (r#"{"boxes": [{"phrase": "a", "box": [0, 0, 1]}]}"#, "length"),
            (r#"{"boxes": [], "x": 1}"#, "unknown field"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
