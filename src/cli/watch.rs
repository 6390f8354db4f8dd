//! `lsregen watch`: keeps what a graph draws up to date while its files are edited.
//!
//! Signs that a file changed are hints; content decides. Each time everything is read and planned anew. Where the plan
//! is another, its run is started before the former one is cancelled: what both want goes on, and what only the former
//! wanted stops at its next step. A faulty graph changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use clap::Args;
use lsregen_engine::{
    Action, Cancel, Changed, CheckContext, Diagnostic, Event, Graph, Host, Key, Outcome, Override, Plan, Registry,
    Subscriber, Summary, Watcher, check, read_source, render, to_json,
};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::console::{self, Progress};
use super::events::Several;
use super::open::{self, Params, Place};
use super::session::{Options, Runs, Session};
use super::{Exit, usage};

/// How often a faulty graph is checked again: what it lacks may come where no one looks.
const AGAIN: Duration = Duration::from_secs(2);

/// How often everything is read again at once, because new files came to be watched meanwhile.
const ATTEMPTS: usize = 3;

/// Run a graph again at every change of its files, in the least possible work
#[derive(Args)]
pub struct Watch {
    /// Graph file
    graph: PathBuf,

    #[command(flatten)]
    params: Params,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    options: Options,

    /// Look at the files every MS milliseconds (250 where none are given), where the system tells of no changes
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "250", value_parser = clap::value_parser!(u64).range(10..))]
    poll: Option<u64>,
}

impl Watch {
    pub fn main(self) -> Result<Exit, Exit> {
        let host = self.place.host(&self.graph, &self.params.models)?;
        let overrides = self.params.overrides()?;
        // Later it may come and go, but a name that leads nowhere from the start is most likely misspelt.
        if let Err(error) = fs::metadata(&self.graph) {
            return Err(usage(format!("`{}` cannot be watched: {error}", self.graph.display())));
        }
        let session = self.options.session(Runs::Many)?;
        let stop = Arc::new(Notify::new());
        listen_for_interrupts(stop.clone())?;
        let mut watching = Watching {
            watcher: Watcher::new(self.poll.map(Duration::from_millis)),
            registry: lsregen_nodes::registry(),
            screen: Progress::new(session.quiet),
            path: self.graph,
            overrides,
            host,
            session: &session,
            runs: JoinSet::new(),
            started: 0,
            current: None,
            shown: String::new(),
            bad: false,
            told: BTreeSet::new(),
            overwritten: false,
        };
        session.runtime.block_on(watching.go(&stop));
        Ok(Exit::Done)
    }
}

/// Tells of the first Ctrl-C; at the second the process ends. A thread of its own, because planning, which may read
/// gigabytes of weights, keeps the other busy.
fn listen_for_interrupts(stop: Arc<Notify>) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        console::complain(format!("the system gives no signals to listen to: {error}"));
        Exit::Failed
    })?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.notify_one();
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(130); // 128 + SIGINT, as shells report it
                }
            }
        });
    });
    Ok(())
}

struct Watching<'a> {
    path: PathBuf,
    overrides: Vec<Override>,
    host: Arc<Host>,
    registry: Registry,
    session: &'a Session,
    watcher: Watcher,
    screen: Progress,
    /// By their numbers.
    runs: JoinSet<(usize, Summary)>,
    started: usize,
    /// The run of the last good graph.
    current: Option<Current>,
    /// The diagnostics that were shown last.
    shown: String,
    /// The file as it stands is faulty.
    bad: bool,
    /// The watched files that `--events` has been told of.
    told: BTreeSet<PathBuf>,
    /// A run that was cancelled has written something since the current plan was made.
    overwritten: bool,
}

/// A run, under way or done.
struct Current {
    number: usize,
    graph: Arc<Graph>,
    outputs: BTreeSet<Key>,
    cancel: Cancel,
    progress: Arc<Progress>,
    at_work: Arc<AtWork>,
    seen: Seen,
    done: bool,
    failed: bool,
}

/// When a change was seen.
#[derive(Clone, Copy)]
struct Seen {
    at: SystemTime,
    what: Sight,
}

#[derive(Clone, Copy)]
enum Sight {
    /// No change: the watch began, or what a cancelled run overwrote is written again.
    None,
    First,
    /// The file's last write, which came after the first sign of the change.
    LastWrite,
}

