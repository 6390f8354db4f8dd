//! Carries out plans: as many nodes side by side as their lanes allow, each key once at a time, telling what happens.
//!
//! One state behind one lock, and workers that take from it what is ready. A node that fails stops only what depends on
//! it; cancellation takes hold between nodes, and within a node at its next step. Several runs may be under way: they
//! share the lanes, and where they want the same work, that too. What a run keeps track of is in [`run`](crate::run).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::context::{Cancel, Cancelled, Context, Host};
use crate::event::{Event, Subscriber};
use crate::files::FileState;
use crate::graph::{Graph, GraphNode};
use crate::key::{Key, Material};
use crate::lane::{Lane, Lanes};
use crate::panic::guarded;
use crate::plan::Plan;
use crate::run::{Ready, Run, Summary};
use crate::store::Store;
use crate::task::{TaskId, Waiters};
use crate::value::EdgeValue;

/// Runs plans, and keeps their results in a store. Clones are the same executor.
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

/// A run to be started.
pub struct RunRequest {
    pub graph: Arc<Graph>,
    /// Made of this `graph`, for this `host`.
    pub plan: Plan,
    pub host: Arc<Host>,
    pub subscriber: Arc<dyn Subscriber>,
    /// Stops the run. Work that other runs want too goes on.
    pub cancel: Cancel,
    /// Whether the first failure ends the run, in place of what depends on it alone.
    pub fail_fast: bool,
}

/// A run under way. Dropping it does not stop the run; its [`Cancel`] does.
pub struct Running {
    summary: oneshot::Receiver<Summary>,
    shared: Arc<Shared>,
}

impl Executor {
    pub fn new(lanes: Lanes, store: Arc<Store>) -> Executor {
        let free = Lane::ALL.map(|lane| lanes.width(lane));
        let state = State { free, most: free.iter().sum(), ..State::default() };
        Executor(Arc::new(Shared { store, state: Mutex::new(state), work: Condvar::new() }))
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// Starts a run.
    ///
    /// # Panics
    /// Outside a tokio runtime, on whose threads for blocking work the nodes run.
    pub fn start(&self, request: RunRequest) -> Running {
        let (done, summary) = oneshot::channel();
        let mut state = self.0.lock();
        let id = state.started;
        state.started += 1;
        let (run, ready) = Run::new(request, done);
        state.runs.insert(id, run);
        state.go_on(id, ready, &self.0.store);
        self.0.call_workers(&mut state, 0);
        Running { summary, shared: self.0.clone() }
    }
}

impl Running {
    /// What came of the run, once all of it is done.
    ///
    /// # Panics
    /// When a subscriber did.
    pub async fn finished(self) -> Summary {
        match self.summary.await {
            Ok(summary) => summary,
            Err(_) => match self.shared.lock().panicked.take() {
                Some(panic) => resume_unwind(panic),
                None => panic!("the runtime went down during a run"),
            },
        }
    }
}

struct Shared {
    store: Arc<Store>,
    state: Mutex<State>,
    /// Told when there is work for one more worker.
    work: Condvar,
}

/// First come the nodes of the earlier run, and in a run those first in its order.
type Priority = (usize, usize);

#[derive(Default)]
struct State {
    runs: HashMap<usize, Run>,
    /// Number of runs so far.
    started: usize,
    tasks: HashMap<TaskId, Task>,
    /// Of each lane: what waits for it, and how many more nodes may be at work.
    queues: [BinaryHeap<Reverse<(Priority, TaskId)>>; 3],
    free: [usize; 3],
    workers: usize,
    idle: usize,
    /// The most workers there may be.
    most: usize,
    panicked: Option<Box<dyn std::any::Any + Send>>,
}

struct Task {
    place: Priority,
    kind: TaskKind,
    waiters: Arc<Waiters>,
    /// A worker has it.
    taken: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskKind {
    Run,
    /// Makes the effect of a known result again.
    Restore,
}

/// A node's work in a worker's hands.
struct Job {
    id: TaskId,
    lane: Lane,
    key: Key,
    graph: Arc<Graph>,
    node: petgraph::graph::NodeIndex,
    cx: Context,
    work: Work,
}

enum Work {
    /// Inputs of each socket, as far as they are there.
    Run {
        inputs: Option<Vec<Vec<EdgeValue>>>,
        material: Material,
        files: Vec<FileState>,
    },
    Restore {
        outputs: Arc<[EdgeValue]>,
    },
}

/// What came of a job.
struct Completion {
    id: TaskId,
    lane: Lane,
    result: anyhow::Result<Arc<[EdgeValue]>>,
    duration: Duration,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that someone takes up what is ready, beside `hands` workers that are about to look.
    fn call_workers(self: &Arc<Shared>, state: &mut State, hands: usize) {
        let ready: usize = state.queues.iter().zip(state.free).map(|(queue, free)| queue.len().min(free)).sum();
        let more = ready.saturating_sub(hands);
        (0..more.min(state.idle)).for_each(|_| self.work.notify_one());
        for _ in 0..more.saturating_sub(state.idle).min(state.most - state.workers) {
            state.workers += 1;
            let shared = self.clone();
            Handle::current().spawn_blocking(move || shared.work());
        }
    }

