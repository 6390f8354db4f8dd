//! Values given from outside the file: on the command line, or by a row of a file of rows.
//!
//! Each knows the text it comes from, so that its errors point at what the user typed. Knows no document.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::diagnostic::{Diagnostic, Label};
use crate::document::{is_name, json};
use crate::source::{Source, Span};
use crate::yaml::{self, Location, YamlData, YamlKey, YamlValue};

/// A value from outside the file: `--set name=value`.
#[derive(Clone)]
pub struct Override {
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) name_span: Span,
    pub(crate) source: Arc<Source>,
    pub(crate) value: YamlValue,
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
        let invalid = |message: &str, span, help: &str| {
            Box::new(Diagnostic::error("override", message, Label::new(&source, span, "")).help(help.to_string()))
        };
        let whole = Span::new(0, arg.len());
        let Some((name, value)) = arg.split_once('=') else {
            return Err(invalid("there is no `=` in it", whole, "write `--set name=value`"));
        };
        if !is_name(name) {
            let help = "write `--set name=value`, with the name of one of the file's `params`";
            return Err(invalid("no name stands before the `=`", Span::new(0, name.len()), help));
        }
        let start = name.len() + 1 + (value.len() - value.trim_start().len());
        let value = value.trim();
        let (name_span, span) = (Span::new(0, name.len()), Span::new(start, start + value.len()));
        Override::read(&source, (name, name_span), (value, span))
    }

    /// Reads a value that stands in a text of the user's, by the rules of [`parse`](Override::parse). The name and the
    /// value come with their locations; what is written there may be more than the value itself, such as its quotes in CSV.
    ///
    /// # Errors
    /// When the value is not YAML.
    pub fn read(source: &Arc<Source>, name: (&str, Span), value: (&str, Span)) -> Result<Override, Box<Diagnostic>> {
        let ((name, name_span), (value, span)) = (name, value);
        let given = |value, plain| Override { name: name.into(), name_span, source: source.clone(), value, plain };
        let invalid = |message: &str, help: &str| {
            Box::new(Diagnostic::error("override", message, Label::new(source, span, "")).help(help.to_string()))
        };
        if !value.starts_with(['"', '\'', '[', '{']) {
            let data = match yaml::plain(value) {
                Ok(YamlData::Null) if value.is_empty() => YamlData::Text(String::new()),
                Ok(data) => data,
                Err(why) => {
                    let help = "if it is meant as a text, put it in quotes within quotes";
                    return Err(invalid(&format!("`{value}` {why}"), help));
                }
            };
            return Ok(given(YamlValue { location: placed(span), data }, Some(value.into())));
        }
        // Read by itself; every location in it is then moved to where it stands, if it stands there letter for letter.
        let moved = |inner: Span| match source.slice(span) == value {
            true => Span::new(span.start + inner.start, span.start + inner.end),
            false => span,
        };
        match yaml::read(&Source::new(source.name(), value), 0) {
            (Some(mut value), errors) if errors.list().is_empty() => {
                value.move_locations(&moved);
                Ok(given(value, None))
            }
            (_, errors) => Err(match errors.into_list().into_iter().next() {
                Some(mut error) => {
                    for label in std::iter::once(&mut error.primary).chain(&mut error.secondary) {
                        (label.source, label.span) = (source.clone(), moved(label.span));
                    }
                    Box::new(error)
                }
                None => invalid("the value is not YAML", "put a text in quotes within quotes"),
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
        let invalid = |message: String, span, help: &str| {
            vec![Diagnostic::error("row", message, Label::new(source, span, "")).help(help.to_string())]
        };
        let json: Json = serde_json::from_str(text).map_err(|error| {
            let at = error.column().saturating_sub(1).min(text.len());
            let at = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_string();
            let at = Span::new(span.start + at, span.start + at);
            invalid(format!("this is not JSON: {message}"), at, "write one object a line: `{\"seed\": 1}`")
        })?;
        let Json::Object(members) = json else {
            let message = "a row is an object of parameters and values, but this is something else".into();
            return Err(invalid(message, span, "write one object a line: `{\"seed\": 1}`"));
        };
        // JSON's own reader knows no locations and lets the last of two equal names win; YAML's has both.
        let (yaml, errors) = yaml::read(&Source::new(source.name(), text), 0);
        let mut errors = errors.into_list();
        errors.retain(|error| error.code == "duplicate-key");
        for label in errors.iter_mut().flat_map(|error| std::iter::once(&mut error.primary).chain(&mut error.secondary))
        {
            label.span = Span::new(span.start + label.span.start, span.start + label.span.end);
            label.source = source.clone();
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        // Some escapes of JSON are none of YAML: the locations in such a row are not known.
        if let Ok(Twice(Some(name))) = serde_json::from_str(text) {
            return Err(invalid(format!("`{name}` stands twice in this row"), span, "keep one of them"));
        }
        let yaml = yaml.map(|mut yaml| {
            yaml.move_locations(&|inner| Span::new(span.start + inner.start, span.start + inner.end));
            yaml
        });
        let given = members.into_iter().map(|(name, value)| {
            let at = yaml.as_ref().and_then(|yaml| yaml.get(&name));
            Override {
                name_span: at.map_or(span, |(key, _)| key.location.span),
                value: with_locations(value, at.map(|(_, value)| value), span),
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
            (None, YamlData::Text(text)) => Some(text.clone()),
            (None, YamlData::Number(number)) => Some(number.to_string()),
            _ => None,
        }
    }

    /// An error at the value.
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, message, Label::new(&self.source, self.value.location.span, ""))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value in location of the file's: where the file has a text, an override such as `7` is one too.
    pub(crate) fn value_for(&self, before: &YamlValue) -> YamlValue {
        match (&before.data, &self.plain) {
            (YamlData::Text(_), Some(plain)) => YamlValue { data: YamlData::Text(plain.clone()), ..self.value.clone() },
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

fn placed(span: Span) -> Location {
    Location { span, ..Location::default() }
}

/// A JSON value, with the locations of what was read from the same text as YAML, as far as that saw the same.
fn with_locations(json: Json, yaml: Option<&YamlValue>, outer: Span) -> YamlValue {
    let span = yaml.map_or(outer, |yaml| yaml.location.span);
    let data = match json {
        Json::Null => YamlData::Null,
        Json::Bool(flag) => YamlData::Bool(flag),
        Json::Number(number) => YamlData::Number(number),
        Json::String(text) => YamlData::Text(text),
        Json::Array(values) => {
            let at = |i| match yaml.map(|yaml| &yaml.data) {
                Some(YamlData::List(items)) => items.get(i),
                _ => None,
            };
            YamlData::List(
                values.into_iter().enumerate().map(|(i, value)| with_locations(value, at(i), span)).collect(),
            )
        }
        Json::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                let at = yaml.and_then(|yaml| yaml.get(&name));
                let key = YamlKey { location: placed(at.map_or(span, |(key, _)| key.location.span)), name };
                (key, with_locations(value, at.map(|(_, value)| value), span))
            });
            YamlData::Map(members.collect())
        }
    };
    YamlValue { location: placed(span), data }
}
