//! A checked graph: nodes whose types, parameters and links fit together, without a cycle.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::iter::successors;
use std::sync::Arc;

use petgraph::Direction::Incoming;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::node::{DynNode, NodeType};
use crate::source::{Source, Span};

/// A link: which output of which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    pub producer: NodeIndex,
    /// Number of the output among the producer's output sockets.
    pub output: usize,
}

/// A node of a checked graph.
pub struct GraphNode {
    pub name: Arc<str>,
    /// Where its name stands in the document.
    pub span: Span,
    pub node_type: NodeType,
    pub node: Arc<dyn DynNode>,
    /// The links of each input socket, in the order of the type's input sockets.
    pub inputs: Vec<Vec<Link>>,
}

impl GraphNode {
    /// Each node that this one is linked to, once.
    pub fn producers(&self) -> Vec<NodeIndex> {
        let mut producers: Vec<_> = self.inputs.iter().flatten().map(|link| link.producer).collect();
        producers.sort_unstable();
        producers.dedup();
        producers
    }
}

/// A checked graph. An edge leads from a producer to each of its consumers.
pub struct Graph {
    source: Arc<Source>,
    nodes: DiGraph<GraphNode, ()>,
    /// Producers before consumers.
    order: Vec<NodeIndex>,
}

/// Nodes that wait for each other, each linked to by the one before it, the first by the last.
#[derive(Debug)]
pub struct Cycle(pub Vec<NodeIndex>);

impl Graph {
    /// Puts nodes together; node i of `nodes` has the index i, which its consumers' links name.
    ///
    /// # Errors
    /// When nodes wait for each other.
    pub fn assemble(source: Arc<Source>, nodes: Vec<GraphNode>) -> Result<Graph, Cycle> {
        let mut graph = DiGraph::with_capacity(nodes.len(), nodes.len());
        let links: Vec<Vec<NodeIndex>> = nodes.iter().map(GraphNode::producers).collect();
        for node in nodes {
            graph.add_node(node);
        }
        for (consumer, producers) in graph.node_indices().zip(&links) {
            for &producer in producers {
                graph.update_edge(producer, consumer, ());
            }
        }
        match order(&graph) {
            Some(order) => Ok(Graph { source, nodes: graph, order }),
            None => Err(cycle(&graph)),
        }
    }

    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    pub fn node(&self, index: NodeIndex) -> &GraphNode {
        &self.nodes[index]
    }

    /// All nodes, producers before consumers; otherwise in the order of the document.
    pub fn order(&self) -> &[NodeIndex] {
        &self.order
    }
}

/// Kahn's order, taking the node first in the document wherever several are ready. `None` where there is a cycle.
fn order(graph: &DiGraph<GraphNode, ()>) -> Option<Vec<NodeIndex>> {
    let mut waiting: Vec<usize> =
        graph.node_indices().map(|node| graph.neighbors_directed(node, Incoming).count()).collect();
    let mut ready: BinaryHeap<_> = graph.node_indices().filter(|n| waiting[n.index()] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(graph.node_count());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for consumer in graph.neighbors(node) {
            waiting[consumer.index()] -= 1;
            if waiting[consumer.index()] == 0 {
                ready.push(Reverse(consumer));
            }
        }
    }
    (order.len() == graph.node_count()).then_some(order)
}

/// A shortest cycle through the first node of the document that lies on one.
fn cycle(graph: &DiGraph<GraphNode, ()>) -> Cycle {
    let knots = tarjan_scc(graph);
    let knot = knots.iter().filter(|knot| knot.len() > 1 || graph.contains_edge(knot[0], knot[0]));
    let Some(first) = knot.flatten().min().copied() else { return Cycle(vec![]) };
    // Breadth first along the links, from the node back to itself.
    let mut came_from = vec![None; graph.node_count()];
    let mut queue = VecDeque::from([first]);
    while let Some(node) = queue.pop_front() {
        for producer in graph.neighbors_directed(node, Incoming) {
            if came_from[producer.index()].is_none() {
                came_from[producer.index()] = Some(node);
                queue.push_back(producer);
            }
        }
    }
    let mut path: Vec<_> = successors(came_from[first.index()], |node| came_from[node.index()])
        .take_while(|node| *node != first)
        .collect();
    path.push(first);
    path.reverse();
    Cycle(path)
}
