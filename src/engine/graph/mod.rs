//! A checked graph: types, parameters and links of its nodes are valid, and it has no cycle.

mod check;
mod cycles;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use petgraph::graph::{DiGraph, NodeIndex};

pub use self::check::{Checked, DrawnSeed, check, check_with};
use crate::document::{Override, resolved};
use crate::node::{CheckContext, DynNode, FileRef, Host, NodeType};
use crate::text::yaml::{Location, YamlValue};
use crate::text::{Label, Source, SourceMap, Span};

/// A link: an output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The node.
    pub producer: NodeIndex,
    /// The index of the output among the producer's output sockets.
    pub output: usize,
}

/// A node of a checked graph.
pub struct GraphNode {
    /// The name in the document. A node of an included graph has the names of the including nodes before it: `a/layout`.
    pub name: Arc<str>,
    /// Where the name is in its file.
    pub span: Span,
    /// The type of the node.
    pub node_type: NodeType,
    /// The parameters, which know how to run.
    pub node: Arc<dyn DynNode>,
    /// The folder of the node's file; `None` if it is the graph's own folder.
    pub folder: Option<Arc<Path>>,
    /// The links of each input socket, in the order of the type's input sockets.
    pub inputs: Vec<Vec<Link>>,
}

impl GraphNode {
    /// The nodes to which this one is linked, each once.
    pub fn producers(&self) -> Vec<NodeIndex> {
        let mut producers: Vec<_> = self.inputs.iter().flatten().map(|link| link.producer).collect();
        producers.sort_unstable();
        producers.dedup();
        producers
    }
}

/// A checked graph. Its edges lead from producers to consumers.
pub struct Graph {
    source: Arc<Source>,
    nodes: DiGraph<GraphNode, ()>,
    /// Producers before consumers.
    order: Vec<NodeIndex>,
    /// Empty for a graph that was not read from a document.
    written: Written,
    overrides: Vec<Override>,
    resolved: OnceLock<Option<Arc<str>>>,
}

/// The documents of a graph, for errors that are found after the check.
#[derive(Default)]
pub(crate) struct Written {
    pub sources: Option<SourceMap>,
    /// For each node, where its name is, and its value.
    pub nodes: Vec<(Location, YamlValue)>,
    pub included: Vec<Included>,
    pub drawn: Vec<DrawnSeed>,
}

/// A graph file that is a node of another graph.
#[derive(Clone)]
pub struct Included {
    /// The path relative to the folder of the outermost graph.
    pub path: PathBuf,
    /// The path joined to the host's graph folder.
    pub resolved: PathBuf,
    /// The text of the file.
    pub source: Arc<Source>,
}

/// A cycle: each node has a link to the next one, and the last has a link to the first.
#[derive(Debug)]
pub struct Cycle(
    /// The nodes of the cycle.
    pub Vec<NodeIndex>,
);

impl Graph {
    /// Builds a graph from nodes. The links refer to nodes by their index in `nodes`.
    ///
    /// # Errors
    /// Returns a cycle if there is one.
    pub fn assemble(source: Arc<Source>, nodes: Vec<GraphNode>) -> Result<Graph, Cycle> {
        let mut graph = DiGraph::with_capacity(nodes.len(), nodes.len());
        let links: Vec<Vec<NodeIndex>> = nodes.iter().map(GraphNode::producers).collect();
        for node in nodes {
            graph.add_node(node);
        }
        for (consumer, producers) in graph.node_indices().zip(&links) {
            for &producer in producers {
                // `producers` has no duplicates, so there is no need for `update_edge`, which is slow for nodes with many
                // consumers.
                graph.add_edge(producer, consumer, ());
            }
        }
        match cycles::order(&graph) {
            Some(order) => {
                let (written, overrides) = (Written::default(), vec![]);
                Ok(Graph { source, nodes: graph, order, written, overrides, resolved: OnceLock::new() })
            }
            None => Err(Cycle(cycles::cycles(&graph).into_iter().next().unwrap_or_default())),
        }
    }

    /// The text of the graph's own file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The included graph files, once for each path that leads to one.
    pub fn sources(&self) -> &[Included] {
        &self.written.included
    }

    /// The seeds that were drawn for it. Its text has them.
    pub fn drawn(&self) -> &[DrawnSeed] {
        &self.written.drawn
    }

    /// The text of the graph's own file with the overrides of this graph written into its `params`, so that the text
    /// alone gives the same graph. `None` if no such text can be written. Computed on the first call.
    pub fn resolved(&self) -> Option<&Arc<str>> {
        self.resolved.get_or_init(|| resolved(&self.source, &self.overrides)).as_ref()
    }

    /// The node with this index.
    pub fn node(&self, index: NodeIndex) -> &GraphNode {
        &self.nodes[index]
    }

    /// The output nodes, in the order of the document. A graph that declares outputs, to be a node of another graph, may
    /// have none.
    pub fn outputs(&self) -> impl Iterator<Item = NodeIndex> {
        self.nodes.node_indices().filter(|&index| self.nodes[index].node_type.output)
    }

    /// The files that the nodes write, in the order of the nodes.
    pub fn writes(&self, host: &Host) -> Vec<(NodeIndex, FileRef)> {
        let of_node = |&index: &NodeIndex| {
            let node = &self.nodes[index];
            let files = node.node.writes(&CheckContext::within(host, node.folder.as_deref()));
            files.into_iter().map(move |file| (index, file))
        };
        self.order.iter().flat_map(of_node).collect()
    }

    /// Where a parameter of a node is written, given its [path](crate::NodeError::path): the location of its value or of
    /// the `${…}` that stands for it. If there is no value, the location of what would contain it, or of the node's name.
    pub fn locate(&self, node: NodeIndex, path: &str) -> Label {
        let (Some(sources), Some((name, value))) = (&self.written.sources, self.written.nodes.get(node.index())) else {
            return Label::new(&self.source, self.nodes[node].span, "");
        };
        let location = match value.find(path) {
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

    /// All nodes, producers before consumers, and otherwise in the order of the document.
    pub fn order(&self) -> &[NodeIndex] {
        &self.order
    }
}
