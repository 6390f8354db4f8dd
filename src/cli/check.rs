//! `lsregen check`: the errors and warnings of graphs.

use std::path::PathBuf;

use clap::Args;
use lsregen_engine::{Diagnostic, to_json};

use super::args::{OutputArgs, ParamArgs, host};
use super::{Exit, open, terminal};

/// Check graphs without running them: report every error and warning with its place and a remedy
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen check graphs/*.yaml
  lsregen check graph.yaml --json")]
pub struct Check {
    /// Graph files, PNG files that hold their graph, or `-` for a graph on stdin
    #[arg(required = true, value_name = "GRAPH")]
    graphs: Vec<PathBuf>,

    #[command(flatten)]
    params: ParamArgs,

    #[command(flatten)]
    output: OutputArgs,

    /// Print the diagnostics of all graphs as one JSON array on stdout
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn main(self) -> Result<Exit, Exit> {
        let registry = lsregen_nodes::registry();
        let (mut diagnostics, mut unread) = (vec![], None);
        for path in &self.graphs {
            let host = self.output.apply(host(path, &self.params.models)?)?;
            // The other graphs are checked all the same.
            let checked = match open::check_file(path, &self.params, &registry, &host) {
                Ok(checked) => checked,
                Err(exit) => {
                    unread.get_or_insert(exit);
                    continue;
                }
            };
            if !self.json {
                terminal::report(&checked.diagnostics);
                terminal::say(&format!("{}\n", open::verdict(path, &checked.diagnostics)));
            }
            diagnostics.extend(checked.diagnostics);
        }
        if self.json {
            terminal::print_json(&to_json(&diagnostics));
        }
        if let Some(exit) = unread {
            return Err(exit);
        }
        Ok(if diagnostics.iter().any(Diagnostic::is_error) { Exit::BadGraph } else { Exit::Done })
    }
}
