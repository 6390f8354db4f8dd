//! What a run tells, while it runs. What is done with it (a progress bar, a log, a test) is the subscriber's affair.

use std::sync::Arc;
use std::time::Duration;

use crate::key::Key;
use crate::lane::Lane;

/// One thing that happened. Nodes go by the names they have in the document.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first event of a run: how many nodes will run, are known already, share another node's run, and are not
    /// asked for at all.
    PlanMade {
        run: usize,
        cached: usize,
        shared: usize,
        skipped: usize,
    },
    /// The node's result was known.
    Cached {
        node: Arc<str>,
        key: Key,
    },
    /// The node's result was known, but not its effect, which is made again from the result: a file written once more.
    Restored {
        node: Arc<str>,
        key: Key,
    },
    NodeStarted {
        node: Arc<str>,
        key: Key,
        lane: Lane,
    },
    /// The node is at work already for another run, whose result it gets.
    Joined {
        node: Arc<str>,
        key: Key,
    },
    /// `done` of `of` steps.
    Step {
        node: Arc<str>,
        done: usize,
        of: usize,
    },
    /// How the result looks after `done` of `of` steps, where previews were asked for: a small PNG file.
    Preview {
        node: Arc<str>,
        done: usize,
        of: usize,
        png: Arc<[u8]>,
    },
    /// A line for the user.
    Note {
        node: Arc<str>,
        text: String,
    },
    /// `bytes` counts the outputs.
    NodeFinished {
        node: Arc<str>,
        key: Key,
        duration: Duration,
        bytes: usize,
    },
    /// The node has the same key as `with`, and gets its result.
    Shared {
        node: Arc<str>,
        with: Arc<str>,
    },
    Failed {
        node: Arc<str>,
        error: String,
    },
    /// The node did not run, because `because`, somewhere above it or of the same key, failed.
    Blocked {
        node: Arc<str>,
        because: Arc<str>,
    },
    /// The node was running, or had yet to run, when the run was cancelled.
    Cancelled {
        node: Arc<str>,
    },
    /// The last event of a run.
    RunFinished {
        duration: Duration,
        succeeded: bool,
    },
}

impl Event {
    /// The same event of a node that goes by another name.
    pub(crate) fn of_node(&self, name: &Arc<str>) -> Event {
        let mut event = self.clone();
        match &mut event {
            Event::Step { node, .. } | Event::Note { node, .. } | Event::Preview { node, .. } => *node = name.clone(),
            _ => {}
        }
        event
    }
}

/// Who listens. Called from the threads that run nodes, some events while the executor holds its state: be quick, never
/// block, start no run.
pub trait Subscriber: Send + Sync {
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Subscriber for F {
    fn event(&self, event: &Event) {
        self(event)
    }
}
