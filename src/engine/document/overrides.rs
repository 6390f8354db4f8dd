//! Values of parameters from outside the file: from the command line, or from a row of a table.
//!
//! Each value keeps the text that it comes from, so that its errors point at what the user typed. Independent of
//! documents.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::text::yaml::{self, Location, YamlData, YamlKey, YamlValue};
use crate::text::{Diagnostic, Label, Source, Span, is_name};

/// The word that stands for a random seed.
pub(crate) const RANDOM: &str = "random";

/// A value from outside the file: `--set name=value`.
#[derive(Clone)]
pub struct Override {
    pub(crate) name: String,
    /// Where the name is.
    pub(crate) name_span: Span,
    pub(crate) source: Arc<Source>,
    /// Where the value is.
    pub(crate) span: Span,
    /// The value as it was written, which is the value of a parameter that is a text; `None` for a value from JSON, which
    /// has a type of its own.
    written: Option<String>,
    /// The value of any other parameter.
    value: Result<YamlValue, Box<Diagnostic>>,
}

impl Override {
    /// Reads `name=value`. If the parameter is a text, it takes the value as it is written. For any other parameter, a
    /// value in quotes, `[…]` or `{…}` is read as YAML, and any other value is a number, `true`, `false`, `null` or a text,
    /// as in a file, except that it may contain `: ` and `#` without quotes.
    ///
    /// # Errors
    /// Returns a diagnostic if there is no `=` or no name before it.
    pub fn parse(arg: &str) -> Result<Override, Box<Diagnostic>> {
        let source = Source::new("--set", arg);
        let invalid = |message: &str, span, help: &str| {
            Box::new(Diagnostic::error("override", message, Label::new(&source, span, "")).help(help.to_string()))
        };
        let whole = Span::new(0, arg.len());
        let Some((name, value)) = arg.split_once('=') else {
            return Err(invalid("it has no `=`", whole, "write `--set name=value`"));
        };
        if !is_name(name) {
            let help = "write `--set name=value`, with the name of one of the file's `params`";
            return Err(invalid("there is no name before the `=`", Span::new(0, name.len()), help));
        }
        let start = name.len() + 1 + (value.len() - value.trim_start().len());
        let value = value.trim();
        let (name_span, span) = (Span::new(0, name.len()), Span::new(start, start + value.len()));
        Ok(Override::read(&source, (name, name_span), (value, span)))
    }

    /// Reads a value from a text of the user, by the rules of [`parse`](Override::parse). `name` and `value` come with
    /// their spans in the text. A span may contain more than the value, such as its quotes in CSV.
    pub fn read(source: &Arc<Source>, name: (&str, Span), value: (&str, Span)) -> Override {
        let ((name, name_span), (written, span)) = (name, value);
        let value = value_of(source, written, span);
        Override { name: name.into(), name_span, source: source.clone(), span, written: Some(written.into()), value }
    }

