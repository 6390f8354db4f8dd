//! Checks values against a schema.

use schemars::Schema;
use serde_json::Value as Json;

use super::limits::{Limits, format_limits, range_of, shown};
use super::{Object, Reader, alternatives, bound, properties, readable, required, types};
use crate::text::yaml::quoted;
use crate::text::{MAX_DIAGNOSTICS, NameFinder, did_you_mean, either, listed};

/// An error of a value that its schema does not allow.
pub(crate) struct SchemaViolation {
    pub code: &'static str,
    /// Where, as in [`NodeError::path`](crate::NodeError::path).
    pub path: String,
    /// The key is invalid, not its value.
    pub on_key: bool,
    pub message: String,
    pub label: String,
    pub help: Option<String>,
}

/// Returns all errors in the value of one parameter.
pub(crate) fn violations(schema: &Schema, param: &str, value: &Json, names: &NameFinder) -> Vec<SchemaViolation> {
    let Some(root) = schema.as_object() else { return vec![] };
    let mut checker = Checker { reader: Reader { root }, names, violations: vec![] };
    if let Some((_, property)) = properties(root).find(|(name, _)| *name == param) {
        checker.check(property, value, param.to_string());
        // A seed is drawn if it is `random`; its schema does not say so.
        if let ("seed", [violation]) = (role(property), checker.violations.as_mut_slice())
            && violation.path == param
        {
            violation.message = violation.message.replacen("must be an integer", "must be an integer or `random`", 1);
        }
        // Leaving the key out is one way to correct an invalid value.
        let default = property.get("default").filter(|default| !default.is_null());
        if let (Some(default), [violation]) = (default, checker.violations.as_mut_slice())
            && violation.path == param
        {
            let help = violation.help.take().map(|help| format!("{help}; ")).unwrap_or_default();
            violation.help = Some(format!("{help}the default is {}", shown(default)));
        }
    }
    checker.violations
}

fn role(property: &Json) -> &str {
    property.get("x-role").and_then(Json::as_str).unwrap_or_default()
}

struct Checker<'a> {
    reader: Reader<'a>,
    names: &'a NameFinder,
    violations: Vec<SchemaViolation>,
}

impl<'a> Checker<'a> {
    fn violation(&mut self, code: &'static str, path: &str, message: String) -> &mut SchemaViolation {
        let (path, label) = (path.to_string(), String::new());
        self.violations.push(SchemaViolation { code, path, on_key: false, message, label, help: None });
        self.violations.last_mut().expect("just pushed")
    }