/// Why everything is looked at.
enum Cause {
    Start,
    Change(Changed),
    /// No file is known to have changed; nothing is said unless something comes of it.
    Again,
}

impl Watching<'_> {
    /// Runs until it is told to stop, and what still runs has ended.
    async fn go(&mut self, stop: &Notify) {
        self.watcher.watch([self.path.clone()]);
        self.refresh(Cause::Start);
        loop {
            tokio::select! {
                () = stop.notified() => break,
                Some(ended) = self.runs.join_next() => self.ended(ended),
                changed = self.watcher.changed() => {
                    let cause = if changed.paths.is_empty() { Cause::Again } else { Cause::Change(changed) };
                    self.refresh(cause);
                }
                () = tokio::time::sleep(AGAIN), if self.bad => self.refresh(Cause::Again),
            }
        }
        if let Some(current) = self.current.take().filter(|current| !current.done) {
            current.progress.line("lsregen: stopping after this step; press Ctrl-C again to end at once\n");
            current.cancel.cancel();
        }
        while self.runs.join_next().await.is_some() {}
    }

    /// Reads, checks and plans everything, and runs what is to be run.
    fn refresh(&mut self, cause: Cause) {
        if let Cause::Change(changed) = &cause {
            self.tell("changed", json!({ "paths": changed.paths }));
        }
        let (graph, diagnostics) = self.check();
        let Some(graph) = graph else { return self.faulty(&cause, &diagnostics) };
        let graph = Arc::new(graph);
        let plan = Plan::new(&graph, &self.host, self.session.executor.store(), &self.session.digests);
        let plan = match plan {
            Ok(plan) => plan,
            Err(errors) => return self.faulty(&cause, &open::unplannable(&graph, errors)),
        };
        let shown = render(&diagnostics, console::colours());
        if shown != self.shown {
            self.screen.line(&shown);
        }
        self.shown = shown;
        let was_bad = std::mem::replace(&mut self.bad, false);
        if self.is_news(&cause, &graph, &plan) {
            self.reload(&cause, graph, plan);
        } else if was_bad || !matches!(cause, Cause::Again) {
            self.tell("unchanged", json!({}));
            if was_bad {
                self.say(&format!("{}: good again, and nothing to run\n", self.path.display()));
            }
        }
    }

    /// The graph, if it has no error, and what is to be said of it. From here on all its files are watched.
    fn check(&mut self) -> (Option<Graph>, Vec<Diagnostic>) {
        let mut attempt = 1;
        loop {
            let source = match read_source(&self.path) {
                Ok(source) => source,
                Err(fault) => return (None, vec![*fault]),
            };
            let mut checked = check(source.clone(), &self.overrides, &self.registry, &self.host);
            if let Some(graph) = &checked.graph {
                match lsregen_engine::fetch(graph, &self.host, &mut |_| {}) {
                    Ok(false) => {}
                    Ok(true) => checked = check(source, &self.overrides, &self.registry, &self.host),
                    Err(error) => {
                        let faults = open::unplannable(graph, vec![*error]);
                        (checked.graph, checked.diagnostics) = (None, faults);
                    }
                }
            }
            let mut files = checked.files;
            files.extend(checked.includes);
            if let Some(graph) = &checked.graph {
                let written = written(graph, &self.host);
                files.retain(|file| !written.contains(&real(file)));
            }
            files.push(self.path.clone());
            // What was not watched may have changed after it was read.
            let new = self.watcher.watch(files);
            if !new || attempt == ATTEMPTS {
                self.tell_watched();
                return (checked.graph, checked.diagnostics);
            }
            attempt += 1;
        }
    }

    fn tell_watched(&mut self) {
        let files: BTreeSet<PathBuf> = self.watcher.files().map(Path::to_path_buf).collect();
        if files == self.told {
            return;
        }
        self.tell("watching", json!({ "files": files, "polling": self.watcher.blind() }));
        if self.told.is_empty() {
            let others = match files.len() - 1 {
                0 => String::new(),
                1 => " and a file that it names".into(),
                n => format!(" and {n} files that it names"),
            };
            self.say(&format!("watching {}{others}; Ctrl-C ends\n", self.path.display()));
            if let Some(why) = self.watcher.blind() {
                self.say(&format!("{why}; files are looked at from time to time\n"));
            }
        }
        self.told = files;
    }

    /// Says what is wrong; what runs goes on.
    fn faulty(&mut self, cause: &Cause, diagnostics: &[Diagnostic]) {
        let shown = render(diagnostics, console::colours());
        let same = self.bad && shown == self.shown;
        self.bad = true;
        if same && matches!(cause, Cause::Again) {
            return;
        }
        self.tell("bad_graph", json!({ "diagnostics": to_json(diagnostics) }));
        if !same {
            self.screen.line(&shown);
        }
        let goes_on = match &self.current {
            Some(current) if !current.done => "; the run of the last good graph goes on",
            _ => "",
        };
        self.screen.line(&format!("{}{goes_on}\n", open::verdict(&self.path, diagnostics)));
        self.shown = shown;
    }

    /// Whether a plan is another than that which is being run, or leaves something to be run.
    fn is_news(&self, cause: &Cause, graph: &Graph, plan: &Plan) -> bool {
        let Some(current) = &self.current else { return true };
        let same = outputs(graph, plan) == current.outputs;
        if !current.done {
            return !same;
        }
        let restores = plan.steps().iter().any(|step| matches!(step.action, Action::Cached { restore: true, .. }));
        // What failed is tried again at someone's wish, not by itself.
        let hopeless = same && current.failed && matches!(cause, Cause::Again);
        (plan.counts().run > 0 || restores) && !hopeless
    }

    /// Starts the run of a new plan, then cancels that of the former.
    fn reload(&mut self, cause: &Cause, graph: Arc<Graph>, plan: Plan) {
        let seen = match cause {
            Cause::Change(changed) => Seen::of(changed),
            Cause::Start | Cause::Again => Seen { at: SystemTime::now(), what: Sight::None },
        };
        let former = self.current.take().filter(|current| !current.done);
        let change = Difference::new(&graph, &plan, former.as_ref());
        let number = self.started;
        self.started += 1;
        if !matches!(cause, Cause::Start) {
            let count = |nodes: &[Arc<str>]| nodes.len();
            let Difference { known, runs, joined, cancelled } = &change;
            self.tell(
                "reloaded",
                json!({
                    "run": number, "kept": count(known), "to_run": count(runs), "joined": count(joined),
                    "cancelled": count(cancelled),
                }),
            );
        }
        self.say(&change.text(cause));
        let current = Current {
            number,
            outputs: outputs(&graph, &plan),
            cancel: Cancel::new(),
            progress: Arc::new(self.screen.beside()),
            at_work: Arc::default(),
            graph,
            seen,
            done: false,
            failed: false,
        };
        if let Some(former) = &former {
            former.progress.leave();
        }
        let subscriber = Several(vec![current.progress.clone(), current.at_work.clone()]);
        let running = self.session.start(&current.graph, plan, &self.host, Arc::new(subscriber), &current.cancel);
        self.runs.spawn(async move { (number, running.finished().await) });
        if let Some(former) = former {
            former.cancel.cancel();
        }
        self.overwritten = false;
        self.current = Some(current);
    }

    /// A run is at its end.
    fn ended(&mut self, ended: Result<(usize, Summary), tokio::task::JoinError>) {
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
                let text = done(current, &summary);
                self.say(&text);
            }
            // One that was cancelled, and may have been writing all the same, over what the current one wrote.
            _ => self.overwritten = true,
        }
        if self.overwritten && self.current.as_ref().is_some_and(|current| current.done) {
            self.overwritten = false;
            self.refresh(Cause::Again);
        }
    }

    fn tell(&self, name: &str, fields: serde_json::Value) {
        if let Some(events) = &self.session.events {
            events.tell(name, fields);
        }
    }

    /// Says something that is no complaint.
    fn say(&self, text: &str) {
        if !self.session.quiet {
            self.screen.line(text);
        }
    }
}

