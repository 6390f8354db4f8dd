//! Values given from outside the file: on the command line, or by a row of a file of rows.
//!
//! Each knows the text it comes from, so that its faults point at what the user typed. Knows no document.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::diagnostic::{Diagnostic, Label};
use crate::document::{is_name, json};
use crate::source::{Source, Span};
use crate::yaml::{self, Data, Item, Key, Place};

/// A value from outside the file: `--set name=value`.
#[derive(Clone)]
pub struct Override {
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) name_span: Span,
    pub(crate) source: Arc<Source>,
    pub(crate) value: Item,
    /// The value as it was written, where it was neither quoted nor bracketed.
    pub(crate) plain: Option<String>,
}

impl Override {
    /// Reads `name=value`. A value in quotes, `[…]` or `{…}` is read as YAML; any other is a number, `true`, `false`,
    /// `null` or a text, as in a file, but may hold `: ` and `#` without quotes.
    ///
    /// # Errors
    /// When there is no `=`, or the value is not YAML.
    pub fn parse(arg: &str) -> Result<Override, Box<Diagnostic>> {
        let source = Source::new("--set", arg);
        let fault = |message: &str, span, help: &str| {
            Box::new(Diagnostic::error("override", message, Label::new(&source, span, "")).help(help.to_string()))
        };
        let whole = Span::new(0, arg.len());
        let Some((name, value)) = arg.split_once('=') else {
            return Err(fault("there is no `=` in it", whole, "write `--set name=value`"));
        };
        if !is_name(name) {
            let help = "write `--set name=value`, with the name of one of the file's `params`";
            return Err(fault("no name stands before the `=`", Span::new(0, name.len()), help));
        }
        let start = name.len() + 1 + (value.len() - value.trim_start().len());
        let value = value.trim();
        let (name_span, span) = (Span::new(0, name.len()), Span::new(start, start + value.len()));
        Override::read(&source, (name, name_span), (value, span))
    }

    /// Reads a value that stands in a text of the user's, by the rules of [`parse`](Override::parse). The name and the
    /// value come with their places; what is written there may be more than the value itself, such as its quotes in CSV.
    ///
    /// # Errors
    /// When the value is not YAML.
    pub fn read(source: &Arc<Source>, name: (&str, Span), value: (&str, Span)) -> Result<Override, Box<Diagnostic>> {
        let ((name, name_span), (value, span)) = (name, value);
        let given = |value, plain| Override { name: name.into(), name_span, source: source.clone(), value, plain };
        let fault = |message: &str, help: &str| {
            Box::new(Diagnostic::error("override", message, Label::new(source, span, "")).help(help.to_string()))
        };
        if !value.starts_with(['"', '\'', '[', '{']) {
            let data = match yaml::plain(value) {
                Ok(Data::Null) if value.is_empty() => Data::Text(String::new()),
                Ok(data) => data,
                Err(why) => {
                    let help = "if it is meant as a text, put it in quotes within quotes";
                    return Err(fault(&format!("`{value}` {why}"), help));
                }
            };
            return Ok(given(Item { place: placed(span), data }, Some(value.into())));
        }
        // Read by itself; every place in it is then moved to where it stands, if it stands there letter for letter.
        let moved = |inner: Span| match source.slice(span) == value {
            true => Span::new(span.start + inner.start, span.start + inner.end),
            false => span,
        };
        match yaml::read(&Source::new(source.name(), value), 0) {
            (Some(mut value), faults) if faults.list().is_empty() => {
                value.move_places(&moved);
                Ok(given(value, None))
            }
            (_, faults) => Err(match faults.into_list().into_iter().next() {
                Some(mut fault) => {
                    for label in std::iter::once(&mut fault.primary).chain(&mut fault.secondary) {
                        (label.source, label.span) = (source.clone(), moved(label.span));
                    }
                    Box::new(fault)
                }
                None => fault("the value is not YAML", "put a text in quotes within quotes"),
            }),
        }
    }

