//! The JSON Schema (draft 7) of a workflow file, from which editors complete, explain and underline.
//!
//! It is never stricter than the check: everything that it rejects is an error. The check finds more, because a schema
//! knows no links. The schemas of parameters are converted from those that schemars writes: references are expanded, and
//! a schema that refers to itself allows any value there.

use serde_json::{Map, Value as Json, json};

use super::reference::{input_facts, param_facts};
use super::schema::{format_limits, shown};
use super::{ParamRole, Registry, RegistryEntry};
use crate::node::{Arity, SocketSpec};

type Object = Map<String, Json>;

/// The name of a node, parameter or output. Unlike the check, it allows every character beyond ASCII, because the
/// dialects of regular expressions have no common way to match letters.
const NAME: &str = r"([A-Za-z_]|[^\x00-\x7F])([-A-Za-z0-9_]|[^\x00-\x7F])*";

/// A `${…}` anywhere in a text.
const REFERENCE: &str = r"\$\{[^}]*\}";

/// How deep nested references are expanded. The limit stops cycles.
const MAX_REFERENCES: usize = 8;

/// Returns the JSON Schema of workflows with these node types.
pub fn workflow_schema(registry: &Registry) -> Json {
    let mut definitions = Object::new();
    definitions.insert("name".into(), name());
    definitions.insert("link".into(), link("string"));
    definitions.insert("reference".into(), reference());
    definitions.insert("node".into(), node(registry));
    definitions.extend(registry.iter().map(|entry| (definition(entry), of_type(entry))));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "lsregen workflow",
        "description": "A graph of nodes for lsregen. `lsregen check` finds more errors than this schema, such as links that do not fit.",
        "type": "object",
        "required": ["lsregen", "nodes"],
        "properties": {
            "lsregen": described(json!({ "const": 1 }), "The version of this format."),
            "about": described(json!({ "type": ["string", "null"] }), "What the workflow is for."),
            "params": described(
                named(["object", "null"], json!({})),
                "Values that `--set name=value` can override. `${name}` stands for the value, in nodes and in the parameters \
                 below.",
            ),
            "outputs": described(
                named(["object", "null"], reference_to("link")),
                "The outputs of the graph when it is a node of another graph: names, each with a link to a node or to one of its outputs.",
            ),
            "nodes": described(
                with(named(["object"], reference_to("node")), "minProperties", json!(1)),
                "The nodes: names, each with a mapping that has a `type`.",
            ),
        },
        "additionalProperties": false,
        "definitions": definitions,
    })
}

fn definition(entry: &RegistryEntry) -> String {
    format!("type.{}", entry.node_type.name)
}

fn name() -> Json {
    json!({
        "title": "name",
        // `<<` merges the entries of another mapping.
        "pattern": format!("^({NAME}|<<)$"),
        "patternErrorMessage": "A name has letters, digits, `_` and `-`, and begins with a letter.",
    })
}

/// A mapping of names to values.
fn named<const N: usize>(types: [&str; N], value: Json) -> Json {
    json!({
        "type": if N == 1 { json!(types[0]) } else { json!(types.as_slice()) },
        "propertyNames": { "$ref": "#/definitions/name" },
        "additionalProperties": value,
    })
}

/// A text that contains `${…}`. It has a title because yaml-language-server distinguishes alternatives by title.
fn reference() -> Json {
    json!({ "title": "a parameter's value", "type": "string", "pattern": REFERENCE })
}

fn link(types: impl Into<Json>) -> Json {
    json!({
        "type": types.into(),
        "pattern": format!(r"^{NAME}(\.{NAME})?$|{REFERENCE}"),
        "patternErrorMessage": "A link is the name of a node, or of a node and its output: `node.output`.",
    })
}

/// A node of any type. `if` and `then` choose its keys by its `type`: if the types were alternatives,
/// yaml-language-server would guess the type, and suggest the keys of all types as long as there is none.
fn node(registry: &Registry) -> Json {
    let types = registry.iter().map(|entry| {
        let name = entry.node_type.name;
        let kind = json!({ "title": name, "const": name, "description": entry.purpose() });
        with(kind, "markdownDescription", Json::from(markdown_of(entry)))
    });
    let graph = json!({
        "type": "string",
        "pattern": r"\.ya?ml$",
        "patternErrorMessage": "This is neither a node type (`lsregen nodes` lists them) nor a graph file.",
        "description": "A graph file, relative to this one, as a node. Its `params` and inputs are the other keys.",
    });
    let by_type = registry.iter().map(|entry| {
        json!({
            "if": { "type": "object", "required": ["type"], "properties": { "type": { "const": entry.node_type.name } } },
            "then": reference_to(&definition(entry)),
        })
    });
    json!({
        // A text can be a node only as `${…}`.
        "type": ["object", "string"],
        "pattern": REFERENCE,
        "patternErrorMessage": "A node is written `name: { type: …, … }`.",
        "required": ["type"],
        "properties": {
            "type": described(
                json!({ "anyOf": types.chain([graph, reference_to("reference")]).collect::<Vec<_>>() }),
                "The type of the node. The other keys depend on it.",
            ),
        },
        "allOf": by_type.collect::<Vec<_>>(),
    })
}

