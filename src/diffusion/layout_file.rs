//! Layout files: the boxes of one image, or COCO's annotations of many.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use lsregen_files::Kind;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::layout::{GroundedPhrase, bounds};
use crate::{Error, Result};

/// The layout that a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct FileLayout {
    /// The objects, in the order of the file.
    pub objects: Vec<GroundedPhrase>,
    /// What was changed: boxes that were clamped, and annotations that were left out.
    pub notes: Vec<String>,
}

/// The JSON of a layout file. COCO's other keys are ignored; unknown keys are an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Size of the image in pixels, for boxes in pixels.
    width: Option<f64>,
    height: Option<f64>,
    boxes: Option<Vec<BoxEntry>>,
    images: Option<Vec<CocoImage>>,
    annotations: Option<Vec<CocoAnnotation>>,
    categories: Option<Vec<CocoCategory>>,
    #[serde(rename = "info")]
    _info: Option<IgnoredAny>,
    #[serde(rename = "licenses")]
    _licenses: Option<IgnoredAny>,
    #[serde(rename = "type")]
    _type: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BoxEntry {
    phrase: String,
    /// x0 y0 x1 y1 in fractions.
    #[serde(rename = "box")]
    fractions: Option<[f64; 4]>,
    /// COCO: x, y, width, height in pixels.
    bbox: Option<[f64; 4]>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "image_id")]
    _image_id: Option<IgnoredAny>,
    #[serde(rename = "category_id")]
    _category_id: Option<IgnoredAny>,
    #[serde(rename = "area")]
    _area: Option<IgnoredAny>,
    #[serde(rename = "iscrowd")]
    _iscrowd: Option<IgnoredAny>,
    #[serde(rename = "segmentation")]
    _segmentation: Option<IgnoredAny>,
    #[serde(rename = "score")]
    _score: Option<IgnoredAny>,
}

/// Of COCO's objects only these keys are used; files of other data sets have more.
#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    width: f64,
    height: f64,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    #[serde(default)]
    id: u64,
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
    name: String,
}

/// Reads a layout file: `{"boxes": [{"phrase": …, "box": [x0, y0, x1, y1]}]}` with fractions,
/// `{"width": W, "height": H, "boxes": [{"phrase": …, "bbox": [x, y, w, h]}]}` with pixels, or COCO's `instances_….json`,
/// of which the annotations of the image `image_id` are taken. Their phrases are the names of the categories. Crowds and
/// boxes without area are left out.
///
/// # Errors
/// If the file cannot be read or parsed. The error names the file, and the object by its number from 0.
pub fn read(path: &Path, image_id: Option<u64>) -> Result<FileLayout> {
    let text = lsregen_files::read_text(path, Kind::LAYOUT).map_err(Error::io(path))?;
    parse(&text, image_id).map_err(|e| Error::Input(format!("{}: {e}", path.display())))
}

fn parse(text: &str, image_id: Option<u64>) -> std::result::Result<FileLayout, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('[') {
        return Err("a layout file is an object, {\"boxes\": […]}, not a list".into());
    }
    let content: Content = serde_json::from_str(text).map_err(|e| shortened(&e.to_string()))?;
    match content {
        Content { boxes: Some(boxes), images: None, annotations: None, width, height, .. } => match image_id {
            None => own(boxes, width.zip(height)),
            Some(_) => {
                Err("`image_id` selects an image of a COCO file, but this file has the boxes of one image".into())
            }
        },
        Content { boxes: None, images: Some(images), annotations: Some(annotations), categories, .. } => {
            let categories = categories.ok_or("a COCO file of annotations has `categories`, but this one has none")?;
            coco(&images, &annotations, categories, image_id)
        }
        _ => Err("a layout file has `boxes`, or COCO's `images`, `annotations` and `categories`".into()),
    }
}

/// Leaves out the middle of a long message: the parser quotes whole texts of the file.
fn shortened(message: &str) -> String {
    const ENDS: usize = 120;
    let length = message.chars().count();
    if length <= 3 * ENDS {
        return message.into();
    }
    let start: String = message.chars().take(ENDS).collect();
    let end: String = message.chars().skip(length - ENDS).collect();
    format!("{start} … {end}")
}

