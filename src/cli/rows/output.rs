//! The file of rows, and the parameters that a row sets.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use lsregen_engine::{Document, Host, nearest};
use lsregen_evaluation::rows::{Row, RowField};
use lsregen_files::GrowingFile;

use crate::cli::open::GraphText;
use crate::cli::{Exit, terminal, usage};

/// Where rows are written, and with which parameters.
#[derive(Args)]
pub struct OutputRowArgs {
    /// The file of rows (JSON Lines), or `-` for stdout. An existing file is replaced when all rows are written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// The parameters of a row, besides `id`: some of prompt, boxes, width, height and seed (of shapes also seed_small and
    /// seed_large). `boxes=layout` writes `boxes` as the parameter `layout`
    #[arg(long, value_name = "FIELD[=NAME]", value_delimiter = ',')]
    fields: Vec<String>,

    /// Write only the parameters that this graph has
    #[arg(long, value_name = "GRAPH", conflicts_with = "fields")]
    graph: Option<PathBuf>,
}

/// An output of rows that is ready to be written.
pub struct RowOutput {
    path: PathBuf,
    fields: Vec<(RowField, String)>,
}

impl OutputRowArgs {
    /// Reads the fields. `known` are those that the rows have; the default are those that do not stand for a part of `seed`.
    ///
    /// # Errors
    /// When a field is unknown or written twice, or the graph cannot be read; the reason is printed.
    pub fn open(&self, known: &[RowField]) -> Result<RowOutput, Exit> {
        let plain = |fields: &mut dyn Iterator<Item = RowField>| {
            fields.map(|field| (field, field.name().to_string())).collect::<Vec<_>>()
        };
        let mut fields = match &self.graph {
            Some(graph) => {
                let params = params(graph)?;
                plain(&mut known.iter().copied().filter(|field| params.iter().any(|param| param == field.name())))
            }
            None => {
                let is_seed = |field: &RowField| matches!(field, RowField::SeedSmall | RowField::SeedLarge);
                plain(&mut known.iter().copied().filter(|field| !is_seed(field)))
            }
        };
        if let (Some(graph), true) = (&self.graph, fields.is_empty()) {
            let names: Vec<_> = known.iter().map(|field| field.name()).collect();
            return Err(usage(format!(
                "--graph {}: the graph has none of the parameters {}; name its own with `--fields`, as in \
                 `--fields boxes=layout`",
                graph.display(),
                names.join(", ")
            )));
        }
        if !self.fields.is_empty() {
            fields = self.fields.iter().map(|text| field(text, known)).collect::<Result<_, _>>()?;
        }
        for (i, (_, name)) in fields.iter().enumerate() {
            if name == "id" || fields[..i].iter().any(|(_, other)| other == name) {
                return Err(usage(format!("--fields: a row would have two values of `{name}`; rename one of them")));
            }
        }
        Ok(RowOutput { path: self.out.clone(), fields })
    }
}

/// The names of a graph's parameters.
fn params(graph: &Path) -> Result<Vec<String>, Exit> {
    // The check is only to read the parameters: other errors are those of the run.
    let host = Host::new(graph.parent().unwrap_or(Path::new("")), Path::new(""));
    let checked = GraphText::read(graph)?.check(&[], &lsregen_nodes::registry(), &host);
    let Some(document) = &checked.document else {
        terminal::report(&checked.diagnostics);
        return Err(Exit::BadGraph);
    };
    Ok(Document::params(document).into_iter().map(|(name, _)| name.to_string()).collect())
}

/// Parses `boxes` or `boxes=layout`.
fn field(text: &str, known: &[RowField]) -> Result<(RowField, String), Exit> {
    let (name, param) = text.split_once('=').unwrap_or((text, text));
    let (name, param) = (name.trim(), param.trim());
    let names: Vec<_> = known.iter().map(|field| field.name()).collect();
    match RowField::named(name).filter(|field| known.contains(field)) {
        Some(field) if !param.is_empty() => Ok((field, param.into())),
        Some(_) => Err(usage(format!("--fields {text}: the name of the parameter is missing; write `{name}=NAME`"))),
        None => {
            let meant = nearest(name, names.iter().copied()).map(|meant| format!("did you mean `{meant}`? "));
            let meant = meant.unwrap_or_default();
            Err(usage(format!("--fields {text}: {meant}A row has {}", names.join(", "))))
        }
    }
}

impl RowOutput {
    /// The name of the output, for messages.
    pub fn name(&self) -> String {
        if self.is_stdout() { "<stdout>".into() } else { self.path.display().to_string() }
    }

    fn is_stdout(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Writes the rows: all of them or, to a file, nothing.
    ///
    /// # Errors
    /// When the file cannot be written; the reason is printed.
    pub fn write(&self, rows: &[Row]) -> Result<(), Exit> {
        let lines = rows.iter().map(|row| row.line(&self.fields));
        if self.is_stdout() {
            terminal::print(&lines.collect::<String>());
            return Ok(());
        }
        let write = || {
            let mut file = BufWriter::new(GrowingFile::begin(&self.path)?);
            for line in lines {
                file.write_all(line.as_bytes())?;
            }
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()
        };
        write().map_err(|error: std::io::Error| {
            terminal::complain(format!("{}: cannot be written: {error}", self.path.display()));
            Exit::Failed
        })
    }
}
