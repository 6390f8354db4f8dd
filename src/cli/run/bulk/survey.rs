//! The check of all rows before the first one runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use lsregen_engine::{Action, Diagnostic, FileDigests, Key, Source, Span, Store};
use lsregen_files::identity;

use super::rows::{Names, Row};
use super::{Bulk, RowGraph, Shard, output_keys, terminal};
use crate::cli::{Exit, open};

/// Diagnostics that are printed in full.
const PRINTED: usize = 100;

/// Distinct diagnostics that are remembered, so that each is printed once.
const REMEMBERED: usize = 100 * PRINTED;

/// A row that has no error.
pub struct Surveyed {
    /// From 0.
    pub index: usize,
    pub name: String,
    /// Memo keys of the nodes that write files.
    pub keys: BTreeMap<String, Key>,
    /// Memo keys of all nodes that the row needs, each once.
    pub needs: Vec<Key>,
}

/// Checks rows one after the other.
pub struct Survey<'a> {
    bulk: &'a Bulk,
    digests: &'a FileDigests,
    /// Plans are made as if no result existed: only their keys are used.
    store: Store,
    names: Names,
    /// Files outside the folders of rows, each with the number of the row that writes it.
    outside: HashMap<PathBuf, usize>,
    report: Report,
}

impl<'a> Survey<'a> {
    pub fn new(bulk: &'a Bulk, digests: &'a FileDigests, names: Names) -> Survey<'a> {
        let (store, outside) = (Store::in_memory(0), HashMap::new());
        Survey { bulk, digests, store, names, outside, report: Report::default() }
    }

    /// Checks all rows and returns those of this share.
    ///
    /// # Errors
    /// When any row has an error; all diagnostics are printed.
    pub fn rows(mut self, shard: Option<Shard>) -> Result<Vec<Surveyed>, Exit> {
        let rows = &self.bulk.rows;
        let mut surveyed = vec![];
        for index in 0..rows.count() {
            match self.row(index, shard) {
                Ok(row) => surveyed.extend(row),
                Err(errors) => self.report.add_row(errors),
            }
        }
        self.report.print(rows.origin(), rows.count())?;
        Ok(surveyed)
    }

    /// Checks a row; `None` if another share has it.
    fn row(&mut self, index: usize, shard: Option<Shard>) -> Result<Option<Surveyed>, Vec<Diagnostic>> {
        let bulk = self.bulk;
        let row = bulk.rows.row(index, &bulk.names)?;
        if let Some(taken) = self.names.take(&bulk.rows, index, &row.name) {
            return Err(vec![taken]);
        }
        if shard.is_some_and(|shard| !shard.includes(index)) {
            return Ok(None);
        }
        let of_row = |errors| bulk.rows.located(index, errors);
        let built = bulk.build(&row).map_err(of_row)?;
        let plan = open::try_plan(&built.graph, &built.host, &self.store, self.digests).map_err(of_row)?;
        let collisions = self.collisions(&built, &row);
        if !collisions.is_empty() {
            return Err(collisions);
        }
        let needed = plan.steps().iter().filter(|step| !matches!(step.action, Action::Skipped { .. }));
        let needs: HashSet<_> = needed.map(|step| step.key).collect();
        let keys = output_keys(&built.graph, &plan);
        self.report.add_row(built.warnings);
        Ok(Some(Surveyed { index, name: row.name, keys, needs: needs.into_iter().collect() }))
    }

    /// Errors for files outside the row's folder that an earlier row writes too.
    fn collisions(&mut self, built: &RowGraph, row: &Row) -> Vec<Diagnostic> {
        let mut errors = vec![];
        let own = identity(&self.bulk.output.join(&row.name));
        for (index, file) in built.graph.writes(&built.host) {
            let place = identity(&file.path);
            if place.starts_with(&own) {
                continue;
            }
            let former = *self.outside.entry(place).or_insert(row.number);
            if former != row.number {
                let message = format!("rows {former} and {} both write `{}`", row.number, file.path.display());
                let label = built.graph.locate(index, &file.param);
                let help = "write below the output folder, where each row has its own folder";
                errors.push(Diagnostic::error("written-twice", message, label).help(help.to_string()));
            }
        }
        errors
    }
}

/// The diagnostics of all rows. A diagnostic that several rows have is printed once.
#[derive(Default)]
struct Report {
    seen: HashSet<(&'static str, *const Source, Span, String)>,
    printed: Vec<Diagnostic>,
    /// Diagnostics that are only counted.
    more: usize,
    /// Rows with errors.
    rows: usize,
}

impl Report {
    fn add_row(&mut self, diagnostics: Vec<Diagnostic>) {
        self.rows += usize::from(diagnostics.iter().any(Diagnostic::is_error));
        for diagnostic in diagnostics {
            let label = &diagnostic.primary;
            let id = (diagnostic.code, Arc::as_ptr(&label.source), label.span, diagnostic.message.clone());
            if self.seen.len() >= REMEMBERED {
                self.more += 1;
            } else if self.seen.insert(id) {
                if self.printed.len() < PRINTED { self.printed.push(diagnostic) } else { self.more += 1 }
            }
        }
    }

    /// Prints the diagnostics; `origin` is what the rows were read from.
    fn print(self, origin: &str, count: usize) -> Result<(), Exit> {
        terminal::report(&self.printed);
        if self.more > 0 {
            terminal::say(&format!("… and {} more\n\n", self.more));
        }
        if self.rows == 0 {
            return Ok(());
        }
        terminal::say(&format!("{origin}: {} of {count} rows have errors; nothing was run\n", self.rows));
        Err(Exit::BadGraph)
    }
}
