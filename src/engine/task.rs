//! A node's work on its way: one for each key, however many runs wait for it.
//!
//! Work goes on while anyone waits for it: a run that is cancelled leaves its tasks, and only the last one to leave
//! stops the work. Knows no graph and no queue; see the [executor](crate::Executor).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use petgraph::graph::NodeIndex;

use crate::context::{Awaited, Cancel};
use crate::event::{Event, Subscriber};
use crate::key::Key;

/// What makes work the same: its key. What is done for its effect is done for each run, which may write elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskId {
    pub key: Key,
    pub run: Option<usize>,
}

/// Those who wait for one node's work.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<Vec<Waiter>>);

/// A node of a run that waits for work.
#[derive(Clone)]
pub(crate) struct Waiter {
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

impl Waiters {
    pub fn join(&self, waiter: Waiter) {
        self.with(|waiters| waiters.push(waiter));
    }

    pub fn list(&self) -> Vec<Waiter> {
        self.with(|waiters| waiters.clone())
    }

    pub fn leave(&self, gone: &Waiter) {
        self.with(|waiters| waiters.retain(|waiter| (waiter.run, waiter.node) != (gone.run, gone.node)));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Waiter>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Awaited for Waiters {
    fn is_awaited(&self) -> bool {
        self.with(|waiters| waiters.iter().any(|waiter| !waiter.stop.is_asked()))
    }
}

/// What the node tells goes to all who wait for it, each by its own name.
impl Subscriber for Waiters {
    fn event(&self, event: &Event) {
        for waiter in self.list() {
            waiter.subscriber.event(&event.of_node(&waiter.name));
        }
    }
}
