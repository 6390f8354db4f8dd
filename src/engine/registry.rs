//! The list of node types, and their reference: what `lsregen nodes` prints comes from here.

use std::collections::HashMap;

use schemars::Schema;
use serde_json::Value as Json;

use crate::nearest::nearest;
use crate::node::NodeType;

/// The node types a document may use.
pub struct Registry {
    entries: Vec<RegistryEntry>,
    by_name: HashMap<&'static str, usize>,
}

/// A node type with its documentation.
pub struct RegistryEntry {
    pub node_type: NodeType,
    pub schema: Schema,
    /// The doc comment of the node's struct.
    pub doc: String,
    /// In the order of the struct's fields.
    pub params: Vec<ParamDoc>,
}

/// A parameter as the reference shows it.
#[derive(Clone, Debug)]
pub struct ParamDoc {
    pub name: String,
    /// For a reader, such as `integer`, `"ddim" or "noise"`, `list of …`.
    pub type_text: String,
    pub doc: String,
    /// `None` where the document must give it.
    pub default: Option<Json>,
    pub required: bool,
    /// For a reader, such as `≥ 1` or `0 … 1`; empty where any value goes.
    pub range: String,
    /// What stands inside, with its doc: the words of an enum, the fields of a mapping.
    pub details: Vec<(String, String)>,
}

impl Registry {
    /// # Panics
    /// When two types have one name, or a type has a parameter and a socket, or two sockets, of one name, or a
    /// parameter or socket called `type`: mistakes of the program, not of its user.
    pub fn new(types: &[NodeType]) -> Registry {
        let mut registry = Registry { entries: vec![], by_name: HashMap::new() };
        for node_type in types {
            let entry = RegistryEntry::new(*node_type);
            let former = registry.by_name.insert(node_type.name, registry.entries.len());
            assert!(former.is_none(), "two node types are called {}", node_type.name);
            registry.entries.push(entry);
        }
        registry
    }

    pub fn get(&self, name: &str) -> Option<&RegistryEntry> {
        self.by_name.get(name).map(|&index| &self.entries[index])
    }

    /// The type whose name was surely meant by `name`, which is none.
    pub fn nearest(&self, name: &str) -> Option<&'static str> {
        nearest(name, self.iter().map(|entry| entry.node_type.name))
    }

    /// In the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = &RegistryEntry> {
        self.entries.iter()
    }
}

impl RegistryEntry {
    /// What the type is for, in one line: the first paragraph of its documentation.
    pub fn purpose(&self) -> String {
        self.doc.split("\n\n").next().unwrap_or_default().replace('\n', " ")
    }

    fn new(node_type: NodeType) -> RegistryEntry {
        let schema = (node_type.schema)();
        let doc = text(schema.get("description"));
        let params = crate::schema::params(&schema);
        let mut names = std::collections::HashSet::from(["type"]);
        let sockets = node_type.inputs.iter().map(|socket| socket.name);
        for name in params.iter().map(|param| param.name.as_str()).chain(sockets) {
            assert!(names.insert(name), "{}: two keys are called {name}", node_type.name);
        }
        RegistryEntry { node_type, schema, doc, params }
    }

    /// Whether the type has an input or a parameter of this name.
    pub(crate) fn has_key(&self, name: &str) -> bool {
        let inputs = self.node_type.inputs.iter().map(|socket| socket.name);
        inputs.chain(self.params.iter().map(|param| param.name.as_str())).any(|key| key == name)
    }
}

fn text(json: Option<&Json>) -> String {
    json.and_then(Json::as_str).unwrap_or_default().to_string()
}
