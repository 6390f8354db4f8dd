//! Documentation of parameters.

use schemars::Schema;
use serde_json::Value as Json;

use super::limits::range_of;
use super::{Object, Reader, bound, description, properties, required, types};

/// A meaning of a parameter that the engine acts on. The schema of the parameter states it as `x-role`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParamRole {
    /// The engine does not know its meaning.
    #[default]
    Value,
    /// A seed (`seed`): `random` or -1 stand for a number that is drawn before the graph is checked.
    Seed,
    /// The path of a file that the node writes (`output`): `{name}` stands for a parameter of the file.
    Output,
}

impl ParamRole {
    /// The role of a parameter, by its schema.
    pub(crate) fn of(property: &Json) -> ParamRole {
        match property.get("x-role").and_then(Json::as_str) {
            Some("seed") => ParamRole::Seed,
            Some("output") => ParamRole::Output,
            _ => ParamRole::Value,
        }
    }
}

/// The documentation of a parameter.
#[derive(Clone, Debug)]
pub struct ParamDoc {
    /// The key in the document.
    pub name: String,
    /// The type in words, such as `integer`, `"ddim" or "noise"`, `list of …`.
    pub type_text: String,
    /// The doc comment of the field.
    pub doc: String,
    /// The value that a missing key stands for; `None` if the key is required.
    pub default: Option<Json>,
    /// Whether the document must have the key.
    pub required: bool,
    /// The range in words, such as `≥ 1` or `0 … 1`; empty if any value is allowed.
    pub range: String,
    /// Its meaning for the engine.
    pub role: ParamRole,
    /// The words of an enum or the fields of a mapping, each with its documentation.
    pub details: Vec<(String, String)>,
}

/// Returns the parameters of a struct's schema, in the order of its fields.
pub(crate) fn params(schema: &Schema) -> Vec<ParamDoc> {
    let Some(root) = schema.as_object() else { return vec![] };
    let reader = Reader { root };
    properties(root)
        .map(|(name, property)| ParamDoc {
            name: name.clone(),
            type_text: match ParamRole::of(property) {
                ParamRole::Seed => format!("{} or \"random\"", reader.type_text(property)),
                _ => reader.type_text(property),
            },
            doc: description(property),
            default: property.get("default").cloned(),
            required: required(root).any(|key| key == name),
            range: reader.range(property),
            details: reader.details(property),
            role: ParamRole::of(property),
        })
        .collect()
}

impl<'a> Reader<'a> {
    /// The type in words.
    pub(super) fn type_text(&self, schema: &'a Json) -> String {
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
        // The type of a list of fixed length already has the length.
        if bound(object, "minItems").is_some_and(|least| Some(least) == bound(object, "maxItems")) {
            return String::new();
        }
        let outer = outer.map(range_of).filter(|text| !text.is_empty());
        outer.unwrap_or_else(|| range_of(object))
    }

    /// The words of an enum and the fields of a struct, each with its doc comment.
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
