//! What every verb that runs nodes has in common: the runtime, the executor, who is told, and Ctrl-C.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use lsregen_engine::{
    Cancel, Executor, FileDigests, Graph, Host, Lanes, MemoryStore, Plan, RunRequest, Running, Subscriber, Summary,
};
use tokio::runtime::Runtime;

use super::cache_args::Cache;
use super::events::{Events, Several};
use super::memory::Memory;
use super::previews::Previews;
use super::{Exit, console, open};

/// How nodes are run, and what is told of it.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    cache: Cache,

    #[command(flatten)]
    memory: Memory,

    /// End with the first failure, in place of running all that does not depend on it
    #[arg(long)]
    fail_fast: bool,

    /// Write small pictures of how each sampling goes into this folder: NODE-STEP.png
    #[arg(long, value_name = "DIR")]
    pub previews: Option<PathBuf>,

    /// Tell what happens as JSON Lines (docs/events.md): `jsonl` on stdout, anything else is a file
    #[arg(long, value_name = "jsonl|FILE")]
    events: Option<String>,

    /// Say nothing but what went wrong
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs graphs, one after the other or several at a time; all share results, lanes and work.
pub struct Session {
    pub runtime: Runtime,
    pub executor: Executor,
    pub digests: FileDigests,
    pub events: Option<Events>,
    pub quiet: bool,
    previews: Option<Arc<Previews>>,
    pub fail_fast: bool,
    runs: AtomicUsize,
}

/// How many runs a session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// A value is of no use after its last reader, so memory keeps none.
    One,
    Many,
}

impl Options {
    pub fn session(&self, runs: Runs) -> Result<Session, Exit> {
        lsregen_nodes::keep_memory();
        let store = Arc::new(self.cache.store(match runs {
            Runs::One => MemoryStore::new(0),
            Runs::Many => self.memory.store(),
        }));
        let events = self.events.as_deref().map(Events::open).transpose()?;
        let previews = self.previews.as_deref().map(Previews::new).transpose()?.map(Arc::new);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            console::complain(format!("the system gives no thread or timer to run on: {error}"));
            Exit::Failed
        })?;
        Ok(Session {
            runtime,
            digests: open::digests(&store),
            executor: Executor::new(Lanes::of_this_machine(), store),
            events,
            previews,
            quiet: self.quiet,
            fail_fast: self.fail_fast,
            runs: AtomicUsize::new(0),
        })
    }
}

impl Session {
    /// Plans a run on what is known; says what is wrong if it cannot be planned.
    pub fn plan(&self, graph: &Graph, host: &Arc<Host>) -> Result<Plan, Exit> {
        open::plan(graph, host, self.executor.store(), &self.digests)
    }

    /// Number of runs started so far; the next one's events go by this number.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }

    /// Starts a run; to be called within the runtime. The events go to `subscriber` and to `--events`.
    pub fn start(
        &self,
        graph: &Arc<Graph>,
        plan: Plan,
        host: &Arc<Host>,
        subscriber: Arc<dyn Subscriber>,
        cancel: &Cancel,
    ) -> Running {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut subscribers = vec![subscriber];
        if let Some(previews) = &self.previews {
            subscribers.push(previews.clone());
        }
        if let Some(events) = &self.events {
            subscribers.push(Arc::new(events.of_run(run, self.previews.clone())));
        }
        let host = if self.previews.is_some() { Arc::new(Host::clone(host).with_previews(true)) } else { host.clone() };
        self.executor.start(RunRequest {
            graph: graph.clone(),
            plan,
            host,
            subscriber: Arc::new(Several(subscribers)),
            cancel: cancel.clone(),
            fail_fast: self.fail_fast,
        })
    }

    /// Runs one graph to its end, or until Ctrl-C.
    pub fn run(&self, graph: &Arc<Graph>, plan: Plan, host: &Arc<Host>, subscriber: Arc<dyn Subscriber>) -> Summary {
        let cancel = Cancel::new();
        let summary = self.runtime.block_on(async {
            tokio::spawn(cancel_on_interrupt(cancel.clone()));
            self.start(graph, plan, host, subscriber, &cancel).finished().await
        });
        self.executor.store().close();
        summary
    }
}

/// Ctrl-C asks the run to stop at its next step; once more ends the process at once.
pub async fn cancel_on_interrupt(cancel: Cancel) {
    if tokio::signal::ctrl_c().await.is_ok() {
        console::complain("stopping after this step; press Ctrl-C again to end at once");
        cancel.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130); // 128 + SIGINT, as shells report it
        }
    }
}
