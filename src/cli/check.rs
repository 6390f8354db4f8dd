//! `lsregen check`: every fault of graphs, without running them.

use std::path::PathBuf;

use clap::Args;
use lsregen_engine::{Severity, render, to_json};
use serde_json::Value as Json;

use super::open::{self, Params};
use super::{Exit, console, print};

/// Check graphs: all their faults, each with its place and what to do; nothing runs
#[derive(Args)]
pub struct Check {
    /// Graph files, or pictures that carry their graph
    #[arg(required = true, value_name = "GRAPH")]
    graphs: Vec<PathBuf>,

    #[command(flatten)]
    params: Params,

    /// Print the faults of all graphs as one JSON array on stdout
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn main(self) -> Result<Exit, Exit> {
        let registry = lsregen_nodes::registry();
        let mut worst = Exit::Done;
        let mut found = Vec::new();
        for path in &self.graphs {
            let checked =
                open::check_file(path, &self.params, &registry, &open::host(path, None, &self.params.models)?)?;
            if checked.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
                worst = Exit::BadGraph;
            }
            if !self.json {
                console::say(&render(&checked.diagnostics, console::colours()));
                console::say(&format!("{}\n", open::verdict(path, &checked.diagnostics)));
            }
            found.extend(checked.diagnostics);
        }
        if self.json {
            let json: Json = to_json(&found);
            print(&format!("{json:#}\n"));
        }
        Ok(worst)
    }
}
