//! From a path on the command line to a checked graph, or to every fault of it on stderr.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use lsregen_engine::{
    Checked, Diagnostic, FileDigests, Graph, GraphReader, Host, Override, Plan, PlanError, Registry, Severity, Source,
    Store, check, check_with, read_source, render,
};
use lsregen_nodes::{DtypeOption, Metadata, Numerics, device, registry};

use super::models_args::ModelDirs;
use super::{Exit, console, picture, usage};

/// The values that a command line gives to a graph's `params`, and where what it names is looked for.
#[derive(Args)]
pub struct Params {
    /// Give a parameter of the graph another value, written as in YAML; may come several times
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// The same as `--set seed=SEED`
    #[arg(long)]
    seed: Option<u64>,

    #[command(flatten)]
    pub models: ModelDirs,
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

    /// DtypeOption of the models: on the CPU `auto` keeps weights as their files have them and computes in f32, and the
    /// others round the weights; on CUDA everything is in it, and `auto` is bf16
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,

    /// Keep only one of a model's networks in memory at a time (text encoders, U-Net, autoencoder)
    #[arg(long)]
    offload: bool,

    /// Memory for what a guidance through a network keeps for its gradient, such as 8GiB. With less, more is computed
    /// twice, to the same numbers but for rounding
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    gradient_memory: ByteSize,

    /// Folder for the files that the graph writes, in place of the working directory
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,

    /// Write pictures without the graph that made them
    #[arg(long)]
    no_metadata: bool,
}

/// A dtype by name.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Dtype {
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

impl From<Dtype> for DtypeOption {
    fn from(dtype: Dtype) -> DtypeOption {
        match dtype {
            Dtype::Auto => DtypeOption::Auto,
            Dtype::F32 => DtypeOption::F32,
            Dtype::Bf16 => DtypeOption::Bf16,
            Dtype::F16 => DtypeOption::F16,
        }
    }
}

impl Place {
    /// The folder for written files.
    pub fn output(&self) -> &Path {
        self.output_dir.as_deref().unwrap_or(Path::new(""))
    }

    /// Whether weights in half precision do.
    pub fn wants_half(&self) -> bool {
        !matches!(self.dtype, Dtype::F32)
    }

    /// The host of a run of the graph at `path`.
    pub fn host(&self, path: &Path, models: &ModelDirs) -> Result<Arc<Host>, Exit> {
        let opened = device::open(&self.device).map_err(|error| usage(format!("{error:#}")))?;
        if let Some(warning) = opened.warning {
            console::complain(format!("warning: {warning}"));
        }
        let numerics = Numerics::new(opened.device, self.dtype.into(), self.offload);
        let numerics = numerics.with_gradient_memory(self.gradient_memory.as_u64());
        let host = host(path, self.output_dir.as_deref(), models)?;
        let host = host.with_fingerprint(numerics.fingerprint()).with_service(numerics);
        Ok(Arc::new(host.with_service(Metadata(!self.no_metadata))))
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

/// The graph at `path`, if it has no error and there is something to run; what it needs from elsewhere has been fetched.
pub fn open_to_run(path: &Path, params: &Params, host: &Host, quiet: bool) -> Result<Graph, Exit> {
    let graph = open(path, params, host)?;
    if graph.outputs().next().is_none() {
        return Err(usage("this graph writes nothing: use it as a node of another graph, or add a SaveImage"));
    }
    // What came has yet to be checked: the family of a model, for one.
    if fetch(&graph, host, quiet)? { open(path, params, host) } else { Ok(graph) }
}

/// Brings the files that `graph` needs to this machine; says whether anything came.
pub fn fetch(graph: &Graph, host: &Host, quiet: bool) -> Result<bool, Exit> {
    let mut progress = console::Fetches::new(quiet);
    lsregen_engine::fetch(graph, host, &mut |fetching| progress.show(fetching)).map_err(|error| {
        progress.clear();
        console::say(&render(&unplannable(graph, vec![*error]), console::colours()));
        Exit::Failed
    })
}

/// Plans a run of `graph` on what `store` knows.
pub fn plan(graph: &Graph, host: &Arc<Host>, store: &Store, digests: &FileDigests) -> Result<Plan, Exit> {
    Plan::new(graph, host, store, digests).map_err(|errors| {
        console::say(&render(&unplannable(graph, errors), console::colours()));
        Exit::BadGraph
    })
}

/// Digests of files, kept beside the results that outlive the process.
pub fn digests(store: &Store) -> FileDigests {
    store.disk().map_or_else(FileDigests::new, |disk| FileDigests::kept_in(disk.folder().clone()))
}

/// What keeps a graph from being planned, with the places in its file.
pub fn unplannable(graph: &Graph, errors: Vec<PlanError>) -> Vec<Diagnostic> {
    let faults = errors.into_iter().map(|error| {
        let label = graph.locate(error.node, &error.cause.path);
        Diagnostic::error("unplannable", error.to_string(), label).help(error.cause.help)
    });
    faults.collect()
}

/// Input files are looked for beside the graph, written files go to `output` or the working directory.
pub fn host(path: &Path, output: Option<&Path>, models: &ModelDirs) -> Result<Host, Exit> {
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(Host::new(folder, output.unwrap_or(Path::new(""))).with_service(models.path(folder)?))
}

/// Reads and checks the graph at `path`: a file of its own, or a picture that carries it.
pub fn check_file(path: &Path, params: &Params, registry: &Registry, host: &Host) -> Result<Checked, Exit> {
    Ok(Text::read(path)?.check(&params.overrides()?, registry, host))
}

/// A graph's text, and where the graphs in it come from.
pub struct Text {
    source: Arc<Source>,
    /// Of a picture, which carries them; else they lie on disk.
    carried: Option<Box<GraphReader<'static>>>,
}

impl Text {
    /// The graph at `path`: a file of its own, or a picture that carries it.
    pub fn read(path: &Path) -> Result<Text, Exit> {
        if let Some(record) = picture::record(path)? {
            let (source, read) = record.sources(&path.display().to_string());
            return Ok(Text { source, carried: Some(read) });
        }
        let source = read_source(path).map_err(|fault| {
            console::say(&render(&[(*fault).clone()], console::colours()));
            // A file that is not there is the command line's fault; one that is no text is the file's own.
            if fault.code == "file" { Exit::Usage } else { Exit::BadGraph }
        })?;
        Ok(Text { source, carried: None })
    }

    pub fn check(&self, overrides: &[Override], registry: &Registry, host: &Host) -> Checked {
        match &self.carried {
            Some(read) => check_with(self.source.clone(), overrides, registry, host, read),
            None => check(self.source.clone(), overrides, registry, host),
        }
    }
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
