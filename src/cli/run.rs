//! `lsregen run`: computes what a graph's outputs need.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use lsregen_engine::{Cancel, MemoryStore, execute};

use super::cache_args::Cache;
use super::open::{self, Params, Place};
use super::{Exit, console};

/// Run a graph
#[derive(Args)]
pub struct Run {
    /// Graph file
    graph: PathBuf,

    #[command(flatten)]
    params: Params,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    cache: Cache,

    /// Say nothing but what went wrong
    #[arg(long, short)]
    quiet: bool,
}

impl Run {
    pub fn main(self) -> Result<Exit, Exit> {
        lsregen_nodes::keep_memory();
        let host = self.place.host(&self.graph)?;
        let graph = open::open(&self.graph, &self.params, &host)?;
        // One run, then the process ends: a value in memory is of no use after its last reader, so none is kept there.
        let store = Arc::new(self.cache.store(MemoryStore::new(0)));
        let plan = open::plan(&graph, &host, &store)?;
        let (graph, progress) = (Arc::new(graph), Arc::new(console::Progress::new(self.quiet)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            console::complain(format!("the system gives no thread or timer to run on: {error}"));
            Exit::Failed
        })?;
        let cancel = Cancel::new();
        let summary = runtime.block_on(async {
            tokio::spawn(cancel_on_interrupt(cancel.clone()));
            execute(graph.clone(), plan, host, store.clone(), progress.clone(), cancel).await
        });
        store.close();
        progress.summary(&graph, &summary);
        Ok(if summary.succeeded() { Exit::Done } else { Exit::Failed })
    }
}

/// Ctrl-C asks the run to stop at its next step; once more ends the process at once.
async fn cancel_on_interrupt(cancel: Cancel) {
    if tokio::signal::ctrl_c().await.is_ok() {
        console::complain("stopping after this step; press Ctrl-C again to end at once");
        cancel.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130); // 128 + SIGINT, as shells report it
        }
    }
}
