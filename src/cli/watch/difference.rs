//! The difference between a new plan and the run in progress.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use lsregen_engine::{Action, Event, Graph, Key, Plan, Subscriber};

use super::change::Cause;

/// Changed files that are listed by name.
const LISTED: usize = 3;

/// The nodes of a run that are being computed, each with its key.
#[derive(Default)]
pub struct ActiveNodes(Mutex<HashMap<Arc<str>, Key>>);

impl ActiveNodes {
    fn snapshot(&self) -> HashMap<Arc<str>, Key> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Subscriber for ActiveNodes {
    fn event(&self, event: &Event) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::NodeStarted { node, key, .. } | Event::Joined { node, key } => {
                nodes.insert(node.clone(), *key);
            }
            Event::NodeFinished { node, .. } | Event::Failed { node, .. } | Event::Cancelled { node } => {
                nodes.remove(node);
            }
            _ => {}
        }
    }
}

/// What a new plan means for each node, by name.
#[derive(Default)]
pub struct Difference {
    /// The result is cached.
    pub cached: Vec<Arc<str>>,
    /// The node has to run.
    pub runs: Vec<Arc<str>>,
    /// The node is being computed already, and continues.
    pub joined: Vec<Arc<str>>,
    /// The node is being computed, and is cancelled.
    pub cancelled: Vec<Arc<str>>,
}

impl Difference {
    /// Compares a plan with the graph of the former run and its active nodes.
    pub fn new(graph: &Graph, plan: &Plan, former: Option<(&Graph, &ActiveNodes)>) -> Difference {
        let mut active = HashMap::new();
        if let Some((former, nodes)) = former {
            active = nodes.snapshot();
            // A node that writes a file runs again in each run.
            for index in former.outputs() {
                active.remove(&former.node(index).name);
            }
        }
        let mut difference = Difference::default();
        for step in plan.steps() {
            let name = graph.node(step.node).name.clone();
            match &step.action {
                Action::Cached { restore: false, .. } => difference.cached.push(name),
                Action::Run { .. } if active.values().any(|key| *key == step.key) => {
                    difference.joined.push(name);
                    active.retain(|_, key| *key != step.key);
                }
                Action::Run { .. } | Action::Cached { .. } => difference.runs.push(name),
                Action::Shared { .. } | Action::Skipped { .. } => {}
            }
        }
        difference.cancelled = active.into_keys().collect();
        difference.cancelled.sort();
        difference
    }

    /// Lines for a person: the changed files, and what happens to the nodes.
    pub fn text(&self, cause: &Cause) -> String {
        let mut text = String::new();
        if let Cause::Change(changed) = cause {
            let listed: Vec<_> = changed.paths.iter().take(LISTED).map(|path| path.display().to_string()).collect();
            let more = changed.paths.len() - listed.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = writeln!(text, "\n{}{more} changed", listed.join(", "));
        }
        let lines = [
            ("cached", &self.cached),
            ("continues", &self.joined),
            ("cancelled", &self.cancelled),
            ("runs", &self.runs),
        ];
        for (what, nodes) in lines.into_iter().filter(|(_, nodes)| !nodes.is_empty()) {
            let _ = writeln!(text, "  {what:9}  {}", nodes.join(", "));
        }
        text
    }
}
