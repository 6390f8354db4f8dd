//! `lsregen plan`: what a run would do, node by node, and why.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use lsregen_engine::Store;

use super::open::{self, Params, Place};
use super::{Exit, console, print};

/// Show what would run, and why; nothing runs
#[derive(Args)]
pub struct Plan {
    /// Graph file, or a picture that carries its graph
    graph: PathBuf,

    #[command(flatten)]
    params: Params,

    #[command(flatten)]
    place: Place,
}

impl Plan {
    pub fn main(self) -> Result<Exit, Exit> {
        let host = Arc::new(self.place.host(&self.graph)?);
        let graph = open::open(&self.graph, &self.params, &host)?;
        // No run went before in this process, so nothing is known yet.
        let plan = open::plan(&graph, &host, &Store::in_memory(0))?;
        let (names, types) = console::widths(&graph);
        for step in plan.steps() {
            let node = graph.node(step.node);
            let (key, what) = (step.key.to_string(), step.describe(&graph));
            print(&format!("{:names$}  {:types$}  {key:.8}  {what}\n", node.name, node.node_type.name));
        }
        Ok(Exit::Done)
    }
}