/// The keys of a node of one type.
fn of_type(entry: &RegistryEntry) -> Json {
    let kind = &entry.node_type;
    // Its value is checked in `node`.
    let mut properties = Object::from_iter([("type".to_string(), Json::Bool(true))]);
    properties.extend(kind.inputs.iter().map(|socket| (socket.name.to_string(), input(socket))));
    let params = entry.schema().get("properties").and_then(Json::as_object).into_iter().flatten();
    let values = Values { definitions: entry.schema().get("$defs").and_then(Json::as_object) };
    for (name, schema) in params {
        let value = values.value(schema, 0);
        let value = match entry.params().iter().find(|param| param.name == *name) {
            Some(param) => explained(value, &param.doc, &param_facts(param)),
            None => value,
        };
        properties.insert(name.clone(), value);
    }
    let sockets = kind.inputs.iter().filter(|socket| socket.arity == Arity::One).map(|socket| socket.name);
    let params = entry.params().iter().filter(|param| param.required).map(|param| param.name.as_str());
    json!({
        "title": kind.name,
        "description": flowing(entry.doc()),
        "markdownDescription": markdown_of(entry),
        "type": "object",
        "required": sockets.chain(params).collect::<Vec<_>>(),
        "properties": properties,
        "additionalProperties": false,
    })
}

fn input(socket: &SocketSpec) -> Json {
    let schema = match socket.arity {
        Arity::One => link("string"),
        Arity::Optional => link(["string", "null"].map(Json::from).to_vec()),
        Arity::Many => {
            json!({ "anyOf": [{ "type": "array", "items": reference_to("link") }, reference_to("reference")] })
        }
    };
    explained(schema, &socket.doc(), &input_facts(socket))
}

/// The documentation of a type and its outputs.
fn markdown_of(entry: &RegistryEntry) -> String {
    let outputs = entry.node_type.outputs.iter();
    let outputs: Vec<_> = outputs.map(|output| format!("`{}` ({})", output.name, output.type_name)).collect();
    let gives = if outputs.is_empty() { String::new() } else { format!("\n\n*Gives* {}", outputs.join(", ")) };
    format!("{}{gives}", flowing(entry.doc()))
}

fn reference_to(definition: &str) -> Json {
    json!({ "$ref": format!("#/definitions/{definition}") })
}

fn described(schema: Json, doc: &str) -> Json {
    let plain = (!doc.is_empty()).then(|| flowing(doc));
    let markdown = doc.contains('`').then(|| flowing(doc));
    with(with(schema, "description", Json::from(plain)), "markdownDescription", Json::from(markdown))
}

/// Adds the documentation in Markdown, with facts such as `integer, 1 … 999, default 20`.
fn explained(schema: Json, doc: &str, facts: &str) -> Json {
    let markdown = format!("{}\n\n*{facts}*", flowing(doc));
    with(described(schema, doc), "markdownDescription", Json::from(markdown.trim_start()))
}

fn with(mut schema: Json, key: &str, value: Json) -> Json {
    if let (Some(object), false) = (schema.as_object_mut(), value.is_null()) {
        object.insert(key.into(), value);
    }
    schema
}

/// Joins the lines of each paragraph of a doc comment.
fn flowing(doc: &str) -> String {
    doc.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

/// Converts the schemas of parameters from schemars' dialect (2020-12) to draft 7.
struct Values<'a> {
    definitions: Option<&'a Object>,
}

/// The keywords that have the same meaning in both dialects and that the check supports.
const KEPT: [&str; 13] = [
    "type",
    "const",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "required",
];

