//! A checked graph: nodes whose types, parameters and links fit together, without a cycle.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::iter::successors;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use petgraph::Direction::Incoming;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::context::{CheckContext, Host};
use crate::diagnostic::Label;
use crate::node::{DynNode, FetchProgress, NodeType};
use crate::overrides::Override;
use crate::plan::PlanError;
use crate::resolved::resolved;
use crate::source::{Source, Span};
use crate::source_map::SourceMap;
use crate::yaml::{Location, YamlData, YamlKey, YamlValue};

/// A link: which output of which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    pub producer: NodeIndex,
    /// Number of the output among the producer's output sockets.
    pub output: usize,
}

/// A node of a checked graph.
pub struct GraphNode {
    /// As in its file; of an included file, behind the names of the nodes that led there: `a/layout`.
    pub name: Arc<str>,
    /// Where its name stands in its file.
    pub span: Span,
    pub node_type: NodeType,
    pub node: Arc<dyn DynNode>,
    /// The folder of the file in which the node stands; `None` where that is the graph's own.
    pub folder: Option<Arc<Path>>,
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
    /// Nothing for a graph without a document.
    written: Written,
    /// What the document's `params` were given from outside.
    overrides: Vec<Override>,
    resolved: OnceLock<Option<Arc<str>>>,
}

/// What the files of a graph say, for faults that show after the check.
#[derive(Default)]
pub(crate) struct Written {
    pub sources: Option<SourceMap>,
    /// Of each node, its name and what is written under it.
    pub nodes: Vec<(Location, YamlValue)>,
    pub included: Vec<Included>,
}

/// A graph file that another graph has as a node.
#[derive(Clone)]
pub struct Included {
    /// As it is written, from the folder of the outermost graph on.
    pub path: PathBuf,
    /// Its location, as [`path`](Included::path) stands in the host's graph folder.
    pub resolved: PathBuf,
    pub source: Arc<Source>,
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
                // Each is named once, and looking for the edge would take long where a node has very many consumers.
                graph.add_edge(producer, consumer, ());
            }
        }
        match order(&graph) {
            Some(order) => {
                let (written, overrides) = (Written::default(), vec![]);
                Ok(Graph { source, nodes: graph, order, written, overrides, resolved: OnceLock::new() })
            }
            None => Err(Cycle(cycles(&graph).into_iter().next().unwrap_or_default())),
        }
    }

    /// The text of the graph's own file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The other files that the graph was read from: once for each path that leads to one.
    pub fn sources(&self) -> &[Included] {
        &self.written.included
    }

    /// The text of the document with the values that its `params` had in this graph, so that it stands for the same
    /// graph by itself. Written when first asked for; `None` where no text could be found that does.
    pub fn resolved(&self) -> Option<&Arc<str>> {
        self.resolved.get_or_init(|| resolved(&self.source, &self.overrides)).as_ref()
    }

    pub fn node(&self, index: NodeIndex) -> &GraphNode {
        &self.nodes[index]
    }

    /// Brings the files of every node to this machine ([`Node::fetch`](crate::Node::fetch)). Says whether anything came.
    ///
    /// # Errors
    /// The first node whose files could not be brought.
    pub fn fetch(&self, host: &Host, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, Box<PlanError>> {
        let mut came = false;
        for &index in &self.order {
            let node = &self.nodes[index];
            let cx = CheckContext::within(host, node.folder.as_deref());
            let fetched = node.node.fetch(&cx, progress);
            let name = &node.name;
            came |= fetched.map_err(|cause| Box::new(PlanError { node: index, name: name.clone(), cause }))?;
        }
        Ok(came)
    }

    /// The nodes that a run is for, in the order of the document. There may be none in a graph that declares outputs: it
    /// is made to be a node of another.
    pub fn outputs(&self) -> impl Iterator<Item = NodeIndex> {
        self.nodes.node_indices().filter(|&index| self.nodes[index].node_type.output)
    }

    /// Where a parameter stands in its node's file, by [`NodeError::path`](crate::NodeError::path): the location of its value, or of
    /// the `${…}` that gave it; where there is none, of what holds it, at last of the node's name.
    pub fn locate(&self, node: NodeIndex, path: &str) -> Label {
        let (Some(sources), Some((name, value))) = (&self.written.sources, self.written.nodes.get(node.index())) else {
            return Label::new(&self.source, self.nodes[node].span, "");
        };
        let location = match find(value, path) {
            (Some(_), item) => item.location,
            (None, _) => *name,
        };
        sources.usage(location, "")
    }

    pub(crate) fn with_written(self, written: Written) -> Graph {
        Graph { written, ..self }
    }

    pub(crate) fn with_overrides(self, overrides: &[Override]) -> Graph {
        Graph { overrides: overrides.to_vec(), ..self }
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

/// Of each set of nodes that wait for each other, a shortest cycle through its first node, each linked to by the one
/// before it. Not by recursion, for a chain of nodes may be long.
pub(crate) fn cycles<N>(graph: &DiGraph<N, ()>) -> Vec<Vec<NodeIndex>> {
    let is_knot = |nodes: &Vec<NodeIndex>| nodes.len() > 1 || graph.contains_edge(nodes[0], nodes[0]);
    let mut cycles: Vec<_> = kosaraju_scc(graph).into_iter().filter(is_knot).map(|knot| cycle(graph, &knot)).collect();
    cycles.sort();
    cycles
}

/// A shortest cycle through the first node of a knot: breadth first along the links, from the node back to itself.
fn cycle<N>(graph: &DiGraph<N, ()>, knot: &[NodeIndex]) -> Vec<NodeIndex> {
    let Some(&first) = knot.iter().min() else { return vec![] };
    let inside: HashSet<_> = knot.iter().collect();
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

/// The value at a path such as `boxes/1/box` within a node, and its key; what of the path is not there is left out.
pub(crate) fn find<'a>(node: &'a YamlValue, path: &str) -> (Option<&'a YamlKey>, &'a YamlValue) {
    let (mut found_key, mut found) = (None, node);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let next = match &found.data {
            YamlData::Map(_) => found.get(part).map(|(key, value)| (Some(key), value)),
            YamlData::List(items) => {
                part.parse::<usize>().ok().and_then(|index| items.get(index)).map(|item| (found_key, item))
            }
            _ => None,
        };
        let Some(next) = next else { break };
        (found_key, found) = next;
    }
    (found_key, found)
}
