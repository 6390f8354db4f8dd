//! One run under way: which nodes wait for what, what is cached, and what came of each.
//!
//! Knows its graph and plan. Does not know who does the work, nor of other runs: see the
//! [executor](crate::Executor).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use petgraph::graph::NodeIndex;
use tokio::sync::oneshot;

use crate::context::{Cancel, Context, Host};
use crate::event::{Event, Subscriber};
use crate::executor::RunRequest;
use crate::graph::{Graph, GraphNode};
use crate::live::Live;
use crate::plan::{Action, Step};
use crate::record::Record;
use crate::task::{Stop, Waiter};
use crate::value::EdgeValue;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// By name, in the order of the graph.
    pub nodes: Vec<(Arc<str>, Outcome)>,
    pub duration: Duration,
}

/// What came of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `bytes` counts the outputs.
    Ran {
        duration: Duration,
        bytes: usize,
    },
    /// Its result was cached.
    Cached,
    /// It was at work for another run, whose result it got.
    Joined,
    /// It got the result of `with`.
    Shared {
        with: Arc<str>,
    },
    /// No output node needed it.
    Skipped,
    /// The error and its causes.
    Failed {
        error: String,
    },
    /// `because`, somewhere above it or of the same key, failed; anywhere, where the first failure was to end the run.
    Blocked {
        because: Arc<str>,
    },
    Cancelled,
}

impl Summary {
    /// Whether all that the run was for is done.
    pub fn succeeded(&self) -> bool {
        !self.nodes.iter().any(|(_, outcome)| {
            matches!(outcome, Outcome::Failed { .. } | Outcome::Blocked { .. } | Outcome::Cancelled)
        })
    }

    /// Whether something was left undone because the run was cancelled.
    pub fn was_cancelled(&self) -> bool {
        self.nodes.iter().any(|(_, outcome)| *outcome == Outcome::Cancelled)
    }
}

/// Why a node gives nothing, and so why nothing below it runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    /// This node failed: the node itself, or one above it.
    Failed(NodeIndex),
    Cancelled,
}

/// A node that is to be set to work.
pub(crate) struct Ready {
    pub node: NodeIndex,
    /// Only its effect is made again.
    pub restore: bool,
}

pub(crate) struct Run {
    graph: Arc<Graph>,
    steps: Vec<Step>,
    host: Arc<Host>,
    subscriber: Arc<dyn Subscriber>,
    record: Arc<Record>,
    stop: Stop,
    fail_fast: bool,
    first_failure: Option<NodeIndex>,
    live: Live,
    /// By node: its number in the order of the graph.
    place: Vec<usize>,
    /// By node: how many of its producers have yet to run; who waits for it.
    waiting: Vec<usize>,
    consumers: Vec<Vec<NodeIndex>>,
    /// By node: those of the same key, which get its result.
    sharers: Vec<Vec<NodeIndex>>,
    /// By node: its inputs have been taken.
    took: Vec<bool>,
    /// By node: why it will give nothing.
    blocked: Vec<Option<Block>>,
    /// By node.
    outcomes: Vec<Option<Outcome>>,
    /// Nodes without an outcome.
    left: usize,
    started: Instant,
    done: oneshot::Sender<Summary>,
}

