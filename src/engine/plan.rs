//! What must run, what is known already, and reason: decided for the whole graph before anything runs.
//!
//! Starts from the nodes that a run is for ([`Node::OUTPUT`](crate::Node::OUTPUT)) and goes back along the links, no
//! further than to known results. Reads the files that nodes name, for their digests; runs no node.

use std::collections::HashMap;
use std::fmt;
use std::mem::take;
use std::sync::Arc;

use petgraph::graph::NodeIndex;

use crate::context::{Cancel, CheckContext, Context, Host};
use crate::event::{Event, Subscriber};
use crate::files::{FileDigests, FileState};
use crate::graph::{Graph, GraphNode};
use crate::key::{InputMaterial, Key, Material, canonical_json};
use crate::node::{Effect, NodeError};
use crate::panic::guarded;
use crate::store::Store;
use crate::value::EdgeValue;

/// What is to be done about each node of a graph. Holds the known results that it builds on.
pub struct Plan {
    steps: Vec<Step>,
}

/// What is to be done about a node.
pub struct Step {
    pub node: NodeIndex,
    pub key: Key,
    pub action: Action,
    /// What the key is made of.
    pub material: Material,
    /// The nodes that run and take this one's outputs, in the order of the graph.
    pub needed_by: Vec<NodeIndex>,
    /// The files in the key, as they were when their digests were taken.
    pub(crate) files: Vec<FileState>,
}

pub enum Action {
    Run {
        reason: RunReason,
    },
    /// The result is known.
    Cached {
        outputs: Arc<[EdgeValue]>,
        /// Its effect is gone, and is made again from the result.
        restore: bool,
    },
    /// The node gets the result of `with`, which has the same key and runs.
    Shared {
        with: NodeIndex,
    },
    /// Neither runs nor is looked up.
    Skipped {
        reason: SkipReason,
    },
}

/// Why a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunReason {
    /// It was never run with these parameters, inputs and files, or its result was not kept.
    NotCached,
    /// Its result is known, but not its effect, which only another run brings back: what it wrote is gone or changed.
    EffectGone,
}

/// Why a node need not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// No output node needs it.
    NoOutput,
    /// What it feeds is known.
    ConsumersCached,
}

/// A node that cannot be planned.
#[derive(Clone, Debug, thiserror::Error)]
#[error("node `{name}`: {}", cause.message)]
pub struct PlanError {
    pub node: NodeIndex,
    pub name: Arc<str>,
    pub cause: NodeError,
}

/// How many steps of each kind a plan has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub run: usize,
    pub cached: usize,
    pub shared: usize,
    pub skipped: usize,
}

impl Plan {
    /// Plans a run on what `store` knows.
    ///
    /// # Errors
    /// Every node whose key cannot be made, because a file cannot be read or the node's own code fails. Nodes below it
    /// are not mentioned.
    pub fn new(graph: &Graph, host: &Arc<Host>, store: &Store, digests: &FileDigests) -> Result<Plan, Vec<PlanError>> {
        let mut steps = decide(graph, host, store, identify(graph, host, digests)?)?;
        share(&mut steps);
        Ok(Plan { steps })
    }

    /// One step a node, in the order of the graph.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for step in &self.steps {
            match step.action {
                Action::Run { .. } => counts.run += 1,
                Action::Cached { .. } => counts.cached += 1,
                Action::Shared { .. } => counts.shared += 1,
                Action::Skipped { .. } => counts.skipped += 1,
            }
        }
        counts
    }
}

impl Step {
    /// What is done and why, for a person: `runs: no result is known; needed by image, sheet`.
    pub fn describe(&self, graph: &Graph) -> String {
        let mut text = match &self.action {
            Action::Run { reason } => format!("runs: {reason}"),
            Action::Cached { restore: false, .. } => "known".to_string(),
            Action::Cached { restore: true, .. } => {
                "known; what it wrote is gone or changed, and is written again".to_string()
            }
            Action::Shared { with } => format!("same work as {}, runs once", graph.node(*with).name),
            Action::Skipped { reason } => format!("not needed: {reason}"),
        };
        for (i, node) in self.needed_by.iter().enumerate() {
            text.push_str(if i == 0 { "; needed by " } else { ", " });
            text.push_str(&graph.node(*node).name);
        }
        text
    }
}

impl fmt::Display for RunReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RunReason::NotCached => "no result is known",
            RunReason::EffectGone => "what it wrote is gone or changed",
        })
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkipReason::NoOutput => "no output is made of it",
            SkipReason::ConsumersCached => "what is made of it is known",
        })
    }
}

impl PlanError {
    fn new(graph: &Graph, node: NodeIndex, cause: NodeError) -> PlanError {
        PlanError { node, name: graph.node(node).name.clone(), cause }
    }
}

/// What makes a node's result: its key, what that is made of, and the files that are in it.
struct Identity {
    key: Key,
    material: Material,
    files: Vec<FileState>,
}

/// By node.
fn identify(graph: &Graph, host: &Host, digests: &FileDigests) -> Result<Vec<Identity>, Vec<PlanError>> {
    let mut identities: Vec<Option<Identity>> = graph.order().iter().map(|_| None).collect();
    let mut errors = vec![];
    for &index in graph.order() {
        let node = graph.node(index);
        let made = input_material(graph, node, &identities).and_then(|inputs| {
            // Where a producer has no key, its own error has been noted.
            let Some(inputs) = inputs else { return Ok(None) };
            guarded(node.node_type.name, || identity(node, inputs, host, digests))
                .unwrap_or_else(|panicked| Err(NodeError::new("", panicked.to_string())))
                .map(Some)
        });
        match made {
            Ok(identity) => identities[index.index()] = identity,
            Err(cause) => errors.push(PlanError::new(graph, index, cause)),
        }
    }
    if errors.is_empty() { Ok(identities.into_iter().flatten().collect()) } else { Err(errors) }
}

