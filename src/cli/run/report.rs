//! What a run writes to stdout: its files, one a line, or a summary as JSON.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lsregen_engine::{Graph, Key, NodeIndex, Outcome, Summary};
use serde_json::{Value as Json, json};

use crate::cli::session::SavedFiles;
use crate::cli::terminal::{self, shown};

/// What goes to stdout.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    Files,
    /// A summary.
    Json,
    /// The session writes its events there, and nothing else is.
    Events,
}

/// A run that has ended.
pub struct Report<'a> {
    graph: &'a Graph,
    keys: HashMap<NodeIndex, Key>,
    summary: &'a Summary,
    /// The files that its nodes wrote, or found as they were.
    pub files: Vec<(NodeIndex, PathBuf)>,
}

impl<'a> Report<'a> {
    pub fn new(
        graph: &'a Graph,
        saved: &SavedFiles,
        keys: HashMap<NodeIndex, Key>,
        summary: &'a Summary,
    ) -> Report<'a> {
        // A node that failed may have written some of its files.
        Report { graph, keys, summary, files: saved.in_order(graph) }
    }

    pub fn print(&self, stdout: Stdout, graph: &Path) {
        match stdout {
            Stdout::Files => terminal::print_paths(self.files.iter().map(|(_, path)| path.as_path())),
            Stdout::Json => terminal::print_json(&self.json(graph)),
            Stdout::Events => {}
        }
    }

    fn json(&self, graph: &Path) -> Json {
        let files = &self.files;
        let outcomes = self.graph.order().iter().zip(&self.summary.nodes);
        let nodes = outcomes.map(|(&index, (name, outcome))| {
            let mut node = outcome_json(outcome);
            node["node"] = json!(name);
            node["type"] = json!(self.graph.node(index).node_type.name);
            node["key"] = json!(self.keys.get(&index));
            let own = shown(files.iter().filter(|(writer, _)| *writer == index).map(|(_, path)| path));
            if !own.is_empty() {
                node["files"] = json!(own);
            }
            node
        });
        let nodes: Vec<Json> = nodes.collect();
        let count = |wanted: &str| nodes.iter().filter(|node| node["outcome"] == wanted).count();
        json!({
            "graph": graph.to_string_lossy(),
            "succeeded": self.summary.succeeded(),
            "seconds": self.summary.duration.as_secs_f64(),
            "ran": count("ran"),
            "cached": count("cached"),
            "files": shown(files.iter().map(|(_, path)| path)),
            "nodes": nodes,
        })
    }
}

/// The outcome in the words of the events.
fn outcome_json(outcome: &Outcome) -> Json {
    match outcome {
        Outcome::Ran { duration, bytes } => {
            json!({ "outcome": "ran", "seconds": duration.as_secs_f64(), "bytes": bytes })
        }
        Outcome::Cached => json!({ "outcome": "cached" }),
        Outcome::Joined => json!({ "outcome": "joined" }),
        Outcome::Shared { with } => json!({ "outcome": "shared", "with": with }),
        Outcome::Skipped => json!({ "outcome": "unneeded" }),
        Outcome::Failed { error } => json!({ "outcome": "failed", "error": error }),
        Outcome::Blocked { because } => json!({ "outcome": "skipped", "because": because }),
        Outcome::Cancelled => json!({ "outcome": "cancelled" }),
    }
}
