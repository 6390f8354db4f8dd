//! `lsregen run --inputs` and `--sweep`: runs one graph once for each row of parameters.
//!
//! All rows are checked before anything runs. Each row's graph is built again when its turn comes, so that only a few
//! graphs are held at a time. A result stays in memory while a later row needs it.

mod args;
mod csv;
mod execute;
#[cfg(test)]
mod tests;
mod manifest;
mod progress;
mod rows;
mod survey;
mod sweep;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lsregen_engine::{Diagnostic, Document, Graph, Host, Key, Override, Plan, Registry};
use serde_json::{Map, Value as Json, json};

pub use self::args::BulkArgs;
use self::args::Shard;
use self::execute::{Ended, Execution};
use self::manifest::{Manifest, Status, WrittenFile};
use self::progress::Progress;
pub use self::rows::Rows;
use self::rows::{Names, Row};
use self::survey::{Survey, Surveyed};
use self::sweep::Sweep;
use super::Run;
use crate::cli::open::GraphText;
use crate::cli::profile::Profile;
use crate::cli::run::report::Stdout;
use crate::cli::session::Runs;
use crate::cli::{Exit, console, terminal, usage};

/// Runs the graph of the command once for each row.
///
/// # Errors
/// When a row has an error, or the manifest or the contact sheet cannot be written; the reason is printed.
pub fn run(command: &Run, rows: Rows, stdout: Stdout, profile: Option<Profile>) -> Result<Exit, Exit> {
    let Run { graph, params, host, bulk: args, run, .. } = command;
    if run.previews.is_some() {
        return Err(usage("--previews shows the progress of a single run; run the row by itself"));
    }
    let start = Instant::now();
    let set = params.overrides()?;
    let text = GraphText::read(graph)?;
    let is_stdin = graph == Path::new("-");
    let stem = if is_stdin { "stdin".as_ref() } else { graph.file_stem().unwrap_or_default() };
    let stem = stem.to_string_lossy().into_owned();
    let output = match &rows {
        Rows::Sweep(sweep) => {
            if let Some(name) = set.iter().map(Override::name).find(|name| sweep.has_axis(name)) {
                return Err(usage(format!("--sweep {name}: `{name}` is set as well; remove one of the two")));
            }
            host.output().join(sweep.folder(&stem, &set))
        }
        _ => host.output().to_path_buf(),
    };
    let (host, registry) = (host.host(graph, &params.models)?, lsregen_nodes::registry());
    let document = text.check(&[], &registry, &host).document;
    let names = document.iter().flat_map(Document::params).map(|(name, _)| name.to_string()).collect();
    let bulk = Bulk { text, set, rows, names, host, output, registry, stdout, quiet: run.quiet };

    let shard = args.shard()?;
    let suffix = shard.map(Shard::suffix).unwrap_or_default();
    let manifest = format!("{stem}{suffix}.manifest.jsonl");
    let sheet = format!("{stem}.sheet.png");
    let reserved = [manifest.clone(), format!("{manifest}.lock"), format!("{manifest}.new"), sheet.clone()];
    let session = run.session(Runs::Many)?.with_profile(profile);
    let surveyed = Survey::new(&bulk, &session.digests, Names::new(reserved)).rows(shard)?;

    let mut manifest = Manifest::open(args.manifest().unwrap_or_else(|| bulk.output.join(manifest)))?;
    let total = surveyed.len();
    let names: Vec<_> = surveyed.iter().map(|row| row.name.clone()).collect();
    let numbers = surveyed.iter().map(|row| (row.name.clone(), row.index + 1)).collect();
    let is_done = |row: &Surveyed| manifest.get(&row.name).is_some_and(|line| line.is_done(&row.keys, &bulk.output));
    let (earlier, todo): (Vec<_>, Vec<_>) = surveyed.into_iter().partition(is_done);
    let found = earlier.iter().filter_map(|row| manifest.get(&row.name)).flat_map(|line| &line.files);
    let found: Vec<_> = found.map(|file| bulk.output.join(&file.path)).collect();
    if stdout == Stdout::Files {
        terminal::print_paths(found.iter().map(PathBuf::as_path));
    }
    manifest.compact(todo.iter().map(|row| row.name.clone()), &numbers)?;

    let progress = Progress::new(session.quiet, total, total - todo.len());
    let Ended { manifest, all, exit } = Execution::new(&bulk, &session, manifest, progress, &todo).run(todo)?;
    let mut sheets = vec![];
    if let (Rows::Sweep(sweep), true, false) = (&bulk.rows, all, shard.is_some()) {
        sheets.extend(write_sheet(&bulk.output, sweep, &sheet, &manifest)?);
    }
    match stdout {
        Stdout::Files => terminal::print_paths(sheets.iter().map(PathBuf::as_path)),
        Stdout::Json => {
            let rows = names.iter().filter_map(|name| manifest.get(name));
            terminal::print_json(&json!({
                "graph": graph.to_string_lossy(), "succeeded": exit == Exit::Done, "seconds": start.elapsed().as_secs_f64(),
                "output_dir": bulk.output.to_string_lossy(), "earlier": earlier.len(), "rows": rows.collect::<Vec<_>>(), "sheets": terminal::shown(&sheets),
            }));
        }
        Stdout::Events => {}
    }
    Ok(exit)
}

