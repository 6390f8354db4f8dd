//! `lsregen run`: computes what a graph's outputs need, for one set of parameters or for many.

pub(super) mod bulk;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use self::bulk::BulkArgs;
use super::args::{HostArgs, ParamArgs};
use super::session::{RunArgs, Runs};
use super::{Exit, console, open};

/// Run a graph
#[derive(Args)]
pub struct Run {
    /// Graph file, or a PNG file that holds its graph
    graph: PathBuf,

    #[command(flatten)]
    params: ParamArgs,

    #[command(flatten)]
    host: HostArgs,

    #[command(flatten)]
    bulk: BulkArgs,

    #[command(flatten)]
    run: RunArgs,
}

impl Run {
    pub fn main(self) -> Result<Exit, Exit> {
        if let Some(rows) = self.bulk.rows()? {
            return bulk::run(&self.graph, rows, &self.params, &self.host, &self.bulk, &self.run);
        }
        let host = self.host.host(&self.graph, &self.params.models)?;
        let graph = Arc::new(open::open_to_run(&self.graph, &self.params, &host, self.run.quiet)?);
        let session = self.run.session(Runs::One)?;
        let plan = open::plan(&graph, &host, session.executor.store(), &session.digests)?;
        let progress = Arc::new(console::Progress::new(session.quiet));
        let summary = session.run(&graph, plan, &host, progress.clone());
        progress.summary(&graph, &summary);
        Ok(if summary.succeeded() { Exit::Done } else { Exit::Failed })
    }
}
