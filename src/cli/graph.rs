//! `lsregen graph`: a picture of the graph itself.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use layout::backends::svg::SVGWriter;
use layout::gv::{DotParser, GraphBuilder};

use super::open::{self, Params};
use super::{Exit, console, print};

/// Draw the graph itself: its nodes and links
#[derive(Args)]
pub struct Graph {
    /// Graph file
    graph: PathBuf,

    /// What to write on stdout
    #[arg(long, default_value = "dot")]
    format: Format,

    #[command(flatten)]
    params: Params,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Graphviz
    Dot,
    /// Mermaid, as Markdown renderers draw it
    Mermaid,
    /// A picture
    Svg,
}

impl Graph {
    pub fn main(self) -> Result<Exit, Exit> {
        let graph = open::open(&self.graph, &self.params, &open::host(&self.graph, None))?;
        print(&match self.format {
            Format::Dot => dot(&graph),
            Format::Mermaid => mermaid(&graph),
            Format::Svg => svg(&graph)?,
        });
        Ok(Exit::Done)
    }
}

/// One link as it is drawn.
struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    /// `output → socket`, or one name where they are called alike.
    label: String,
}

fn edges(graph: &lsregen_engine::Graph) -> impl Iterator<Item = Edge<'_>> {
    graph.order().iter().flat_map(move |&index| {
        let to = graph.node(index);
        to.node_type.inputs.iter().zip(&to.inputs).flat_map(move |(socket, links)| {
            links.iter().map(move |link| {
                let from = graph.node(link.producer);
                let output = from.node_type.outputs[link.output].name;
                let label = if output == socket.name { output.into() } else { format!("{output} → {}", socket.name) };
                Edge { from: &from.name, to: &to.name, label }
            })
        })
    })
}

fn dot(graph: &lsregen_engine::Graph) -> String {
    // Names are plain identifiers: the check vouches for it.
    let mut text = String::from("digraph lsregen {\n    rankdir=LR;\n    node [shape=box];\n");
    for &index in graph.order() {
        let node = graph.node(index);
        let _ = writeln!(text, "    \"{0}\" [label=\"{0}\\n{1}\"];", node.name, node.node_type.name);
    }
    for Edge { from, to, label } in edges(graph) {
        let _ = writeln!(text, "    \"{from}\" -> \"{to}\" [label=\"{label}\"];");
    }
    text + "}\n"
}

fn mermaid(graph: &lsregen_engine::Graph) -> String {
    // Names get a prefix: `end` alone is a word of Mermaid's.
    let mut text = String::from("flowchart LR\n");
    for &index in graph.order() {
        let node = graph.node(index);
        let _ = writeln!(text, "    n_{0}[\"{0}<br>{1}\"]", node.name, node.node_type.name);
    }
    for Edge { from, to, label } in edges(graph) {
        let _ = writeln!(text, "    n_{from} -->|\"{label}\"| n_{to}");
    }
    text
}

fn svg(graph: &lsregen_engine::Graph) -> Result<String, Exit> {
    let parsed = DotParser::new(&dot(graph)).process().map_err(|error| {
        console::complain(format!("cannot lay the graph out: {error}; try --format dot with Graphviz"));
        Exit::Failed
    })?;
    let mut builder = GraphBuilder::new();
    builder.visit_graph(&parsed);
    let mut writer = SVGWriter::new();
    builder.get().do_it(false, false, false, &mut writer);
    Ok(writer.finalize())
}
