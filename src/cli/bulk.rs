//! `lsregen run --inputs` and `--sweep`: one graph, run once a row.
//!
//! All rows are checked before anything runs; each is made anew at its turn, so that no more than a few graphs are held
//! at a time. A result is kept as long as a row to come wants it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lsregen_engine::{
    Action, Cancel, CheckContext, Diagnostic, Document, Event, FileDigests, Graph, Host, Key, Outcome, Override, Plan,
    Registry, Running, Source, Span, Store, Summary, render,
};
use serde_json::{Map, Value as Json, json};
use tokio::task::JoinSet;

use super::manifest::{self, Line, Manifest, Status, Written};
use super::open::{self, Params, Place, Text};
use super::rows::{Names, Row, Rows};
use super::session::{self, Options, Runs, Session};
use super::sweep::Sweep;
use super::{Exit, console, usage};

/// Rows under way at a time: enough that the device never waits for a row to be made or its files to be written.
const WINDOW: usize = 4;

/// Faults told in full.
const TOLD: usize = 100;

/// One graph, many runs.
#[derive(Args)]
pub struct Many {
    /// Run once a row of a file, with the row's values as parameters: .jsonl or .csv; `-` is JSON Lines from stdin
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,

    /// Run with each of some values; several times: with every combination. Ends with a contact sheet
    #[arg(long, value_name = "NAME=A,B,C", conflicts_with = "inputs")]
    sweep: Vec<String>,

    /// Run the I-th of N equal shares of the rows
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,

    /// Where it is noted what came of each row; rows that are done are not run again
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// A share of the rows: `of` shares, this one counted from 1.
#[derive(Clone, Copy)]
struct Shard {
    at: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parsed =
            text.split_once('/').and_then(|(at, of)| Some(Shard { at: at.parse().ok()?, of: of.parse().ok()? }));
        let shard = parsed.filter(|shard| 1 <= shard.at && shard.at <= shard.of);
        shard.ok_or_else(|| "write I/N with 1 ≤ I ≤ N, such as 2/4".to_string())
    }
}

impl Many {
    /// The rows asked for, if any are.
    pub fn rows(&self) -> Result<Option<Rows>, Exit> {
        match &self.inputs {
            Some(path) => Rows::read(path).map(Some),
            None if !self.sweep.is_empty() => Ok(Some(Rows::Sweep(Sweep::parse(&self.sweep)?))),
            None if self.shard.is_some() => Err(usage("--shard needs rows: --inputs or --sweep")),
            None if self.manifest.is_some() => Err(usage("--manifest needs rows: --inputs or --sweep")),
            None => Ok(None),
        }
    }

    fn has(&self, index: usize) -> bool {
        self.shard.is_none_or(|shard| index % shard.of == shard.at - 1)
    }
}

/// Runs the graph once a row.
pub fn run(
    graph: &Path,
    rows: Rows,
    params: &Params,
    place: &Place,
    many: &Many,
    options: &Options,
) -> Result<Exit, Exit> {
    if options.previews.is_some() {
        return Err(usage("--previews shows how one run goes, not many rows: run the row by itself"));
    }
    let set = params.overrides()?;
    let text = Text::read(graph)?;
    let (host, registry) = (place.host(graph, &params.models)?, lsregen_nodes::registry());
    let document = text.check(&[], &registry, &host).document;
    let names = document.iter().flat_map(Document::params).map(|(name, _)| name.to_string()).collect();
    let output = place.output().to_path_buf();
    let stem = graph.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let share = many.shard.map(|Shard { at, of }| format!(".{at}-of-{of}")).unwrap_or_default();
    let manifest = format!("{stem}{share}.manifest.jsonl");
    let sheet = format!("{stem}.sweep.png");
    let reserved = [manifest.clone(), format!("{manifest}.lock"), format!("{manifest}.new"), sheet.clone()];
    let bulk = Bulk { text, set, rows, names, host, output, registry, quiet: options.quiet };

    let session = options.session(Runs::Many)?;
    let found = bulk.look_ahead(many, &session.digests, Names::new(reserved))?;
    let mut manifest = Manifest::open(many.manifest.clone().unwrap_or_else(|| bulk.output.join(manifest)))?;
    let total = found.len();
    let numbers = found.iter().map(|ahead| (ahead.name.clone(), ahead.index + 1)).collect();
    let stands = |ahead: &Ahead| manifest.get(&ahead.name).is_some_and(|line| line.stands(&ahead.keys, &bulk.output));
    let todo: Vec<_> = found.into_iter().filter(|ahead| !stands(ahead)).collect();
    manifest.compact(todo.iter().map(|ahead| ahead.name.clone()), &numbers)?;

    let mut wanted: HashMap<Key, usize> = HashMap::new();
    todo.iter().flat_map(|ahead| &ahead.wants).for_each(|key| *wanted.entry(*key).or_default() += 1);
    let todo: Vec<_> = todo.into_iter().map(|ahead| (ahead.index, ahead.wants)).collect();
    let progress = Progress::new(session.quiet, total, total - todo.len());
    let cancel = Cancel::new();
    let work = Work { bulk: &bulk, session: &session, manifest, wanted, progress, cancel, failed: vec![], done: 0 };
    let manifest = work.run(todo)?;
    match (manifest, &bulk.rows) {
        (Ended { manifest, whole: true, exit }, Rows::Sweep(sweep)) if many.shard.is_none() => {
            draw(&bulk.output, sweep, &sheet, &manifest, session.quiet)?;
            Ok(exit)
        }
        (Ended { exit, .. }, _) => Ok(exit),
    }
}

