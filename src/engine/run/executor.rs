//! Executes plans: as many nodes side by side as the lanes allow, each key once at a time.
//!
//! One scheduler behind one lock, and workers that take tasks from it. A node that fails stops only the nodes that
//! depend on it. Cancellation takes effect between nodes, and within a node at its next step. Several runs may be in
//! progress: they share the lanes and the tasks that they have in common.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::request::RunRequest;
use super::scheduler::Scheduler;
use super::summary::Summary;
use crate::node::Lanes;
use crate::store::Store;

/// Runs plans, and keeps their results in a store. Clones are the same executor.
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

/// A run in progress. Dropping it does not stop the run; cancelling its [`Cancel`](crate::Cancel) does.
pub struct Running {
    summary: oneshot::Receiver<Summary>,
    shared: Arc<Shared>,
}

impl Executor {
    /// An executor that runs as many nodes at a time as `lanes` allows, and keeps results in `store`.
    pub fn new(lanes: Lanes, store: Arc<Store>) -> Executor {
        let scheduler = Scheduler::new(lanes, store.clone());
        let max_workers = scheduler.width();
        let state = State { scheduler, workers: 0, idle: 0, panicked: None };
        Executor(Arc::new(Shared { store, max_workers, state: Mutex::new(state), tasks: Condvar::new() }))
    }

    /// The store that keeps the results.
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// Starts a run.
    ///
    /// # Panics
    /// Outside a tokio runtime: nodes run on its threads for blocking work.
    pub fn start(&self, request: RunRequest) -> Running {
        let (done, summary) = oneshot::channel();
        let mut state = self.0.lock();
        state.scheduler.start(request, done);
        self.0.wake_workers(&mut state, 0);
        Running { summary, shared: self.0.clone() }
    }
}

impl Running {
    /// Waits for the run to end, and returns how it ended.
    ///
    /// # Panics
    /// With the panic of a subscriber, if one panicked.
    pub async fn finished(self) -> Summary {
        match self.summary.await {
            Ok(summary) => summary,
            Err(_) => match self.shared.lock().panicked.take() {
                Some(panic) => resume_unwind(panic),
                None => panic!("the runtime shut down during a run"),
            },
        }
    }
}

/// What the workers share.
struct Shared {
    store: Arc<Store>,
    max_workers: usize,
    state: Mutex<State>,
    /// Notified when there is a task for one more worker.
    tasks: Condvar,
}

struct State {
    scheduler: Scheduler,
    workers: usize,
    /// How many workers wait for a task.
    idle: usize,
    panicked: Option<Box<dyn Any + Send>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes or spawns a worker for each task that can start, except for `about_to_look`: workers that will look for a
    /// task anyway.
    fn wake_workers(self: &Arc<Shared>, state: &mut State, about_to_look: usize) {
        let needed = state.scheduler.startable().saturating_sub(about_to_look);
        (0..needed.min(state.idle)).for_each(|_| self.tasks.notify_one());
        for _ in 0..needed.saturating_sub(state.idle).min(self.max_workers - state.workers) {
            state.workers += 1;
            let shared = self.clone();
            Handle::current().spawn_blocking(move || shared.work());
        }
    }

    /// The loop of a worker. Ends when there are no runs.
    fn work(self: Arc<Shared>) {
        let work = || {
            let mut state = self.lock();
            loop {
                if let Some(job) = state.scheduler.next_job() {
                    self.wake_workers(&mut state, 0);
                    drop(state);
                    let completion = job.execute(&self.store);
                    state = self.lock();
                    state.scheduler.complete(completion);
                    self.wake_workers(&mut state, 1);
                } else if state.scheduler.is_idle() {
                    break;
                } else {
                    state.idle += 1;
                    state = self.tasks.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
            state.workers -= 1;
            self.tasks.notify_all();
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            // Nodes are guarded: a subscriber panicked. Everyone who waits for a run gets the panic.
            let mut state = self.lock();
            state.scheduler.abandon_runs();
            state.workers -= 1;
            state.panicked.get_or_insert(panic);
            self.tasks.notify_all();
        }
    }
}
