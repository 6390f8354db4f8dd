//! Reads YAML into a tree of values, each with its location.
//!
//! Reads the event stream of `saphyr-parser`, because serde_yaml drops locations and accepts equal keys. serde_yaml
//! decides what a plain scalar means. Aliases are expanded, within limits. Independent of workflows.

mod mask;
mod reader;
mod scalar;
mod syntax;

use std::collections::HashMap;

use serde_json::{Number, Value as Json};

pub(crate) use self::reader::read;
pub(crate) use self::scalar::plain;
use crate::text::Span;

/// How deep lists and mappings may be nested.
pub(crate) const MAX_DEPTH: usize = 64;

/// How much aliases and `${…}` may add to a document. Each value counts 1, and each 32 bytes of text count 1.
pub(crate) const MAX_COPIES: usize = 100_000;

/// Where a value was written, and how it came to the document.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Location {
    /// The index of the text in the [source map](crate::text::SourceMap): 0 is the document, the others are values
    /// from outside.
    pub origin: usize,
    pub span: Span,
    /// The `${…}` in the document that stands for the value.
    pub via: Option<Span>,
}

/// A value with its location.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct YamlValue {
    pub location: Location,
    pub data: YamlData,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum YamlData {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<YamlValue>),
    Map(Vec<(YamlKey, YamlValue)>),
    /// The value is invalid, and its error has been reported.
    Poison,
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct YamlKey {
    pub name: String,
    pub location: Location,
}

impl YamlValue {
    /// The entry of a mapping with this key.
    pub fn get(&self, key: &str) -> Option<&(YamlKey, YamlValue)> {
        match &self.data {
            YamlData::Map(entries) => entries.iter().find(|(k, _)| k.name == key),
            _ => None,
        }
    }

    /// The entries of a mapping by key, for many lookups.
    pub fn entries(&self) -> HashMap<&str, &(YamlKey, YamlValue)> {
        match &self.data {
            YamlData::Map(entries) => entries.iter().rev().map(|entry| (entry.0.name.as_str(), entry)).collect(),
            _ => HashMap::new(),
        }
    }

    /// Returns the value at a path such as `boxes/1/box`, and the key that it or its list has. If a part of the path is
    /// missing, returns the value that would contain it.
    pub fn find(&self, path: &str) -> (Option<&YamlKey>, &YamlValue) {
        let (mut found_key, mut found) = (None, self);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let next = match &found.data {
                YamlData::Map(_) => found.get(part).map(|(key, value)| (Some(key), value)),
                YamlData::List(items) => {
                    part.parse::<usize>().ok().and_then(|index| items.get(index)).map(|item| (found_key, item))
                }
                _ => None,
            };
            let Some(next) = next else { break };
            (found_key, found) = next;
        }
        (found_key, found)
    }

    /// How much a copy counts towards [`MAX_COPIES`].
    pub fn weight(&self) -> usize {
        match &self.data {
            YamlData::Text(text) => 1 + text.len() / 32,
            YamlData::List(items) => 1 + items.iter().map(YamlValue::weight).sum::<usize>(),
            YamlData::Map(entries) => {
                1 + entries.iter().map(|(k, v)| 1 + k.name.len() / 32 + v.weight()).sum::<usize>()
            }
            _ => 1,
        }
    }

    /// How many lists and mappings are nested in it; 0 for a scalar.
    pub fn depth(&self) -> usize {
        match &self.data {
            YamlData::List(items) => 1 + items.iter().map(YamlValue::depth).max().unwrap_or(0),
            YamlData::Map(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Calls `change` with the location of every value and key in it.
    pub fn relocate(&mut self, change: &mut impl FnMut(&mut Location)) {
        change(&mut self.location);
        match &mut self.data {
            YamlData::List(items) => items.iter_mut().for_each(|item| item.relocate(change)),
            YamlData::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
                change(&mut key.location);
                value.relocate(change);
            }),
            _ => {}
        }
    }

    /// The value as JSON. An invalid value is null.
    pub fn to_json(&self) -> Json {
        match &self.data {
            YamlData::Null | YamlData::Poison => Json::Null,
            YamlData::Bool(flag) => Json::Bool(*flag),
            YamlData::Number(number) => Json::Number(number.clone()),
            YamlData::Text(text) => Json::String(text.clone()),
            YamlData::List(items) => items.iter().map(YamlValue::to_json).collect(),
            YamlData::Map(entries) => entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect(),
        }
    }

    /// Names the value in a sentence: `the text "up"`, `a list`.
    pub fn describe(&self) -> String {
        match &self.data {
            YamlData::Null | YamlData::Poison => "nothing".into(),
            YamlData::Bool(flag) => format!("`{flag}`"),
            YamlData::Number(number) => format!("the number {number}"),
            YamlData::Text(text) => format!("the text {}", quoted(text)),
            YamlData::List(_) => "a list".into(),
            YamlData::Map(_) => "a mapping".into(),
        }
    }
}

/// Puts a text in quotes, and shortens a long one.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}", text.chars().take(SHOWN).chain(['…']).collect::<String>())
}

/// Puts a name in backticks, and shortens a long one.
pub(crate) fn code(name: &str) -> String {
    let quoted = quoted(name);
    format!("`{}`", &quoted[1..quoted.len() - 1])
}