/// What every row shares.
struct Bulk {
    text: Text,
    /// What `--set` gives to all rows.
    set: Vec<Override>,
    rows: Rows,
    /// Of the graph's parameters.
    names: Vec<String>,
    host: Arc<Host>,
    output: PathBuf,
    registry: Registry,
    quiet: bool,
}

/// What is known of a row before anything runs.
struct Ahead {
    index: usize,
    name: String,
    /// Of the nodes that write something.
    keys: BTreeMap<String, Key>,
    /// Of all nodes that it needs, each once.
    wants: Vec<Key>,
}

/// A row that can run.
struct Made {
    graph: Arc<Graph>,
    host: Arc<Host>,
    /// The values given to parameters.
    given: Map<String, Json>,
    warnings: Vec<Diagnostic>,
}

impl Bulk {
    fn make(&self, row: &Row) -> Result<Made, Vec<Diagnostic>> {
        let host = Host::clone(&self.host).with_output_folder(self.output.join(&row.name));
        // Of two values for one parameter the later wins: the row's.
        let overrides: Vec<_> = self.set.iter().chain(&row.overrides).cloned().collect();
        let mut checked = self.text.check(&overrides, &self.registry, &host);
        if let Some(graph) = &checked.graph {
            let mut progress = console::Fetches::new(self.quiet);
            let fetched = lsregen_engine::fetch(graph, &host, &mut |fetching| progress.show(fetching));
            // What came has yet to be checked.
            if fetched.map_err(|error| open::unplannable(graph, vec![*error]))? {
                checked = self.text.check(&overrides, &self.registry, &host);
            }
        }
        let Some(graph) = checked.graph else { return Err(checked.diagnostics) };
        let names: HashSet<_> = overrides.iter().map(Override::name).collect();
        let params = checked.document.iter().flat_map(Document::params);
        let given = params.filter(|(name, _)| names.contains(name)).map(|(name, value)| (name.to_string(), value));
        let given = given.collect();
        Ok(Made { graph: Arc::new(graph), host: Arc::new(host), given, warnings: checked.diagnostics })
    }

    /// Checks all rows of this share.
    fn look_ahead(&self, many: &Many, digests: &FileDigests, mut names: Names) -> Result<Vec<Ahead>, Exit> {
        let nothing = Store::in_memory(0);
        let mut faults = Faults::default();
        let mut outside = HashMap::new();
        let mut found = vec![];
        for index in 0..self.rows.count() {
            let row = match self.rows.row(index, &self.names) {
                Ok(row) => row,
                Err(faulty) => {
                    faults.of_row(faulty);
                    continue;
                }
            };
            let taken = names.take(&self.rows, index, &row.name);
            if taken.is_some() || !many.has(index) {
                faults.of_row(taken.into_iter().collect());
                continue;
            }
            let ahead = self.make(&row).and_then(|made| {
                let plan = Plan::new(&made.graph, &made.host, &nothing, digests)
                    .map_err(|errors| open::unplannable(&made.graph, errors))?;
                let collisions = self.collisions(&made, &row, &mut outside);
                if !collisions.is_empty() {
                    return Err(collisions);
                }
                faults.of_row(made.warnings);
                let needed = plan.steps().iter().filter(|step| !matches!(step.action, Action::Skipped { .. }));
                let wants: HashSet<_> = needed.map(|step| step.key).collect();
                let keys = output_keys(&made.graph, &plan);
                Ok(Ahead { index, name: row.name, keys, wants: wants.into_iter().collect() })
            });
            match ahead {
                Ok(ahead) => found.push(ahead),
                Err(faulty) => faults.of_row(faulty),
            }
        }
        faults.verdict(self.rows.called(), self.rows.count())?;
        Ok(found)
    }