/// What all rows share.
struct Bulk {
    text: GraphText,
    /// The values that `--set` gives to every row.
    set: Vec<Override>,
    rows: Rows,
    /// Names of the graph's parameters.
    names: Vec<String>,
    host: Arc<Host>,
    output: PathBuf,
    registry: Registry,
    stdout: Stdout,
    quiet: bool,
}

/// The graph of one row, ready to be planned.
struct RowGraph {
    graph: Arc<Graph>,
    host: Arc<Host>,
    /// The values that parameters were given.
    given: Map<String, Json>,
    warnings: Vec<Diagnostic>,
}

impl Bulk {
    /// Builds the graph of a row, or returns its errors.
    fn build(&self, row: &Row) -> Result<RowGraph, Vec<Diagnostic>> {
        let host = Host::clone(&self.host).with_output_folder(self.output.join(&row.name));
        // The row comes last: of two values for one parameter the later is used.
        let overrides: Vec<_> = self.set.iter().chain(&row.overrides).cloned().collect();
        let mut progress = console::Fetches::new(self.quiet);
        let checked = self.text.prepare(&overrides, &self.registry, &host, &mut |fetching| progress.show(fetching));
        let Some(graph) = checked.graph else { return Err(checked.diagnostics) };
        let names: HashSet<_> = overrides.iter().map(Override::name).collect();
        let params = checked.document.iter().flat_map(Document::params);
        let given = params.filter(|(name, _)| names.contains(name)).map(|(name, value)| (name.to_string(), value));
        let given = given.collect();
        Ok(RowGraph { graph: Arc::new(graph), host: Arc::new(host), given, warnings: checked.diagnostics })
    }
}

/// Memo keys of the nodes that write files, by name.
fn output_keys(graph: &Graph, plan: &Plan) -> BTreeMap<String, Key> {
    let outputs = plan.steps().iter().filter(|step| graph.node(step.node).node_type.output);
    outputs.map(|step| (graph.node(step.node).name.to_string(), step.key)).collect()
}

/// Writes the contact sheet of a sweep, if any of its rows has an image; returns its path.
fn write_sheet(output: &Path, sweep: &Sweep, name: &str, manifest: &Manifest) -> Result<Option<PathBuf>, Exit> {
    let image = |index: usize| {
        let line = manifest.get(&sweep.name(index)).filter(|line| line.status == Status::Done)?;
        let is_png =
            |file: &&WrittenFile| file.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
        Some(output.join(&line.files.iter().find(is_png)?.path))
    };
    if (0..sweep.count()).all(|index| image(index).is_none()) {
        return Ok(None);
    }
    let path = output.join(name);
    let write = |png: Vec<u8>| lsregen_files::write_over(&path, &png).map_err(|error| error.to_string());
    sweep.sheet(image).and_then(write).map_err(|error| {
        terminal::complain(format!("{}: the contact sheet cannot be written: {error}", path.display()));
        Exit::Failed
    })?;
    Ok(Some(path))
}