    /// Reads a JSON object that stands at `span` of a text: one override a member, each with the kind that it has in
    /// JSON.
    ///
    /// # Errors
    /// When it is no JSON object, or a name stands in it twice.
    pub fn members(source: &Arc<Source>, span: Span) -> Result<Vec<Override>, Vec<Diagnostic>> {
        let text = source.slice(span);
        let fault = |message: String, span, help: &str| {
            vec![Diagnostic::error("row", message, Label::new(source, span, "")).help(help.to_string())]
        };
        let json: Json = serde_json::from_str(text).map_err(|error| {
            let at = error.column().saturating_sub(1).min(text.len());
            let at = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_string();
            let at = Span::new(span.start + at, span.start + at);
            fault(format!("this is not JSON: {message}"), at, "write one object a line: `{\"seed\": 1}`")
        })?;
        let Json::Object(members) = json else {
            let message = "a row is an object of parameters and values, but this is something else".into();
            return Err(fault(message, span, "write one object a line: `{\"seed\": 1}`"));
        };
        // JSON's own reader knows no places and lets the last of two equal names win; YAML's has both.
        let (yaml, faults) = yaml::read(&Source::new(source.name(), text), 0);
        let mut faults = faults.into_list();
        faults.retain(|fault| fault.code == "duplicate-key");
        for label in faults.iter_mut().flat_map(|fault| std::iter::once(&mut fault.primary).chain(&mut fault.secondary))
        {
            label.span = Span::new(span.start + label.span.start, span.start + label.span.end);
            label.source = source.clone();
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        // Some escapes of JSON are none of YAML: the places in such a row are not known.
        if let Ok(Twice(Some(name))) = serde_json::from_str(text) {
            return Err(fault(format!("`{name}` stands twice in this row"), span, "keep one of them"));
        }
        let yaml = yaml.map(|mut yaml| {
            yaml.move_places(&|inner| Span::new(span.start + inner.start, span.start + inner.end));
            yaml
        });
        let given = members.into_iter().map(|(name, value)| {
            let at = yaml.as_ref().and_then(|yaml| yaml.get(&name));
            Override {
                name_span: at.map_or(span, |(key, _)| key.place.span),
                value: with_places(value, at.map(|(_, value)| value), span),
                source: source.clone(),
                plain: None,
                name,
            }
        });
        Ok(given.collect())
    }

    /// What is given, as JSON.
    pub fn json(&self) -> Json {
        json(&self.value)
    }

    /// The text that was given, if it is one, or the number as it was written.
    pub fn text(&self) -> Option<String> {
        match (&self.plain, &self.value.data) {
            (Some(plain), _) => Some(plain.clone()),
            (None, Data::Text(text)) => Some(text.clone()),
            (None, Data::Number(number)) => Some(number.to_string()),
            _ => None,
        }
    }

    /// An error at the value.
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, message, Label::new(&self.source, self.value.place.span, ""))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value in place of the file's: where the file has a text, an override such as `7` is one too.
    pub(crate) fn value_for(&self, before: &Item) -> Item {
        match (&before.data, &self.plain) {
            (Data::Text(_), Some(plain)) => Item { data: Data::Text(plain.clone()), ..self.value.clone() },
            _ => self.value.clone(),
        }
    }
}

/// A name that stands twice in a JSON object.
struct Twice(Option<String>);

impl<'de> Deserialize<'de> for Twice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Twice, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Twice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Twice, A::Error> {
                let mut names = HashSet::new();
                let mut twice = None;
                while let Some((name, IgnoredAny)) = members.next_entry::<String, _>()? {
                    if let Some(name) = names.replace(name) {
                        twice.get_or_insert(name);
                    }
                }
                Ok(Twice(twice))
            }
        }

        deserializer.deserialize_map(Names)
    }
}

fn placed(span: Span) -> Place {
    Place { span, ..Place::default() }
}

/// A JSON value, with the places of what was read from the same text as YAML, as far as that saw the same.
fn with_places(json: Json, yaml: Option<&Item>, outer: Span) -> Item {
    let span = yaml.map_or(outer, |yaml| yaml.place.span);
    let data = match json {
        Json::Null => Data::Null,
        Json::Bool(flag) => Data::Bool(flag),
        Json::Number(number) => Data::Number(number),
        Json::String(text) => Data::Text(text),
        Json::Array(values) => {
            let at = |i| match yaml.map(|yaml| &yaml.data) {
                Some(Data::List(items)) => items.get(i),
                _ => None,
            };
            Data::List(values.into_iter().enumerate().map(|(i, value)| with_places(value, at(i), span)).collect())
        }
        Json::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                let at = yaml.and_then(|yaml| yaml.get(&name));
                let key = Key { place: placed(at.map_or(span, |(key, _)| key.place.span)), name };
                (key, with_places(value, at.map(|(_, value)| value), span))
            });
            Data::Map(members.collect())
        }
    };
    Item { place: placed(span), data }
}
