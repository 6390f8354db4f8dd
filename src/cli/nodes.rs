//! `lsregen nodes`: the reference of node types.

use clap::Args;
use lsregen_engine::reference;

use super::{Exit, terminal, usage};

/// List the node types, or document one of them
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen nodes
  lsregen nodes SaveImage")]
pub struct Nodes {
    /// Name of a node type
    #[arg(value_name = "TYPE", conflicts_with = "markdown")]
    node_type: Option<String>,

    /// Print the whole reference as Markdown
    #[arg(long)]
    markdown: bool,
}

impl Nodes {
    pub fn main(self) -> Result<Exit, Exit> {
        let registry = lsregen_nodes::registry();
        if self.markdown {
            terminal::print(&reference::markdown(&registry));
            return Ok(Exit::Done);
        }
        let Some(name) = self.node_type else {
            let width = registry.iter().map(|entry| entry.node_type.name.len()).max().unwrap_or(0);
            for entry in registry.iter() {
                terminal::print_row(&format!("{:width$}", entry.node_type.name), &entry.purpose());
            }
            return Ok(Exit::Done);
        };
        let Some(entry) = registry.get(&name) else {
            return Err(usage(format!("there is no node type {name}; {}", registry.hint(&name))));
        };
        terminal::print(&reference::text(entry, terminal::columns()));
        Ok(Exit::Done)
    }
}
