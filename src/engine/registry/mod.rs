//! The known node types and their documentation, which `lsregen nodes` prints.

pub mod reference;
mod schema;
mod workflow_schema;

use std::collections::HashMap;
use std::sync::OnceLock;

use schemars::Schema;
use serde_json::Value as Json;

pub use self::schema::{ParamDoc, ParamRole};
pub(crate) use self::schema::{readable, stand_in, violations};
pub use self::workflow_schema::workflow_schema;
use crate::node::NodeType;
use crate::text::{ForeignName, NameFinder};

/// The node types that a document may use.
pub struct Registry {
    entries: Vec<RegistryEntry>,
    by_name: HashMap<&'static str, usize>,
    foreign: &'static [ForeignName],
}

/// A node type with its documentation.
pub struct RegistryEntry {
    /// The node type.
    pub node_type: NodeType,
    /// Derived when it is first used: a graph uses few types, and deriving the schemas of all takes longer than its check.
    documentation: OnceLock<Documentation>,
}

struct Documentation {
    schema: Schema,
    doc: String,
    params: Vec<ParamDoc>,
}

impl Registry {
    /// Registers the given types.
    ///
    /// # Panics
    /// If two types have the same name. This is a bug of the program.
    pub fn new(types: &[NodeType]) -> Registry {
        let mut registry = Registry { entries: vec![], by_name: HashMap::new(), foreign: &[] };
        for node_type in types {
            let entry = RegistryEntry { node_type: *node_type, documentation: OnceLock::new() };
            let former = registry.by_name.insert(node_type.name, registry.entries.len());
            assert!(former.is_none(), "two node types are called {}", node_type.name);
            registry.entries.push(entry);
        }
        registry
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> Option<&RegistryEntry> {
        self.by_name.get(name).map(|&index| &self.entries[index])
    }

    /// Sets the names of other programs that messages translate.
    pub fn with_foreign_names(self, foreign: &'static [ForeignName]) -> Registry {
        Registry { foreign, ..self }
    }

    /// Finds the names that wrong ones may mean.
    pub(crate) fn names(&self) -> NameFinder {
        NameFinder::knowing(self.foreign)
    }

    /// Says what a wrong name of a type may mean, for the end of a message.
    pub fn hint(&self, name: &str) -> String {
        let names = self.names();
        match names.nearest(name, self.iter().map(|entry| entry.node_type.name)) {
            Some(near) => format!("did you mean {near}?"),
            None => names.advice(name).unwrap_or("`lsregen nodes` lists all types").into(),
        }
    }

    /// All types, in the order in which they were registered.
    pub fn iter(&self) -> impl Iterator<Item = &RegistryEntry> {
        self.entries.iter()
    }
}

impl RegistryEntry {
    /// The purpose of the type in one line: the first paragraph of its documentation.
    pub fn purpose(&self) -> String {
        self.doc().split("\n\n").next().unwrap_or_default().replace('\n', " ")
    }

    /// The JSON Schema of its parameters.
    pub fn schema(&self) -> &Schema {
        &self.documentation().schema
    }

    /// The doc comment of the node's struct.
    pub fn doc(&self) -> &str {
        &self.documentation().doc
    }

    /// Its parameters, in the order of the struct's fields.
    pub fn params(&self) -> &[ParamDoc] {
        &self.documentation().params
    }

    /// # Panics
    /// If two keys (inputs and parameters) have the same name, or if a key is called `type`. These are bugs of the program.
    fn documentation(&self) -> &Documentation {
        self.documentation.get_or_init(|| {
            let schema = (self.node_type.schema)();
            let (doc, params) = (text(schema.get("description")), schema::params(&schema));
            let mut names = std::collections::HashSet::from(["type"]);
            let sockets = self.node_type.inputs.iter().map(|socket| socket.name);
            for name in params.iter().map(|param| param.name.as_str()).chain(sockets) {
                assert!(names.insert(name), "{}: two keys are called {name}", self.node_type.name);
            }
            Documentation { schema, doc, params }
        })
    }

    /// Whether the type has an input or a parameter of this name.
    pub(crate) fn has_key(&self, name: &str) -> bool {
        let inputs = self.node_type.inputs.iter().map(|socket| socket.name);
        inputs.chain(self.params().iter().map(|param| param.name.as_str())).any(|key| key == name)
    }
}

fn text(json: Option<&Json>) -> String {
    json.and_then(Json::as_str).unwrap_or_default().to_string()
}
