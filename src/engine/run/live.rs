//! The values of a run that some node still has to read. Each value is dropped when its last reader has taken it.
//!
//! Deals with links and readers. The [`MemoryStore`](crate::MemoryStore) decides what outlives the run.

use petgraph::graph::NodeIndex;

use crate::graph::{Graph, Link};
use crate::node::EdgeValue;
use crate::plan::{Action, Step};

/// The outputs that nodes of one run still have to read.
pub(super) struct LiveValues {
    /// By node: the index of its first output in `slots`. Nodes that share a result share slots.
    first: Vec<usize>,
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    value: Option<EdgeValue>,
    /// How many links have not taken the value yet.
    readers: usize,
}

impl LiveValues {
    pub fn new(graph: &Graph, steps: &[Step]) -> LiveValues {
        let mut live = LiveValues { first: vec![0; steps.len()], slots: vec![] };
        for step in steps {
            live.first[step.node.index()] = match step.action {
                Action::Shared { with } => live.first[with.index()],
                _ => live.slots.len(),
            };
            let outputs = graph.node(step.node).node_type.outputs.len();
            live.slots.resize_with(live.slots.len() + outputs, Slot::default);
            if let Action::Run { .. } = step.action {
                for link in graph.node(step.node).inputs.iter().flatten() {
                    live.slot(*link).readers += 1;
                }
            }
        }
        live
    }

    /// Stores those outputs of a node that have readers.
    pub fn put(&mut self, producer: NodeIndex, outputs: &[EdgeValue]) {
        for (output, value) in outputs.iter().enumerate() {
            let slot = self.slot(Link { producer, output });
            if slot.readers > 0 {
                slot.value = Some(value.clone());
            }
        }
    }

    /// Returns the value for one of its readers; `None` if its producer gave no value.
    pub fn take(&mut self, link: Link) -> Option<EdgeValue> {
        let slot = self.slot(link);
        slot.readers -= 1;
        if slot.readers == 0 { slot.value.take() } else { slot.value.clone() }
    }

    fn slot(&mut self, link: Link) -> &mut Slot {
        &mut self.slots[self.first[link.producer.index()] + link.output]
    }
}
