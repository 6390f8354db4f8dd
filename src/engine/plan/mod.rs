//! Plans a run: decides which nodes run and which results are cached, for the whole graph before anything runs.
//!
//! Goes from the output nodes ([`Node::OUTPUT`](crate::Node::OUTPUT)) back along the links, and stops at cached results.
//! Reads the files that nodes read, for their digests. Runs no node.

mod decide;
mod explain;
mod fetch;
mod keys;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use petgraph::graph::NodeIndex;

pub use self::explain::{Cause, Difference, Explanation, NearestResult};
pub use self::fetch::fetch;
pub(crate) use self::keys::ReadFiles;
use crate::graph::Graph;
use crate::key::{Key, Material};
use crate::node::{CheckContext, EdgeValue, Host, NodeError};
use crate::store::{FileDigests, Store};

/// What to do about each node of a graph. Holds the cached results that the run needs.
pub struct Plan {
    steps: Vec<Step>,
}

/// What to do about a node.
pub struct Step {
    /// The node.
    pub node: NodeIndex,
    /// Its memo key.
    pub key: Key,
    /// What to do.
    pub action: Action,
    /// The material of the key.
    pub material: Material,
    /// The nodes that run and read its outputs, in the order of the graph.
    pub needed_by: Vec<NodeIndex>,
    /// The files that it may read.
    pub(crate) files: ReadFiles,
}

/// What to do about a node.
pub enum Action {
    /// The node runs.
    Run {
        /// Why.
        reason: RunReason,
    },
    /// The result is cached.
    Cached {
        /// The outputs.
        outputs: Arc<[EdgeValue]>,
        /// Whether its effect is gone and has to be restored from the outputs.
        restore: bool,
        /// The files of its effect that are there.
        files: Vec<Arc<Path>>,
    },
    /// The node gets the result of another node, which has the same key and runs.
    Shared {
        /// The other node.
        with: NodeIndex,
    },
    /// The node does not run, and its result is not looked up.
    Skipped {
        /// Why.
        reason: SkipReason,
    },
}

/// Why a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunReason {
    /// There is no cached result for these parameters, inputs and files.
    NotCached,
    /// Its result is cached, but the file that it wrote is gone or changed, and only another run can write it again.
    EffectGone,
}

/// Why a node is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// No output node needs it.
    NoOutput,
    /// The results of the nodes that read its outputs are cached.
    ConsumersCached,
}

/// Why a node cannot be planned.
#[derive(Clone, Debug, thiserror::Error)]
#[error("node `{name}`: {}", cause.message)]
pub struct PlanError {
    /// The node.
    pub node: NodeIndex,
    /// Its name in the document.
    pub name: Arc<str>,
    /// The error.
    pub cause: NodeError,
}

/// How many nodes of a plan run, are cached, share a result and are skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes that run.
    pub run: usize,
    /// Nodes whose result is cached.
    pub cached: usize,
    /// Nodes that share the result of another node.
    pub shared: usize,
    /// Nodes that are skipped.
    pub skipped: usize,
}

impl Plan {
    /// Plans a run with the results that `store` has.
    ///
    /// # Errors
    /// Returns the error of every node that cannot be planned, because a file cannot be read or the node's own code fails.
    /// Nodes that depend on such a node are not mentioned.
    pub fn new(graph: &Graph, host: &Arc<Host>, store: &Store, digests: &FileDigests) -> Result<Plan, Vec<PlanError>> {
        let _span = tracing::info_span!("plan", nodes = graph.order().len()).entered();
        let mut steps = decide::decide(graph, host, store, keys::identify(graph, host, digests)?)?;
        decide::share(&mut steps);
        Ok(Plan { steps })
    }

    /// One step for each node, in the order of the graph.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// What keeps nodes of the plan from their [effects](crate::Node::obstacle).
    pub fn obstacles(&self, graph: &Graph, host: &Host) -> Vec<PlanError> {
        let acts = |step: &&Step| matches!(step.action, Action::Run { .. } | Action::Cached { restore: true, .. });
        let obstacle = |step: &Step| {
            let node = graph.node(step.node);
            let cause = node.node.obstacle(&CheckContext::within(host, node.folder.as_deref()))?;
            Some(PlanError::new(graph, step.node, cause))
        };
        self.steps.iter().filter(acts).filter_map(obstacle).collect()
    }

    /// Counts the steps by their action.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for step in &self.steps {
            match step.action {
                Action::Run { .. } => counts.run += 1,
                Action::Cached { .. } => counts.cached += 1,
                Action::Shared { .. } => counts.shared += 1,
                Action::Skipped { .. } => counts.skipped += 1,
            }
        }
        counts
    }
}

impl Step {
    /// Describes what is done and why: `runs: no result is cached; needed by image, sheet`.
    pub fn describe(&self, graph: &Graph) -> String {
        let mut text = match &self.action {
            Action::Run { reason } => format!("runs: {reason}"),
            Action::Cached { restore: false, .. } => "cached".to_string(),
            Action::Cached { restore: true, .. } => {
                "cached; the file that it wrote is gone or changed, and is written again".to_string()
            }
            Action::Shared { with } => format!("shares the result of {}", graph.node(*with).name),
            Action::Skipped { reason } => format!("skipped: {reason}"),
        };
        for (i, node) in self.needed_by.iter().enumerate() {
            text.push_str(if i == 0 { "; needed by " } else { ", " });
            text.push_str(&graph.node(*node).name);
        }
        text
    }
}

impl fmt::Display for RunReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RunReason::NotCached => "no result is cached",
            RunReason::EffectGone => "the file that it wrote is gone or changed",
        })
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkipReason::NoOutput => "no output needs it",
            SkipReason::ConsumersCached => "the results that need it are cached",
        })
    }
}

impl PlanError {
    fn new(graph: &Graph, node: NodeIndex, cause: NodeError) -> PlanError {
        PlanError { node, name: graph.node(node).name.clone(), cause }
    }
}