impl Values<'_> {
    /// The schema of a parameter's value: `schema`, or a text with `${…}`.
    fn value(&self, schema: &Json, depth: usize) -> Json {
        let written = self.written(schema, depth);
        let Json::Object(mut written) = written else { return written };
        let mut outer = Object::new();
        for key in ["description", "markdownDescription", "default"] {
            outer.extend(written.remove(key).map(|value| (key.to_string(), value)));
        }
        if takes_any_text(&written) {
            written.extend(outer);
            return Json::Object(written);
        }
        let mut choices = match written.remove("anyOf") {
            Some(Json::Array(choices)) if written.is_empty() => choices,
            choices => {
                written.extend(choices.map(|choices| ("anyOf".to_string(), choices)));
                vec![Json::Object(written)]
            }
        };
        if ParamRole::of(schema) == ParamRole::Seed {
            choices.push(json!({ "enum": ["random", -1] }));
        }
        choices.push(reference_to("reference"));
        outer.insert("anyOf".into(), Json::Array(choices));
        Json::Object(outer)
    }

    /// `schema`, converted and with references expanded.
    fn written(&self, schema: &Json, depth: usize) -> Json {
        let Some(object) = schema.as_object() else { return Json::Bool(true) };
        let mut made = Object::new();
        if let Some(name) = object.get("$ref").and_then(Json::as_str) {
            let name = name.strip_prefix("#/$defs/").unwrap_or(name);
            let definition = self.definitions.and_then(|definitions| definitions.get(name));
            let Some(definition) = definition.filter(|_| depth < MAX_REFERENCES) else { return Json::Bool(true) };
            if let Json::Object(definition) = self.written(definition, depth + 1) {
                made = definition;
            }
        }
        for key in KEPT {
            made.extend(object.get(key).map(|value| (key.to_string(), as_written(value))));
        }
        if let Some((least, most)) = format_limits(object) {
            made.entry("minimum").or_insert(json!(least as i64));
            made.entry("maximum").or_insert(json!(most as u64));
        }
        let default = object.get("default").filter(|default| !default.is_null());
        made.extend(default.map(|default| ("default".to_string(), as_written(default))));
        if let Some(choices) = object.get("oneOf").or_else(|| object.get("anyOf")).and_then(Json::as_array) {
            made.extend(self.choices(choices, depth));
        }
        self.list(object, &mut made, depth);
        self.mapping(object, &mut made, depth);
        match object.get("description").and_then(Json::as_str) {
            Some(doc) => described(Json::Object(made), doc),
            None => Json::Object(made),
        }
    }

    /// The alternatives: an enum of documented words if all are constants, otherwise `anyOf`.
    fn choices(&self, choices: &[Json], depth: usize) -> Object {
        let words: Vec<_> = choices.iter().filter_map(|choice| choice.get("const")).cloned().collect();
        if words.len() == choices.len() {
            let docs: Vec<_> = choices.iter().map(|choice| choice["description"].as_str().map(flowing)).collect();
            return Object::from_iter([
                ("enum".to_string(), Json::Array(words)),
                ("markdownEnumDescriptions".to_string(), docs.into_iter().map(Option::unwrap_or_default).collect()),
            ]);
        }
        let mut made = vec![];
        for choice in choices {
            match self.written(choice, depth) {
                // An alternative that consists only of alternatives.
                Json::Object(mut inner) if inner.len() == 1 && inner.contains_key("anyOf") => {
                    made.extend(inner.remove("anyOf").and_then(|inner| inner.as_array().cloned()).unwrap_or_default());
                }
                other => made.push(other),
            }
        }
        Object::from_iter([("anyOf".to_string(), Json::Array(made))])
    }

    fn list(&self, object: &Object, made: &mut Object, depth: usize) {
        let items = object.get("items").map(|items| match items {
            Json::Bool(allowed) => Json::Bool(*allowed),
            schema => self.value(schema, depth),
        });
        if let Some(first) = object.get("prefixItems").and_then(Json::as_array) {
            made.insert("items".into(), first.iter().map(|schema| self.value(schema, depth)).collect());
            made.extend(items.map(|items| ("additionalItems".to_string(), items)));
        } else {
            made.extend(items.map(|items| ("items".to_string(), items)));
        }
    }

    fn mapping(&self, object: &Object, made: &mut Object, depth: usize) {
        if let Some(properties) = object.get("properties").and_then(Json::as_object) {
            let fields = properties.iter().map(|(name, schema)| (name.clone(), self.value(schema, depth)));
            made.insert("properties".into(), Json::Object(fields.collect()));
        }
        match object.get("additionalProperties") {
            Some(Json::Bool(allowed)) => _ = made.insert("additionalProperties".into(), Json::Bool(*allowed)),
            Some(schema) => _ = made.insert("additionalProperties".into(), self.value(schema, depth)),
            None => {}
        }
    }
}

/// A number as people write it: `0.1`, not the nearest f32 in full.
fn as_written(value: &Json) -> Json {
    let number = value.as_f64().filter(|_| value.is_f64());
    number.and_then(|_| serde_json::from_str(&shown(value)).ok()).unwrap_or_else(|| value.clone())
}

/// Whether the schema already allows every text with a `${…}`.
fn takes_any_text(schema: &Object) -> bool {
    let text = match schema.get("type") {
        Some(Json::String(kind)) => kind == "string",
        Some(Json::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        Some(_) => false,
        None => !["anyOf", "const", "enum"].iter().any(|key| schema.contains_key(*key)),
    };
    let bounds = ["const", "enum", "pattern", "maxLength"];
    let short = schema.get("minLength").and_then(Json::as_u64).is_none_or(|least| least <= 1);
    text && short && !bounds.iter().any(|key| schema.contains_key(*key))
}
