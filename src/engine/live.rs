//! The values of a run that someone still waits for: each is let go when its last reader has taken it.
//!
//! Knows links and readers. Does not know what a run keeps beyond that: see [`MemoryStore`](crate::MemoryStore).

use petgraph::graph::NodeIndex;

use crate::graph::{Graph, Link};
use crate::plan::{Action, Step};
use crate::value::EdgeValue;

pub(crate) struct Live {
    /// By node: where its outputs begin in `slots`. Nodes that share work share slots.
    first: Vec<usize>,
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    value: Option<EdgeValue>,
    /// Links that have yet to take the value.
    readers: usize,
}

impl Live {
    pub(crate) fn new(graph: &Graph, steps: &[Step]) -> Live {
        let mut live = Live { first: vec![0; steps.len()], slots: vec![] };
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

    /// Takes over a node's outputs, as far as someone waits for them.
    pub(crate) fn put(&mut self, producer: NodeIndex, outputs: &[EdgeValue]) {
        for (output, value) in outputs.iter().enumerate() {
            let slot = self.slot(Link { producer, output });
            if slot.readers > 0 {
                slot.value = Some(value.clone());
            }
        }
    }

    /// The value for one of its readers; `None` if its producer gave none.
    pub(crate) fn take(&mut self, link: Link) -> Option<EdgeValue> {
        let slot = self.slot(link);
        slot.readers -= 1;
        if slot.readers == 0 { slot.value.take() } else { slot.value.clone() }
    }

    fn slot(&mut self, link: Link) -> &mut Slot {
        &mut self.slots[self.first[link.producer.index()] + link.output]
    }
}