    /// Files outside the row's folder that a row before it writes too.
    fn collisions(&self, made: &Made, row: &Row, outside: &mut HashMap<PathBuf, usize>) -> Vec<Diagnostic> {
        let mut faults = vec![];
        let own = self.output.join(&row.name);
        for &index in made.graph.order() {
            let node = made.graph.node(index);
            for file in node.node.writes(&CheckContext::within(&made.host, node.folder.as_deref())) {
                let inside = file
                    .path
                    .strip_prefix(&own)
                    .is_ok_and(|rest| !rest.components().any(|c| c == Component::ParentDir));
                let former = if inside { row.number } else { *outside.entry(file.path.clone()).or_insert(row.number) };
                if former != row.number {
                    let message = format!("rows {former} and {} both write `{}`", row.number, file.path.display());
                    let label = made.graph.locate(index, &file.param);
                    let help = "write below the output folder: there each row has a folder of its own";
                    faults.push(Diagnostic::error("written-twice", message, label).help(help.to_string()));
                }
            }
        }
        faults
    }
}

fn output_keys(graph: &Graph, plan: &Plan) -> BTreeMap<String, Key> {
    let outputs = plan.steps().iter().filter(|step| graph.node(step.node).node_type.output);
    outputs.map(|step| (graph.node(step.node).name.to_string(), step.key)).collect()
}

/// The faults of all rows; one that several rows have is told once.
#[derive(Default)]
struct Faults {
    told: HashSet<(&'static str, *const Source, Span, String)>,
    shown: Vec<Diagnostic>,
    more: usize,
    rows: usize,
}

impl Faults {
    fn of_row(&mut self, faults: Vec<Diagnostic>) {
        self.rows += usize::from(faults.iter().any(Diagnostic::is_error));
        for fault in faults {
            let place = &fault.primary;
            if self.told.len() >= 100 * TOLD {
                self.more += 1;
            } else if self.told.insert((fault.code, Arc::as_ptr(&place.source), place.span, fault.message.clone())) {
                if self.shown.len() < TOLD { self.shown.push(fault) } else { self.more += 1 }
            }
        }
    }

    fn verdict(self, of: &str, count: usize) -> Result<(), Exit> {
        console::say(&render(&self.shown, console::colours()));
        if self.more > 0 {
            console::say(&format!("… and {} more\n\n", self.more));
        }
        if self.rows == 0 {
            return Ok(());
        }
        console::say(&format!("{of}: {} of {count} rows have faults; nothing ran\n", self.rows));
        Err(Exit::BadGraph)
    }
}

/// The rows' runs.
struct Work<'a> {
    bulk: &'a Bulk,
    session: &'a Session,
    manifest: Manifest,
    /// How many rows have yet to be done with each result.
    wanted: HashMap<Key, usize>,
    progress: Progress,
    cancel: Cancel,
    failed: Vec<String>,
    done: usize,
}

/// How it ended.
struct Ended {
    manifest: Manifest,
    /// Every row had its turn.
    whole: bool,
    exit: Exit,
}

/// A row under way.
struct Started {
    row: usize,
    name: String,
    run: Option<usize>,
    given: Map<String, Json>,
    keys: BTreeMap<String, Key>,
    wants: Vec<Key>,
    writes: Vec<PathBuf>,
}

/// What came of a row.
struct Came {
    error: Option<String>,
    ran: usize,
    known: usize,
    duration: Duration,
}

