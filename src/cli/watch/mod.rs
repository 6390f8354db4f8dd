//! `lsregen watch`: runs a graph again whenever one of its files changes.
//!
//! A notification of a change is only a hint: what counts is the contents of the files. After each hint the watch reads
//! all files and plans the graph again. If the plan differs, the new run starts before the former one is cancelled:
//! tasks that both need continue, and tasks that only the former needs stop at their next step. A graph with errors
//! changes nothing.

mod change;
mod difference;
mod watching;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lsregen_engine::CacheFolder;
use tokio::sync::oneshot::Sender;

use self::watching::Watching;
use super::args::{HostArgs, ParamArgs};
use super::session::{RunArgs, Runs, Session};
use super::{Exit, terminal, usage};

/// Run a graph again whenever one of its files changes, and compute only what the change affects
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen watch graph.yaml
  lsregen watch graph.yaml --seed 7 --previews previews")]
pub struct Watch {
    /// Graph file
    graph: PathBuf,

    #[command(flatten)]
    params: ParamArgs,

    #[command(flatten)]
    host: HostArgs,

    #[command(flatten)]
    run: RunArgs,

    /// Poll the files every MS milliseconds (250 if MS is not given), for file systems without change notifications
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "250", value_parser = clap::value_parser!(u64).range(10..))]
    poll: Option<u64>,
}

impl Watch {
    pub fn main(self) -> Result<Exit, Exit> {
        if self.graph.as_os_str() == "-" {
            return Err(usage("a graph on stdin cannot be watched; write it to a file"));
        }
        let host = self.host.host(&self.graph, &self.params.models)?;
        let overrides = self.params.overrides()?;
        // The file may be removed and come back later, but a name that is wrong from the start is most likely misspelt.
        if let Err(error) = fs::metadata(&self.graph) {
            return Err(usage(format!("`{}` cannot be watched: {error}", self.graph.display())));
        }
        let session = self.run.session(Runs::Many)?;
        let (send, stop) = tokio::sync::oneshot::channel();
        listen_for_signals(&session, send)?;
        let poll = self.poll.map(Duration::from_millis);
        let mut watching = Watching::new(self.graph, overrides, host, &session, poll);
        session.runtime.block_on(watching.run(stop));
        // A watch ends only by a signal.
        Ok(session.stop.exit(Exit::Failed))
    }
}

/// Sends a message to `stop` at the first signal. Listens in a thread of its own, because planning may read gigabytes of weights and
/// blocks the runtime meanwhile.
fn listen_for_signals(session: &Session, stop: Sender<String>) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        terminal::complain(format!("the signal handler cannot be started: {error}"));
        Exit::Failed
    })?;
    let listening = {
        let _context = runtime.enter();
        let cache = session.cache();
        session.stop.on_signal(move |message| {
            drop(stop.send(message.into()));
            cache.iter().for_each(CacheFolder::stop_waiting);
        })
    };
    let thread = std::thread::Builder::new().spawn(move || runtime.block_on(listening));
    thread.map(drop).map_err(|error| {
        terminal::complain(format!("the signal handler cannot be started: {error}"));
        Exit::Failed
    })
}
