//! How a run and its nodes ended.

use std::sync::Arc;
use std::time::Duration;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The name and outcome of each node, in the order of the graph.
    pub nodes: Vec<(Arc<str>, Outcome)>,
    /// From the start of the run to its end.
    pub duration: Duration,
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The node ran.
    Ran {
        /// How long the node ran.
        duration: Duration,
        /// Size of the outputs in memory.
        bytes: usize,
    },
    /// Its result was cached.
    Cached,
    /// Another run was already executing it; this run got the same result.
    Joined,
    /// It got the result of a node with the same key.
    Shared {
        /// The node that ran.
        with: Arc<str>,
    },
    /// No node that runs needed its result.
    Skipped,
    /// The node failed.
    Failed {
        /// The error and its causes.
        error: String,
    },
    /// The node did not run, because another node failed: one that it depends on, or one with the same key; with
    /// `fail_fast`, any node.
    Blocked {
        /// The node that failed.
        because: Arc<str>,
    },
    /// The run was cancelled before the node ended.
    Cancelled,
}

impl Outcome {
    /// Whether the node has a result.
    pub fn has_result(&self) -> bool {
        matches!(self, Outcome::Ran { .. } | Outcome::Cached | Outcome::Joined | Outcome::Shared { .. })
    }
}

impl Summary {
    /// Whether every node that had to run has ended without an error.
    pub fn succeeded(&self) -> bool {
        !self.nodes.iter().any(|(_, outcome)| {
            matches!(outcome, Outcome::Failed { .. } | Outcome::Blocked { .. } | Outcome::Cancelled)
        })
    }

    /// Whether a node did not run because the run was cancelled.
    pub fn was_cancelled(&self) -> bool {
        self.nodes.iter().any(|(_, outcome)| *outcome == Outcome::Cancelled)
    }
}
