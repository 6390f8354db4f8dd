//! `lsregen schema`: the JSON Schema of graph files, for editors.

use clap::Args;
use lsregen_engine::workflow_schema;

use super::{Exit, print};

/// Print the JSON Schema of graph files, with which editors complete, document and check them
#[derive(Args)]
pub struct Schema {}

impl Schema {
    pub fn main(self) -> Result<Exit, Exit> {
        print(&format!("{:#}\n", workflow_schema(&lsregen_nodes::registry())));
        Ok(Exit::Done)
    }
}
