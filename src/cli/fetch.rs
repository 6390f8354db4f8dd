//! `lsregen fetch`: brings the models of graphs to this machine, for runs without a network.

use std::path::PathBuf;

use clap::Args;

use super::Exit;
use super::open::{self, Params, Place};

/// Download the models that graphs name on the hub, as a run would, and run nothing
#[derive(Args)]
pub struct Fetch {
    /// Graph files
    #[arg(required = true, value_name = "GRAPH")]
    graphs: Vec<PathBuf>,

    #[command(flatten)]
    params: Params,

    #[command(flatten)]
    place: Place,
}

impl Fetch {
    pub fn main(self) -> Result<Exit, Exit> {
        for path in &self.graphs {
            let host = self.place.host(path)?;
            let graph = open::open(path, &self.params, &host)?;
            open::fetch(&graph, &host, false)?;
        }
        Ok(Exit::Done)
    }
}
