//! COCO's `instances_….json`, and LVIS's files, which have the same form.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use lsregen_tensor::{Error, Result};
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::bounds::{box_area, fractions};
use super::dataset::{Dataset, DatasetImage, DatasetObject};
use super::id::Id;
use super::lenient::{Lenient, List, Number, shortened};
use super::phrase::phrase;
use super::report::{Reason, Report};

/// What is used of a file. Unknown keys are ignored.
#[derive(Deserialize)]
struct Content {
    images: Option<List<ImageEntry>>,
    annotations: Option<List<AnnotationEntry>>,
    categories: Option<List<CategoryEntry>>,
}

#[derive(Deserialize)]
struct ImageEntry {
    id: Id,
    #[serde(default)]
    width: Number,
    #[serde(default)]
    height: Number,
}

#[derive(Deserialize)]
struct AnnotationEntry {
    id: Option<Id>,
    image_id: Id,
    category_id: Option<Id>,
    #[serde(default)]
    bbox: BoxEntry,
    #[serde(default)]
    area: Number,
    #[serde(default)]
    iscrowd: Flag,
    /// A file of captions has these.
    caption: Option<IgnoredAny>,
    /// A panoptic file has these.
    segments_info: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct CategoryEntry {
    id: Id,
    #[serde(default)]
    name: String,
}

/// Four numbers, or else `None`.
#[derive(Default)]
struct BoxEntry(Option<[f64; 4]>);

impl<'de> Deserialize<'de> for BoxEntry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<BoxEntry, D::Error> {
        struct BoxVisitor;

        impl<'de> Visitor<'de> for BoxVisitor {
            type Value = BoxEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a box [x, y, width, height]")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<BoxEntry, E> {
                Ok(BoxEntry(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BoxEntry, A::Error> {
                let (mut numbers, mut count) = ([0.0; 4], 0);
                while let Some(Number(number)) = list.next_element()? {
                    if let Some(place) = numbers.get_mut(count) {
                        *place = number;
                    }
                    count += 1;
                }
                Ok(BoxEntry((count == 4).then_some(numbers)))
            }
        }

        from.deserialize_any(BoxVisitor)
    }
}

/// 0 or 1, or a boolean. Missing and `null` are 0.
#[derive(Default)]
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Flag, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Bool(bool),
            Number(f64),
            Null(()),
        }
        match Form::deserialize(from) {
            Ok(Form::Bool(flag)) => Ok(Flag(flag)),
            Ok(Form::Number(number)) => Ok(Flag(number != 0.0)),
            Ok(Form::Null(())) => Ok(Flag(false)),
            Err(_) => Err(D::Error::custom("`iscrowd` must be 0 or 1")),
        }
    }
}

/// Reads a file of annotations in the form of COCO: `images`, `annotations` and `categories`. Segmentations are skipped as
/// they are read, so that memory grows with the number of annotations only.
///
/// # Errors
/// If the file cannot be read, is no JSON, or has another form. The error names the file, and the element and line of a
/// malformed entry.
pub fn read(path: &Path) -> Result<Dataset> {
    let broken = |what: &str| Error::Input(format!("{}: {what}", path.display()));
    let mut file = Lenient::open(path)?;
    match file.first().map_err(Error::io(path))? {
        Some(b'{') => {}
        Some(b'[') => {
            return Err(broken(
                "the file is a list, such as detections; annotations are an object with `images`, `annotations` and \
                 `categories`",
            ));
        }
        None => return Err(broken("the file is empty; download or copy it again")),
        Some(_) => return Err(broken("the file is not JSON; give COCO's `instances_….json`")),
    }
    let content: Content = serde_json::from_reader(file).map_err(|error| {
        broken(&format!("{}; download the file again, or correct it", shortened(&error.to_string())))
    })?;
    let Content { images: Some(images), annotations: Some(annotations), categories } = content else {
        return Err(broken("the file has no `images` and `annotations`; give COCO's `instances_….json`"));
    };
    if annotations.0.first().is_some_and(|entry| entry.caption.is_some()) {
        return Err(broken("this file has captions; give it as `--captions`, and `instances_….json` here"));
    }
    if annotations.0.first().is_some_and(|entry| entry.segments_info.is_some()) {
        return Err(broken("this is a panoptic file; give `instances_….json`"));
    }
    let Some(categories) = categories else {
        return Err(broken("the file has no `categories`, so that its objects have no names; add them"));
    };
    Ok(dataset(images.0, annotations.0, categories.0))
}

