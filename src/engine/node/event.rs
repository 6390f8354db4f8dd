//! What a run reports while it is in progress. A subscriber decides what to do with it: a progress bar, a log, a test.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::lane::Lane;
use crate::key::Key;

/// An event of a run. `node` is the node's name in the document.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // `node` and `key` are the node and its memo key; other fields are explained with their event.
pub enum Event {
    /// The first event of a run: how many nodes run, are cached, share the result of another node, and are skipped.
    PlanMade { run: usize, cached: usize, shared: usize, skipped: usize },
    /// The node's result was cached.
    Cached { node: Arc<str>, key: Key },
    /// The node's result was cached, but its effect was gone and has been restored: a file was written once more.
    Restored { node: Arc<str>, key: Key },
    /// The node has started in `lane`.
    NodeStarted { node: Arc<str>, key: Key, lane: Lane },
    /// Another run is already executing the node. This run gets the same result.
    Joined { node: Arc<str>, key: Key },
    /// The node has done `done` of `of` steps. `part` is the image of a batch that they belong to, from 1, and the number of
    /// images, if there are several.
    Step { node: Arc<str>, done: usize, of: usize, part: Option<(usize, usize)> },
    /// How the result looks after `done` of `of` steps, if the host asks for previews. `png` is a small PNG file.
    Preview { node: Arc<str>, done: usize, of: usize, png: Arc<[u8]> },
    /// The node's result is in this file. `new` if the run has written it; otherwise the file was already there.
    Saved { node: Arc<str>, path: Arc<Path>, new: bool },
    /// A line of text for the user.
    Note { node: Arc<str>, text: String },
    /// The node has ended. `bytes` is the size of its outputs in memory.
    NodeFinished { node: Arc<str>, key: Key, duration: Duration, bytes: usize },
    /// The node has the same key as `with`, and gets its result.
    Shared { node: Arc<str>, with: Arc<str> },
    /// The node failed. `error` has the error and its causes.
    Failed { node: Arc<str>, error: String },
    /// The node does not run, because `because` failed: a node that it depends on, or one with the same key. The JSON
    /// event is called `skipped`.
    Blocked { node: Arc<str>, because: Arc<str> },
    /// The run was cancelled before the node ended.
    Cancelled { node: Arc<str> },
    /// The last event of a run.
    RunFinished { duration: Duration, succeeded: bool },
}

impl Event {
    /// The same event, with another name for its node.
    pub(crate) fn of_node(&self, name: &Arc<str>) -> Event {
        let mut event = self.clone();
        match &mut event {
            Event::Step { node, .. }
            | Event::Note { node, .. }
            | Event::Preview { node, .. }
            | Event::Saved { node, .. } => *node = name.clone(),
            _ => {}
        }
        event
    }
}

/// Receives the events of a run. It is called from the threads that run nodes, and for some events while the executor
/// is locked: return quickly, never block, and start no run.
pub trait Subscriber: Send + Sync {
    /// Receives an event.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Subscriber for F {
    fn event(&self, event: &Event) {
        self(event)
    }
}
