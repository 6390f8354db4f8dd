//! `lsregen plan`: what a run would do with each node, and why.

use std::path::PathBuf;

use clap::Args;
use lsregen_engine::MemoryStore;

use super::args::{CacheArgs, HostArgs, ParamArgs};
use super::{Exit, console, open, terminal};

/// Print which nodes a run would execute, and why, without running them
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen plan graph.yaml
  lsregen plan graph.yaml --set steps=20")]
pub struct Plan {
    /// Graph file, a PNG file that holds its graph, or `-` for a graph on stdin
    graph: PathBuf,

    #[command(flatten)]
    params: ParamArgs,

    #[command(flatten)]
    host: HostArgs,

    #[command(flatten)]
    cache: CacheArgs,
}

impl Plan {
    pub fn main(self) -> Result<Exit, Exit> {
        let host = self.host.host(&self.graph, &self.params.models)?;
        let graph = open::open(&self.graph, &self.params, &host)?;
        let store = self.cache.store(MemoryStore::new(0));
        let plan = open::plan(&graph, &host, &store, &open::digests(&store))?;
        let (names, types) = console::widths(&graph);
        for step in plan.steps() {
            let node = graph.node(step.node);
            let (key, what) = (step.key.to_string(), step.describe(&graph));
            terminal::print_row(&format!("{:names$}  {:types$}  {key:.8}", node.name, node.node_type.name), &what);
        }
        open::check_obstacles(&graph, &plan, &host)?;
        Ok(Exit::Done)
    }
}