fn dataset(entries: Vec<ImageEntry>, annotations: Vec<AnnotationEntry>, categories: Vec<CategoryEntry>) -> Dataset {
    let mut report = Report::new(entries.len(), annotations.len());
    let names: HashMap<_, _> = categories.into_iter().map(|entry| (entry.id, phrase(&entry.name))).collect();
    let mut images = listed(entries, &mut report);
    for (i, entry) in annotations.into_iter().enumerate() {
        let label = entry.id.as_ref().map_or_else(|| format!("element {i}"), Id::to_string);
        let image = images.get_mut(&entry.image_id);
        match object(entry, &names, image) {
            Ok(notes) => notes.into_iter().for_each(|note| report.add(note, &label)),
            Err(reason) => report.add(reason, &label),
        }
    }
    let mut images: Vec<_> = images.into_values().flatten().collect();
    images.sort_by(|a, b| a.id.cmp(&b.id));
    images.iter_mut().for_each(|image| drop_repeated(image, &mut report));
    Dataset { images, report }
}

/// The images by id; `None` for those without a size.
fn listed(entries: Vec<ImageEntry>, report: &mut Report) -> HashMap<Id, Option<DatasetImage>> {
    let mut images = HashMap::with_capacity(entries.len());
    for ImageEntry { id, width: Number(width), height: Number(height) } in entries {
        if images.contains_key(&id) {
            report.add(Reason::RepeatedImage, &id);
            continue;
        }
        let has_size = [width, height].iter().all(|side| *side > 0.0 && *side < 1e9);
        if !has_size {
            report.add(Reason::NoSize, &id);
        }
        let image = || DatasetImage { name: id.row_name(), id: id.clone(), width, height, objects: vec![] };
        let image = has_size.then(image);
        images.insert(id, image);
    }
    images
}

/// Adds the object of an annotation to its image. Returns what was changed.
///
/// # Errors
/// The reason to leave it out.
fn object(
    entry: AnnotationEntry,
    names: &HashMap<Id, String>,
    image: Option<&mut Option<DatasetImage>>,
) -> Result<Vec<Reason>, Reason> {
    if entry.iscrowd.0 {
        return Err(Reason::Crowd);
    }
    let image = image.ok_or(Reason::NoImage)?.as_mut().ok_or(Reason::ImageWithoutSize)?;
    let name = entry.category_id.as_ref().and_then(|id| names.get(id)).filter(|name| !name.is_empty());
    let name = name.ok_or(Reason::UnknownCategory)?;
    let pixels = entry.bbox.0.ok_or(Reason::NoBox)?;
    let (bounds, is_clipped) = fractions(pixels, (image.width, image.height))?;
    let has_area = entry.area.0 >= 0.0 && entry.area.0 < 1e300;
    let area = if has_area { entry.area.0 } else { box_area(bounds, (image.width, image.height)) };
    image.objects.push(DatasetObject { id: entry.id, phrase: name.clone(), bounds, area });
    let notes = [(is_clipped, Reason::Clipped), (!has_area, Reason::AreaOfBox)];
    Ok(notes.into_iter().filter_map(|(holds, note)| holds.then_some(note)).collect())
}

/// Leaves out annotations that have the same id, category and box as an earlier one of their image.
fn drop_repeated(image: &mut DatasetImage, report: &mut Report) {
    let mut seen = HashSet::new();
    image.objects.retain(|object| {
        let Some(id) = &object.id else { return true };
        let is_new = seen.insert((id.clone(), object.phrase.clone(), object.bounds.map(f64::to_bits)));
        if !is_new {
            report.add(Reason::RepeatedAnnotation, id);
        }
        is_new
    });
}
