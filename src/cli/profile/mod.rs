//! `lsregen run --profile`: a trace of runs for Perfetto and chrome://tracing. docs/profile.md describes it.
//!
//! Nodes and their steps come from the events of the engine, the loading of networks from spans of `tracing`, and what ran on
//! the device from `device_profile`.

mod recorder;
mod run;
pub mod spans;
mod totals;
mod trace;

use std::path::Path;
use std::sync::Arc;

use lsregen_engine::{Graph, Subscriber};

use self::recorder::Recorder;
use self::run::RunProfile;
use self::trace::Trace;
use super::{Exit, terminal, usage};

/// How many kernels, and how many slices of nodes, a trace has at most. Beyond them only sums are kept.
const MOST_SLICES: u64 = 1_000_000;

/// A trace that is being written. Dropping it ends the file, if a run was started.
pub struct Profile(Arc<Recorder>);

impl Profile {
    /// Begins a trace, and starts to record what CUDA is asked for. Call it before a device is opened.
    ///
    /// # Errors
    /// When the file cannot be written, or holds something other than a trace; the reason is printed.
    pub fn open(path: &Path) -> Result<Profile, Exit> {
        let name = format!("--profile {}", path.display());
        if path == Path::new("-") {
            return Err(usage("--profile -: a trace is not written to stdout; name a file"));
        }
        if !trace::is_replaceable(path) {
            return Err(usage(format!(
                "{name}: this is something other than a trace; name another file, or remove it"
            )));
        }
        let trace = Trace::begin(path).map_err(|error| usage(format!("{name}: cannot be written: {error}")))?;
        Ok(Profile(Arc::new(Recorder::start(trace, MOST_SLICES))))
    }

    /// The subscriber of the run with this number, which is called `name` in the trace.
    pub fn of_run(&self, run: usize, name: &str, graph: &Arc<Graph>) -> Arc<dyn Subscriber> {
        RunProfile::begin(&self.0, run, name, graph)
    }

    /// Returns a function that ends the file at once, without waiting for the device, if the process must end.
    pub fn ending(&self) -> impl Fn() + Send + Sync + 'static {
        let recorder = self.0.clone();
        move || finish(&recorder, false)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        finish(&self.0, true);
    }
}

fn finish(recorder: &Recorder, wait: bool) {
    if let Some((name, Err(error))) = recorder.finish(wait) {
        terminal::lost(format!("--profile {name}: the trace cannot be written: {error}"));
    }
}