    /// A worker's life: as long as there are runs.
    fn work(self: Arc<Shared>) {
        let work = || {
            let mut state = self.lock();
            loop {
                if let Some(job) = state.take(&self.store) {
                    self.call_workers(&mut state, 0);
                    drop(state);
                    let completion = job.execute(&self.store);
                    state = self.lock();
                    state.complete(completion, &self.store);
                    self.call_workers(&mut state, 1);
                } else if state.runs.is_empty() {
                    break;
                } else {
                    state.idle += 1;
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
            state.workers -= 1;
            self.work.notify_all();
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            // A subscriber's: nodes are guarded. Whoever waits for a run is told.
            let mut state = self.lock();
            *state = State { panicked: Some(panic), free: state.free, most: state.most, ..State::default() };
            self.work.notify_all();
        }
    }
}

impl State {
    /// Puts a run's ready nodes on their way, and finishes the run if there is nothing left of it.
    fn go_on(&mut self, id: usize, mut ready: Vec<Ready>, store: &Store) {
        while let Some(Ready { node, restore }) = ready.pop() {
            let Some(run) = self.runs.get_mut(&id) else { return };
            if run.is_to_stop() {
                ready.extend(run.give_up(node));
                continue;
            }
            let (step, graph_node) = run.step(node);
            let (key, kind) = (step.key, if restore { TaskKind::Restore } else { TaskKind::Run });
            // A result may have come in since the plan was made; that of an effect does not bring the effect.
            if kind == TaskKind::Run
                && !graph_node.node_type.output
                && let Some(outputs) = store.memory().get(&key)
            {
                ready.extend(run.found(node, &outputs));
                continue;
            }
            let lane = graph_node.node_type.lane;
            let task_id = TaskId { key, run: graph_node.node_type.output.then_some(id) };
            let waiter = run.waiter(id, node);
            match self.tasks.get(&task_id) {
                Some(task) => {
                    if task.taken {
                        run.tell(Event::Joined { node: waiter.name.clone(), key });
                    }
                    task.waiters.join(waiter);
                }
                None => {
                    let place = (id, run.place(node));
                    let waiters = Arc::new(Waiters::default());
                    waiters.join(waiter);
                    self.tasks.insert(task_id, Task { place, kind, waiters, taken: false });
                    self.queues[lane as usize].push(Reverse((place, task_id)));
                }
            }
        }
        if self.runs.get(&id).is_some_and(Run::is_done)
            && let Some(run) = self.runs.remove(&id)
        {
            run.finish();
        }
    }

    /// The first node in the queues whose lane has room for it. What no one wants any longer is let go on the way.
    fn take(&mut self, store: &Store) -> Option<Job> {
        loop {
            let lanes = Lane::ALL.into_iter().filter(|lane| self.free[*lane as usize] > 0);
            let first = |lane: Lane| self.queues[lane as usize].peek().map(|Reverse((place, _))| (*place, lane));
            let (_, lane) = lanes.filter_map(first).min_by_key(|(place, _)| *place)?;
            let Reverse((_, id)) = self.queues[lane as usize].pop()?;
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let waiters = task.waiters.clone();
            for waiter in waiters.list().iter().filter(|waiter| waiter.stop.is_asked()) {
                let Some(run) = self.runs.get_mut(&waiter.run) else { continue };
                waiters.leave(waiter);
                let ready = run.give_up(waiter.node);
                self.go_on(waiter.run, ready, store);
            }
            let list = waiters.list();
            let Some((first, run)) = list.first().and_then(|first| Some((first, self.runs.get_mut(&first.run)?)))
            else {
                self.tasks.remove(&id);
                continue;
            };
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.taken = true;
            let kind = task.kind;
            self.free[lane as usize] -= 1;
            let cx = run.context(first.node, Cancel::when_abandoned(waiters.clone()), waiters);
            let (key, graph) = (id.key, run.graph().clone());
            let work = match kind {
                TaskKind::Restore => Work::Restore { outputs: run.known(first.node) },
                TaskKind::Run => {
                    let inputs = run.inputs(first.node);
                    let (step, _) = run.step(first.node);
                    Work::Run { inputs, material: step.material.clone(), files: step.files.clone() }
                }
            };
            let job = Job { id, lane, key, graph, node: first.node, cx, work };
            if kind == TaskKind::Run {
                first.subscriber.event(&Event::NodeStarted { node: first.name.clone(), key, lane });
                for other in &list[1..] {
                    other.subscriber.event(&Event::Joined { node: other.name.clone(), key });
                }
            }
            return Some(job);
        }
    }

    /// Gives what came of a node's work to all who wait for it.
    fn complete(&mut self, completion: Completion, store: &Store) {
        let Completion { id, lane, result, duration } = completion;
        self.free[lane as usize] += 1;
        let Some(task) = self.tasks.remove(&id) else { return };
        let cancelled = matches!(&result, Err(error) if is_cancellation(error));
        if cancelled {
            let mut again = false;
            for waiter in task.waiters.list() {
                let Some(run) = self.runs.get_mut(&waiter.run) else { continue };
                if run.is_to_stop() || run.took(waiter.node) {
                    let ready = run.give_up(waiter.node);
                    self.go_on(waiter.run, ready, store);
                    task.waiters.leave(&waiter);
                } else {
                    again = true;
                }
            }
            // Someone joined when the work had given up already: once more, for them.
            if again {
                self.queues[lane as usize].push(Reverse((task.place, id)));
                self.tasks.insert(id, Task { taken: false, ..task });
            }
            return;
        }
        let result = result.map_err(|error| format!("{error:#}"));
        for waiter in task.waiters.list() {
            let Some(run) = self.runs.get_mut(&waiter.run) else { continue };
            let ready = match &result {
                Ok(outputs) if task.kind == TaskKind::Run => run.ran(waiter.node, outputs, duration),
                Ok(_) => run.restored(waiter.node),
                Err(error) => run.failed(waiter.node, error),
            };
            self.go_on(waiter.run, ready, store);
        }
    }
}

impl Job {
    fn execute(self, store: &Store) -> Completion {
        let Job { id, lane, key, graph, node, cx, work } = self;
        let node = graph.node(node);
        let name = node.node_type.name;
        let _span = tracing::info_span!("node", node = %node.name, r#type = name, %key).entered();
        let start = Instant::now();
        let result = match work {
            Work::Restore { outputs } => {
                let restored = guarded(name, || node.node.restore(&outputs, &cx));
                restored.map_err(anyhow::Error::from).flatten().map(|()| outputs)
            }
            Work::Run { inputs, material, files } => outputs(node, inputs, &files, &cx).map(|outputs| {
                let outputs = outputs.into();
                store.put(key, &material, node.node_type.outputs, &outputs);
                outputs
            }),
        };
        let duration = start.elapsed();
        match &result {
            Ok(_) => tracing::info!(?duration, "done"),
            Err(error) => tracing::info!(?duration, error = format_args!("{error:#}"), "failed"),
        }
        Completion { id, lane, result, duration }
    }
}

/// Runs a node's code.
///
/// # Errors
/// The node's own; or what makes its result unfit for its key or its consumers.
fn outputs(
    node: &GraphNode,
    inputs: Option<Vec<Vec<EdgeValue>>>,
    files: &[FileState],
    cx: &Context,
) -> anyhow::Result<Vec<EdgeValue>> {
    let Some(inputs) = inputs else { bail!("an input is missing (this is a bug of the engine)") };
    let name = node.node_type.name;
    let outputs = guarded(name, || node.node.run(inputs, cx))??;
    let given: Vec<_> = outputs.iter().map(EdgeValue::type_name).collect();
    let declared = node.node_type.outputs.iter().map(|socket| socket.type_name);
    ensure!(
        declared.clone().eq(given.iter().copied()),
        "it gave [{}], but declares [{}] (this is a bug of the node type `{name}`)",
        given.join(", "),
        declared.collect::<Vec<_>>().join(", "),
    );
    // Its key says what the files held when the plan was made; a result of anything else must not be kept under it.
    if let Some(file) = files.iter().find(|file| !file.still_holds()) {
        bail!("`{}` changed after the run was planned; run again", file.path().display());
    }
    Ok(outputs)
}

fn is_cancellation(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Cancelled>()) || error.is::<Cancelled>()
}
