//! A task: the execution of one memo key, shared by all runs that wait for its result.
//!
//! A task goes on while any run waits for it. A run that is cancelled leaves its tasks; a task is cancelled when the
//! last waiter has left. Independent of graphs and queues: see the [executor](crate::Executor).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use petgraph::graph::NodeIndex;

use crate::key::Key;
use crate::node::{Awaited, Cancel, Event, Subscriber};

/// Identifies a task. Nodes with the same key share one task, except output nodes: they run once for each run, because
/// two runs may write to different folders.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TaskId {
    pub key: Key,
    pub run: Option<usize>,
}

/// The nodes that wait for one task.
#[derive(Default)]
pub(super) struct Waiters(Mutex<Vec<Waiter>>);

/// A node of a run that waits for a task.
#[derive(Clone)]
pub(super) struct Waiter {
    pub run: usize,
    pub node: NodeIndex,
    pub name: Arc<str>,
    pub subscriber: Arc<dyn Subscriber>,
    pub stop: Stop,
}

/// Returns whether a run must stop.
#[derive(Clone)]
pub(super) struct Stop {
    pub cancel: Cancel,
    /// A node has failed, and the run ends with its first failure.
    pub failed: Arc<AtomicBool>,
}

impl Stop {
    pub fn is_requested(&self) -> bool {
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

    fn with<T>(&self, action: impl FnOnce(&mut Vec<Waiter>) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Awaited for Waiters {
    fn is_awaited(&self) -> bool {
        self.with(|waiters| waiters.iter().any(|waiter| !waiter.stop.is_requested()))
    }
}

/// Passes the events of a node on to all waiters, each with the name that the node has in its run.
impl Subscriber for Waiters {
    fn event(&self, event: &Event) {
        for waiter in self.list() {
            waiter.subscriber.event(&event.of_node(&waiter.name));
        }
    }
}
