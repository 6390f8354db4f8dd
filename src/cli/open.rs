//! Turns a path on the command line into a checked graph, its files, and a plan.

use std::path::Path;
use std::sync::Arc;

use lsregen_engine::{
    Checked, Diagnostic, FetchProgress, FileDigests, Graph, GraphReader, Host, Override, Plan, PlanError, Registry,
    Severity, Source, Store, check, check_with, decoded, read_source,
};
use lsregen_files::Kind;
use lsregen_nodes::registry;

use super::args::ParamArgs;
use super::{Exit, console, record, terminal, usage};

/// The text of a graph, and where the graphs inside it are read from.
pub struct GraphText {
    source: Arc<Source>,
    /// From a PNG file, which contains the inner graphs too. Otherwise they are files on disk.
    recorded: Option<Box<GraphReader<'static>>>,
}

impl GraphText {
    /// Reads the graph at `path`: a graph file, `-` for stdin, or a PNG file that holds its graph.
    ///
    /// # Errors
    /// When there is no such file or no graph in it; the reason is printed.
    pub fn read(path: &Path) -> Result<GraphText, Exit> {
        let is_stdin = path == Path::new("-");
        if let (false, Some(record)) = (is_stdin, record::read(path)?) {
            let (source, reader) = record.sources(&path.display().to_string());
            return Ok(GraphText { source, recorded: Some(reader) });
        }
        let source = if is_stdin {
            let bytes = lsregen_files::read_or_stdin(path, Kind::GRAPH);
            decoded("<stdin>", bytes.map_err(|error| usage(format!("stdin: cannot be read: {error}")))?)
        } else {
            read_source(path)
        };
        source.map(GraphText::of).map_err(|error| {
            terminal::report(&[(*error).clone()]);
            // A missing file is an error of the command line; a file that is not text is an error of the graph.
            if error.code == "file" { Exit::Usage } else { Exit::BadGraph }
        })
    }

    /// The graph with this text, whose inner graphs are files on disk.
    pub fn of(source: Arc<Source>) -> GraphText {
        GraphText { source, recorded: None }
    }

    /// Checks the graph.
    pub fn check(&self, overrides: &[Override], registry: &Registry, host: &Host) -> Checked {
        match &self.recorded {
            Some(reader) => check_with(self.source.clone(), overrides, registry, host, reader),
            None => check(self.source.clone(), overrides, registry, host),
        }
    }

    /// Checks the graph, fetches the files that a run needs, and checks it again if any were fetched. If one cannot be
    /// fetched, there is no graph and the last diagnostic is the error.
    pub fn prepare(
        &self,
        overrides: &[Override],
        registry: &Registry,
        host: &Host,
        progress: &mut dyn FnMut(FetchProgress),
    ) -> Checked {
        let mut checked = self.check(overrides, registry, host);
        // A graph that writes nothing is not run, and downloads nothing.
        let Some(graph) = checked.graph.as_ref().filter(|graph| graph.outputs().next().is_some()) else {
            return checked;
        };
        match fetch(graph, host, progress) {
            Ok(false) => checked,
            // The fetched files have not been checked: the family of a model, for example.
            Ok(true) => self.check(overrides, registry, host),
            Err(error) => {
                checked.diagnostics.push(*error);
                Checked { graph: None, ..checked }
            }
        }
    }
}

/// Reads and checks the graph at `path`.
///
/// # Errors
/// When it cannot be read; the reason is printed.
pub fn check_file(path: &Path, params: &ParamArgs, registry: &Registry, host: &Host) -> Result<Checked, Exit> {
    Ok(GraphText::read(path)?.check(&params.overrides()?, registry, host))
}

/// The graph at `path`.
///
/// # Errors
/// When it cannot be read or has errors; they are printed.
pub fn open(path: &Path, params: &ParamArgs, host: &Host) -> Result<Graph, Exit> {
    let checked = check_file(path, params, &registry(), host)?;
    terminal::report(&checked.diagnostics);
    checked.graph.ok_or_else(|| {
        terminal::say(&format!("{}\n", verdict(path, &checked.diagnostics)));
        Exit::BadGraph
    })
}

