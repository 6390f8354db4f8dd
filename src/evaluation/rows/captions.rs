//! Captions of images, in any of the forms that programs write.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use lsregen_tensor::{Error, Result};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::id::Id;
use super::lenient::{Lenient, shortened};

/// The keys of COCO's files beside `annotations`.
const OTHER_KEYS: [&str; 5] = ["info", "images", "licenses", "type", "categories"];

/// A caption for each image. Of several, it is the one with the lowest id, or else the first.
#[derive(Clone, Debug, Default)]
pub struct Captions {
    by_image: HashMap<Id, (Option<Id>, String)>,
}

impl Captions {
    /// Reads a file in one of these forms:
    ///
    /// - COCO's `captions_….json`: `{"annotations": [{"image_id": 139, "caption": "…"}]}`;
    /// - a list of such objects, as LAVIS writes for BLIP-2, or one such object a line;
    /// - an object of captions by image: `{"139": "…"}`, also with lists of captions.
    ///
    /// An image is named by its id or by its file.
    ///
    /// # Errors
    /// If the file cannot be read, is no JSON, or has another form. The error names the file, and the element and line.
    pub fn read(path: &Path) -> Result<Captions> {
        let mut captions = Captions::default();
        let file = Lenient::open(path)?;
        let mut values = serde_json::Deserializer::from_reader(file);
        let broken = |error: serde_json::Error| {
            let what = shortened(&error.to_string());
            Error::Input(format!(
                "{}: {what}; write `[{{\"image_id\": 139, \"caption\": \"a text\"}}]` or `{{\"139\": \"a text\"}}`",
                path.display()
            ))
        };
        // One value, or one a line.
        while values.end().is_err() {
            ValueSeed(&mut captions).deserialize(&mut values).map_err(broken)?;
        }
        match captions.by_image.is_empty() {
            true => Err(Error::Input(format!("{}: the file has no captions", path.display()))),
            false => Ok(captions),
        }
    }

    /// Returns the caption of an image.
    pub fn of(&self, image: &Id) -> Option<&str> {
        let by_file = |name: &String| self.by_image.get(&Id::of_file(name));
        let entry = self.by_image.get(image).or_else(|| if let Id::Text(name) = image { by_file(name) } else { None });
        entry.map(|(_, caption)| caption.as_str())
    }

    /// Returns the ids of some images that have captions, for messages.
    pub fn some_ids(&self) -> Vec<&Id> {
        let mut ids: Vec<_> = self.by_image.keys().collect();
        ids.sort();
        ids.truncate(3);
        ids
    }

    fn add(&mut self, image: Id, id: Option<Id>, caption: &str) {
        let caption = caption.split_whitespace().collect::<Vec<_>>().join(" ");
        if caption.is_empty() {
            return;
        }
        let is_earlier = |former: &Option<Id>| matches!((&id, former), (Some(id), Some(former)) if id < former);
        if self.by_image.get(&image).is_none_or(|(former, _)| is_earlier(former)) {
            self.by_image.insert(image, (id, caption));
        }
    }
}

/// Reads a list of entries, an entry, or an object of captions.
struct ValueSeed<'a>(&'a mut Captions);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("captions, which are a list or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for i in 0.. {
            let placed = |error| A::Error::custom(format!("element {i}: {error}"));
            if list.next_element_seed(ValueSeed(self.0)).map_err(placed)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut image, mut id, mut text, mut is_entry) = (None, None, None, false);
        // Captions by the name of their image, unless this is an entry with keys of its own.
        let mut named: Vec<(String, Json)> = vec![];
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "annotations" => map.next_value_seed(ValueSeed(self.0))?,
                "image_id" | "image" | "file_name" => {
                    let given = map.next_value::<Option<Id>>()?;
                    let given = given.map(|given| if let Id::Text(name) = given { Id::of_file(&name) } else { given });
                    (image, is_entry) = (image.or(given), true);
                }
                "caption" | "text" => (text, is_entry) = (Some(map.next_value::<Json>()?), true),
                "id" => id = map.next_value::<Option<Id>>()?,
                _ if is_entry || OTHER_KEYS.contains(&&*key) => drop(map.next_value::<IgnoredAny>()?),
                _ => named.push((key, map.next_value()?)),
            }
        }
        if !is_entry {
            for (name, value) in named {
                let placed = |what| A::Error::custom(format!("`{}`: {what}", shortened(&name)));
                texts(&value).map_err(placed)?.iter().for_each(|text| self.0.add(Id::of_file(&name), None, text));
            }
            return Ok(());
        }
        // An image without a caption has no text.
        let Some(text) = text else { return Ok(()) };
        let image = image.or(id.clone()).ok_or_else(|| A::Error::custom("a caption without `image_id`"))?;
        let texts = texts(&text).map_err(A::Error::custom)?;
        texts.iter().for_each(|text| self.0.add(image.clone(), id.clone(), text));
        Ok(())
    }
}

/// The captions in a value: a text, a list of texts, or `null` for none.
fn texts(value: &Json) -> Result<Vec<&str>, &'static str> {
    match value {
        Json::Null => Ok(vec![]),
        Json::String(text) => Ok(vec![text]),
        Json::Array(list) => list.iter().map(|item| item.as_str().ok_or("each caption must be a text")).collect(),
        _ => Err("a caption must be a text, or a list of texts"),
    }
}
