//! A node's work on its way: one for each key, however many runs wait for it.
//!
//! Work goes on while anyone waits for it: a run that is cancelled leaves its flights, and only the last one to leave
//! stops the work. Knows no graph and no queue; see the [executor](crate::Executor).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use petgraph::graph::NodeIndex;

use crate::context::{Cancel, Wanted};
use crate::event::{Event, Subscriber};
use crate::key::Key;

/// What makes work the same: its key. What is done for its effect is done for each run, which may write elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FlightId {
    pub key: Key,
    pub run: Option<usize>,
}

/// Those who wait for one node's work.
#[derive(Default)]
pub(crate) struct Wanters(Mutex<Vec<Wanter>>);

/// A node of a run that waits for work.
#[derive(Clone)]
pub(crate) struct Wanter {
    pub run: usize,
    pub node: NodeIndex,
    pub name: Arc<str>,
    pub subscriber: Arc<dyn Subscriber>,
    pub stop: Stop,
}

/// Whether a run still wants anything.
#[derive(Clone)]
pub(crate) struct Stop {
    pub cancel: Cancel,
    /// One of its nodes failed, and it was to end with the first failure.
    pub failed: Arc<AtomicBool>,
}

impl Stop {
    pub fn is_asked(&self) -> bool {
        self.cancel.is_cancelled() || self.failed.load(Ordering::Relaxed)
    }
}

impl Wanters {
    pub fn join(&self, wanter: Wanter) {
        self.with(|wanters| wanters.push(wanter));
    }

    pub fn list(&self) -> Vec<Wanter> {
        self.with(|wanters| wanters.clone())
    }

    pub fn leave(&self, gone: &Wanter) {
        self.with(|wanters| wanters.retain(|wanter| (wanter.run, wanter.node) != (gone.run, gone.node)));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Wanter>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wanted for Wanters {
    fn is_wanted(&self) -> bool {
        self.with(|wanters| wanters.iter().any(|wanter| !wanter.stop.is_asked()))
    }
}

/// What the node tells goes to all who wait for it, each by its own name.
impl Subscriber for Wanters {
    fn event(&self, event: &Event) {
        for wanter in self.list() {
            wanter.subscriber.event(&event.of_node(&wanter.name));
        }
    }
}
