//! From a path on the command line to a checked graph, or to every fault of it on stderr.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lsregen_engine::{
    Checked, Diagnostic, FileDigests, Graph, Host, Label, Override, Plan, PlanError, Registry, Severity, Source, Store,
    check, read_source, render,
};
use lsregen_nodes::{Numerics, registry};

use super::{Exit, console, usage};

/// The values that a command line gives to a graph's `params`.
#[derive(Args)]
pub struct Params {
    /// Give a parameter of the graph another value, written as in YAML; may come several times
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// The same as `--set seed=SEED`
    #[arg(long)]
    seed: Option<u64>,
}

impl Params {
    pub fn overrides(&self) -> Result<Vec<Override>, Exit> {
        let seed = self.seed.map(|seed| format!("seed={seed}"));
        let parse = |arg: &String| {
            Override::parse(arg).map_err(|fault| {
                console::say(&render(&[*fault], console::colours()));
                Exit::Usage
            })
        };
        self.set.iter().chain(&seed).map(parse).collect()
    }
}

/// Where results are computed and written.
#[derive(Args)]
pub struct Place {
    /// Where to compute: `auto` (the first CUDA device where there is one), `cpu`, or `cuda:N`
    #[arg(long, default_value = "auto")]
    device: String,

    /// Folder for the files that the graph writes, in place of the working directory
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

impl Place {
    /// The folder for written files.
    pub fn output(&self) -> &Path {
        self.output_dir.as_deref().unwrap_or(Path::new(""))
    }

    /// The host of a run of the graph at `path`.
    pub fn host(&self, path: &Path) -> Result<Arc<Host>, Exit> {
        let numerics = Numerics::new(&self.device).map_err(|error| usage(format!("{error:#}")))?;
        let host = host(path, self.output_dir.as_deref());
        Ok(Arc::new(host.with_fingerprint(numerics.fingerprint()).with_service(numerics)))
    }
}

/// The graph at `path`, if it has no error; its faults go to stderr.
pub fn open(path: &Path, params: &Params, host: &Host) -> Result<Graph, Exit> {
    let checked = check_file(path, params, &registry(), host)?;
    console::say(&render(&checked.diagnostics, console::colours()));
    checked.graph.ok_or_else(|| {
        console::say(&format!("{}\n", verdict(path, &checked.diagnostics)));
        Exit::BadGraph
    })
}

/// Plans a run of `graph` on what `store` knows.
pub fn plan(graph: &Graph, host: &Arc<Host>, store: &Store, digests: &FileDigests) -> Result<Plan, Exit> {
    Plan::new(graph, host, store, digests).map_err(|errors| {
        console::say(&render(&unplannable(graph, errors), console::colours()));
        Exit::BadGraph
    })
}

/// Why a graph cannot be planned, with places.
pub fn unplannable(graph: &Graph, errors: Vec<PlanError>) -> Vec<Diagnostic> {
    let faults = errors.into_iter().map(|error| {
        let label = Label::new(graph.source(), graph.locate(error.node, &error.fault.path), "");
        Diagnostic::error("unplannable", error.to_string(), label).help(error.fault.help)
    });
    faults.collect()
}

/// Input files are looked for beside the graph, written files go to `output` or the working directory.
pub fn host(path: &Path, output: Option<&Path>) -> Host {
    Host::new(path.parent().unwrap_or(Path::new("")), output.unwrap_or(Path::new("")))
}

/// Reads and checks the graph at `path`.
pub fn check_file(path: &Path, params: &Params, registry: &Registry, host: &Host) -> Result<Checked, Exit> {
    let overrides = params.overrides()?;
    Ok(check(read(path)?, &overrides, registry, host))
}

/// The text of the graph at `path`.
pub fn read(path: &Path) -> Result<Arc<Source>, Exit> {
    read_source(path).map_err(|fault| {
        console::say(&render(&[(*fault).clone()], console::colours()));
        // A file that is not there is the command line's fault; one that is no text is the file's own.
        if fault.code == "file" { Exit::Usage } else { Exit::BadGraph }
    })
}

/// `graphs/a.yaml: 2 errors, 1 warning`.
pub fn verdict(path: &Path, diagnostics: &[Diagnostic]) -> String {
    let count = |severity: Severity, word: &str| {
        let n = diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
        (n > 0).then(|| format!("{n} {word}{}", if n == 1 { "" } else { "s" }))
    };
    let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    format!("{}: {}", path.display(), if counts.is_empty() { "good".into() } else { counts.join(", ") })
}
