//! `lsregen schema`: the JSON Schema of graph files, for editors.

use clap::Args;
use lsregen_engine::workflow_schema;

use super::{Exit, terminal};

/// Print the JSON Schema of graph files, with which editors complete, document and check them
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen schema > graph.schema.json
  lsregen schema | less")]
pub struct Schema {}

impl Schema {
    pub fn main(self) -> Result<Exit, Exit> {
        terminal::print_json(&workflow_schema(&lsregen_nodes::registry()));
        Ok(Exit::Done)
    }
}