impl Work<'_> {
    fn run(mut self, todo: Vec<(usize, Vec<Key>)>) -> Result<Ended, Exit> {
        let start = Instant::now();
        let session = self.session;
        let whole = session.runtime.block_on(async {
            tokio::spawn(session::cancel_on_interrupt(self.cancel.clone()));
            let mut todo = todo.into_iter();
            let mut flying = JoinSet::new();
            loop {
                while flying.len() < WINDOW && !self.stopped() {
                    let Some((index, wants)) = todo.next() else { break };
                    match self.start(index, wants) {
                        (started, Ok(running)) => drop(flying.spawn(async { (started, running.finished().await) })),
                        (started, Err(error)) => {
                            let came = Came { error: Some(error), ran: 0, known: 0, duration: Duration::ZERO };
                            self.finish(started, came).inspect_err(|_| self.cancel.cancel())?;
                        }
                    }
                    // So that Ctrl-C is heard of.
                    tokio::task::yield_now().await;
                }
                match flying.join_next().await {
                    Some(Ok((started, summary))) => {
                        self.landed(started, &summary).inspect_err(|_| self.cancel.cancel())?
                    }
                    Some(Err(error)) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return Err(Exit::Failed),
                    },
                    None => break,
                }
            }
            Ok(!self.stopped() && todo.next().is_none())
        })?;
        self.progress.summary(self.done, &self.failed, whole, start.elapsed());
        let exit = if whole && self.failed.is_empty() { Exit::Done } else { Exit::Failed };
        Ok(Ended { manifest: self.manifest, whole, exit })
    }

    fn stopped(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Sets a row to work, or says why it cannot be: something changed since all were checked.
    fn start(&self, index: usize, wants: Vec<Key>) -> (Started, Result<Running, String>) {
        let bulk = self.bulk;
        let mut started = Started {
            row: index + 1,
            name: format!("{:04}", index + 1),
            run: None,
            given: Map::new(),
            keys: BTreeMap::new(),
            wants,
            writes: vec![],
        };
        let said = |faults: Vec<Diagnostic>| {
            faults.iter().find(|fault| fault.is_error()).map_or(String::new(), |fault| fault.message.clone())
        };
        let made = bulk.rows.row(index, &bulk.names).and_then(|row| {
            started.name = row.name.clone();
            bulk.make(&row)
        });
        let made = match made {
            Ok(made) => made,
            Err(faults) => return (started, Err(said(faults))),
        };
        let plan = match Plan::new(&made.graph, &made.host, self.session.executor.store(), &self.session.digests) {
            Ok(plan) => plan,
            Err(errors) => return (started, Err(said(open::unplannable(&made.graph, errors)))),
        };
        started.given = made.given;
        started.keys = output_keys(&made.graph, &plan);
        for &index in made.graph.order() {
            let node = made.graph.node(index);
            let files = node.node.writes(&CheckContext::within(&made.host, node.folder.as_deref()));
            started.writes.extend(files.into_iter().map(|file| file.path));
        }
        let run = self.session.runs();
        started.run = Some(run);
        self.tell("row_started", json!({ "row": started.row, "name": started.name, "run": run }));
        let silent = Arc::new(|_: &Event| {});
        let running = self.session.start(&made.graph, plan, &made.host, silent, &self.cancel);
        (started, Ok(running))
    }

    fn landed(&mut self, started: Started, summary: &Summary) -> Result<(), Exit> {
        if summary.was_cancelled() {
            let fields = json!({ "row": started.row, "name": started.name, "run": started.run, "status": "cancelled" });
            self.tell("row_finished", fields);
            return Ok(());
        }
        let outcomes = || summary.nodes.iter();
        let errors: Vec<_> = outcomes()
            .filter_map(|(node, outcome)| match outcome {
                Outcome::Failed { error } => Some(format!("{node}: {error}")),
                _ => None,
            })
            .collect();
        let came = Came {
            error: (!summary.succeeded()).then(|| errors.join("; ")),
            ran: outcomes().filter(|(_, outcome)| matches!(outcome, Outcome::Ran { .. })).count(),
            known: outcomes()
                .filter(|(_, o)| matches!(o, Outcome::Cached | Outcome::Joined | Outcome::Shared { .. }))
                .count(),
            duration: summary.duration,
        };
        self.finish(started, came)
    }

    /// Notes what came of a row.
    fn finish(&mut self, started: Started, came: Came) -> Result<(), Exit> {
        self.let_go(&started.wants);
        let Started { row, name, run, given, keys, writes, .. } = started;
        let written = |path: PathBuf| {
            let bytes = fs::metadata(&path).ok()?.len();
            let path = path.strip_prefix(&self.bulk.output).map(Path::to_path_buf).unwrap_or(path);
            Some(Written { path, bytes })
        };
        let status = if came.error.is_some() { Status::Failed } else { Status::Done };
        let files = if status == Status::Done { writes.into_iter().filter_map(written).collect() } else { vec![] };
        self.progress.row(&name, &came);
        match status {
            Status::Done => self.done += 1,
            Status::Failed => self.failed.push(name.clone()),
        }
        let fields = json!({
            "row": row, "name": name, "run": run, "status": status, "error": came.error,
            "ran": came.ran, "known": came.known, "seconds": came.duration.as_secs_f64(),
        });
        self.manifest.add(Line {
            v: manifest::VERSION,
            row,
            name,
            params: given,
            status,
            error: came.error,
            files,
            keys,
            ran: came.ran,
            known: came.known,
            seconds: came.duration.as_secs_f64(),
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
        })?;
        // Only now: whoever reads of it finds it in the manifest.
        self.tell("row_finished", fields);
        if status == Status::Failed && self.session.fail_fast {
            self.cancel.cancel();
        }
        Ok(())
    }

    /// Drops the results that no row to come wants.
    fn let_go(&mut self, keys: &[Key]) {
        for key in keys {
            let Some(left) = self.wanted.get_mut(key) else { continue };
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.wanted.remove(key);
                self.session.executor.store().memory().remove(key);
            }
        }
    }

    fn tell(&self, name: &str, fields: Json) {
        if let Some(events) = &self.session.events {
            events.tell(name, fields);
        }
    }
}

