//! The JSON Schema of a node type's parameters: documents the parameters, and checks values.
//!
//! Values are checked against the schema before serde decodes them: the schema knows all errors and what would be valid.
//! Supports the part of JSON Schema that schemars writes for structs, enums, options, lists and numbers. `pattern` is
//! left to the node's own check.

mod check;
mod limits;
mod params;

use schemars::Schema;
use serde_json::{Map, Value as Json};

pub(crate) use self::check::violations;
use self::limits::bound;
pub(crate) use self::limits::{format_limits, shown};
pub(crate) use self::params::params;
pub use self::params::{ParamDoc, ParamRole};

type Object = Map<String, Json>;

/// A value of the right type for a required parameter that is missing or invalid, so that a node can be created and its
/// other parameters checked.
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

/// Writes the path `boxes/1/box` as `boxes[1].box`.
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
    /// The schema, or the one that it refers to.
    fn resolve(&self, schema: &'a Json) -> Option<&'a Object> {
        let mut object = schema.as_object()?;
        // schemars writes at most a reference to a reference. The limit stops cycles.
        for _ in 0..8 {
            let Some(name) = object.get("$ref").and_then(Json::as_str) else { break };
            let name = name.strip_prefix("#/$defs/")?;
            object = self.root.get("$defs")?.get(name)?.as_object()?;
        }
        Some(object)
    }

    /// The alternatives of a schema, each resolved, without null.
    fn choices(&self, schema: &'a Json) -> Vec<&'a Object> {
        let Some(object) = self.resolve(schema) else { return vec![] };
        match alternatives(object) {
            Some(list) => list.iter().flat_map(|choice| self.choices(choice)).collect(),
            None if types(object) == ["null"] => vec![],
            None => vec![object],
        }
    }
}
