//! What was run, as text: for files that carry the graph they came from.

use std::sync::{Arc, OnceLock};

use serde_json::json;

use crate::graph::Graph;
use crate::key::Key;

/// A graph as it was run, and the keys of its nodes. Written out only when someone asks.
pub struct Record {
    graph: Arc<Graph>,
    /// By node.
    keys: Vec<Key>,
    json: OnceLock<String>,
}

impl Record {
    /// `keys`: one a node of the graph, by its index.
    pub fn new(graph: Arc<Graph>, keys: Vec<Key>) -> Record {
        Record { graph, keys, json: OnceLock::new() }
    }

    /// As JSON.
    pub fn json(&self) -> &str {
        self.json.get_or_init(|| {
            let names = self.graph.order().iter().map(|&node| &self.graph.node(node).name);
            let keys = self.graph.order().iter().map(|node| &self.keys[node.index()]);
            let keys: serde_json::Map<_, _> =
                names.zip(keys).map(|(name, key)| (name.to_string(), json!(key))).collect();
            json!({ "graph": self.graph.source().text(), "keys": keys }).to_string()
        })
    }
}