/// The graph at `path`, prepared for a run.
///
/// # Errors
/// When it cannot be read, has errors, writes nothing, or a file cannot be fetched; the reason is printed.
pub fn open_to_run(path: &Path, params: &ParamArgs, host: &Host, quiet: bool) -> Result<Graph, Exit> {
    let text = GraphText::read(path)?;
    let mut progress = console::Fetches::new(quiet);
    let checked = text.prepare(&params.overrides()?, &registry(), host, &mut |fetching| progress.show(fetching));
    progress.clear();
    terminal::report(&checked.diagnostics);
    let graph = checked.graph.ok_or_else(|| match checked.diagnostics.last() {
        Some(error) if error.code == "unplannable" => Exit::Failed,
        _ => {
            terminal::say(&format!("{}\n", verdict(path, &checked.diagnostics)));
            Exit::BadGraph
        }
    })?;
    if graph.outputs().next().is_none() {
        return Err(usage("this graph writes nothing: use it as a node of another graph, or add a SaveImage"));
    }
    Ok(graph)
}

/// Fetches the files that `graph` needs from elsewhere; returns whether any were fetched.
///
/// # Errors
/// The first file that cannot be fetched, at the place that names it.
pub fn fetch(graph: &Graph, host: &Host, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, Box<Diagnostic>> {
    lsregen_engine::fetch(graph, host, progress).map_err(|error| Box::new(unplannable(graph, *error)))
}

/// Plans a run of `graph` with the results that `store` has.
///
/// # Errors
/// When a file of the graph cannot be read; the errors are printed.
pub fn plan(graph: &Graph, host: &Arc<Host>, store: &Store, digests: &FileDigests) -> Result<Plan, Exit> {
    try_plan(graph, host, store, digests).map_err(|errors| {
        terminal::report(&errors);
        Exit::BadGraph
    })
}

/// Plans a run as [`plan`] does.
///
/// # Errors
/// One diagnostic for each node that cannot be planned.
pub fn try_plan(
    graph: &Graph,
    host: &Arc<Host>,
    store: &Store,
    digests: &FileDigests,
) -> Result<Plan, Vec<Diagnostic>> {
    let located = |errors: Vec<PlanError>| errors.into_iter().map(|error| unplannable(graph, error)).collect();
    Plan::new(graph, host, store, digests).map_err(located)
}

/// Reports what keeps the nodes of a plan from their effects.
///
/// # Errors
/// When there is anything; it is printed.
pub fn check_obstacles(graph: &Graph, plan: &Plan, host: &Host) -> Result<(), Exit> {
    let obstacles: Vec<_> = plan.obstacles(graph, host).into_iter().map(|error| unplannable(graph, error)).collect();
    terminal::report(&obstacles);
    if obstacles.is_empty() { Ok(()) } else { Err(Exit::Failed) }
}

/// The digests of files, kept on disk beside the results if `store` has a disk.
pub fn digests(store: &Store) -> FileDigests {
    store.disk().map_or_else(FileDigests::new, |disk| FileDigests::kept_in(disk.folder().clone()))
}

/// The error at its place in the graph file.
fn unplannable(graph: &Graph, error: PlanError) -> Diagnostic {
    let label = graph.locate(error.node, &error.cause.path);
    Diagnostic::error("unplannable", error.to_string(), label).help(error.cause.help)
}

/// One line: `graphs/a.yaml: 2 errors, 1 warning`, or `graphs/a.yaml: no errors`.
pub fn verdict(path: &Path, diagnostics: &[Diagnostic]) -> String {
    let count = |severity: Severity, word: &str| {
        let n = diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
        (n > 0).then(|| format!("{n} {word}{}", if n == 1 { "" } else { "s" }))
    };
    let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    format!("{}: {}", path.display(), if counts.is_empty() { "no errors".into() } else { counts.join(", ") })
}