    fn check(&mut self, schema: &'a Json, value: &Json, path: String) {
        if self.violations.len() >= MAX_DIAGNOSTICS {
            return;
        }
        let choices = self.reader.choices(schema);
        let takes_null = self.takes_null(schema);
        if choices.is_empty() || (value.is_null() && takes_null) {
            return;
        }
        let fitting: Vec<_> = choices.iter().copied().filter(|choice| fits_kind(choice, value)).collect();
        match fitting.as_slice() {
            [] => self.wrong_kind(schema, value, &path),
            [only] => {
                self.check_choice(only, value, &path);
                // A schema may have limits beside a reference or beside alternatives.
                let outer = schema.as_object();
                if let Some(outer) = outer.filter(|outer| outer.contains_key("$ref") || alternatives(outer).is_some()) {
                    self.check_bounds(outer, value, &path);
                }
            }
            several => {
                // Report the errors of the alternative that has the fewest.
                let mut best: Option<Vec<SchemaViolation>> = None;
                for choice in several {
                    let before = self.violations.len();
                    self.check_choice(choice, value, &path);
                    let found = self.violations.split_off(before);
                    if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                        best = Some(found);
                    }
                }
                self.violations.extend(best.into_iter().flatten());
            }
        }
    }

    fn takes_null(&self, schema: &'a Json) -> bool {
        let Some(object) = self.reader.resolve(schema) else { return true };
        let null = types(object).contains(&"null");
        null || alternatives(object).is_some_and(|list| list.iter().any(|choice| self.takes_null(choice)))
    }

    fn wrong_kind(&mut self, schema: &'a Json, value: &Json, path: &str) {
        let choices = self.reader.choices(schema);
        let words: Vec<_> = choices.iter().flat_map(|choice| words(choice)).collect();
        let expected = a(&self.reader.type_text(schema));
        let subject = readable(path);
        if let (Json::String(text), false) = (value, words.is_empty()) {
            let near = self.names.nearest(text, words.iter().copied()).map(did_you_mean);
            let message = format!("`{subject}` must be {expected}, but is {}", quoted(text));
            self.violation("not-a-choice", path, message).label = near.unwrap_or_default();
            return;
        }
        if let Some((tag, given)) = value.as_object().and_then(|fields| tag(&choices, fields)) {
            let words: Vec<_> = choices.iter().filter_map(|choice| tag_word(choice, tag)).collect();
            let near = given.as_str().and_then(|given| self.names.nearest(given, words.iter().copied()));
            let label = near.map(did_you_mean).unwrap_or_default();
            let message = format!("`{subject}.{tag}` must be {}, but is {}", either(words), described(given));
            self.violation("not-a-choice", &format!("{path}/{tag}"), message).label = label;
            return;
        }
        let kinds: Vec<_> = choices.iter().flat_map(|choice| types(choice)).collect();
        let message = match value {
            Json::Null => format!("`{subject}` must be {expected}, but nothing is given"),
            _ => format!("`{subject}` must be {expected}, but is {}", described(value)),
        };
        let help = match value {
            Json::Null => Some("write its value after the `:`, or leave the key out".to_string()),
            Json::Number(_) | Json::Bool(_) if kinds.contains(&"string") && words.is_empty() => {
                Some(format!("to make it a text, put it in quotes: \"{value}\""))
            }
            Json::Number(number) if kinds.contains(&"integer") => {
                number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15).map(|f| format!("write {f:.0}"))
            }
            Json::String(text) if kinds.contains(&"integer") || kinds.contains(&"number") => {
                let with_point = text.replacen(',', ".", 1);
                match (text.parse::<f64>(), with_point.parse::<f64>()) {
                    (Ok(_), _) => Some(format!("remove the quotes: {text}")),
                    (_, Ok(_)) => Some(format!("write a decimal point: {with_point}")),
                    _ => None,
                }
            }
            Json::String(text) if kinds.contains(&"boolean") => match text.to_lowercase().as_str() {
                "yes" | "on" | "y" => Some("write `true`".into()),
                "no" | "off" | "n" => Some("write `false`".into()),
                _ => None,
            },
            _ if kinds == ["object"] => {
                let names: Vec<_> =
                    choices.iter().flat_map(|choice| required(choice)).map(|name| format!("{name}: …")).collect();
                (!names.is_empty()).then(|| format!("write it as `{{ {} }}`", names.join(", ")))
            }
            Json::Array(_) => None,
            _ if kinds == ["array"] => Some("write a list as `[…, …]`, or as lines that begin with `- `".into()),
            _ => None,
        };
        self.violation("wrong-type", path, message).help = help;
    }

    fn check_choice(&mut self, object: &'a Object, value: &Json, path: &str) {
        self.check_bounds(object, value, path);
        match value {
            Json::Array(list) => {
                let items = object.get("items").filter(|items| items.is_object());
                let first = object.get("prefixItems").and_then(Json::as_array);
                for (index, item) in list.iter().enumerate() {
                    if let Some(schema) = first.and_then(|first| first.get(index)).or(items) {
                        self.check(schema, item, format!("{path}/{index}"));
                    }
                }
            }
            Json::Object(fields) => self.check_fields(object, fields, path),
            _ => {}
        }
    }

    fn check_fields(&mut self, object: &'a Object, fields: &Object, path: &str) {
        let subject = readable(path);
        let names: Vec<_> = properties(object).map(|(name, _)| name.as_str()).collect();
        let closed = object.get("additionalProperties") == Some(&Json::Bool(false));
        for (name, value) in fields {
            if self.violations.len() >= MAX_DIAGNOSTICS {
                break;
            }
            let inner = format!("{path}/{name}");
            if let Some((_, schema)) = properties(object).find(|(known, _)| *known == name) {
                self.check(schema, value, inner);
            } else if closed {
                let near = self.names.nearest(name, names.iter().copied()).map(did_you_mean);
                let violation = self.violation("unknown-key", &inner, format!("`{subject}` has no key `{name}`"));
                violation.on_key = true;
                violation.label = near.unwrap_or_default();
                violation.help = Some(format!("its keys are {}", listed(names.iter().copied())));
            } else if let Some(schema) = object.get("additionalProperties").filter(|schema| schema.is_object()) {
                self.check(schema, value, inner);
            }
        }
        for name in required(object).filter(|name| !fields.contains_key(*name)) {
            let kind =
                properties(object).find(|(known, _)| *known == name).map(|(_, schema)| self.reader.type_text(schema));
            let kind = kind.map(|kind| format!(" ({kind})")).unwrap_or_default();
            // A key that is similar to this one has already been reported.
            let misspelt =
                fields.keys().any(|key| !names.contains(&key.as_str()) && self.names.nearest(key, [name]).is_some());
            if !misspelt {
                self.violation("missing-key", path, format!("`{subject}` has no `{name}`")).help =
                    Some(format!("add `{name}`{kind}"));
            }
        }
    }

    fn check_bounds(&mut self, object: &'a Object, value: &Json, path: &str) {
        let subject = readable(path);
        let range = range_of(object);
        let mut out_of_range = |message: String| self.violation("out-of-range", path, message).label = range.clone();
        match value {
            Json::Number(number) => {
                let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
                let limits = Limits::of(object);
                if !limits.allow(number.as_f64().unwrap_or(f64::NAN)) {
                    out_of_range(format!("`{subject}` is {number}, but must be {}", limits.words()));
                } else if let (Some(whole), Some((least, most))) = (whole, format_limits(object))
                    && !(least..=most).contains(&whole)
                {
                    let violation = self.violation("out-of-range", path, String::new());
                    violation.message = format!("`{subject}` is {number}, but must be from {least} to {most}");
                }
            }
            Json::Array(list) => {
                let (least, most) = (bound(object, "minItems"), bound(object, "maxItems"));
                let length = list.len() as u64;
                if least.is_some_and(|least| length < least) || most.is_some_and(|most| length > most) {
                    let s = if length == 1 { "" } else { "s" };
                    out_of_range(format!("`{subject}` has {length} item{s}, but takes {range}"));
                    // What the items are.
                    let doc = object.get("description").and_then(Json::as_str).unwrap_or_default();
                    let sentence = doc.split(". ").next().unwrap_or_default().replace('\n', " ");
                    if let (Some(violation), false) = (self.violations.last_mut(), sentence.is_empty()) {
                        violation.help = Some(format!("write {}", sentence.trim_end_matches('.')));
                    }
                }
            }
            Json::String(text) => {
                let (least, most) = (bound(object, "minLength"), bound(object, "maxLength"));
                let length = text.chars().count() as u64;
                if length == 0 && least.is_some_and(|least| least > 0) {
                    out_of_range(format!("`{subject}` is an empty text"));
                } else if least.is_some_and(|least| length < least) || most.is_some_and(|most| length > most) {
                    out_of_range(format!("`{subject}` has {length} characters, but takes {range}"));
                }
            }
            _ => {}
        }
    }
}

