//! Mutated layout files: boxes in fractions and in pixels, and COCO's annotations.

use std::path::Path;

use lsregen_diffusion::layout_file::read;
use serde_json::{Value as Json, json};

use super::Corpus;
use super::dice::Dice;

pub struct Layouts;

impl Corpus for Layouts {
    fn file(&self, dice: &mut Dice) -> (&'static str, &'static str, Vec<u8>) {
        let (way, mut layout) = match dice.roll(3) {
            0 => ("fractions", fractions(dice)),
            1 => ("pixels", pixels(dice)),
            _ => ("coco", coco(dice)),
        };
        for _ in 0..dice.roll(4) {
            change(&mut layout, dice);
        }
        let mut bytes = layout.to_string().into_bytes();
        if dice.one_in(8) {
            bytes.splice(0..0, *b"\xef\xbb\xbf");
        }
        if dice.one_in(4) {
            damage(&mut bytes, dice);
        }
        (way, "json", bytes)
    }

    fn read(&self, path: &Path) -> (usize, Result<bool, String>) {
        let readings = [None, Some(0), Some(1), Some(u64::MAX)].map(|image_id| read(path, image_id));
        let whole = |objects: &[lsregen_diffusion::layout::GroundedPhrase]| {
            objects.iter().all(|object| {
                let [x0, y0, x1, y1] = object.bounds;
                0.0 <= x0
                    && x0 < x1
                    && x1 <= 1.0
                    && 0.0 <= y0
                    && y0 < y1
                    && y1 <= 1.0
                    && !object.phrase.trim().is_empty()
            })
        };
        let mut outcome = Err(String::new());
        for reading in readings {
            match (reading, &outcome) {
                (Ok(layout), Err(_) | Ok(true)) => outcome = Ok(whole(&layout.objects)),
                (Err(error), Err(former)) if former.len() < error.to_string().len() => outcome = Err(error.to_string()),
                _ => {}
            }
        }
        (0, outcome)
    }
}

fn number(dice: &mut Dice) -> Json {
    match dice.roll(12) {
        0 => json!(i64::MIN),
        1 => json!(u64::MAX),
        2 => json!(1e308),
        3 => json!(-1e-308),
        4 => json!(5e-324),
        5 => json!(-1),
        6 => json!(0),
        7 => json!(1.000_000_1),
        _ => json!(dice.roll(1000) as f64 / 250.0),
    }
}

fn phrase(dice: &mut Dice) -> &'static str {
    dice.pick(&["a red circle", "a blue square", "\u{202e}cat", "é 😀", " ", "", "a\u{0}b\u{1b}[31m"])
}

fn fractions(dice: &mut Dice) -> Json {
    let object = |dice: &mut Dice| {
        let (x, y) = (dice.roll(100) as f64 / 100.0, dice.roll(100) as f64 / 100.0);
        json!({ "phrase": phrase(dice), "box": [x, y, x + 0.3, y + 0.2] })
    };
    json!({ "boxes": (0..dice.roll(5)).map(|_| object(dice)).collect::<Vec<_>>() })
}

fn pixels(dice: &mut Dice) -> Json {
    let object = |dice: &mut Dice| {
        json!({ "phrase": phrase(dice), "bbox": [dice.roll(640), dice.roll(480), 1 + dice.roll(99), 1 + dice.roll(99)],
                "area": 1, "iscrowd": 0 })
    };
    json!({ "width": 640, "height": 480, "boxes": (0..dice.roll(5)).map(|_| object(dice)).collect::<Vec<_>>() })
}

fn coco(dice: &mut Dice) -> Json {
    let image = |id: usize| json!({ "id": id, "width": 640, "height": 480, "file_name": "a.jpg" });
    let annotation = |id: usize, dice: &mut Dice| {
        json!({ "id": id, "image_id": dice.roll(2), "category_id": dice.roll(3), "iscrowd": dice.roll(2),
                "bbox": [dice.roll(640), dice.roll(480), dice.roll(99), dice.roll(99)], "segmentation": [[1, 2]] })
    };
    json!({
        "info": { "year": 2017 },
        "images": (0..1 + dice.roll(2)).map(image).collect::<Vec<_>>(),
        "annotations": (0..dice.roll(6)).map(|id| annotation(id, dice)).collect::<Vec<_>>(),
        "categories": (0..3).map(|id| json!({ "id": id, "name": phrase(dice) })).collect::<Vec<_>>(),
    })
}

/// Replaces, removes or adds a value somewhere.
fn change(value: &mut Json, dice: &mut Dice) {
    match value {
        Json::Array(list) if !list.is_empty() && !dice.one_in(5) => {
            let at = dice.roll(list.len());
            match dice.roll(6) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => change(&mut list[at], dice),
            }
        }
        Json::Object(map) if !map.is_empty() && !dice.one_in(8) => {
            let name = map.keys().nth(dice.roll(map.len())).cloned().unwrap_or_default();
            match dice.roll(8) {
                0 => drop(map.remove(&name)),
                1 => drop(map.insert(name + "s", Json::Null)),
                _ => change(&mut map[&name], dice),
            }
        }
        _ => {
            *value = match dice.roll(8) {
                0 => Json::Null,
                1 => json!("x".repeat(1 << dice.roll(14))),
                2 => json!([]),
                3 => json!({}),
                4 => (0..1 + dice.roll(300)).fold(Json::Null, |inner, _| json!([inner])),
                5 => json!(phrase(dice)),
                _ => number(dice),
            }
        }
    }
}

/// Damages the text.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    if dice.one_in(3) {
        bytes.truncate(dice.roll(bytes.len()));
        return;
    }
    for _ in 0..1 + dice.roll(3) {
        let at = dice.roll(bytes.len());
        bytes[at] = *dice.pick(&[b"\"", b"[", b"}", b"\\", b"-", b"e", b"\xff", b"\0", b"9"]).first().unwrap_or(&0);
    }
}
