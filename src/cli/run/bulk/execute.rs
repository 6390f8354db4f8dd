//! The runs of the rows, a few at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lsregen_engine::{CacheFolder, Cancel, Diagnostic, Graph, Key, Label, Outcome, Running, Summary};
use serde_json::{Map, Value as Json, json};
use tokio::task::JoinSet;

use super::manifest::{self, Line, Manifest, Status, WrittenFile};
use super::progress::{Progress, RowOutcome};
use super::survey::Surveyed;
use super::{Bulk, output_keys};
use crate::cli::run::report::Stdout;
use crate::cli::session::{SavedFiles, Session};
use crate::cli::{Exit, open, terminal};

/// Rows in progress at a time: enough that the device never waits for a graph to be built or files to be written.
const WINDOW: usize = 4;

/// Runs rows and records their outcomes.
pub struct Execution<'a> {
    bulk: &'a Bulk,
    session: &'a Session,
    manifest: Manifest,
    /// For each result, how many rows still need it.
    needed: HashMap<Key, usize>,
    progress: Progress,
    cancel: Cancel,
    failed: Vec<String>,
    done: usize,
}

/// The end of an execution.
pub struct Ended {
    pub manifest: Manifest,
    /// Every row was run.
    pub all: bool,
    pub exit: Exit,
}

/// A row in progress.
struct Started {
    /// From 1.
    number: usize,
    name: String,
    run: Option<usize>,
    given: Map<String, Json>,
    keys: BTreeMap<String, Key>,
    needs: Vec<Key>,
    graph: Option<Arc<Graph>>,
    saved: Arc<SavedFiles>,
}

