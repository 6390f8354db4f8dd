//! `lsregen run`: computes what a graph's outputs need.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use lsregen_engine::{Cancel, Event, Store, Subscriber, execute};

use super::open::{self, Params, Place};
use super::previews::Previews;
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

    /// Write small pictures of how each sampling goes into this folder: NODE-STEP.png
    #[arg(long, value_name = "DIR")]
    previews: Option<PathBuf>,

    /// Say nothing but what went wrong
    #[arg(long, short)]
    quiet: bool,
}

impl Run {
    pub fn main(self) -> Result<Exit, Exit> {
        lsregen_nodes::keep_memory();
        let host = Arc::new(self.place.host(&self.graph)?.with_previews(self.previews.is_some()));
        let graph = open::open(&self.graph, &self.params, &host)?;
        // One run, then the process ends: a value is of no use after its last reader, so the store keeps none.
        let store = Arc::new(Store::in_memory(0));
        let plan = open::plan(&graph, &host, &store)?;
        let (graph, progress) = (Arc::new(graph), Arc::new(console::Progress::new(self.quiet)));
        let previews = self.previews.as_deref().map(Previews::new).transpose()?;
        let listeners = (progress.clone(), previews);
        let subscriber = Arc::new(move |event: &Event| {
            listeners.0.event(event);
            listeners.1.iter().for_each(|previews| previews.event(event));
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            console::complain(format!("the system gives no thread or timer to run on: {error}"));
            Exit::Failed
        })?;
        let cancel = Cancel::new();
        let summary = runtime.block_on(async {
            tokio::spawn(cancel_on_interrupt(cancel.clone()));
            execute(graph.clone(), plan, host, store, subscriber, cancel).await
        });
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
