//! The files in which the results of a run are: those that it wrote, and those that it found as they were.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use lsregen_engine::{Event, Graph, NodeIndex, Subscriber};

/// The files of a run so far, each with the name of its node.
#[derive(Default)]
pub struct SavedFiles(Mutex<Vec<(String, PathBuf)>>);

impl Subscriber for SavedFiles {
    fn event(&self, event: &Event) {
        if let Event::Saved { node, path, .. } = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((node.to_string(), path.to_path_buf()));
        }
    }
}

impl SavedFiles {
    /// All files, in the order in which they were reported.
    pub fn all(&self) -> Vec<PathBuf> {
        self.list().into_iter().map(|(_, path)| path).collect()
    }

    /// The files of a node.
    pub fn of(&self, node: &str) -> Vec<PathBuf> {
        self.list().into_iter().filter(|(name, _)| name == node).map(|(_, path)| path).collect()
    }

    /// All files, each with its node, in the order of the graph.
    pub fn in_order(&self, graph: &Graph) -> Vec<(NodeIndex, PathBuf)> {
        let of = |&index: &NodeIndex| self.of(&graph.node(index).name).into_iter().map(move |path| (index, path));
        graph.order().iter().flat_map(of).collect()
    }

    fn list(&self) -> Vec<(String, PathBuf)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
