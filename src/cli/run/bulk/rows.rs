//! The rows of a bulk run: lines of a file, or the combinations of a sweep. Each row is parsed on request.
//!
//! Uses only the names of parameters; the check decides whether a row fits its graph.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lsregen_engine::{Diagnostic, Label, Override, Source, Span};
use lsregen_files::{Kind, invalid_name};

use super::csv::{self, Cell};
use super::sweep::Sweep;
use crate::cli::{Exit, usage};

/// The column that names a row.
const ID: &str = "id";

/// One row.
pub struct Row {
    /// From 1.
    pub number: usize,
    /// A valid name for a folder.
    pub name: String,
    pub overrides: Vec<Override>,
}

/// All rows.
pub enum Rows {
    /// JSON Lines: one object a line.
    Json { source: Arc<Source>, rows: Vec<Span> },
    /// CSV: cells under a header.
    Csv { source: Arc<Source>, header: Vec<Cell>, rows: Vec<Span> },
    /// Every combination of the values of some parameters.
    Sweep(Sweep),
}

impl Rows {
    /// Reads a file of JSON Lines or CSV, which its extension decides; `-` reads JSON Lines from stdin.
    ///
    /// # Errors
    /// When the file cannot be read, is not UTF-8, or has no rows; the reason is printed.
    pub fn read(path: &Path) -> Result<Rows, Exit> {
        let name = path.display().to_string();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if name != "-" && !matches!(&*extension, "jsonl" | "ndjson" | "json" | "csv") {
            return Err(usage(format!("--inputs {name}: the file must be .jsonl or .csv; rename it")));
        }
        let bytes = lsregen_files::read_or_stdin(path, Kind::ROWS)
            .map_err(|error| usage(format!("--inputs {name}: cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            usage(format!("--inputs {name}: line {line} is not UTF-8; save the file as UTF-8"))
        })?;
        let source = Source::new(if name == "-" { "<stdin>" } else { &name }, text);
        let rows = if extension == "csv" { Rows::csv(source) } else { Rows::json(source) };
        if rows.count() == 0 {
            return Err(usage(format!("--inputs {name}: the file has no rows")));
        }
        Ok(rows)
    }

    /// The rows of JSON Lines. Blank lines are skipped.
    pub fn json(source: Arc<Source>) -> Rows {
        let mut start = start(&source);
        let mut rows = vec![];
        for line in source.text()[start..].split_inclusive('\n') {
            let text = line.trim();
            if !text.is_empty() {
                let at = start + (line.len() - line.trim_start().len());
                rows.push(Span::new(at, at + text.len()));
            }
            start += line.len();
        }
        Rows::Json { source, rows }
    }

    fn csv(source: Arc<Source>) -> Rows {
        let (header, rows) = csv::read(&source, start(&source));
        Rows::Csv { source, header, rows }
    }

    pub fn count(&self) -> usize {
        match self {
            Rows::Json { rows, .. } | Rows::Csv { rows, .. } => rows.len(),
            Rows::Sweep(sweep) => sweep.count(),
        }
    }

    /// What the rows were read from, for messages.
    pub fn origin(&self) -> &str {
        match self {
            Rows::Json { source, .. } | Rows::Csv { source, .. } => source.name(),
            Rows::Sweep(_) => "--sweep",
        }
    }

    /// Adds the row to those of its errors that do not point into it: they come from several of its values, or from files.
    pub fn located(&self, index: usize, mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let Some(row) = self.label(index) else { return errors };
        for error in &mut errors {
            let labels = std::iter::once(&error.primary).chain(&error.secondary);
            if labels.into_iter().all(|label| !Arc::ptr_eq(&label.source, &row.source)) {
                error.secondary.push(Label { text: "in this row".into(), ..row.clone() });
            }
        }
        errors
    }

    /// Where a row is in its file: `rows.csv:3`.
    pub fn place(&self, index: usize) -> Option<String> {
        let label = self.label(index)?;
        Some(format!("{}:{}", label.source.name(), label.source.position(label.span.start).line))
    }

    /// Parses the row `index`, from 0. `params` are the parameters of the graph: a column `id` sets one only if the
    /// graph has a parameter of that name.
    ///
    /// # Errors
    /// The errors of the row, as far as they show without the graph.
    pub fn row(&self, index: usize, params: &[String]) -> Result<Row, Vec<Diagnostic>> {
        let number = index + 1;
        let mut overrides = match self {
            Rows::Sweep(sweep) => {
                return Ok(Row { number, name: sweep.name(index), overrides: sweep.overrides(index) });
            }
            Rows::Json { source, rows } => Override::members(source, rows[index])?,
            Rows::Csv { source, header, rows } => csv::overrides(source, header, rows[index])?,
        };
        let mut name = format!("{number:04}");
        if let Some(at) = overrides.iter().position(|given| given.name() == ID) {
            let id = &overrides[at];
            let error = |message| {
                vec![id.error("row-id", message).help("write an `id` that can name the row and its folder".to_string())]
            };
            name = id.text().ok_or_else(|| error("`id` must be a text".to_string()))?;
            if let Some(reason) = invalid(&name) {
                return Err(error(format!("the `id` {name:?} cannot name a folder: {reason}")));
            }
            if !params.iter().any(|param| param == ID) {
                overrides.remove(at);
            }
        }
        Ok(Row { number, name, overrides })
    }

    /// The row in its file; `None` for a sweep.
    fn label(&self, index: usize) -> Option<Label> {
        match self {
            Rows::Json { source, rows } | Rows::Csv { source, rows, .. } => Some(Label::new(source, rows[index], "")),
            Rows::Sweep(_) => None,
        }
    }
}

/// The names that are taken. They are compared without case, as many file systems do.
#[derive(Default)]
pub struct Names(HashMap<String, Option<usize>>);

impl Names {
    /// No row may have a name of `reserved`: files of these names lie beside the folders of the rows.
    pub fn new(reserved: impl IntoIterator<Item = String>) -> Names {
        Names(reserved.into_iter().map(|name| (name.to_lowercase(), None)).collect())
    }