impl<'a> Execution<'a> {
    pub fn new(
        bulk: &'a Bulk,
        session: &'a Session,
        manifest: Manifest,
        progress: Progress,
        rows: &[Surveyed],
    ) -> Execution<'a> {
        let mut needed: HashMap<Key, usize> = HashMap::new();
        rows.iter().flat_map(|row| &row.needs).for_each(|key| *needed.entry(*key).or_default() += 1);
        let cancel = Cancel::new();
        Execution { bulk, session, manifest, needed, progress, cancel, failed: vec![], done: 0 }
    }

    /// Runs all rows.
    ///
    /// # Errors
    /// When the manifest cannot be written; the reason is printed.
    pub fn run(mut self, rows: Vec<Surveyed>) -> Result<Ended, Exit> {
        let start = Instant::now();
        let session = self.session;
        let all = session.runtime.block_on(async {
            let (stopped, cache) = (self.cancel.clone(), session.cache());
            tokio::spawn(session.stop.on_signal(move |message| {
                terminal::complain(message);
                stopped.cancel();
                cache.iter().for_each(CacheFolder::stop_waiting);
            }));
            let result = self.run_in_window(rows).await;
            result.inspect_err(|_| self.cancel.cancel())
        })?;
        self.progress.summary(self.done, &self.failed, all, start.elapsed());
        let exit = session.stop.exit(if all && self.failed.is_empty() { Exit::Done } else { Exit::Failed });
        Ok(Ended { manifest: self.manifest, all, exit })
    }

    /// Runs the rows, [`WINDOW`] at a time; returns whether every row was run.
    async fn run_in_window(&mut self, rows: Vec<Surveyed>) -> Result<bool, Exit> {
        let mut rows = rows.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < WINDOW && !self.cancel.is_cancelled() {
                let Some(row) = rows.next() else { break };
                match self.start(row) {
                    (started, Ok(run)) => drop(running.spawn(async { (started, run.finished().await) })),
                    (started, Err(error)) => self.finish(started, RowOutcome::not_started(error))?,
                }
                // Yields, so that the task that waits for Ctrl-C can run.
                tokio::task::yield_now().await;
            }
            match running.join_next().await {
                Some(Ok((started, summary))) => self.ended(started, &summary)?,
                Some(Err(error)) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(Exit::Failed),
                },
                None => break,
            }
        }
        Ok(!self.cancel.is_cancelled() && rows.next().is_none())
    }

    /// Starts the run of a row. It can fail although the row was checked, if a file has changed since.
    fn start(&self, row: Surveyed) -> (Started, Result<Running, String>) {
        let mut started = Started {
            number: row.index + 1,
            name: row.name,
            run: None,
            given: Map::new(),
            keys: BTreeMap::new(),
            needs: row.needs,
            graph: None,
            saved: Arc::default(),
        };
        let running = self.start_run(row.index, &mut started);
        let first = |diagnostics: Vec<Diagnostic>| {
            let error = diagnostics.into_iter().find(Diagnostic::is_error);
            error.map_or_else(String::new, |error| {
                let Label { source, span, .. } = &error.primary;
                let at = source.position(span.start);
                format!("{}:{}:{}: {}", source.name(), at.line, at.column, error.message)
            })
        };
        (started, running.map_err(first))
    }

    fn start_run(&self, index: usize, started: &mut Started) -> Result<Running, Vec<Diagnostic>> {
        let bulk = self.bulk;
        let built = bulk.build(&bulk.rows.row(index, &bulk.names)?)?;
        let plan = open::try_plan(&built.graph, &built.host, self.session.executor.store(), &self.session.digests)?;
        started.given = built.given;
        started.keys = output_keys(&built.graph, &plan);
        started.graph = Some(built.graph.clone());
        let run = self.session.runs();
        started.run = Some(run);
        self.session.emit("row_started", json!({ "row": started.number, "name": started.name, "run": run }));
        self.session.name_next_run(&started.name);
        Ok(self.session.start(&built.graph, plan, &built.host, started.saved.clone(), &self.cancel))
    }

    /// Records a run that has ended.
    fn ended(&mut self, started: Started, summary: &Summary) -> Result<(), Exit> {
        if summary.was_cancelled() {
            let Started { number, name, run, .. } = started;
            let fields = json!({ "row": number, "name": name, "run": run, "status": "cancelled" });
            self.session.emit("row_finished", fields);
            return Ok(());
        }
        let count = |counts: fn(&Outcome) -> bool| summary.nodes.iter().filter(|(_, outcome)| counts(outcome)).count();
        let errors = summary.nodes.iter().filter_map(|(node, outcome)| match outcome {
            Outcome::Failed { error } => Some(format!("{node}: {error}")),
            _ => None,
        });
        let outcome = RowOutcome {
            error: (!summary.succeeded()).then(|| errors.collect::<Vec<_>>().join("; ")),
            ran: count(|outcome| matches!(outcome, Outcome::Ran { .. })),
            cached: count(|outcome| matches!(outcome, Outcome::Cached | Outcome::Joined | Outcome::Shared { .. })),
            duration: summary.duration,
        };
        self.finish(started, outcome)
    }

    /// Records the outcome of a row.
    fn finish(&mut self, started: Started, outcome: RowOutcome) -> Result<(), Exit> {
        self.release(&started.needs);
        let Started { number, name, run, given, keys, graph, saved, .. } = started;
        let status = if outcome.error.is_some() { Status::Failed } else { Status::Done };
        let written = |path: PathBuf| {
            let bytes = fs::metadata(&path).ok()?.len();
            let path = path.strip_prefix(&self.bulk.output).map(PathBuf::from).unwrap_or(path);
            Some(WrittenFile { path, bytes })
        };
        let graph = graph.filter(|_| status == Status::Done);
        let files = graph.map(|graph| saved.in_order(&graph)).unwrap_or_default();
        let files: Vec<_> = files.into_iter().filter_map(|(_, path)| written(path)).collect();
        self.progress.row(&name, self.bulk.rows.place(number - 1).as_deref(), &outcome);
        let paths: Vec<_> = files.iter().map(|file| self.bulk.output.join(&file.path)).collect();
        if self.bulk.stdout == Stdout::Files {
            self.progress.above(|| terminal::print_paths(paths.iter().map(PathBuf::as_path)));
        }
        match status {
            Status::Done => self.done += 1,
            Status::Failed => self.failed.push(name.clone()),
        }
        let RowOutcome { error, ran, cached, duration } = outcome;
        let seconds = duration.as_secs_f64();
        let event = json!({
            "row": number, "name": name, "run": run, "status": status, "error": error,
            "ran": ran, "known": cached, "seconds": seconds, "files": terminal::shown(&paths),
        });
        self.manifest.add(Line {
            v: manifest::VERSION,
            row: number,
            name,
            params: given,
            status,
            error,
            files,
            keys,
            ran,
            known: cached,
            seconds,
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
        })?;
        // The event comes after the line of the manifest, so that a reader of the event finds the line there.
        self.session.emit("row_finished", event);
        if status == Status::Failed && self.session.fail_fast {
            self.cancel.cancel();
        }
        Ok(())
    }

    /// Drops the results of a row that no later row needs.
    fn release(&mut self, keys: &[Key]) {
        for key in keys {
            let Some(left) = self.needed.get_mut(key) else { continue };
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.needed.remove(key);
                self.session.executor.store().memory().remove(key);
            }
        }
    }
}

impl RowOutcome {
    fn not_started(error: String) -> RowOutcome {
        RowOutcome { error: Some(error), ran: 0, cached: 0, duration: Duration::ZERO }
    }
}