/// Adds a box to `layout`, with a note if it is clamped.
fn add(layout: &mut FileLayout, label: &str, phrase: String, given: [f64; 4]) -> std::result::Result<(), String> {
    if phrase.trim().is_empty() {
        return Err(format!("{label}: the phrase is empty"));
    }
    let (bounds, is_moved) = bounds(given).map_err(|what| format!("{label}: {what}"))?;
    if is_moved {
        layout.notes.push(format!("{label} reaches beyond the image and is clamped to it"));
    }
    layout.objects.push(GroundedPhrase { phrase, bounds });
    Ok(())
}

/// Converts COCO's x, y, width, height in pixels to fractions.
fn fractions([x, y, w, h]: [f64; 4], (width, height): (f64, f64)) -> [f64; 4] {
    [x / width, y / height, (x + w) / width, (y + h) / height]
}

fn own(boxes: Vec<BoxEntry>, size: Option<(f64, f64)>) -> std::result::Result<FileLayout, String> {
    let mut layout = FileLayout { objects: vec![], notes: vec![] };
    for (i, entry) in boxes.into_iter().enumerate() {
        let label = format!("boxes[{i}]");
        let given = match (entry.fractions, entry.bbox, size) {
            (Some(fractions), None, _) => fractions,
            (None, Some(pixels), Some(size)) if size.0 > 0.0 && size.1 > 0.0 => fractions(pixels, size),
            (None, Some(_), _) => {
                return Err("`bbox` is in pixels: the file must have the image's `width` and `height`".into());
            }
            _ => return Err(format!("{label} needs either `box` (fractions) or `bbox` (pixels)")),
        };
        add(&mut layout, &label, entry.phrase, given)?;
    }
    Ok(layout)
}

