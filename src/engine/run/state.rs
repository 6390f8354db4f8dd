//! One run in progress: which nodes wait for which, the values that are still to be read, and how each node ended.
//!
//! Deals with the graph and plan of one run. The execution of nodes and other runs are elsewhere: see the
//! [executor](crate::Executor).

use std::mem::{replace, take};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use petgraph::graph::NodeIndex;
use tokio::sync::oneshot;

use super::live::LiveValues;
use super::record::Record;
use super::request::RunRequest;
use super::summary::{Outcome, Summary};
use super::task::{Stop, Waiter};
use crate::graph::{Graph, GraphNode};
use crate::node::{Cancel, Context, EdgeValue, Event, Host, Subscriber};
use crate::plan::{Action, Step};

/// Why a node has no outputs. For the same reason, the nodes that depend on it do not run either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    /// This node failed: the node itself, or one that it depends on.
    Failed(NodeIndex),
    Cancelled,
}

/// A node that can be executed now.
pub(super) struct Ready {
    pub node: NodeIndex,
    /// The result is cached; only its effect is restored.
    pub restore: bool,
}

/// The state of one run. Each `Vec` has one entry for each node, by the node's index.
pub(super) struct Run {
    graph: Arc<Graph>,
    /// In the order of the graph.
    steps: Vec<Step>,
    host: Arc<Host>,
    subscriber: Arc<dyn Subscriber>,
    record: Arc<Record>,
    stop: Stop,
    fail_fast: bool,
    first_failure: Option<NodeIndex>,
    live: LiveValues,
    /// The position of the node in the order of the graph.
    position: Vec<usize>,
    /// How many of its producers have not run yet.
    waiting: Vec<usize>,
    /// The nodes that wait for it.
    consumers: Vec<Vec<NodeIndex>>,
    /// The nodes with the same key, which get its result.
    sharers: Vec<Vec<NodeIndex>>,
    /// Whether its inputs have been taken.
    took: Vec<bool>,
    /// Why it has no outputs, if it has none.
    blocked: Vec<Option<Block>>,
    outcomes: Vec<Option<Outcome>>,
    /// How many nodes have no outcome yet.
    left: usize,
    started: Instant,
    done: oneshot::Sender<Summary>,
}

impl Run {
    /// Starts a run. Returns it with the nodes that can be executed immediately.
    pub fn new(request: RunRequest, done: oneshot::Sender<Summary>) -> (Run, Vec<Ready>) {
        let RunRequest { graph, plan, host, subscriber, cancel, fail_fast } = request;
        let counts = plan.counts();
        let steps = plan.into_steps();
        let count = steps.len();
        let mut keys: Vec<_> = steps.iter().map(|step| (step.node, step.key)).collect();
        keys.sort_unstable_by_key(|(node, _)| *node);
        let record = Record::new(graph.clone(), keys.into_iter().map(|(_, key)| key).collect());
        let mut position = vec![0; count];
        for (index, step) in steps.iter().enumerate() {
            position[step.node.index()] = index;
        }
        let mut run = Run {
            live: LiveValues::new(&graph, &steps),
            record: Arc::new(record),
            stop: Stop { cancel, failed: Arc::new(AtomicBool::new(false)) },
            fail_fast,
            first_failure: None,
            position,
            waiting: vec![0; count],
            consumers: vec![vec![]; count],
            sharers: vec![vec![]; count],
            took: vec![false; count],
            blocked: vec![None; count],
            outcomes: vec![None; count],
            left: count,
            started: Instant::now(),
            graph,
            steps,
            host,
            subscriber,
            done,
        };
        run.emit(Event::PlanMade {
            run: counts.run,
            cached: counts.cached,
            shared: counts.shared,
            skipped: counts.skipped,
        });
        for drawn in run.graph.drawn() {
            let text = format!("the random seed is {}", drawn.seed);
            run.emit(Event::Note { node: drawn.node.as_str().into(), text });
        }
        let ready = run.prepare();
        (run, ready)
    }

