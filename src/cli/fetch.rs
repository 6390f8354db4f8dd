//! `lsregen fetch`: models from the Hugging Face hub, before a run needs them.

use std::path::Path;

use clap::Args;
use lsregen_nodes::fetch_model;
use lsregen_nodes::hub::HubRef;

use super::open::{self, Params, Place};
use super::{Exit, console, print, usage};

/// Download models from the Hugging Face hub; what is there already is left alone
#[derive(Args)]
pub struct Fetch {
    /// hf:owner/name, hf:owner/name:file or hf:owner/name@revision:file; or a graph file, for all models that it names
    #[arg(required = true, value_name = "MODEL|GRAPH")]
    what: Vec<String>,

    /// Print nothing but the places of what was downloaded
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    params: Params,

    #[command(flatten)]
    place: Place,
}

impl Fetch {
    pub fn main(self) -> Result<Exit, Exit> {
        for what in &self.what {
            if HubRef::parse(what).map_err(usage)?.is_some() {
                let mut progress = console::Fetches::new(self.quiet);
                let place =
                    fetch_model("model", what, self.place.wants_half(), &mut |fetching| progress.show(fetching));
                drop(progress);
                let place = place.map_err(|fault| {
                    console::complain(fault.message);
                    Exit::Failed
                })?;
                print(&format!("{}\n", place.display()));
            } else {
                let path = Path::new(what);
                let host = self.place.host(path, &self.params.models)?;
                let graph = open::open(path, &self.params, &host)?;
                open::fetch(&graph, &host, self.quiet)?;
            }
        }
        Ok(Exit::Done)
    }
}