fn coco(
    images: &[CocoImage],
    annotations: &[CocoAnnotation],
    categories: Vec<CocoCategory>,
    image_id: Option<u64>,
) -> std::result::Result<FileLayout, String> {
    let annotated = || {
        let annotated: HashSet<u64> = annotations.iter().map(|annotation| annotation.image_id).collect();
        let ids = images.iter().map(|image| image.id).filter(|id| annotated.contains(id)).take(3);
        ids.map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
    };
    let image = match (image_id, images) {
        (None, [image]) => image,
        (None, _) => {
            return Err(format!("it has {} images: select one with `image_id`, such as {}", images.len(), annotated()));
        }
        (Some(id), _) => images
            .iter()
            .find(|image| image.id == id)
            .ok_or_else(|| format!("it has no image with the id {id}; ids are such as {}", annotated()))?,
    };
    if !(image.width > 0.0 && image.height > 0.0) {
        return Err(format!("the image {} has no size", image.id));
    }
    let names: HashMap<u64, String> = categories.into_iter().map(|category| (category.id, category.name)).collect();
    let mut layout = FileLayout { objects: vec![], notes: vec![] };
    for annotation in annotations.iter().filter(|annotation| annotation.image_id == image.id) {
        let label = format!("the annotation {}", annotation.id);
        let [_, _, width, height] = annotation.bbox;
        if annotation.iscrowd != 0 {
            layout.notes.push(format!("{label} marks a crowd and is left out"));
        } else if width <= 0.0 || height <= 0.0 {
            layout.notes.push(format!("{label} has no area and is left out"));
        } else {
            let name = names.get(&annotation.category_id);
            let name = name.ok_or_else(|| format!("{label}: there is no category {}", annotation.category_id))?;
            add(&mut layout, &label, name.clone(), fractions(annotation.bbox, (image.width, image.height)))?;
        }
    }
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> FileLayout {
        parse(text, None).unwrap()
    }

    #[test]
    fn pixels_become_fractions() {
        let pixels = r#"{"width": 200, "height": 100, "boxes": [{"phrase": "a", "bbox": [20, 10, 100, 50], "area": 5000, "iscrowd": 0}]}"#;
        let fractions = "\u{feff}{\"boxes\": [{\"phrase\": \"a\", \"box\": [0.1, 0.1, 0.6, 0.6]}]}";
        assert_eq!(layout(pixels), layout(fractions));
        assert!(layout(pixels).notes.is_empty());
    }

    #[test]
    fn clamped_boxes_are_noted() {
        for (bbox, expected) in [
            ("[-10, 0, 60, 100]", [0.0, 0.0, 0.25, 1.0]),
            ("[150, 0, 100, 100]", [0.75, 0.0, 1.0, 1.0]),
            ("[0, -10, 200, 60]", [0.0, 0.0, 1.0, 0.5]),
            ("[0, 50, 200, 60]", [0.0, 0.5, 1.0, 1.0]),
        ] {
            let text = format!(r#"{{"width": 200, "height": 100, "boxes": [{{"phrase": "a", "bbox": {bbox}}}]}}"#);
            let FileLayout { objects, notes } = layout(&text);
            assert_eq!(objects[0].bounds, expected, "{bbox}");
            assert_eq!(notes, ["boxes[0] reaches beyond the image and is clamped to it"], "{bbox}");
        }
    }

    /// The keys are those of COCO's instances_val2017.json.
    const COCO: &str = r#"{"info": {"year": 2017}, "licenses": [{"id": 1}],
        "images": [
            {"license": 1, "file_name": "a.jpg", "coco_url": "", "height": 100, "width": 200, "date_captured": "", "id": 139},
            {"license": 1, "file_name": "b.jpg", "height": 10, "width": 10, "id": 285}],
        "annotations": [
            {"segmentation": [[1, 2]], "area": 5000.0, "iscrowd": 0, "image_id": 139, "bbox": [20.0, 10.0, 100.0, 50.0], "category_id": 2, "id": 7},
            {"segmentation": {"counts": [1], "size": [100, 200]}, "area": 9, "iscrowd": 1, "image_id": 139, "bbox": [0, 0, 9, 9], "category_id": 1, "id": 8},
            {"segmentation": [], "area": 0, "iscrowd": 0, "image_id": 139, "bbox": [0, 0, 0, 9], "category_id": 1, "id": 9},
            {"segmentation": [], "area": 100, "iscrowd": 0, "image_id": 285, "bbox": [0, 0, 10, 10], "category_id": 1, "id": 10}],
        "categories": [{"supercategory": "person", "id": 1, "name": "person"}, {"id": 2, "name": "fire hydrant"}]}"#;

    #[test]
    fn an_image_of_a_coco_file() {
        let FileLayout { objects, notes } = parse(COCO, Some(139)).unwrap();
        let hydrant = GroundedPhrase { phrase: "fire hydrant".into(), bounds: [0.1, 0.1, 0.6, 0.6] };
        assert_eq!(objects, [hydrant]);
        let expected =
            ["the annotation 8 marks a crowd and is left out", "the annotation 9 has no area and is left out"];
        assert_eq!(notes, expected);
        assert_eq!(parse(COCO, Some(285)).unwrap().objects.len(), 1);
        for (id, words) in
            [(None, "it has 2 images: select one with `image_id`, such as 139, 285"), (Some(1), "no image")]
        {
            let error = parse(COCO, id).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn problems_are_named() {
        for (json, words) in [
            ("", "EOF"),
            ("{}", "a layout file has `boxes`"),
            (r#"{"boxes": [{"phrase": "a"}]}"#, "boxes[0] needs either"),
            (r#"{"boxes": [{"phrase": "a", "bbox": [0, 0, 1, 1]}]}"#, "`width`"),
            (r#"{"boxes": [{"phrase": "a", "box": [0.5, 0, 0.2, 1]}]}"#, "boxes[0]: the box's right side x1 = 0.2"),
            (r#"{"boxes": [{"phrase": " ", "box": [0, 0, 1, 1]}]}"#, "boxes[0]: the phrase is empty"),
            (r#"{"boxes": [{"phrase": "a", "box": [0, 0, 1]}]}"#, "length"),
            (r#"{"boxes": [], "x": 1}"#, "unknown field"),
            (r#"{"boxes": [{"phrase": "a", "box": [0, 0, 1, 1], "pharse": "b"}]}"#, "unknown field"),
            (r#"{"boxes": [], "images": [], "annotations": []}"#, "a layout file has `boxes`"),
            (r#"{"images": [], "annotations": []}"#, "`categories`"),
        ] {
            let error = parse(json, None).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
        let long = format!(r#"{{"boxes": [{{"phrase": "a", "box": "{}"}}]}}"#, "x".repeat(10_000));
        let error = parse(&long, None).unwrap_err();
        assert!(error.len() < 300 && error.contains("invalid type") && error.ends_with("column 10036"), "{error}");
        assert!(parse(r#"{"boxes": []}"#, Some(1)).unwrap_err().contains("of one image"));
    }
}