    /// Finds out which node waits for which, and settles the nodes that do not run.
    fn prepare(&mut self) -> Vec<Ready> {
        let graph = self.graph.clone();
        let steps = take(&mut self.steps);
        let mut ready = vec![];
        let mut settled = vec![];
        for step in &steps {
            let (node, name) = (step.node, &graph.node(step.node).name);
            match &step.action {
                Action::Skipped { .. } => settled.push((node, Outcome::Skipped)),
                Action::Cached { outputs, restore, files } => {
                    self.live.put(node, outputs);
                    if *restore {
                        // Restoring an effect needs no inputs.
                        self.took[node.index()] = true;
                        ready.push(Ready { node, restore: true });
                    } else {
                        for path in files {
                            let (node, path) = (name.clone(), path.clone());
                            self.subscriber.event(&Event::Saved { node, path, new: false });
                        }
                        self.subscriber.event(&Event::Cached { node: name.clone(), key: step.key });
                        settled.push((node, Outcome::Cached));
                    }
                }
                Action::Shared { with } => self.sharers[with.index()].push(node),
                Action::Run { .. } => {
                    let producers = self.running_producers(&steps, node);
                    self.waiting[node.index()] = producers.len();
                    producers.iter().for_each(|producer| self.consumers[producer.index()].push(node));
                    if producers.is_empty() {
                        ready.push(Ready { node, restore: false });
                    }
                }
            }
        }
        self.steps = steps;
        settled.into_iter().for_each(|(node, outcome)| self.settle(node, outcome));
        ready
    }

    /// The nodes that run and from which a node gets its inputs, each once.
    fn running_producers(&self, steps: &[Step], node: NodeIndex) -> Vec<NodeIndex> {
        let action = |node: NodeIndex| &steps[self.position[node.index()]].action;
        let mut producers = self.graph.node(node).producers();
        for producer in &mut producers {
            if let Action::Shared { with } = action(*producer) {
                *producer = *with;
            }
        }
        producers.sort_unstable();
        producers.dedup();
        producers.retain(|producer| matches!(action(*producer), Action::Run { .. }));
        producers
    }

    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub fn step(&self, node: NodeIndex) -> (&Step, &GraphNode) {
        (&self.steps[self.position[node.index()]], self.graph.node(node))
    }

    /// The position of a node in the order of the graph.
    pub fn position(&self, node: NodeIndex) -> usize {
        self.position[node.index()]
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_requested()
    }

    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    pub fn emit(&self, event: Event) {
        self.subscriber.event(&event);
    }

    pub fn waiter(&self, run: usize, node: NodeIndex) -> Waiter {
        let name = self.graph.node(node).name.clone();
        Waiter { run, node, name, subscriber: self.subscriber.clone(), stop: self.stop.clone() }
    }

    pub fn context(&self, node: NodeIndex, cancel: Cancel, subscriber: Arc<dyn Subscriber>) -> Context {
        let node = self.graph.node(node);
        Context {
            host: self.host.clone(),
            node: node.name.clone(),
            folder: node.folder.clone(),
            cancel,
            subscriber,
            record: Some(self.record.clone()),
            findings: None,
        }
    }

    /// Whether the node's inputs have been taken.
    pub fn took_inputs(&self, node: NodeIndex) -> bool {
        self.took[node.index()]
    }

    /// Takes the values of each input socket; `None` if a producer gave no value.
    pub fn take_inputs(&mut self, node: NodeIndex) -> Option<Vec<Vec<EdgeValue>>> {
        self.took[node.index()] = true;
        let sockets = &self.graph.node(node).inputs;
        sockets.iter().map(|links| links.iter().map(|link| self.live.take(*link)).collect()).collect()
    }

    /// The cached outputs of a node.
    pub fn cached_outputs(&self, node: NodeIndex) -> Arc<[EdgeValue]> {
        match &self.step(node).0.action {
            Action::Cached { outputs, .. } => outputs.clone(),
            _ => [].into(),
        }
    }

    /// Records that the result of a node was cached after the plan was made.
    pub fn on_cached(&mut self, node: NodeIndex, outputs: &Arc<[EdgeValue]>) -> Vec<Ready> {
        self.emit(Event::Cached { node: self.graph.node(node).name.clone(), key: self.step(node).0.key });
        self.on_success(node, outputs, Outcome::Cached)
    }

    /// Records that a node ran.
    pub fn on_run(&mut self, node: NodeIndex, outputs: &Arc<[EdgeValue]>, duration: Duration) -> Vec<Ready> {
        let bytes = outputs.iter().map(EdgeValue::bytes).fold(0, usize::saturating_add);
        let (name, key) = (self.graph.node(node).name.clone(), self.step(node).0.key);
        self.emit(Event::NodeFinished { node: name, key, duration, bytes });
        // Several runs may wait for one task. It ran for the one that gave it the inputs.
        let outcome = if self.took_inputs(node) { Outcome::Ran { duration, bytes } } else { Outcome::Joined };
        self.on_success(node, outputs, outcome)
    }

    /// Records that the effect of a node was restored.
    pub fn on_restored(&mut self, node: NodeIndex) -> Vec<Ready> {
        self.emit(Event::Restored { node: self.graph.node(node).name.clone(), key: self.step(node).0.key });
        self.settle(node, Outcome::Cached);
        vec![]
    }

