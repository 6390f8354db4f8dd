//! The table of values to test: `rows.yaml`.

use std::collections::BTreeMap;

use lsregen_engine::{ParamDoc, RegistryEntry};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::Params;

#[derive(Deserialize)]
pub struct Rows {
    nodes: BTreeMap<String, Table>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    base: Params,
    #[serde(default)]
    linked: Vec<String>,
    #[serde(default)]
    linked_for: BTreeMap<String, String>,
    #[serde(default)]
    rows: Params,
    #[serde(default)]
    also: Params,
    #[serde(default)]
    with: BTreeMap<String, Params>,
}

/// The rows of one node type.
pub struct NodeRows<'a> {
    entry: &'a RegistryEntry,
    table: Table,
}

impl Rows {
    pub fn read() -> Rows {
        let mut yaml: serde_yaml::Value = serde_yaml::from_str(include_str!("rows.yaml")).unwrap();
        yaml.apply_merge().unwrap();
        serde_yaml::from_value(yaml).unwrap()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// # Panics
    /// If a row names a parameter that the type does not have.
    pub fn of<'a>(&self, entry: &'a RegistryEntry) -> NodeRows<'a> {
        let table = self.nodes.get(entry.node_type.name).cloned().unwrap_or_default();
        let rows = NodeRows { entry, table };
        let own = |name: &str| entry.params().iter().any(|param| param.name == name);
        let socket = |name: &str| entry.node_type.inputs.iter().any(|socket| socket.name == name);
        let Table { base, rows: values, also, with, .. } = &rows.table;
        let params = [base, values, also].into_iter().chain(with.values()).flat_map(Params::keys);
        for name in params {
            assert!(own(name), "rows.yaml: {} has no parameter {name}", entry.node_type.name);
        }
        for name in with.keys() {
            assert!(
                own(name) || socket(name),
                "rows.yaml: {} has no parameter and no input {name}",
                entry.node_type.name
            );
        }
        rows
    }
}

impl NodeRows<'_> {
    /// The parameters of every run.
    pub fn base(&self) -> Params {
        self.table.base.clone()
    }

    /// Returns whether an optional input is linked in every run.
    pub fn links(&self, socket: &str) -> bool {
        self.table.linked.iter().any(|linked| linked == socket)
    }

    /// Returns the optional input that is linked in the runs for this parameter.
    pub fn linked_for(&self, param: &str) -> Option<&str> {
        self.table.linked_for.get(param).map(String::as_str)
    }

    /// The parameters that a run with another value, or with another link, of `param` is compared with.
    pub fn base_of(&self, param: &str) -> Params {
        let mut base = self.base();
        base.extend(
            self.table.with.get(param).into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())),
        );
        base
    }

    /// Returns the values of a parameter to test: those of its rows, all words of an enum, and both booleans.
    pub fn values(&self, param: &ParamDoc) -> Vec<Json> {
        let schema = &self.entry.schema().as_value()["properties"][&param.name];
        let rows = [&self.table.rows, &self.table.also];
        let mut values: Vec<Json> = rows.iter().filter_map(|rows| rows.get(&param.name)).cloned().collect();
        values.extend(words(schema));
        values.retain(|value| Some(value) != param.default.as_ref());
        values
    }
}

/// Returns the words and booleans that a schema allows.
fn words(schema: &Json) -> Vec<Json> {
    let is_boolean =
        |kind: &Json| kind == "boolean" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("boolean")));
    if is_boolean(&schema["type"]) {
        return vec![json!(true), json!(false)];
    }
    let own = schema.get("const").into_iter().chain(schema["enum"].as_array().into_iter().flatten());
    let within = ["oneOf", "anyOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten().flat_map(words);
    own.filter(|word| word.is_string()).cloned().chain(within).collect()
}
