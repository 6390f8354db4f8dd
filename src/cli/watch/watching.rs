//! The loop of a watch: wait for a change, read and plan, replace the run.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lsregen_engine::{
    Action, Cancel, Diagnostic, Graph, Host, Key, Outcome, Override, Plan, Registry, Summary, Watcher, read_source,
    to_json,
};
use serde_json::json;
use tokio::sync::oneshot::Receiver;
use tokio::task::{JoinError, JoinSet};

use super::change::{Cause, Seen};
use super::difference::{ActiveNodes, Difference};
use crate::cli::console::Progress;
use crate::cli::open::{self, GraphText};
use crate::cli::session::{Session, Several};
use crate::cli::terminal::{self, shown};

/// The interval at which a graph with errors is checked again, because a missing file may appear in a folder that is
/// not watched.
const RETRY: Duration = Duration::from_secs(2);

/// How many times a refresh reads everything again because it has started to watch further files.
const ATTEMPTS: usize = 3;

/// The state of a watch.
pub struct Watching<'a> {
    path: PathBuf,
    overrides: Vec<Override>,
    host: Arc<Host>,
    registry: Registry,
    session: &'a Session,
    watcher: Watcher,
    screen: Progress,
    /// Runs that have not ended, by number.
    runs: JoinSet<(usize, Summary)>,
    started: usize,
    /// The run of the last graph without errors.
    current: Option<CurrentRun>,
    /// The diagnostics that were printed last.
    printed: String,
    /// The graph has errors at present.
    has_errors: bool,
    /// The watched files that were reported last.
    reported: BTreeSet<PathBuf>,
    /// A cancelled run may have written a file since the current plan was made.
    overwritten: bool,
}

/// A run that is in progress or has ended.
struct CurrentRun {
    number: usize,
    graph: Arc<Graph>,
    outputs: BTreeSet<Key>,
    cancel: Cancel,
    progress: Arc<Progress>,
    active: Arc<ActiveNodes>,
    seen: Seen,
    done: bool,
    failed: bool,
}