/// What a run is for. All that is upstream is in these keys, and nothing else runs.
fn outputs(graph: &Graph, plan: &Plan) -> BTreeSet<Key> {
    plan.steps().iter().filter(|step| graph.node(step.node).node_type.output).map(|step| step.key).collect()
}

/// The files that the graph writes itself. Were they watched where it reads them too, each run would call for another.
fn written(graph: &Graph, host: &Host) -> BTreeSet<PathBuf> {
    let nodes = graph.order().iter().map(|&index| graph.node(index));
    nodes
        .flat_map(|node| node.node.writes(&CheckContext::within(host, node.folder.as_deref())))
        .map(|file| real(&file.path))
        .collect()
}

/// A path without links, as far as it leads somewhere.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

impl Seen {
    fn of(changed: &Changed) -> Seen {
        let times = changed.paths.iter().filter_map(|path| fs::metadata(path).ok()?.modified().ok());
        let now = SystemTime::now();
        match times.filter(|time| *time > changed.since && *time <= now).max() {
            Some(at) => Seen { at, what: Sight::LastWrite },
            None => Seen { at: changed.since, what: Sight::First },
        }
    }

    /// `0.412 s after the change was seen`.
    fn text(self) -> String {
        let seconds = self.at.elapsed().unwrap_or_default().as_secs_f64();
        match self.what {
            Sight::None => format!("{seconds:.3} s"),
            Sight::First => format!("{seconds:.3} s after the change was seen"),
            Sight::LastWrite => format!("{seconds:.3} s after the last write"),
        }
    }
}

