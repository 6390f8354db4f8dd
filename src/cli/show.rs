//! `lsregen show`: the record of a run that a PNG file holds.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use lsregen_engine::RecordPart;

use super::{Exit, record, terminal, usage};

/// Print the graph that a PNG file holds, with the parameters of its run
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen show out.png > graph.yaml
  lsregen show out.png --json")]
pub struct Show {
    /// PNG file that SaveImage wrote
    #[arg(value_name = "PNG")]
    image: PathBuf,

    /// Print the memo key of each node instead
    #[arg(long, conflicts_with = "json")]
    keys: bool,

    /// Print the whole record as JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub fn main(self) -> Result<Exit, Exit> {
        let shown = self.image.display();
        let Some(record) = record::read(&self.image)? else {
            return Err(match fs::metadata(&self.image) {
                Ok(_) => usage(format!("{shown}: this is not a PNG file")),
                Err(error) => usage(format!("{shown}: {error}")),
            });
        };
        if self.json {
            terminal::print_json(&serde_json::json!(record));
        } else if self.keys {
            let width = record.keys.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            for (name, key) in &record.keys {
                terminal::print(&format!("{name:width$}  {}\n", key.as_str().unwrap_or_default()));
            }
        } else {
            terminal::print(&record.graph);
            if let Some(RecordPart { number, of, seed }) = record.part {
                let seed = seed.map(|seed| format!(", sampled with the seed {seed}")).unwrap_or_default();
                terminal::say(&format!("{shown}: image {number} of a batch of {of}{seed}\n"));
            }
        }
        Ok(Exit::Done)
    }
}