/// A line a row on stderr; on a terminal a bar below them.
struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    of: usize,
    known: usize,
    finished: usize,
}

impl Progress {
    fn new(quiet: bool, of: usize, known: usize) -> Progress {
        let bar = (!quiet && std::io::IsTerminal::is_terminal(&std::io::stderr())).then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}, {eta} left");
            let bar = ProgressBar::new(of as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(known as u64);
            bar.reset_eta();
            bar
        });
        let progress = Progress { bar, quiet, of, known, finished: known };
        if known > 0 {
            progress.line(&format!("{known} of {of} rows are done already\n"));
        }
        progress
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| console::say(text)),
            None if !self.quiet => console::say(text),
            None => {}
        }
    }

    fn row(&mut self, name: &str, came: &Came) {
        self.finished += 1;
        let Came { error, ran, known, duration } = came;
        let at = format!("[{}/{}] {name}", self.finished, self.of);
        match error {
            None => self.line(&format!("{at}: {ran} ran, {known} known, {:.2} s\n", duration.as_secs_f64())),
            Some(error) if self.quiet => console::say(&format!("lsregen: {name} failed: {error}\n")),
            Some(error) => self.line(&format!("{at} failed: {error}\n")),
        }
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn summary(&self, done: usize, failed: &[String], whole: bool, took: Duration) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        const NAMED: usize = 20;
        let mut names = failed.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if failed.len() > NAMED {
            names += &format!(" and {} more", failed.len() - NAMED);
        }
        let mut text = format!("{done} done, {} done already, {} failed", self.known, failed.len());
        if !failed.is_empty() {
            text += &format!(" ({names})");
        }
        let left = self.of - self.finished;
        if !whole || left > 0 {
            text += &format!(", {left} left: run again to go on");
        }
        if !self.quiet || !failed.is_empty() {
            console::say(&format!("{text}; {:.2} s\n", took.as_secs_f64()));
        }
    }
}

/// Draws the contact sheet of a sweep.
fn draw(output: &Path, sweep: &Sweep, sheet: &str, manifest: &Manifest, quiet: bool) -> Result<(), Exit> {
    let picture = |index: usize| {
        let line = manifest.get(&sweep.name(index)).filter(|line| line.status == Status::Done)?;
        let is_png =
            |file: &&Written| file.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
        Some(output.join(&line.files.iter().find(is_png)?.path))
    };
    if (0..sweep.count()).all(|index| picture(index).is_none()) {
        return Ok(());
    }
    let path = output.join(sheet);
    let write = |png: Vec<u8>| {
        let new = path.with_extension("png.new");
        fs::write(&new, png).and_then(|()| fs::rename(&new, &path)).map_err(|error| error.to_string())
    };
    sweep.sheet(picture).and_then(write).map_err(|error| {
        console::complain(format!("{}: the contact sheet cannot be made: {error}", path.display()));
        Exit::Failed
    })?;
    if !quiet {
        console::say(&format!("wrote {}\n", path.display()));
    }
    Ok(())
}
