//! Orders the nodes of a graph, and finds its cycles.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::iter::successors;

use petgraph::Direction::Incoming;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

/// Kahn's algorithm: producers before consumers, and of several nodes that could come next, the one with the lowest
/// index. `None` if there is a cycle.
pub(super) fn order<N>(graph: &DiGraph<N, ()>) -> Option<Vec<NodeIndex>> {
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

/// Returns one cycle of each strongly connected component: a shortest cycle through its first node. Each node has a link
/// to the next one, and the last node has a link to the first. Not recursive: a chain of nodes may be long.
pub(super) fn cycles<N>(graph: &DiGraph<N, ()>) -> Vec<Vec<NodeIndex>> {
    let has_cycle = |nodes: &Vec<NodeIndex>| nodes.len() > 1 || graph.contains_edge(nodes[0], nodes[0]);
    let components = kosaraju_scc(graph).into_iter().filter(has_cycle);
    let mut cycles: Vec<_> = components.map(|component| shortest_cycle(graph, &component)).collect();
    cycles.sort();
    cycles
}

/// A shortest cycle through the first node of a component: a breadth-first search along the links, from the node back to
/// itself.
fn shortest_cycle<N>(graph: &DiGraph<N, ()>, component: &[NodeIndex]) -> Vec<NodeIndex> {
    let Some(&first) = component.iter().min() else { return vec![] };
    let inside: HashSet<_> = component.iter().collect();
    let mut came_from = HashMap::new();
    let mut queue = VecDeque::from([first]);
    while let Some(node) = queue.pop_front() {
        for producer in graph.neighbors_directed(node, Incoming).filter(|producer| inside.contains(producer)) {
            came_from.entry(producer).or_insert_with(|| {
                queue.push_back(producer);
                node
            });
        }
    }
    let back = |node: &NodeIndex| came_from.get(node).copied();
    let mut path: Vec<_> = successors(back(&first), back).take_while(|node| *node != first).collect();
    path.push(first);
    path.reverse();
    path
}