    /// Records that a node failed.
    pub fn on_failure(&mut self, node: NodeIndex, error: &str) -> Vec<Ready> {
        self.emit(Event::Failed { node: self.graph.node(node).name.clone(), error: error.into() });
        if self.fail_fast {
            self.first_failure.get_or_insert(node);
            self.stop.failed.store(true, Ordering::Relaxed);
        }
        self.drop_inputs(node);
        self.settle(node, Outcome::Failed { error: error.into() });
        let block = Block::Failed(node);
        self.blocked[node.index()] = Some(block);
        for sharer in take(&mut self.sharers[node.index()]) {
            self.settle_blocked(sharer, block);
        }
        self.release_consumers(node)
    }

    /// Records that a node does not run, because the run is to stop.
    pub fn on_stop(&mut self, node: NodeIndex) -> Vec<Ready> {
        self.block(node, self.first_failure.map_or(Block::Cancelled, Block::Failed));
        self.release_consumers(node)
    }

    /// Reports how the run ended.
    pub fn finish(self) {
        let graph = &self.graph;
        let outcome = |node: &NodeIndex| self.outcomes[node.index()].clone().unwrap_or(Outcome::Cancelled);
        let nodes = graph.order().iter().map(|node| (graph.node(*node).name.clone(), outcome(node))).collect();
        let summary = Summary { nodes, duration: self.started.elapsed() };
        self.emit(Event::RunFinished { duration: summary.duration, succeeded: summary.succeeded() });
        // The receiver may have been dropped.
        let _ = self.done.send(summary);
    }

    fn settle(&mut self, node: NodeIndex, outcome: Outcome) {
        if self.outcomes[node.index()].replace(outcome).is_none() {
            self.left -= 1;
        }
    }

    fn settle_blocked(&mut self, node: NodeIndex, block: Block) {
        self.blocked[node.index()] = Some(block);
        let name = self.graph.node(node).name.clone();
        match block {
            Block::Failed(root) => {
                let because = self.graph.node(root).name.clone();
                self.emit(Event::Blocked { node: name, because: because.clone() });
                self.settle(node, Outcome::Blocked { because });
            }
            Block::Cancelled => {
                self.emit(Event::Cancelled { node: name });
                self.settle(node, Outcome::Cancelled);
            }
        }
    }

    /// Drops the inputs of a node that will not take them.
    fn drop_inputs(&mut self, node: NodeIndex) {
        if !replace(&mut self.took[node.index()], true) {
            let graph = self.graph.clone();
            graph.node(node).inputs.iter().flatten().for_each(|link| drop(self.live.take(*link)));
        }
    }

    fn on_success(&mut self, node: NodeIndex, outputs: &Arc<[EdgeValue]>, outcome: Outcome) -> Vec<Ready> {
        self.live.put(node, outputs);
        self.drop_inputs(node);
        self.settle(node, outcome);
        let with = self.graph.node(node).name.clone();
        for sharer in take(&mut self.sharers[node.index()]) {
            self.emit(Event::Shared { node: self.graph.node(sharer).name.clone(), with: with.clone() });
            self.settle(sharer, Outcome::Shared { with: with.clone() });
        }
        self.release_consumers(node)
    }

    /// Returns the nodes that can be executed now that `node` has ended, and blocks those that cannot.
    fn release_consumers(&mut self, node: NodeIndex) -> Vec<Ready> {
        let mut ready = vec![];
        let mut done = vec![node];
        // Not recursive: a chain of nodes may be long.
        while let Some(node) = done.pop() {
            for consumer in take(&mut self.consumers[node.index()]) {
                self.waiting[consumer.index()] -= 1;
                if self.waiting[consumer.index()] > 0 {
                    continue;
                }
                match self.block_of_producers(consumer) {
                    None => ready.push(Ready { node: consumer, restore: false }),
                    Some(block) => {
                        self.block(consumer, block);
                        done.push(consumer);
                    }
                }
            }
        }
        ready
    }

    fn block_of_producers(&self, node: NodeIndex) -> Option<Block> {
        let links = self.graph.node(node).inputs.iter().flatten();
        links.filter_map(|link| self.blocked[link.producer.index()]).min()
    }

    /// Blocks a node and the nodes that share its key.
    fn block(&mut self, node: NodeIndex, block: Block) {
        self.drop_inputs(node);
        self.settle_blocked(node, block);
        for sharer in take(&mut self.sharers[node.index()]) {
            self.settle_blocked(sharer, block);
        }
    }
}
