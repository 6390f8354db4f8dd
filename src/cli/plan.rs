//! `lsregen plan`: what a run would do, node by node, and why.

use std::path::PathBuf;

use clap::Args;
use lsregen_engine::{Action, FileDigests, MemoryStore};

use super::open::{self, Opened, Params, Place};
use super::{Exit, console, print};

/// Show what would run, and why; nothing runs
#[derive(Args)]
pub struct Plan {
    /// Graph file
    graph: PathBuf,

    #[command(flatten)]
    params: Params,

    #[command(flatten)]
    place: Place,
}

impl Plan {
    pub fn main(self) -> Result<Exit, Exit> {
        let host = self.place.host(&self.graph)?;
        let graph = open::open(&self.graph, &self.params, &host)?;
        // No run went before in this process, so nothing is known yet.
        let plan = open::plan(&graph, &host, &MemoryStore::new(0))?;
        let width = |text: fn(&GraphNode) -> &str| {
            graph.order().iter().map(|&index| text(graph.node(index)).chars().count()).max().unwrap_or(0)
        };
        let (names, types) = (width(|node| &node.name), width(|node| node.node_type.name));
        for step in plan.steps() {
            let node = graph.node(step.node);
            let what = step.action.describe(&graph);
            print(&format!(
                "{:names$}  {:types$}  {:.8}  {what}\n",
                node.name,
                node.node_type.name,
                step.key.to_string()
            ));
        }
        Ok(Exit::Done)
    }
}