impl<'a> Watching<'a> {
    /// A watch of the graph at `path`. `poll` is the interval for file systems without change notifications.
    pub fn new(
        path: PathBuf,
        overrides: Vec<Override>,
        host: Arc<Host>,
        session: &'a Session,
        poll: Option<Duration>,
    ) -> Watching<'a> {
        Watching {
            watcher: Watcher::new(poll),
            registry: lsregen_nodes::registry(),
            screen: Progress::new(session.quiet),
            path,
            overrides,
            host,
            session,
            runs: JoinSet::new(),
            started: 0,
            current: None,
            printed: String::new(),
            has_errors: false,
            reported: BTreeSet::new(),
            overwritten: false,
        }
    }

    /// Watches until `stop` gets a message, and all runs have ended.
    pub async fn run(&mut self, mut stop: Receiver<String>) {
        self.watcher.watch([self.path.clone()]);
        self.refresh(&Cause::Start);
        let message = loop {
            tokio::select! {
                message = &mut stop => break message.unwrap_or_default(),
                Some(ended) = self.runs.join_next() => self.ended(ended),
                changed = self.watcher.changed() => {
                    let cause = if changed.paths.is_empty() { Cause::Retry } else { Cause::Change(changed) };
                    self.refresh(&cause);
                }
                () = tokio::time::sleep(RETRY), if self.has_errors => self.refresh(&Cause::Retry),
            }
        };
        if let Some(current) = self.current.take().filter(|current| !current.done) {
            current.progress.above(|| terminal::complain(&message));
            current.cancel.cancel();
        }
        while self.runs.join_next().await.is_some() {}
    }

    /// Reads, checks and plans the graph, and starts a run if the plan differs.
    fn refresh(&mut self, cause: &Cause) {
        if let Cause::Change(changed) = cause {
            self.session.emit("changed", json!({ "paths": shown(&changed.paths) }));
        }
        let (graph, diagnostics) = self.check();
        let Some(graph) = graph else { return self.report_errors(cause, &diagnostics) };
        let graph = Arc::new(graph);
        let plan = open::try_plan(&graph, &self.host, self.session.executor.store(), &self.session.digests);
        let plan = match plan {
            Ok(plan) => plan,
            Err(errors) => return self.report_errors(cause, &errors),
        };
        let printed = terminal::rendered(&diagnostics);
        if printed != self.printed {
            self.screen.above(|| terminal::to_stderr(&printed));
        }
        self.printed = printed;
        let had_errors = std::mem::replace(&mut self.has_errors, false);
        if self.differs(cause, &graph, &plan) {
            self.reload(cause, graph, plan);
        } else if had_errors || !matches!(cause, Cause::Retry) {
            self.session.emit("unchanged", json!({}));
            if had_errors {
                self.say(&format!("{}: no errors any more, and nothing to run\n", self.path.display()));
            }
        }
    }

    /// Returns the graph, if it has no error, and its diagnostics. All its files are watched from then on.
    fn check(&mut self) -> (Option<Graph>, Vec<Diagnostic>) {
        let mut attempt = 1;
        loop {
            let text = match read_source(&self.path) {
                Ok(source) => GraphText::of(source),
                Err(error) => return (None, vec![*error]),
            };
            let checked = text.prepare(&self.overrides, &self.registry, &self.host, &mut |_| {});
            let mut files = checked.files;
            files.extend(checked.includes);
            files.push(self.path.clone());
            // A file that was not watched may have changed after it was read.
            let is_new = self.watcher.watch(files);
            if !is_new || attempt == ATTEMPTS {
                self.report_files();
                return (checked.graph, checked.diagnostics);
            }
            attempt += 1;
        }
    }

    /// Reports the watched files, if they differ from those reported last.
    fn report_files(&mut self) {
        let files: BTreeSet<PathBuf> = self.watcher.files().map(Path::to_path_buf).collect();
        if files == self.reported {
            return;
        }
        self.session.emit("watching", json!({ "files": shown(&files), "polling": self.watcher.blind() }));
        if self.reported.is_empty() {
            let others = match files.len() - 1 {
                0 => String::new(),
                1 => " and 1 file that it names".into(),
                n => format!(" and {n} files that it names"),
            };
            self.say(&format!("watching {}{others}; press Ctrl-C to stop\n", self.path.display()));
            if let Some(reason) = self.watcher.blind() {
                self.say(&format!("{reason}; files are polled instead\n"));
            }
        }
        self.reported = files;
    }

    /// Prints the errors of the graph. The run in progress continues.
    fn report_errors(&mut self, cause: &Cause, diagnostics: &[Diagnostic]) {
        let printed = terminal::rendered(diagnostics);
        let is_same = self.has_errors && printed == self.printed;
        self.has_errors = true;
        if is_same && matches!(cause, Cause::Retry) {
            return;
        }
        self.session.emit("bad_graph", json!({ "diagnostics": to_json(diagnostics) }));
        if !is_same {
            self.screen.above(|| terminal::to_stderr(&printed));
        }
        let continues = match &self.current {
            Some(current) if !current.done => "; the run of the last graph without errors continues",
            _ => "",
        };
        self.screen.line(&format!("{}{continues}\n", open::verdict(&self.path, diagnostics)));
        self.printed = printed;
    }

    /// Whether a plan is for other outputs than the current run, or has something left to run.
    fn differs(&self, cause: &Cause, graph: &Graph, plan: &Plan) -> bool {
        let Some(current) = &self.current else { return true };
        let is_same = outputs(graph, plan) == current.outputs;
        if !current.done {
            return !is_same;
        }
        let restores = plan.steps().iter().any(|step| matches!(step.action, Action::Cached { restore: true, .. }));
        // A failed run is repeated when a file changes, but not by itself.
        let has_failed = is_same && current.failed && matches!(cause, Cause::Retry);
        (plan.counts().run > 0 || restores) && !has_failed
    }

    /// Starts the run of a new plan, then cancels the former run.
    fn reload(&mut self, cause: &Cause, graph: Arc<Graph>, plan: Plan) {
        let seen = Seen::of(cause);
        let former = self.current.take().filter(|current| !current.done);
        let difference = Difference::new(&graph, &plan, former.as_ref().map(|run| (&*run.graph, &*run.active)));
        let number = self.started;
        self.started += 1;
        if !matches!(cause, Cause::Start) {
            let Difference { cached, runs, joined, cancelled } = &difference;
            let fields = json!({
                "run": number, "kept": cached.len(), "to_run": runs.len(), "joined": joined.len(),
                "cancelled": cancelled.len(),
            });
            self.session.emit("reloaded", fields);
        }
        self.say(&difference.text(cause));
        let current = CurrentRun {
            number,
            outputs: outputs(&graph, &plan),
            cancel: Cancel::new(),
            progress: Arc::new(self.screen.beside()),
            active: Arc::default(),
            graph,
            seen,
            done: false,
            failed: false,
        };
        if let Some(former) = &former {
            former.progress.leave();
        }
        let subscriber = Several(vec![current.progress.clone(), current.active.clone()]);
        let running = self.session.start(&current.graph, plan, &self.host, Arc::new(subscriber), &current.cancel);
        self.runs.spawn(async move { (number, running.finished().await) });
        if let Some(former) = former {
            former.cancel.cancel();
        }
        self.overwritten = false;
        self.current = Some(current);
    }

    /// Handles the end of a run.
    fn ended(&mut self, ended: Result<(usize, Summary), JoinError>) {
        let (number, summary) = match ended {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => return,
            },
        };
        match &mut self.current {
            Some(current) if current.number == number => {
                current.done = true;
                current.failed = !summary.succeeded();
                let text = current.result(&summary);
                self.say(&text);
            }
            // A cancelled run may have overwritten files of the current one before it stopped.
            _ => self.overwritten = true,
        }
        if self.overwritten && self.current.as_ref().is_some_and(|current| current.done) {
            self.overwritten = false;
            self.refresh(&Cause::Retry);
        }
    }

    /// Prints text that is not an error.
    fn say(&self, text: &str) {
        if !self.session.quiet {
            self.screen.line(text);
        }
    }
}

impl CurrentRun {
    /// One line about the end of the run.
    fn result(&self, summary: &Summary) -> String {
        if summary.succeeded() {
            return format!("  done       {}\n", self.seen.elapsed());
        }
        let failed = |(_, outcome): &&(Arc<str>, Outcome)| matches!(outcome, Outcome::Failed { .. });
        let failed: Vec<_> = summary.nodes.iter().filter(failed).map(|(name, _)| &**name).collect();
        format!("  failed     {}: {}; the next change runs it again\n", self.seen.elapsed(), failed.join(", "))
    }
}

/// The keys of the output nodes. They depend on everything upstream, and a run executes nothing else.
fn outputs(graph: &Graph, plan: &Plan) -> BTreeSet<Key> {
    plan.steps().iter().filter(|step| graph.node(step.node).node_type.output).map(|step| step.key).collect()
}
