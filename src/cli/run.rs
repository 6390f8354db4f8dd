//! `lsregen run`: computes what a graph's outputs need.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::bulk::{self, Many};
use super::open::{self, Params, Place};
use super::session::{Options, Runs};
use super::{Exit, console};

/// Run a graph
#[derive(Args)]
pub struct Run {
    /// Graph file, or a picture that carries its graph
    graph: PathBuf,

    #[command(flatten)]
    params: Params,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    many: Many,

    #[command(flatten)]
    options: Options,
}

impl Run {
    pub fn main(self) -> Result<Exit, Exit> {
        if let Some(rows) = self.many.rows()? {
            return bulk::run(&self.graph, rows, &self.params, &self.place, &self.many, &self.options);
        }
        let host = self.place.host(&self.graph)?;
        let graph = Arc::new(open::open_to_run(&self.graph, &self.params, &host, self.options.quiet)?);
        let session = self.options.session(Runs::One)?;
        let plan = session.plan(&graph, &host)?;
        let progress = Arc::new(console::Progress::new(session.quiet));
        let summary = session.run(&graph, plan, &host, progress.clone());
        progress.summary(&graph, &summary);
        Ok(if summary.succeeded() { Exit::Done } else { Exit::Failed })
    }
}