/// The nodes of a run that are at work, with their keys.
#[derive(Default)]
struct AtWork(Mutex<HashMap<Arc<str>, Key>>);

impl Subscriber for AtWork {
    fn event(&self, event: &Event) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::NodeStarted { node, key, .. } | Event::Joined { node, key } => {
                nodes.insert(node.clone(), *key);
            }
            Event::NodeFinished { node, .. } | Event::Failed { node, .. } | Event::Cancelled { node } => {
                nodes.remove(node);
            }
            _ => {}
        }
    }
}

/// What a new plan means for the work under way. Nodes by name.
struct Difference {
    known: Vec<Arc<str>>,
    runs: Vec<Arc<str>>,
    /// At work already.
    joined: Vec<Arc<str>>,
    /// At work, and no longer wanted.
    cancelled: Vec<Arc<str>>,
}

impl Difference {
    fn new(graph: &Graph, plan: &Plan, former: Option<&Current>) -> Difference {
        let mut at_work = match former {
            Some(former) => former.at_work.0.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            None => HashMap::new(),
        };
        // What is done for its effect is done for each run anew.
        if let Some(former) = former {
            for index in former.graph.outputs() {
                at_work.remove(&former.graph.node(index).name);
            }
        }
        let mut change = Difference { known: vec![], runs: vec![], joined: vec![], cancelled: vec![] };
        for step in plan.steps() {
            let name = graph.node(step.node).name.clone();
            match &step.action {
                Action::Cached { restore: false, .. } => change.known.push(name),
                Action::Run { .. } if at_work.values().any(|key| *key == step.key) => {
                    change.joined.push(name);
                    at_work.retain(|_, key| *key != step.key);
                }
                Action::Run { .. } | Action::Cached { .. } => change.runs.push(name),
                Action::Shared { .. } | Action::Skipped { .. } => {}
            }
        }
        change.cancelled = at_work.into_keys().collect();
        change.cancelled.sort();
        change
    }

    /// A block of lines: which files changed, and what comes of it.
    fn text(&self, cause: &Cause) -> String {
        let mut text = String::new();
        if let Cause::Change(changed) = cause {
            let shown: Vec<_> = changed.paths.iter().take(3).map(|path| path.display().to_string()).collect();
            let more = changed.paths.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = writeln!(text, "\n{}{more} changed", shown.join(", "));
        }
        let lines =
            [("known", &self.known), ("goes on", &self.joined), ("cancelled", &self.cancelled), ("runs", &self.runs)];
        for (what, nodes) in lines.into_iter().filter(|(_, nodes)| !nodes.is_empty()) {
            let _ = writeln!(text, "  {what:9}  {}", nodes.join(", "));
        }
        text
    }
}

/// One line about a run that has ended.
fn done(current: &Current, summary: &Summary) -> String {
    let failed = |(_, outcome): &&(Arc<str>, Outcome)| matches!(outcome, Outcome::Failed { .. });
    let failed: Vec<_> = summary.nodes.iter().filter(failed).map(|(name, _)| &**name).collect();
    if summary.succeeded() {
        format!("  done       {}\n", current.seen.text())
    } else {
        format!("  failed     {}: {}; the next change tries again\n", current.seen.text(), failed.join(", "))
    }
}
