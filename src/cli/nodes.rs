//! `lsregen nodes`: the reference of node types, from the doc comments of their structs.

use clap::Args;
use lsregen_engine::{nearest, reference};

use super::{Exit, open, print, usage};

/// List the node types, or tell all about one
#[derive(Args)]
pub struct Nodes {
    /// A node type
    #[arg(value_name = "TYPE", conflicts_with = "markdown")]
    node_type: Option<String>,

    /// Print the whole reference as Markdown
    #[arg(long)]
    markdown: bool,
}

impl Nodes {
    pub fn main(self) -> Result<Exit, Exit> {
        let registry = open::registry();
        if self.markdown {
            print(&reference::markdown(&registry));
            return Ok(Exit::Done);
        }
        let Some(name) = self.node_type else {
            print(&reference::list(&registry));
            return Ok(Exit::Done);
        };
        let Some(entry) = registry.get(&name) else {
            let guess = nearest(&name, registry.iter().map(|entry| entry.node_type.name));
            let help = guess.map_or("`lsregen nodes` lists them".into(), |name| format!("did you mean {name}?"));
            return Err(usage(format!("no node type is called {name}: {help}")));
        };
        print(&reference::text(entry));
        Ok(Exit::Done)
    }
}
