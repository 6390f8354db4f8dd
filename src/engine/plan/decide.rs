//! Decides for each node whether it runs.

use std::collections::HashMap;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use super::keys::Identity;
use super::{Action, PlanError, RunReason, SkipReason, Step};
use crate::graph::{Graph, GraphNode};
use crate::node::{Cancel, Context, EdgeValue, Effect, Event, Host, NodeError, Subscriber, guarded};
use crate::store::Store;

/// Decides what to do about each node: goes from the output nodes back along the links, and stops at cached results. Returns
/// one step for each node, in the order of the graph.
///
/// # Errors
/// Returns the errors of nodes whose code panics.
pub(super) fn decide(
    graph: &Graph,
    host: &Arc<Host>,
    store: &Store,
    identities: Vec<Identity>,
) -> Result<Vec<Step>, Vec<PlanError>> {
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
            let cx = |subscriber| Context {
                folder: node.folder.clone(),
                ..Context::new(host.clone(), node.name.clone(), Cancel::new(), subscriber)
            };
            run_or_reuse(node, store.get(&key, node.node_type.outputs), cx).unwrap_or_else(|cause| {
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

/// Decides about a node that is needed; `cached` are its outputs in the store.
fn run_or_reuse(
    node: &GraphNode,
    cached: Option<Arc<[EdgeValue]>>,
    cx: impl FnOnce(Arc<dyn Subscriber>) -> Context,
) -> Result<Action, NodeError> {
    let Some(outputs) = cached else { return Ok(Action::Run { reason: RunReason::NotCached }) };
    let found = Arc::new(Mutex::new(vec![]));
    let files = found.clone();
    let subscriber = Arc::new(move |event: &Event| {
        if let Event::Saved { path, .. } = event {
            files.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        }
    });
    let effect = guarded(node.node_type.name, || node.node.effect(&outputs, &cx(subscriber)));
    let files = take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    match effect {
        Ok(Effect::Intact) => Ok(Action::Cached { outputs, restore: false, files }),
        Ok(Effect::Restorable) => Ok(Action::Cached { outputs, restore: true, files }),
        Ok(Effect::Gone) => Ok(Action::Run { reason: RunReason::EffectGone }),
        Err(panicked) => Err(NodeError::new("", panicked.to_string())),
    }
}

/// If several nodes have the same key, only the first one runs, and the others share its result.
pub(super) fn share(steps: &mut [Step]) {
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
