//! `lsregen show`: what a picture says of its making.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, picture, print, usage};

/// Print the graph that a picture carries, as it was run
#[derive(Args)]
pub struct Show {
    /// A picture that SaveImage has written
    #[arg(value_name = "PNG")]
    picture: PathBuf,

    /// Print the memo key of each node instead
    #[arg(long, conflicts_with = "json")]
    keys: bool,

    /// Print all that it carries, as JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub fn main(self) -> Result<Exit, Exit> {
        let shown = self.picture.display();
        let Some(record) = picture::record(&self.picture)? else {
            return Err(match std::fs::metadata(&self.picture) {
                Ok(_) => usage(format!("{shown}: this is no PNG picture")),
                Err(error) => usage(format!("{shown}: {error}")),
            });
        };
        if self.json {
            print(&format!("{:#}\n", serde_json::json!(record)));
        } else if self.keys {
            let width = record.keys.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            for (name, key) in &record.keys {
                print(&format!("{name:width$}  {}\n", key.as_str().unwrap_or_default()));
            }
        } else {
            print(&record.graph);
        }
        Ok(Exit::Done)
    }
}
