//! `lsregen graph`: the nodes and links of a graph, as a diagram.

mod svg;

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lsregen_engine::{NodeIndex, OutputRules};

use self::svg::{SvgLink, SvgNode};
use super::args::{ParamArgs, host};
use super::{Exit, open, terminal};

/// Draw the nodes and links of a graph
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen graph graph.yaml --format svg > graph.svg
  lsregen graph graph.yaml | dot -Tpdf > graph.pdf")]
pub struct Graph {
    /// Graph file, a PNG file that holds its graph, or `-` for a graph on stdin
    graph: PathBuf,

    /// Format of the diagram, which is written to stdout
    #[arg(long, default_value = "dot")]
    format: Format,

    #[command(flatten)]
    params: ParamArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Graphviz
    Dot,
    /// Mermaid, for Markdown
    Mermaid,
    /// SVG image
    Svg,
}

impl Graph {
    pub fn main(self) -> Result<Exit, Exit> {
        // Nothing is written.
        let rules = OutputRules { allow_outside: true, overwrite: false };
        let host = host(&self.graph, &self.params.models)?.with_output_rules(rules);
        let graph = open::open(&self.graph, &self.params, &host)?;
        terminal::print(&match self.format {
            Format::Dot => dot(&graph),
            Format::Mermaid => mermaid(&graph),
            Format::Svg => svg(&graph),
        });
        Ok(Exit::Done)
    }
}

/// A link between two nodes.
struct Edge {
    from: NodeIndex,
    to: NodeIndex,
    /// `output → input`, or one name if both are the same.
    label: String,
}

fn edges(graph: &lsregen_engine::Graph) -> impl Iterator<Item = Edge> {
    graph.order().iter().flat_map(move |&to| {
        let node = graph.node(to);
        node.node_type.inputs.iter().zip(&node.inputs).flat_map(move |(socket, links)| {
            links.iter().map(move |link| {
                let output = graph.node(link.producer).node_type.outputs[link.output].name;
                let same = output == socket.name;
                let label = if same { output.into() } else { format!("{output} → {}", socket.name) };
                Edge { from: link.producer, to, label }
            })
        })
    })
}

fn dot(graph: &lsregen_engine::Graph) -> String {
    // Names need no escaping: the check allows only letters, digits, `_`, `-` and `/`.
    let mut text = String::from("digraph lsregen {\n    rankdir=LR;\n    node [shape=box];\n");
    for &index in graph.order() {
        let node = graph.node(index);
        let _ = writeln!(text, "    \"{0}\" [label=\"{0}\\n{1}\"];", node.name, node.node_type.name);
    }
    for Edge { from, to, label } in edges(graph) {
        let (from, to) = (&graph.node(from).name, &graph.node(to).name);
        let _ = writeln!(text, "    \"{from}\" -> \"{to}\" [label=\"{label}\"];");
    }
    text + "}\n"
}

fn mermaid(graph: &lsregen_engine::Graph) -> String {
    // Nodes are identified by number: names such as `end` are keywords of Mermaid.
    let mut text = String::from("flowchart LR\n");
    for &index in graph.order() {
        let node = graph.node(index);
        let _ = writeln!(text, "    n{}[\"{}<br>{}\"]", index.index(), node.name, node.node_type.name);
    }
    for Edge { from, to, label } in edges(graph) {
        let _ = writeln!(text, "    n{} -->|\"{label}\"| n{}", from.index(), to.index());
    }
    text
}

fn svg(graph: &lsregen_engine::Graph) -> String {
    let order = graph.order();
    let position = |index: NodeIndex| order.iter().position(|other| *other == index).unwrap_or_default();
    let nodes = order.iter().map(|&index| graph.node(index));
    let nodes: Vec<_> = nodes.map(|node| SvgNode { name: &node.name, node_type: node.node_type.name }).collect();
    let links =
        edges(graph).map(|edge| SvgLink { from: position(edge.from), to: position(edge.to), label: edge.label });
    svg::svg(&nodes, &links.collect::<Vec<_>>())
}
