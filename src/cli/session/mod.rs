//! What the verbs that run graphs share: the runtime, the executor, the subscribers of events, and signals that stop them.

mod events;
mod previews;
mod saved;
mod stop;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use lsregen_engine::{
    CacheFolder, Cancel, Executor, FileDigests, Graph, Host, Lanes, MemoryStore, Plan, RunRequest, Running, Subscriber,
    Summary,
};
use lsregen_nodes::WrittenBefore;
use tokio::runtime::Runtime;

use self::events::Events;
pub use self::events::Several;
use self::previews::Previews;
pub use self::saved::SavedFiles;
pub use self::stop::Stop;
use super::args::{CacheArgs, MemoryArgs};
use super::profile::Profile;
use super::{Exit, open, terminal};

/// How graphs are run and what is reported.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    cache: CacheArgs,

    #[command(flatten)]
    memory: MemoryArgs,

    /// Stop at the first failure. By default everything that does not depend on the failed node still runs
    #[arg(long)]
    fail_fast: bool,

    /// Write small preview images of each sampling into this folder, as NODE-STEP.png
    #[arg(long, value_name = "DIR")]
    pub previews: Option<PathBuf>,

    /// Write events as JSON Lines (see docs/events.md), to stdout with `jsonl` or else to a file
    #[arg(long, value_name = "jsonl|FILE")]
    events: Option<String>,

    /// Print only errors and warnings, and the files on stdout
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs graphs, one after the other or several at a time. All runs share results, lanes and tasks.
pub struct Session {
    pub runtime: Runtime,
    pub executor: Executor,
    pub digests: FileDigests,
    pub quiet: bool,
    pub fail_fast: bool,
    events: Option<Events>,
    previews: Option<Arc<Previews>>,
    profile: Option<Profile>,
    /// The name of the next run in the profile.
    name: Mutex<String>,
    runs: AtomicUsize,
    pub stop: Stop,
}

/// How many runs a session has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// The store in memory keeps no results, because a value is not used again after its last reader.
    One,
    Many,
}

impl RunArgs {
    /// Whether the events go to the file `path`.
    pub fn events_to(&self, path: &Path) -> bool {
        self.events.as_deref().is_some_and(|to| Path::new(to) == path)
    }

    /// Whether the events take stdout.
    pub fn events_on_stdout(&self) -> bool {
        self.events.as_deref().is_some_and(Events::is_stdout)
    }

    /// Starts a session.
    ///
    /// # Errors
    /// When a file or folder of the arguments cannot be written, or the runtime cannot start; the reason is printed.
    pub fn session(&self, runs: Runs) -> Result<Session, Exit> {
        // tokio and rayon panic where these are missing.
        let can_start = lsregen_files::raise_open_file_limit().and_then(|()| lsregen_nodes::start_threads());
        can_start.map_err(|error| {
            terminal::complain(error);
            Exit::Failed
        })?;
        lsregen_nodes::keep_memory();
        let store = Arc::new(self.cache.store(match runs {
            Runs::One => MemoryStore::new(0),
            Runs::Many => self.memory.store(),
        }));
        let events = self.events.as_deref().map(Events::open).transpose()?;
        let previews = self.previews.as_deref().map(Previews::new).transpose()?.map(Arc::new);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            terminal::complain(format!("the runtime cannot be started: {error}"));
            Exit::Failed
        })?;
        Ok(Session {
            runtime,
            digests: open::digests(&store),
            executor: Executor::new(Lanes::of_this_machine(), store),
            events,
            previews,
            profile: None,
            name: Mutex::default(),
            quiet: self.quiet,
            fail_fast: self.fail_fast,
            runs: AtomicUsize::new(0),
            stop: Stop::default(),
        })
    }
}

impl Session {
    /// The session with a trace of its runs.
    pub fn with_profile(mut self, profile: Option<Profile>) -> Session {
        if let Some(profile) = &profile {
            self.stop.before_exit(profile.ending());
        }
        self.profile = profile;
        self
    }

    /// Names the run that is started next, for the trace.
    pub fn name_next_run(&self, name: &str) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name.into();
    }

    /// Whether a later run finds what this one computes.
    pub fn is_cached(&self) -> bool {
        self.executor.store().disk().is_some()
    }

    /// The number of runs started so far, which is the number of the next run in the events.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }

    /// Starts a run; must be called within the runtime. Events go to `subscriber` and to `--events`.
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
        if let Some(profile) = &self.profile {
            let name = self.name.lock().unwrap_or_else(PoisonError::into_inner).clone();
            subscribers.push(profile.of_run(run, &name, graph));
        }
        self.executor.start(RunRequest {
            graph: graph.clone(),
            plan,
            host: self.host(host),
            subscriber: Arc::new(Several(subscribers)),
            cancel: cancel.clone(),
            fail_fast: self.fail_fast,
        })
    }

    /// Runs one graph until it ends or is stopped by a signal.
    pub fn run(&self, graph: &Arc<Graph>, plan: Plan, host: &Arc<Host>, subscriber: Arc<dyn Subscriber>) -> Summary {
        let cancel = Cancel::new();
        let summary = self.runtime.block_on(async {
            let (stopped, cache) = (cancel.clone(), self.cache());
            tokio::spawn(self.stop.on_signal(move |message| {
                terminal::complain(message);
                stopped.cancel();
                cache.iter().for_each(CacheFolder::stop_waiting);
            }));
            self.start(graph, plan, host, subscriber, &cancel).finished().await
        });
        self.executor.store().close();
        summary
    }

    /// The host with what the session knows.
    pub fn host(&self, host: &Host) -> Arc<Host> {
        let host = host.clone().with_previews(self.previews.is_some());
        Arc::new(match self.cache() {
            Some(cache) => host.with_service(WrittenBefore(cache)),
            None => host,
        })
    }

    /// The folder of the cache on disk, if there is one. A signal ends the waits for its lock.
    pub fn cache(&self) -> Option<CacheFolder> {
        self.executor.store().disk().map(|disk| disk.folder().clone())
    }

    /// Writes an event of the command itself, such as a reload, to `--events`.
    pub fn emit(&self, name: &str, fields: serde_json::Value) {
        if let Some(events) = &self.events {
            events.emit(name, fields);
        }
    }
}