impl Run {
    /// The run, and what can be set to work at once.
    pub fn new(request: RunRequest, done: oneshot::Sender<Summary>) -> (Run, Vec<Ready>) {
        let RunRequest { graph, plan, host, subscriber, cancel, fail_fast } = request;
        let counts = plan.counts();
        let steps = plan.into_steps();
        let count = steps.len();
        let mut keys: Vec<_> = steps.iter().map(|step| (step.node, step.key)).collect();
        keys.sort_unstable_by_key(|(node, _)| *node);
        let record = Record::new(graph.clone(), keys.into_iter().map(|(_, key)| key).collect());
        let mut run = Run {
            live: Live::new(&graph, &steps),
            record: Arc::new(record),
            stop: Stop { cancel, failed: Arc::new(AtomicBool::new(false)) },
            fail_fast,
            first_failure: None,
            place: vec![0; count],
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
        run.tell(Event::PlanMade {
            run: counts.run,
            cached: counts.cached,
            shared: counts.shared,
            skipped: counts.skipped,
        });
        let ready = run.prepare();
        (run, ready)
    }

    /// Finds out who waits for whom; settles what is known.
    fn prepare(&mut self) -> Vec<Ready> {
        let graph = self.graph.clone();
        let steps = std::mem::take(&mut self.steps);
        for (place, step) in steps.iter().enumerate() {
            self.place[step.node.index()] = place;
        }
        // Where a node's outputs come from.
        let source = |node: NodeIndex| match &steps[self.place[node.index()]].action {
            Action::Shared { with } => *with,
            _ => node,
        };
        let runs = |node: NodeIndex| matches!(steps[self.place[node.index()]].action, Action::Run { .. });
        let mut ready = vec![];
        let mut settled = vec![];
        for step in &steps {
            let (node, name) = (step.node, &graph.node(step.node).name);
            match &step.action {
                Action::Skipped { .. } => settled.push((node, Outcome::Skipped)),
                Action::Cached { outputs, restore } => {
                    self.live.put(node, outputs);
                    if *restore {
                        // A known node reads nothing.
                        self.took[node.index()] = true;
                        ready.push(Ready { node, restore: true });
                    } else {
                        self.subscriber.event(&Event::Cached { node: name.clone(), key: step.key });
                        settled.push((node, Outcome::Cached));
                    }
                }
                Action::Shared { with } => self.sharers[with.index()].push(node),
                Action::Run { .. } => {
                    let mut producers = graph.node(node).producers();
                    producers.iter_mut().for_each(|producer| *producer = source(*producer));
                    producers.sort_unstable();
                    producers.dedup();
                    producers.retain(|producer| runs(*producer));
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

    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub fn step(&self, node: NodeIndex) -> (&Step, &GraphNode) {
        (&self.steps[self.place[node.index()]], self.graph.node(node))
    }

    /// Its number in the order of the graph.
    pub fn place(&self, node: NodeIndex) -> usize {
        self.place[node.index()]
    }

    pub fn is_to_stop(&self) -> bool {
        self.stop.is_asked()
    }

    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    pub fn tell(&self, event: Event) {
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
        }
    }

    /// Whether the node's inputs have been taken.
    pub fn took(&self, node: NodeIndex) -> bool {
        self.took[node.index()]
    }

    /// Takes a node's inputs, socket by socket; `None` if a producer gave none.
    pub fn inputs(&mut self, node: NodeIndex) -> Option<Vec<Vec<EdgeValue>>> {
        self.took[node.index()] = true;
        let sockets = &self.graph.node(node).inputs;
        sockets.iter().map(|links| links.iter().map(|link| self.live.take(*link)).collect()).collect()
    }

    /// The known result of a node.
    pub fn known(&self, node: NodeIndex) -> Arc<[EdgeValue]> {
        match &self.step(node).0.action {
            Action::Cached { outputs, .. } => outputs.clone(),
            _ => [].into(),
        }
    }

    /// The node's result has turned up before it was set to work.
    pub fn found(&mut self, node: NodeIndex, outputs: &Arc<[EdgeValue]>) -> Vec<Ready> {
        self.tell(Event::Cached { node: self.graph.node(node).name.clone(), key: self.step(node).0.key });
        self.succeeded(node, outputs, Outcome::Cached)
    }

    /// The node ran.
    pub fn ran(&mut self, node: NodeIndex, outputs: &Arc<[EdgeValue]>, duration: Duration) -> Vec<Ready> {
        let bytes = outputs.iter().map(EdgeValue::bytes).fold(0, usize::saturating_add);
        let (name, key) = (self.graph.node(node).name.clone(), self.step(node).0.key);
        self.tell(Event::NodeFinished { node: name, key, duration, bytes });
        // Who set the work going took the inputs.
        let outcome = if self.took(node) { Outcome::Ran { duration, bytes } } else { Outcome::Joined };
        self.succeeded(node, outputs, outcome)
    }

    /// The node's effect is made again.
    pub fn restored(&mut self, node: NodeIndex) -> Vec<Ready> {
        self.tell(Event::Restored { node: self.graph.node(node).name.clone(), key: self.step(node).0.key });
        self.settle(node, Outcome::Cached);
        vec![]
    }

    /// The node failed.
    pub fn failed(&mut self, node: NodeIndex, error: &str) -> Vec<Ready> {
        self.tell(Event::Failed { node: self.graph.node(node).name.clone(), error: error.into() });
        if self.fail_fast {
            self.first_failure.get_or_insert(node);
            self.stop.failed.store(true, Ordering::Relaxed);
        }
        self.let_go(node);
        self.settle(node, Outcome::Failed { error: error.into() });
        let block = Block::Failed(node);
        self.blocked[node.index()] = Some(block);
        for sharer in std::mem::take(&mut self.sharers[node.index()]) {
            self.settle_blocked(sharer, block);
        }
        self.done_with(node)
    }

    /// The node does not run, for the run is to stop.
    pub fn give_up(&mut self, node: NodeIndex) -> Vec<Ready> {
        self.block(node, self.first_failure.map_or(Block::Cancelled, Block::Failed));
        self.done_with(node)
    }

    /// Tells what came of it all.
    pub fn finish(self) {
        let graph = &self.graph;
        let outcome = |node: &NodeIndex| self.outcomes[node.index()].clone().unwrap_or(Outcome::Cancelled);
        let nodes = graph.order().iter().map(|node| (graph.node(*node).name.clone(), outcome(node))).collect();
        let summary = Summary { nodes, duration: self.started.elapsed() };
        self.tell(Event::RunFinished { duration: summary.duration, succeeded: summary.succeeded() });
        // Whoever started the run may not care.
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
                self.tell(Event::Blocked { node: name, because: because.clone() });
                self.settle(node, Outcome::Blocked { because });
            }
            Block::Cancelled => {
                self.tell(Event::Cancelled { node: name });
                self.settle(node, Outcome::Cancelled);
            }
        }
    }

    /// Lets go of its inputs, where it never took them.
    fn let_go(&mut self, node: NodeIndex) {
        if !std::mem::replace(&mut self.took[node.index()], true) {
            let graph = self.graph.clone();
            graph.node(node).inputs.iter().flatten().for_each(|link| drop(self.live.take(*link)));
        }
    }

    fn succeeded(&mut self, node: NodeIndex, outputs: &Arc<[EdgeValue]>, outcome: Outcome) -> Vec<Ready> {
        self.live.put(node, outputs);
        self.let_go(node);
        self.settle(node, outcome);
        let with = self.graph.node(node).name.clone();
        for sharer in std::mem::take(&mut self.sharers[node.index()]) {
            self.tell(Event::Shared { node: self.graph.node(sharer).name.clone(), with: with.clone() });
            self.settle(sharer, Outcome::Shared { with: with.clone() });
        }
        self.done_with(node)
    }

    /// What can be set to work now that the node is done, one way or the other. What it blocks is given up.
    fn done_with(&mut self, node: NodeIndex) -> Vec<Ready> {
        let mut ready = vec![];
        let mut done = vec![node];
        // Not by recursion, for a chain of nodes may be long.
        while let Some(node) = done.pop() {
            for consumer in std::mem::take(&mut self.consumers[node.index()]) {
                self.waiting[consumer.index()] -= 1;
                if self.waiting[consumer.index()] > 0 {
                    continue;
                }
                match self.block_above(consumer) {
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

    fn block_above(&self, node: NodeIndex) -> Option<Block> {
        let links = self.graph.node(node).inputs.iter().flatten();
        links.filter_map(|link| self.blocked[link.producer.index()]).min()
    }

    /// The node does not run, nor do those of its key.
    fn block(&mut self, node: NodeIndex, block: Block) {
        self.let_go(node);
        self.settle_blocked(node, block);
        for sharer in std::mem::take(&mut self.sharers[node.index()]) {
            self.settle_blocked(sharer, block);
        }
    }
}
