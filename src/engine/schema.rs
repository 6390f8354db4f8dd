//! A node type's parameters as its JSON Schema tells them: for the reference, and to check values against.
//!
//! Values are checked here before serde decodes them, because the schema knows what would be right, and all that is
//! wrong. Of JSON Schema it knows what schemars writes for structs, enums, options, lists and numbers; `pattern` is
//! left to the node's own check.

use schemars::Schema;
use serde_json::{Map, Value as Json};

use crate::document::did_you_mean;
use crate::nearest::{NameFinder, either, listed};
use crate::registry::ParamDoc;
use crate::sink::MOST;
use crate::yaml::quoted;

type Object = Map<String, Json>;

/// The parameters of a struct's schema, in the order of its fields.
pub(crate) fn params(schema: &Schema) -> Vec<ParamDoc> {
    let Some(root) = schema.as_object() else { return vec![] };
    let reader = Reader { root };
    properties(root)
        .map(|(name, property)| ParamDoc {
            name: name.clone(),
            type_text: reader.type_text(property),
            doc: description(property),
            default: property.get("default").cloned(),
            required: required(root).any(|key| key == name),
            range: reader.range(property),
            details: reader.details(property),
        })
        .collect()
}

/// A value that its schema does not allow.
pub(crate) struct SchemaViolation {
    pub code: &'static str,
    /// As in [`NodeError::path`](crate::NodeError::path).
    pub path: String,
    /// It is about the key, not its value.
    pub on_key: bool,
    pub message: String,
    pub label: String,
    pub help: Option<String>,
}

/// All that is wrong with the value of one parameter.
pub(crate) fn violations(schema: &Schema, param: &str, value: &Json, names: &NameFinder) -> Vec<SchemaViolation> {
    let Some(root) = schema.as_object() else { return vec![] };
    let mut checker = Checker { reader: Reader { root }, names, violations: vec![] };
    if let Some((_, property)) = properties(root).find(|(name, _)| *name == param) {
        checker.check(property, value, param.to_string());
        // A default is what one gets by leaving the key out: worth saying where the value is no good.
        let default = property.get("default").filter(|default| !default.is_null());
        if let (Some(default), [violation]) = (default, checker.violations.as_mut_slice())
            && violation.path == param
            && violation.help.is_none()
        {
            violation.help = Some(format!("the default is {}", shown(default)));
        }
    }
    checker.violations
}

/// Some value of the right kind for a parameter that must be given, so that the others can be judged beside it.
pub(crate) fn stand_in(schema: &Schema, param: &str) -> Option<Json> {
    let root = schema.as_object()?;
    let (_, property) = properties(root).find(|(name, _)| *name == param)?;
    let object = Reader { root }.resolve(property)?;
    match types(object).as_slice() {
        ["string"] => Some(Json::from("")),
        ["integer" | "number"] => Some(object.get("minimum").cloned().unwrap_or(Json::from(0))),
        ["boolean"] => Some(Json::from(false)),
        ["array"] => Some(Json::Array(vec![])),
        _ => None,
    }
}

/// `boxes/1/box` as people write it: `boxes[1].box`.
pub(crate) fn readable(path: &str) -> String {
    let mut text = String::new();
    for part in path.split('/') {
        match part.parse::<usize>() {
            Ok(index) if !text.is_empty() => text.push_str(&format!("[{index}]")),
            _ if text.is_empty() => text.push_str(part),
            _ => text.push_str(&format!(".{part}")),
        }
    }
    text
}

fn properties(object: &Object) -> impl Iterator<Item = (&String, &Json)> {
    object.get("properties").and_then(Json::as_object).into_iter().flatten()
}

fn required(object: &Object) -> impl Iterator<Item = &str> {
    object.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
}

fn description(schema: &Json) -> String {
    schema.get("description").and_then(Json::as_str).unwrap_or_default().to_string()
}

fn alternatives(object: &Object) -> Option<&Vec<Json>> {
    object.get("oneOf").or_else(|| object.get("anyOf")).and_then(Json::as_array)
}