/// `None` where a producer has no key.
///
/// # Errors
/// When a link leads nowhere, which the checks of a document make impossible.
fn input_material(
    graph: &Graph,
    node: &GraphNode,
    identities: &[Option<Identity>],
) -> Result<Option<Vec<InputMaterial>>, NodeError> {
    let sockets = node.node_type.inputs;
    if node.inputs.len() != sockets.len() {
        let message = format!("it has links for {} sockets, but {} sockets", node.inputs.len(), sockets.len());
        return Err(NodeError::new("", message));
    }
    let mut inputs = vec![];
    for (socket, links) in sockets.iter().zip(&node.inputs) {
        for link in links {
            let producer = graph.node(link.producer);
            if link.output >= producer.node_type.outputs.len() {
                let message = format!("it is linked to output {} of `{}`, which has none", link.output, producer.name);
                return Err(NodeError::new(socket.name, message));
            }
            let Some(Identity { key: producer, .. }) = identities[link.producer.index()] else { return Ok(None) };
            inputs.push(InputMaterial { socket: socket.name.into(), producer, output: link.output });
        }
    }
    Ok(Some(inputs))
}

fn identity(
    node: &GraphNode,
    inputs: Vec<InputMaterial>,
    host: &Host,
    digests: &FileDigests,
) -> Result<Identity, NodeError> {
    let params = node.node.params().map_err(|error| {
        NodeError::new("", format!("its parameters cannot be written as JSON, of which its memo key is made: {error}"))
    })?;
    let mut digested = vec![];
    let mut files = vec![];
    for file in node.node.files(&CheckContext::within(host, node.folder.as_deref())) {
        let state = digests.digest(&file.path).map_err(|error| NodeError::new(&*file.param, error.to_string()))?;
        digested.push((file.param, state.digest()));
        files.push(state);
    }
    let material = Material {
        node_type: node.node_type.name.into(),
        version: node.node_type.version,
        params: canonical_json(&params),
        inputs,
        files: digested,
        node_fingerprint: node.node.fingerprint(),
        host_fingerprint: host.fingerprint().clone(),
    };
    Ok(Identity { key: material.key(), material, files })
}

/// Goes back from the output nodes, and stops at known results that stand.
fn decide(
    graph: &Graph,
    host: &Arc<Host>,
    store: &Store,
    identities: Vec<Identity>,
) -> Result<Vec<Step>, Vec<PlanError>> {
    let silent: Arc<dyn Subscriber> = Arc::new(|_: &Event| {});
    let count = identities.len();
    let mut identities: Vec<_> = identities.into_iter().map(Some).collect();
    let mut needed_by = vec![vec![]; count];
    let mut feeds_output = vec![false; count];
    let mut errors = vec![];
    let mut steps = Vec::with_capacity(count);
    for &index in graph.order().iter().rev() {
        let (node, i) = (graph.node(index), index.index());
        let Some(Identity { key, material, files }) = identities[i].take() else { continue };
        feeds_output[i] |= node.node_type.output;
        let action = if node.node_type.output || !needed_by[i].is_empty() {
            let cx = || Context {
                folder: node.folder.clone(),
                ..Context::new(host.clone(), node.name.clone(), Cancel::new(), silent.clone())
            };
            run_or_cached(node, store.get(&key, node.node_type.outputs), cx).unwrap_or_else(|cause| {
                errors.push(PlanError::new(graph, index, cause));
                Action::Run { reason: RunReason::EffectGone }
            })
        } else {
            Action::Skipped { reason: if feeds_output[i] { SkipReason::ConsumersCached } else { SkipReason::NoOutput } }
        };
        let runs = matches!(action, Action::Run { .. });
        for producer in node.producers() {
            feeds_output[producer.index()] |= feeds_output[i];
            if runs {
                needed_by[producer.index()].push(index);
            }
        }
        let mut needed_by = take(&mut needed_by[i]);
        needed_by.reverse();
        steps.push(Step { node: index, key, action, material, needed_by, files });
    }
    steps.reverse();
    errors.reverse();
    if errors.is_empty() { Ok(steps) } else { Err(errors) }
}

/// What is to be done about a node that is needed.
fn run_or_cached(
    node: &GraphNode,
    known: Option<Arc<[EdgeValue]>>,
    cx: impl FnOnce() -> Context,
) -> Result<Action, NodeError> {
    let Some(outputs) = known else { return Ok(Action::Run { reason: RunReason::NotCached }) };
    match guarded(node.node_type.name, || node.node.effect(&outputs, &cx())) {
        Ok(Effect::Intact) => Ok(Action::Cached { outputs, restore: false }),
        Ok(Effect::Restorable) => Ok(Action::Cached { outputs, restore: true }),
        Ok(Effect::Gone) => Ok(Action::Run { reason: RunReason::EffectGone }),
        Err(panicked) => Err(NodeError::new("", panicked.to_string())),
    }
}

/// Of the nodes of one key that would run, the first runs for all.
fn share(steps: &mut [Step]) {
    let mut running = HashMap::new();
    for step in steps {
        if let Action::Run { .. } = step.action {
            let with = *running.entry(step.key).or_insert(step.node);
            if with != step.node {
                step.action = Action::Shared { with };
            }
        }
    }
}