/// The words of an enum.
fn words(object: &Object) -> Vec<&str> {
    let list = object.get("enum").and_then(Json::as_array).into_iter().flatten();
    list.chain(object.get("const")).filter_map(Json::as_str).collect()
}

/// The field that distinguishes the alternatives of an enum of structs, and its value.
fn tag<'a>(choices: &[&'a Object], fields: &'a Object) -> Option<(&'a str, &'a Json)> {
    let names = choices.first().into_iter().flat_map(|choice| properties(choice)).map(|(name, _)| name.as_str());
    let mut tags = names.filter(|name| choices.iter().all(|choice| tag_word(choice, name).is_some()));
    tags.find_map(|tag| Some((tag, fields.get(tag)?)))
}

fn tag_word<'a>(choice: &'a Object, tag: &str) -> Option<&'a str> {
    choice.get("properties")?.get(tag)?.get("const")?.as_str()
}

/// Whether an alternative is for values of this type, and for this word or tag if it has one.
fn fits_kind(object: &Object, value: &Json) -> bool {
    let allowed = object.get("enum").and_then(Json::as_array);
    if allowed.is_some_and(|list| !list.contains(value)) || object.get("const").is_some_and(|one| one != value) {
        return false;
    }
    let kinds = types(object);
    let fits = kinds.is_empty()
        || kinds.iter().any(|kind| match *kind {
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "null" => value.is_null(),
            _ => false,
        });
    fits && properties(object).all(|(name, schema)| match (schema.get("const"), value.get(name)) {
        (Some(tag), Some(given)) => tag == given,
        _ => true,
    })
}
/// Names a value in a sentence.
pub(crate) fn described(value: &Json) -> String {
    match value {
        Json::Null => "nothing".into(),
        Json::Bool(flag) => format!("`{flag}`"),
        Json::Number(number) => format!("the number {number}"),
        Json::String(text) => format!("the text {}", quoted(text)),
        Json::Array(list) if list.is_empty() => "an empty list".into(),
        Json::Array(_) => "a list".into(),
        Json::Object(_) => "a mapping".into(),
    }
}

/// Adds the article to a type in words.
fn a(type_text: &str) -> String {
    match type_text.split([' ', ',']).next().unwrap_or_default() {
        "integer" | "any" => format!("an {type_text}"),
        "number" | "text" | "list" | "mapping" => format!("a {type_text}"),
        _ => type_text.to_string(),
    }
}