fn types(object: &Object) -> Vec<&str> {
    match object.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => vec![],
    }
}

/// Follows references into a schema's definitions.
struct Reader<'a> {
    root: &'a Object,
}

impl<'a> Reader<'a> {
    /// The schema, or what it refers to.
    fn resolve(&self, schema: &'a Json) -> Option<&'a Object> {
        let mut object = schema.as_object()?;
        // A reference to a reference is as far as schemars goes; the bound is against circles.
        for _ in 0..8 {
            let Some(name) = object.get("$ref").and_then(Json::as_str) else { break };
            let name = name.strip_prefix("#/$defs/")?;
            object = self.root.get("$defs")?.get(name)?.as_object()?;
        }
        Some(object)
    }

    /// What a value may be, without null: the alternatives, each resolved.
    fn choices(&self, schema: &'a Json) -> Vec<&'a Object> {
        let Some(object) = self.resolve(schema) else { return vec![] };
        match alternatives(object) {
            Some(list) => list.iter().flat_map(|choice| self.choices(choice)).collect(),
            None if types(object) == ["null"] => vec![],
            None => vec![object],
        }
    }

    fn type_text(&self, schema: &'a Json) -> String {
        let mut texts: Vec<String> = vec![];
        for choice in self.choices(schema) {
            for text in self.choice_texts(choice) {
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
        }
        match texts.as_slice() {
            [] => "any value".into(),
            [firsts @ .., last] if !firsts.is_empty() => format!("{} or {last}", firsts.join(", ")),
            [one, ..] => one.clone(),
        }
    }

    fn choice_texts(&self, object: &'a Object) -> Vec<String> {
        if let Some(constant) = object.get("const") {
            return vec![constant.to_string()];
        }
        if let Some(list) = object.get("enum").and_then(Json::as_array) {
            return list.iter().filter(|item| !item.is_null()).map(Json::to_string).collect();
        }
        let kinds = types(object).into_iter().filter(|kind| *kind != "null");
        kinds
            .map(|kind| match kind {
                "string" => "text".to_string(),
                "boolean" => "true or false".to_string(),
                "array" => self.list_text(object),
                "object" => self.mapping_text(object),
                other => other.to_string(),
            })
            .collect()
    }

    fn list_text(&self, object: &'a Object) -> String {
        let item = object.get("items").filter(|items| items.is_object()).map(|items| self.type_text(items));
        let length = (bound(object, "minItems"), bound(object, "maxItems"));
        let plural = |text: &str| match text {
            "number" | "integer" | "text" => format!("{text}s"),
            other => other.to_string(),
        };
        match (item, length) {
            (Some(item), (Some(least), Some(most))) if least == most => format!("list of {least} {}", plural(&item)),
            (Some(item), _) => format!("list of {}", plural(&item)),
            (None, _) => "list".into(),
        }
    }

    fn mapping_text(&self, object: &'a Object) -> String {
        let names: Vec<_> = properties(object).map(|(name, _)| name.as_str()).collect();
        if names.is_empty() { "mapping".into() } else { format!("{{{}}}", names.join(", ")) }
    }

    fn range(&self, schema: &'a Json) -> String {
        let outer = schema.as_object();
        let inner = self.choices(schema);
        let [object] = inner.as_slice() else { return String::new() };
        // The type says already how long a list of fixed length is.
        if bound(object, "minItems").is_some_and(|least| Some(least) == bound(object, "maxItems")) {
            return String::new();
        }
        let outer = outer.map(range_of).filter(|text| !text.is_empty());
        outer.unwrap_or_else(|| range_of(object))
    }

    /// What stands inside: the words of an enum, the fields of a struct, each with its doc comment.
    fn details(&self, schema: &'a Json) -> Vec<(String, String)> {
        let choices = self.choices(schema);
        let words = choices.iter().filter_map(|choice| {
            let constant = choice.get("const")?;
            Some((constant.to_string(), description(&Json::Object((*choice).clone()))))
        });
        let mut details: Vec<_> = words.filter(|(_, doc)| !doc.is_empty()).collect();
        for choice in choices {
            let item = choice.get("items").filter(|items| items.is_object());
            let fields = item.map_or_else(|| vec![choice], |items| self.choices(items));
            for (name, field) in fields.into_iter().flat_map(properties) {
                let (kind, range, doc) = (self.type_text(field), self.range(field), description(field));
                let kind = if range.is_empty() { kind } else { format!("{kind}, {range}") };
                details.push((name.clone(), format!("({kind}) {doc}").trim_end().to_string()));
            }
        }
        details
    }
}

fn bound(object: &Object, name: &str) -> Option<u64> {
    object.get(name).and_then(Json::as_u64)
}

/// Least and greatest number that the schema allows; whether that number itself is left out.
struct Limits<'a> {
    least: Option<(&'a Json, bool)>,
    most: Option<(&'a Json, bool)>,
}

impl<'a> Limits<'a> {
    fn of(object: &'a Object) -> Limits<'a> {
        let limit = |open: &str, closed: &str| {
            object.get(open).map(|limit| (limit, true)).or_else(|| object.get(closed).map(|limit| (limit, false)))
        };
        Limits { least: limit("exclusiveMinimum", "minimum"), most: limit("exclusiveMaximum", "maximum") }
    }

    /// Short, for a label or the reference: `0 … 1`.
    fn text(&self) -> String {
        match (self.least, self.most) {
            (Some((least, false)), Some((most, false))) => format!("{} … {}", shown(least), shown(most)),
            (Some((least, least_open)), Some((most, most_open))) => {
                let sign = |open| if open { "<" } else { "≤" };
                format!("{} {} x {} {}", shown(least), sign(least_open), sign(most_open), shown(most))
            }
            (Some((least, open)), None) => format!("{} {}", if open { ">" } else { "≥" }, shown(least)),
            (None, Some((most, open))) => format!("{} {}", if open { "<" } else { "≤" }, shown(most)),
            (None, None) => String::new(),
        }
    }

    /// For a sentence: `from 0 to 1`.
    fn words(&self) -> String {
        let least = |(least, open)| format!("{} {}", if open { "above" } else { "at least" }, shown(least));
        let most = |(most, open)| format!("{} {}", if open { "below" } else { "at most" }, shown(most));
        match (self.least, self.most) {
            (Some((least, false)), Some((most, false))) => format!("from {} to {}", shown(least), shown(most)),
            (Some(first), Some(last)) => format!("{} and {}", least(first), most(last)),
            (Some(first), None) => least(first),
            (None, Some(last)) => most(last),
            (None, None) => String::new(),
        }
    }

    fn allow(&self, value: f64) -> bool {
        let limit = |limit: Option<(&Json, bool)>| limit.and_then(|(limit, open)| Some((limit.as_f64()?, open)));
        limit(self.least).is_none_or(|(least, open)| if same(value, least) { !open } else { value > least })
            && limit(self.most).is_none_or(|(most, open)| if same(value, most) { !open } else { value < most })
    }
}

/// Whether a value is the limit; a limit of 32 bits, such as 0.1, is what 32 bits make of the value.
fn same(value: f64, limit: f64) -> bool {
    value == limit || (f64::from(limit as f32) == limit && value as f32 == limit as f32)
}

/// A number as people write it: `1`, not `1.0`; `0.1`, not what 32 bits make of it.
pub(crate) fn shown(number: &Json) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && f64::from(float as f32) == float => (float as f32).to_string(),
        Some(float) if number.is_f64() => float.to_string(),
        _ => number.to_string(),
    }
}

fn range_of(object: &Object) -> String {
    let limits = Limits::of(object).text();
    if !limits.is_empty() {
        return limits;
    }
    let length = |least, most, what: &str| match (bound(object, least), bound(object, most)) {
        (None, None) => String::new(),
        (Some(least), Some(most)) if least == most => format!("{least} {what}s"),
        (Some(least), Some(most)) => format!("{least} … {most} {what}s"),
        (Some(1), None) => format!("at least 1 {what}"),
        (Some(least), None) => format!("at least {least} {what}s"),
        (None, Some(most)) => format!("at most {most} {what}s"),
    };
    let text = length("minItems", "maxItems", "item");
    if text.is_empty() { length("minLength", "maxLength", "character") } else { text }
}

/// Limits of the integer types that the schema names only by `format`.
pub(crate) fn format_limits(object: &Object) -> Option<(i128, i128)> {
    match object.get("format")?.as_str()? {
        "uint8" => Some((0, u8::MAX.into())),
        "uint16" => Some((0, u16::MAX.into())),
        "uint32" => Some((0, u32::MAX.into())),
        "uint64" | "uint" => Some((0, u64::MAX.into())),
        "int8" => Some((i8::MIN.into(), i8::MAX.into())),
        "int16" => Some((i16::MIN.into(), i16::MAX.into())),
        "int32" => Some((i32::MIN.into(), i32::MAX.into())),
        "int64" | "int" => Some((i64::MIN.into(), i64::MAX.into())),
        _ => None,
    }
}

/// A value for a sentence.
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

/// A type with its article.
fn a(type_text: &str) -> String {
    match type_text.split([' ', ',']).next().unwrap_or_default() {
        "integer" | "any" => format!("an {type_text}"),
        "number" | "text" | "list" | "mapping" => format!("a {type_text}"),
        _ => type_text.to_string(),
    }
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
        if self.violations.len() >= MOST {
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
                // Bounds may also stand beside a reference or beside alternatives.
                let outer = schema.as_object();
                if let Some(outer) = outer.filter(|outer| outer.contains_key("$ref") || alternatives(outer).is_some()) {
                    self.check_bounds(outer, value, &path);
                }
            }
            several => {
                // The first alternative that fits wholly; else the one with the fewest faults speaks.
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
            let message = format!("`{subject}` is {expected}, but here it is {}", quoted(text));
            self.violation("not-a-choice", path, message).label = near.unwrap_or_default();
            return;
        }
        if let Some((tag, given)) = value.as_object().and_then(|fields| tag(&choices, fields)) {
            let words: Vec<_> = choices.iter().filter_map(|choice| tag_word(choice, tag)).collect();
            let near = given.as_str().and_then(|given| self.names.nearest(given, words.iter().copied()));
            let label = near.map(did_you_mean).unwrap_or_default();
            let message = format!("`{subject}.{tag}` is {}, but here it is {}", either(words), described(given));
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
                text.parse::<f64>().ok().map(|_| format!("remove the quotes: {text}"))
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
            _ if kinds == ["array"] => Some("a list is written `[…, …]`, or as lines that begin with `- `".into()),
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
            if self.violations.len() >= MOST {
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
            // A key that is nearly this one has been told of already.
            let misspelt =
                fields.keys().any(|key| !names.contains(&key.as_str()) && self.names.nearest(key, [name]).is_some());
            if !misspelt {
                self.violation("missing-key", path, format!("`{subject}` has no `{name}`")).help =
                    Some(format!("give it a `{name}`{kind}"));
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

/// The texts that an enum allows.
fn words(object: &Object) -> Vec<&str> {
    let list = object.get("enum").and_then(Json::as_array).into_iter().flatten();
    list.chain(object.get("const")).filter_map(Json::as_str).collect()
}

/// The field by which structs of several shapes are told apart, and what is given there.
fn tag<'a>(choices: &[&'a Object], fields: &'a Object) -> Option<(&'a str, &'a Json)> {
    let names = choices.first().into_iter().flat_map(|choice| properties(choice)).map(|(name, _)| name.as_str());
    let mut tags = names.filter(|name| choices.iter().all(|choice| tag_word(choice, name).is_some()));
    tags.find_map(|tag| Some((tag, fields.get(tag)?)))
}

fn tag_word<'a>(choice: &'a Object, tag: &str) -> Option<&'a str> {
    choice.get("properties")?.get(tag)?.get("const")?.as_str()
}

/// Whether the alternative is for values of this kind, and for this word or this tag if it is for certain ones.
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
