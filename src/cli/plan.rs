//! `lsregen plan`: what a run would do, node by node, and why.

use std::path::PathBuf;

use clap::Args;
use lsregen_engine::MemoryStore;

use super::cache_args::Cache;
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

    #[command(flatten)]
    cache: Cache,
}

impl Plan {
    pub fn main(self) -> Result<Exit, Exit> {
        let host = self.place.host(&self.graph, &self.params.models)?;
        let graph = open::open(&self.graph, &self.params, &host)?;
        let store = self.cache.store(MemoryStore::new(0));
        let plan = open::plan(&graph, &host, &store, &open::digests(&store))?;
        let (names, types) = console::widths(&graph);
        for step in plan.steps() {
            let node = graph.node(step.node);
            let (key, what) = (step.key.to_string(), step.describe(&graph));
            print(&format!("{:names$}  {:types$}  {key:.8}  {what}\n", node.name, node.node_type.name));
        }
        Ok(Exit::Done)
    }
}
