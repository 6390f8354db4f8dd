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
use crate::flight::{FlightId, Wanters};
use crate::graph::{Graph, GraphNode};
use crate::key::{Key, Material};
use crate::lane::{Lane, Lanes};
use crate::panic::guarded;
use crate::plan::Plan;
use crate::run::{Ready, Run, Summary};
use crate::store::Store;
use crate::value::Value;

/// Runs plans, and keeps their results in a store. Clones are the same executor.
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

/// A run to be started.
pub struct Order {
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
    pub fn start(&self, order: Order) -> Running {
        let (done, summary) = oneshot::channel();
        let mut state = self.0.lock();
        let id = state.started;
        state.started += 1;
        let (run, ready) = Run::new(order, done);
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
type Place = (usize, usize);

#[derive(Default)]
struct State {
    runs: HashMap<usize, Run>,
    /// Number of runs so far.
    started: usize,
    flights: HashMap<FlightId, Flight>,
    /// Of each lane: what waits for it, and how many more nodes may be at work.
    queues: [BinaryHeap<Reverse<(Place, FlightId)>>; 3],
    free: [usize; 3],
    workers: usize,
    idle: usize,
    /// The most workers there may be.
    most: usize,
    panicked: Option<Box<dyn std::any::Any + Send>>,
}

struct Flight {
    place: Place,
    kind: Kind,
    wanters: Arc<Wanters>,
    /// A worker has it.
    taken: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Run,
    /// Makes the effect of a known result again.
    Restore,
}

/// A node's work in a worker's hands.
struct Job {
    id: FlightId,
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
        inputs: Option<Vec<Vec<Value>>>,
        material: Material,
        files: Vec<FileState>,
    },
    Restore {
        outputs: Arc<[Value]>,
    },
}

/// What came of a job.
struct Landing {
    id: FlightId,
    lane: Lane,
    result: anyhow::Result<Arc<[Value]>>,
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
                    let landing = job.fly(&self.store);
                    state = self.lock();
                    state.land(landing, &self.store);
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
            let (key, kind) = (step.key, if restore { Kind::Restore } else { Kind::Run });
            // A result may have come in since the plan was made; that of an effect does not bring the effect.
            if kind == Kind::Run
                && !graph_node.node_type.output
                && let Some(outputs) = store.memory().get(&key)
            {
                ready.extend(run.found(node, &outputs));
                continue;
            }
            let lane = graph_node.node_type.lane;
            let flight_id = FlightId { key, run: graph_node.node_type.output.then_some(id) };
            let wanter = run.wanter(id, node);
            match self.flights.get(&flight_id) {
                Some(flight) => {
                    if flight.taken {
                        run.tell(Event::Joined { node: wanter.name.clone(), key });
                    }
                    flight.wanters.join(wanter);
                }
                None => {
                    let place = (id, run.place(node));
                    let wanters = Arc::new(Wanters::default());
                    wanters.join(wanter);
                    self.flights.insert(flight_id, Flight { place, kind, wanters, taken: false });
                    self.queues[lane as usize].push(Reverse((place, flight_id)));
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
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            let wanters = flight.wanters.clone();
            for wanter in wanters.list().iter().filter(|wanter| wanter.stop.is_asked()) {
                let Some(run) = self.runs.get_mut(&wanter.run) else { continue };
                wanters.leave(wanter);
                let ready = run.give_up(wanter.node);
                self.go_on(wanter.run, ready, store);
            }
            let list = wanters.list();
            let Some((first, run)) = list.first().and_then(|first| Some((first, self.runs.get_mut(&first.run)?)))
            else {
                self.flights.remove(&id);
                continue;
            };
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            flight.taken = true;
            let kind = flight.kind;
            self.free[lane as usize] -= 1;
            let cx = run.context(first.node, Cancel::unless(wanters.clone()), wanters);
            let (key, graph) = (id.key, run.graph().clone());
            let work = match kind {
                Kind::Restore => Work::Restore { outputs: run.known(first.node) },
                Kind::Run => {
                    let inputs = run.inputs(first.node);
                    let (step, _) = run.step(first.node);
                    Work::Run { inputs, material: step.material.clone(), files: step.files.clone() }
                }
            };
            let job = Job { id, lane, key, graph, node: first.node, cx, work };
            if kind == Kind::Run {
                first.subscriber.event(&Event::NodeStarted { node: first.name.clone(), key, lane });
                for other in &list[1..] {
                    other.subscriber.event(&Event::Joined { node: other.name.clone(), key });
                }
            }
            return Some(job);
        }
    }

    /// Gives what came of a node's work to all who wait for it.
    fn land(&mut self, landing: Landing, store: &Store) {
        let Landing { id, lane, result, duration } = landing;
        self.free[lane as usize] += 1;
        let Some(flight) = self.flights.remove(&id) else { return };
        let cancelled = matches!(&result, Err(error) if is_cancellation(error));
        if cancelled {
            let mut again = false;
            for wanter in flight.wanters.list() {
                let Some(run) = self.runs.get_mut(&wanter.run) else { continue };
                if run.is_to_stop() || run.took(wanter.node) {
                    let ready = run.give_up(wanter.node);
                    self.go_on(wanter.run, ready, store);
                    flight.wanters.leave(&wanter);
                } else {
                    again = true;
                }
            }
            // Someone joined when the work had given up already: once more, for them.
            if again {
                self.queues[lane as usize].push(Reverse((flight.place, id)));
                self.flights.insert(id, Flight { taken: false, ..flight });
            }
            return;
        }
        let result = result.map_err(|error| format!("{error:#}"));
        for wanter in flight.wanters.list() {
            let Some(run) = self.runs.get_mut(&wanter.run) else { continue };
            let ready = match &result {
                Ok(outputs) if flight.kind == Kind::Run => run.ran(wanter.node, outputs, duration),
                Ok(_) => run.restored(wanter.node),
                Err(error) => run.failed(wanter.node, error),
            };
            self.go_on(wanter.run, ready, store);
        }
    }
}

impl Job {
    fn fly(self, store: &Store) -> Landing {
        let Job { id, lane, key, graph, node, cx, work } = self;
        let node = graph.node(node);
        let name = node.node_type.name;
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
        Landing { id, lane, result, duration: start.elapsed() }
    }
}

/// Runs a node's code.
///
/// # Errors
/// The node's own; or what makes its result unfit for its key or its consumers.
fn outputs(
    node: &GraphNode,
    inputs: Option<Vec<Vec<Value>>>,
    files: &[FileState],
    cx: &Context,
) -> anyhow::Result<Vec<Value>> {
    let Some(inputs) = inputs else { bail!("an input is missing (this is a bug of the engine)") };
    let name = node.node_type.name;
    let outputs = guarded(name, || node.node.run(inputs, cx))??;
    let given: Vec<_> = outputs.iter().map(Value::type_name).collect();
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
