//! `lsregen run`: computes what a graph's outputs need, for one set of parameters or for many.

pub(super) mod bulk;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use self::bulk::BulkArgs;
use self::report::{Report, Stdout};
use super::args::{HostArgs, ParamArgs};
use super::profile::Profile;
use super::session::{RunArgs, Runs, SavedFiles, Several};
use super::{Exit, console, open, usage};

/// Run a graph
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen run graphs/sdxl.yaml --seed 7
  lsregen run graph.yaml --sweep cfg=1,4 --output-dir out")]
pub struct Run {
    /// Graph file, a PNG file that holds its graph, or `-` for a graph on stdin
    graph: PathBuf,

    #[command(flatten)]
    params: ParamArgs,

    #[command(flatten)]
    host: HostArgs,

    #[command(flatten)]
    bulk: BulkArgs,

    #[command(flatten)]
    run: RunArgs,

    /// Write a trace of the nodes, their steps and the kernels of a CUDA device, for ui.perfetto.dev or chrome://tracing (see
    /// docs/profile.md)
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,

    /// Print a summary as JSON on stdout instead of the files: nodes, keys, cached results, seconds, files
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Whether a trace is written.
    pub fn is_profiled(&self) -> bool {
        self.profile.is_some()
    }

    pub fn main(self) -> Result<Exit, Exit> {
        let stdout = match (self.json, self.run.events_on_stdout()) {
            (true, true) => return Err(usage("--json and --events both take stdout; write the events to a file")),
            (true, false) => Stdout::Json,
            (false, true) => Stdout::Events,
            (false, false) => Stdout::Files,
        };
        if self.bulk.reads_stdin() && self.graph == Path::new("-") {
            return Err(usage("the graph and --inputs cannot both be stdin; write one of them to a file"));
        }
        if let Some(path) = self.profile.as_deref().filter(|path| self.run.events_to(path)) {
            return Err(usage(format!("--profile and --events cannot both write {}; name two files", path.display())));
        }
        let rows = self.bulk.rows()?;
        // Before the device is opened, which is part of it.
        let profile = self.profile.as_deref().map(Profile::open).transpose()?;
        if let Some(rows) = rows {
            return bulk::run(&self, rows, stdout, profile);
        }
        let host = self.host.host(&self.graph, &self.params.models)?;
        let graph = Arc::new(open::open_to_run(&self.graph, &self.params, &host, self.run.quiet)?);
        let session = self.run.session(Runs::One)?.with_profile(profile);
        session.name_next_run(&self.graph.display().to_string());
        let plan = open::plan(&graph, &host, session.executor.store(), &session.digests)?;
        let host = session.host(&host);
        open::check_obstacles(&graph, &plan, &host)?;
        let keys = plan.steps().iter().map(|step| (step.node, step.key)).collect();
        let progress = Arc::new(console::Progress::new(session.quiet));
        let saved = Arc::new(SavedFiles::default());
        let subscriber = Arc::new(Several(vec![progress.clone(), saved.clone()]));
        let summary = session.run(&graph, plan, &host, subscriber);
        let report = Report::new(&graph, &saved, keys, &summary);
        progress.summary(&graph, &summary, report.files.len(), session.is_cached());
        report.print(stdout, &self.graph);
        Ok(session.stop.exit(if summary.succeeded() { Exit::Done } else { Exit::Failed }))
    }
}
