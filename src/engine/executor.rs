//! Carries out a plan: node after node, each key once, telling what happens.
//!
//! One lane today: nodes run one at a time, in the order of the graph, on one thread beside the caller's runtime. A node
//! that fails stops only what depends on it; cancellation takes hold between nodes, and within a node at its next step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use petgraph::graph::NodeIndex;

use crate::context::{Cancel, Cancelled, Context, Host};
use crate::event::{Event, Subscriber};
use crate::graph::{Graph, GraphNode};
use crate::live::Live;
use crate::panic::guarded;
use crate::plan::{Action, Plan, Step};
use crate::record::Record;
use crate::store::Store;
use crate::value::Value;

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
    /// Its result was known.
    Hit,
    /// It got the result of `with`.
    Shared {
        with: Arc<str>,
    },
    /// Its result was of no use.
    Unneeded,
    /// The error and its causes.
    Failed {
        error: String,
    },
    /// `because`, somewhere above it or of the same key, failed.
    Skipped {
        because: Arc<str>,
    },
    Cancelled,
}

impl Summary {
    /// Whether all that the run was for is done.
    pub fn succeeded(&self) -> bool {
        !self.nodes.iter().any(|(_, outcome)| {
            matches!(outcome, Outcome::Failed { .. } | Outcome::Skipped { .. } | Outcome::Cancelled)
        })
    }

    /// Whether something was left undone because the run was cancelled.
    pub fn was_cancelled(&self) -> bool {
        self.nodes.iter().any(|(_, outcome)| *outcome == Outcome::Cancelled)
    }
}

/// Runs `plan`, which must have been made of this `graph` and for this `host`. Results go into `store`. Dropping the
/// future does not stop the run; `cancel` does.
///
/// # Panics
/// When `subscriber` does.
pub async fn execute(
    graph: Arc<Graph>,
    plan: Plan,
    host: Arc<Host>,
    store: Arc<Store>,
    subscriber: Arc<dyn Subscriber>,
    cancel: Cancel,
) -> Summary {
    let mut keyed: Vec<_> = plan.steps().iter().map(|step| (step.node, step.key)).collect();
    keyed.sort_unstable_by_key(|(node, _)| *node);
    let run = Run {
        record: Arc::new(Record::new(graph.clone(), keyed.into_iter().map(|(_, key)| key).collect())),
        live: Live::new(&graph, plan.steps()),
        blocked: vec![None; plan.steps().len()],
        graph: graph.clone(),
        host,
        store,
        subscriber,
        cancel,
    };
    match tokio::task::spawn_blocking(|| run.all(plan)).await {
        Ok(summary) => summary,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and started nothing.
            Err(_) => {
                let nodes = graph.order().iter().map(|index| (graph.node(*index).name.clone(), Outcome::Cancelled));
                Summary { nodes: nodes.collect(), duration: Duration::ZERO }
            }
        },
    }
}

/// A run under way.
struct Run {
    graph: Arc<Graph>,
    host: Arc<Host>,
    store: Arc<Store>,
    subscriber: Arc<dyn Subscriber>,
    cancel: Cancel,
    record: Arc<Record>,
    live: Live,
    /// By node: why it will give nothing.
    blocked: Vec<Option<Block>>,
}

/// Why a node gives nothing, and so why nothing below it runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    /// This node failed: the node itself, or one above it.
    Failed(NodeIndex),
    Cancelled,
}

impl Run {
    fn all(mut self, plan: Plan) -> Summary {
        let start = Instant::now();
        let counts = plan.counts();
        self.tell(Event::PlanMade {
            run: counts.run,
            hit: counts.hit,
            shared: counts.shared,
            unneeded: counts.unneeded,
        });
        let graph = self.graph.clone();
        let steps = plan.into_steps().into_iter();
        let nodes = steps.map(|step| (graph.node(step.node).name.clone(), self.step(&graph, step))).collect();
        let summary = Summary { nodes, duration: start.elapsed() };
        self.tell(Event::RunFinished { duration: summary.duration, succeeded: summary.succeeded() });
        summary
    }