    /// Reads the JSON object at `span` of a text: one override for each member, of the type that it has in JSON.
    ///
    /// # Errors
    /// Returns diagnostics if the text is not a JSON object, or has a name twice.
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
            invalid(format!("this is not JSON: {message}"), at, "write one object on each line: `{\"seed\": 1}`")
        })?;
        let Json::Object(members) = json else {
            let message = "a row is an object of parameters and their values, but this is not an object".into();
            return Err(invalid(message, span, "write one object on each line: `{\"seed\": 1}`"));
        };
        // serde_json gives no locations and accepts equal names. The YAML reader gives both.
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
        // YAML does not know some escapes of JSON. For a row with one of them there are no locations.
        if let Ok(Twice(Some(name))) = serde_json::from_str(text) {
            return Err(invalid(format!("this row has `{name}` twice"), span, "keep one of them"));
        }
        let yaml = yaml.map(|mut yaml| {
            let moved = |inner: Span| Span::new(span.start + inner.start, span.start + inner.end);
            yaml.relocate(&mut |location| location.span = moved(location.span));
            yaml
        });
        let places = yaml.as_ref().map(YamlValue::entries).unwrap_or_default();
        let given = members.into_iter().map(|(name, value)| {
            let at = places.get(name.as_str());
            Override {
                name_span: at.map_or(span, |(key, _)| key.location.span),
                span: at.map_or(span, |(_, value)| value.location.span),
                value: Ok(with_locations(value, at.map(|(_, value)| value), span)),
                source: source.clone(),
                written: None,
                name,
            }
        });
        Ok(given.collect())
    }

    /// The value if it is a text, or as it was written.
    pub fn text(&self) -> Option<String> {
        match (&self.written, &self.value) {
            (Some(written), _) => Some(written.clone()),
            (None, Ok(YamlValue { data: YamlData::Text(text), .. })) => Some(text.clone()),
            (None, Ok(YamlValue { data: YamlData::Number(number), .. })) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The same override with a number as its value.
    pub(crate) fn with_number(&self, number: u64) -> Override {
        let value = YamlValue { location: at_span(self.span), data: YamlData::Number(number.into()) };
        let written = self.written.as_ref().map(|_| number.to_string());
        Override { value: Ok(value), written, ..self.clone() }
    }

    /// An error at the value.
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, message, Label::new(&self.source, self.span, ""))
    }

    /// The name of the parameter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value that replaces `before`. The word for a random seed stands for a number.
    ///
    /// # Errors
    /// Returns a diagnostic if `before` is not a text, and the value is not YAML.
    pub(crate) fn value_for(&self, before: &YamlValue) -> Result<YamlValue, Box<Diagnostic>> {
        match (&before.data, &self.written) {
            (YamlData::Text(text), Some(written)) if text != RANDOM => {
                Ok(YamlValue { location: at_span(self.span), data: YamlData::Text(written.clone()) })
            }
            _ => self.value.clone(),
        }
    }
}

/// Reads a value that is not known to be a text.
fn value_of(source: &Arc<Source>, written: &str, span: Span) -> Result<YamlValue, Box<Diagnostic>> {
    let invalid = |message: &str, help: &str| {
        Box::new(Diagnostic::error("override", message, Label::new(source, span, "")).help(help.to_string()))
    };
    if !written.starts_with(['"', '\'', '[', '{']) {
        let data = match yaml::plain(written) {
            Ok(YamlData::Null) if written.is_empty() => YamlData::Text(String::new()),
            Ok(data) => data,
            Err(why) => {
                let help = "if it is meant as a text, put it in quotes within quotes";
                return Err(invalid(&format!("`{written}` {why}"), help));
            }
        };
        return Ok(YamlValue { location: at_span(span), data });
    }
    // The value is read as a text of its own. Its locations are then moved into `source`, if `source` has exactly it.
    let moved = |inner: Span| match source.slice(span) == written {
        true => Span::new(span.start + inner.start, span.start + inner.end),
        false => span,
    };
    match yaml::read(&Source::new(source.name(), written), 0) {
        (Some(mut value), errors) if errors.list().is_empty() => {
            value.relocate(&mut |location| location.span = moved(location.span));
            Ok(value)
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

/// A name that a JSON object has twice.
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

fn at_span(span: Span) -> Location {
    Location { span, ..Location::default() }
}

/// A JSON value with the locations from `yaml`, which was read from the same text; `outer` where `yaml` has none.
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
            let places = yaml.map(YamlValue::entries).unwrap_or_default();
            let members = members.into_iter().map(|(name, value)| {
                let at = places.get(name.as_str());
                let key = YamlKey { location: at_span(at.map_or(span, |(key, _)| key.location.span)), name };
                (key, with_locations(value, at.map(|(_, value)| value), span))
            });
            YamlData::Map(members.collect())
        }
    };
    YamlValue { location: at_span(span), data }
}