    /// Records the name of the row `index`; returns an error if the name was recorded before.
    pub fn take(&mut self, rows: &Rows, index: usize, name: &str) -> Option<Diagnostic> {
        let former = self.0.insert(name.to_lowercase(), Some(index))?;
        let label = rows.label(index)?;
        let mut error = match former {
            Some(former) => {
                let message = format!("rows {} and {} have the same name `{name}`", former + 1, index + 1);
                let mut error = Diagnostic::error("row-id", message, label);
                let first = rows.label(former).map(|label| Label { text: "the first of them".into(), ..label });
                error.secondary.extend(first);
                error
            }
            None => Diagnostic::error("row-id", format!("`{name}` is the name of a file of the run itself"), label),
        };
        error.help = Some("give the row another `id`: it names the folder that the row writes to".into());
        Some(error)
    }
}

/// The reason why a name cannot name a folder on every system; `None` if it can.
fn invalid(name: &str) -> Option<&'static str> {
    let is_special = |c: char| "/\\:*?\"<>|".contains(c);
    match name {
        "" => Some("it is empty"),
        _ if name.len() > 100 => Some("it has more than 100 bytes"),
        _ if name.contains(is_special) => Some("it contains one of / \\ : * ? \" < > |"),
        _ if name.starts_with(['.', ' ', '~']) || name.ends_with(['.', ' ']) => {
            Some("it begins with a dot, a space or `~`, or ends with a dot or a space")
        }
        _ => invalid_name(name),
    }
}

/// The first byte after a byte order mark.
fn start(source: &Source) -> usize {
    if source.text().starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_folder_can_have_is_invalid() {
        let reserved = ["nul", "CON", "com1.x", "a\u{202e}b", "~"];
        for name in
            ["", ".", "..", "a/b", "a\\b", "a:b", "x\n", ".hidden", "end.", &"x".repeat(101)].iter().chain(&reserved)
        {
            assert!(invalid(name).is_some(), "{name:?}");
        }
        for name in ["1", "a red circle", "seed=1,cfg=2", "ä"] {
            assert!(invalid(name).is_none(), "{name:?}");
        }
    }
}