    fn step(&mut self, graph: &Graph, step: Step) -> Outcome {
        let node = graph.node(step.node);
        match &step.action {
            Action::Unneeded { .. } => Outcome::Unneeded,
            Action::Hit { outputs, restore } => {
                self.live.put(step.node, outputs);
                if !restore {
                    self.tell(Event::Hit { node: node.name.clone(), key: step.key });
                    return Outcome::Hit;
                }
                let cx = self.context(node);
                let restored = guarded(node.node_type.name, || node.node.restore(outputs, &cx));
                match restored.unwrap_or_else(|panicked| Err(panicked.into())) {
                    Ok(()) => {
                        self.tell(Event::Restored { node: node.name.clone(), key: step.key });
                        Outcome::Hit
                    }
                    Err(error) => {
                        self.blocked[step.node.index()] = Some(Block::Failed(step.node));
                        let error = format!("{error:#}");
                        self.tell(Event::Failed { node: node.name.clone(), error: error.clone() });
                        Outcome::Failed { error }
                    }
                }
            }
            Action::Shared { with } => match self.blocked[with.index()] {
                Some(block) => self.give_up(graph, step.node, block),
                None => {
                    let with = &graph.node(*with).name;
                    self.tell(Event::Shared { node: node.name.clone(), with: with.clone() });
                    Outcome::Shared { with: with.clone() }
                }
            },
            Action::Run { .. } => {
                let links = || node.inputs.iter().flatten();
                let blocked = links().filter_map(|link| self.blocked[link.producer.index()]).min();
                match blocked.or(self.cancel.is_cancelled().then_some(Block::Cancelled)) {
                    Some(block) => {
                        links().for_each(|link| drop(self.live.take(*link)));
                        self.give_up(graph, step.node, block)
                    }
                    None => self.run(graph, &step),
                }
            }
        }
    }

    /// The node does not run.
    fn give_up(&mut self, graph: &Graph, index: NodeIndex, block: Block) -> Outcome {
        self.blocked[index.index()] = Some(block);
        let node = graph.node(index).name.clone();
        match block {
            Block::Failed(root) => {
                let because = graph.node(root).name.clone();
                self.tell(Event::Skipped { node, because: because.clone() });
                Outcome::Skipped { because }
            }
            Block::Cancelled => {
                self.tell(Event::Cancelled { node });
                Outcome::Cancelled
            }
        }
    }

    fn run(&mut self, graph: &Graph, step: &Step) -> Outcome {
        let node = graph.node(step.node);
        self.tell(Event::NodeStarted { node: node.name.clone(), key: step.key, lane: node.node_type.lane });
        let start = Instant::now();
        match self.outputs(node, step) {
            Ok(outputs) => {
                let duration = start.elapsed();
                let bytes = outputs.iter().map(Value::bytes).fold(0, usize::saturating_add);
                self.live.put(step.node, &outputs);
                self.store.put(step.key, &step.material, node.node_type.outputs, &outputs.into());
                self.tell(Event::NodeFinished { node: node.name.clone(), key: step.key, duration, bytes });
                Outcome::Ran { duration, bytes }
            }
            Err(error) if is_cancellation(&error) => self.give_up(graph, step.node, Block::Cancelled),
            Err(error) => {
                self.blocked[step.node.index()] = Some(Block::Failed(step.node));
                let error = format!("{error:#}");
                self.tell(Event::Failed { node: node.name.clone(), error: error.clone() });
                Outcome::Failed { error }
            }
        }
    }

    /// Runs the node's code.
    ///
    /// # Errors
    /// The node's own; or what makes its result unfit for its key or its consumers.
    fn outputs(&mut self, node: &GraphNode, step: &Step) -> anyhow::Result<Vec<Value>> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for links in &node.inputs {
            let values: Option<Vec<Value>> = links.iter().map(|link| self.live.take(*link)).collect();
            let Some(values) = values else { bail!("an input is missing (this is a bug of the engine)") };
            inputs.push(values);
        }
        let cx = self.context(node);
        let name = node.node_type.name;
        let outputs = guarded(name, || node.node.run(inputs, &cx))??;
        let given: Vec<_> = outputs.iter().map(Value::type_name).collect();
        let declared: Vec<_> = node.node_type.outputs.iter().map(|socket| socket.type_name).collect();
        ensure!(
            given == declared,
            "it gave [{}], but declares [{}] (this is a bug of the node type `{name}`)",
            given.join(", "),
            declared.join(", "),
        );
        // Its key says what the files held when the plan was made; a result of anything else must not be kept under it.
        if let Some(file) = step.files.iter().find(|file| !file.still_holds()) {
            bail!("`{}` changed after the run was planned; run again", file.path().display());
        }
        Ok(outputs)
    }

    fn context(&self, node: &GraphNode) -> Context {
        Context {
            record: Some(self.record.clone()),
            folder: node.folder.clone(),
            ..Context::new(self.host.clone(), node.name.clone(), self.cancel.clone(), self.subscriber.clone())
        }
    }

    fn tell(&self, event: Event) {
        self.subscriber.event(&event);
    }
}

fn is_cancellation(error: &anyhow::Error) -> bool {
    error.is::<Cancelled>() || error.chain().any(|cause| cause.is::<Cancelled>())
}
