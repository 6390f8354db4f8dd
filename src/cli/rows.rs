//! The rows of a bulk run: read from a file of inputs, or made of sweeps; each by itself, at its turn.
//!
//! Knows texts, names and places. Knows no node: whether a row fits its graph is the check's affair.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use lsregen_engine::{Diagnostic, Label, Override, Source, Span};

use super::sweep::Sweep;
use super::{Exit, usage};

/// The column that names a row.
const ID: &str = "id";

/// One run: its name, and the values it gives.
pub struct Row {
    /// From 1.
    pub number: usize,
    /// Fit to name a folder.
    pub name: String,
    pub overrides: Vec<Override>,
}

/// All rows, as compact as they were written.
pub enum Rows {
    /// An object a line.
    Json { source: Arc<Source>, rows: Vec<Span> },
    /// Cells under a header.
    Csv { source: Arc<Source>, header: Vec<Cell>, rows: Vec<Span> },
    /// Every combination of the values of some parameters.
    Sweep(Sweep),
}

impl Rows {
    /// Reads `path`: JSON Lines or CSV by its extension; `-` is JSON Lines from stdin.
    pub fn read(path: &Path) -> Result<Rows, Exit> {
        let name = path.display().to_string();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let mut bytes = vec![];
        let read = match name.as_str() {
            "-" => std::io::stdin().read_to_end(&mut bytes).map(|_| ()),
            _ if !matches!(&*extension, "jsonl" | "ndjson" | "json" | "csv") => {
                return Err(usage(format!("--inputs {name}: rows are read from .jsonl or .csv; rename the file")));
            }
            _ => fs::read(path).map(|read| bytes = read),
        };
        read.map_err(|error| usage(format!("--inputs {name}: cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            usage(format!("--inputs {name}: line {line} is not UTF-8; save the file as UTF-8"))
        })?;
        let source = Source::new(if name == "-" { "<stdin>" } else { &name }, text);
        let rows = if extension == "csv" { Rows::csv(source) } else { Rows::json(source) };
        if rows.count() == 0 {
            return Err(usage(format!("--inputs {name}: there are no rows in it")));
        }
        Ok(rows)
    }

    fn json(source: Arc<Source>) -> Rows {
        let mut start = beginning(&source);
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
        let mut records = vec![];
        let mut at = beginning(&source);
        while at < source.text().len() {
            let (_, end) = record(source.text(), at);
            if !source.slice(Span::new(at, end)).trim().is_empty() {
                records.push(Span::new(at, end));
            }
            at = end;
        }
        let mut records = records.into_iter();
        let header = records.next().map_or(vec![], |span| record(source.text(), span.start).0);
        Rows::Csv { header, rows: records.collect(), source }
    }

    pub fn count(&self) -> usize {
        match self {
            Rows::Json { rows, .. } | Rows::Csv { rows, .. } => rows.len(),
            Rows::Sweep(sweep) => sweep.count(),
        }
    }

    /// What faults of rows are faults of.
    pub fn called(&self) -> &str {
        match self {
            Rows::Json { source, .. } | Rows::Csv { source, .. } => source.name(),
            Rows::Sweep(_) => "--sweep",
        }
    }

    /// Row `index`, from 0. `params` are those of the graph: a column `id` is one of them only where it is there.
    ///
    /// # Errors
    /// What is wrong with the row by itself.
    pub fn row(&self, index: usize, params: &[String]) -> Result<Row, Vec<Diagnostic>> {
        let number = index + 1;
        let mut overrides = match self {
            Rows::Sweep(sweep) => {
                return Ok(Row { number, name: sweep.name(index), overrides: sweep.overrides(index) });
            }
            Rows::Json { source, rows } => Override::members(source, rows[index])?,
            Rows::Csv { source, header, rows } => cells(source, header, rows[index])?,
        };
        let mut name = format!("{number:04}");
        if let Some(at) = overrides.iter().position(|given| given.name() == ID) {
            let id = &overrides[at];
            let fault =
                |message| vec![id.error("row-id", message).help("an `id` names the row and its folder".to_string())];
            name = id.text().ok_or_else(|| fault("an `id` is a text".to_string()))?;
            if let Some(why) = unfit(&name) {
                return Err(fault(format!("the `id` {name:?} cannot name a folder: {why}")));
            }
            if !params.iter().any(|param| param == ID) {
                overrides.remove(at);
            }
        }
        Ok(Row { number, name, overrides })
    }

    /// Where the row stands: its `id`, or all of it.
    fn place(&self, index: usize) -> Option<Label> {
        match self {
            Rows::Json { source, rows } | Rows::Csv { source, rows, .. } => Some(Label::new(source, rows[index], "")),
            Rows::Sweep(_) => None,
        }
    }
}

/// Finds rows of one name. Names that differ in upper and lower case only are one name to many file systems.
#[derive(Default)]
pub struct Names(HashMap<String, Option<usize>>);

impl Names {
    /// `reserved`: files that stand beside the rows' folders.
    pub fn new(reserved: impl IntoIterator<Item = String>) -> Names {
        Names(reserved.into_iter().map(|name| (name.to_lowercase(), None)).collect())
    }

    /// The fault of row `index`, if its name is taken.
    pub fn take(&mut self, rows: &Rows, index: usize, name: &str) -> Option<Diagnostic> {
        let former = self.0.insert(name.to_lowercase(), Some(index))?;
        let place = rows.place(index)?;
        let mut fault = match former {
            Some(former) => {
                let message = format!("rows {} and {} are both called `{name}`", former + 1, index + 1);
                let mut fault = Diagnostic::error("row-id", message, place);
                fault
                    .secondary
                    .extend(rows.place(former).map(|label| Label { text: "the first of them".into(), ..label }));
                fault
            }
            None => Diagnostic::error("row-id", format!("`{name}` is a file of the run's own, not a row"), place),
        };
        fault.help = Some("give it an `id` of its own: it names the folder that the row writes to".into());
        Some(fault)
    }
}

/// Why a name cannot be a folder's, on any system; `None` where it can.
fn unfit(name: &str) -> Option<&'static str> {
    let stray = |c: char| c.is_control() || "/\\:*?\"<>|".contains(c);
    match name {
        "" => Some("it is empty"),
        _ if name.len() > 100 => Some("it has more than 100 bytes"),
        _ if name.contains(stray) => Some("it holds one of / \\ : * ? \" < > | or a control character"),
        _ if name.starts_with(['.', ' ']) || name.ends_with(['.', ' ']) => {
            Some("it begins or ends with a dot or space")
        }
        _ => None,
    }
}

/// After a byte order mark.
fn beginning(source: &Source) -> usize {
    if source.text().starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// A cell of CSV: where it stands, without its quotes, and what it says.
pub struct Cell {
    span: Span,
    text: String,
    /// What is wrong with its quotes.
    fault: Option<&'static str>,
}

/// The overrides of a record; an empty cell leaves the graph's own value.
fn cells(source: &Arc<Source>, header: &[Cell], span: Span) -> Result<Vec<Override>, Vec<Diagnostic>> {
    let fault = |message: String, span, help: &str| {
        Diagnostic::error("row", message, Label::new(source, span, "")).help(help.to_string())
    };
    let (cells, _) = record(source.text(), span.start);
    let whole = Span::new(span.start, span.start + source.slice(span).trim_end().len());
    if cells.len() != header.len() {
        let message = format!("the row has {} cells, but the header {}", cells.len(), header.len());
        return Err(vec![fault(message, whole, "a cell with a comma in it is put in quotes")]);
    }
    let mut overrides: Vec<Override> = vec![];
    let mut faults = vec![];
    for (cell, column) in cells.iter().zip(header) {
        let name = column.text.trim();
        if let Some(why) = column.fault.or(cell.fault) {
            let span = if column.fault.is_some() { column.span } else { cell.span };
            faults.push(fault(why.into(), span, "a quote within quotes is doubled"));
            continue;
        }
        if header.iter().take_while(|other| other.span != column.span).any(|other| other.text.trim() == name) {
            faults.push(fault(format!("the column `{name}` stands twice"), column.span, "remove one of them"));
            continue;
        }
        let text = cell.text.trim();
        if text.is_empty() {
            continue;
        }
        let start = cell.span.start + (cell.text.len() - cell.text.trim_start().len());
        let inner = Span::new(start, start + text.len());
        let span = if source.slice(inner) == text { inner } else { cell.span };
        match Override::read(source, (name, column.span), (text, span)) {
            Ok(given) => overrides.push(given),
            Err(fault) => faults.push(*fault),
        }
    }
    if faults.is_empty() { Ok(overrides) } else { Err(faults) }
}

/// The record that begins at byte `at` (RFC 4180), and where the next one does.
fn record(text: &str, mut at: usize) -> (Vec<Cell>, usize) {
    let bytes = text.as_bytes();
    let mut cells = vec![];
    loop {
        let (cell, end) = cell(text, at);
        cells.push(cell);
        match bytes.get(end) {
            Some(b',') => at = end + 1,
            Some(b'\r') if bytes.get(end + 1) == Some(&b'\n') => return (cells, end + 2),
            Some(_) => return (cells, end + 1),
            None => return (cells, end),
        }
    }
}

/// The cell that begins at byte `at`, and the comma, line end or text end after it.
fn cell(text: &str, at: usize) -> (Cell, usize) {
    let rest = &text[at..];
    let ends = |from: usize| at + rest[from..].find([',', '\n', '\r']).map_or(rest.len(), |end| from + end);
    if !rest.starts_with('"') {
        let end = ends(0);
        return (Cell { span: Span::new(at, end), text: text[at..end].into(), fault: None }, end);
    }
    let mut said = String::new();
    let mut from = 1;
    while let Some(quote) = rest[from..].find('"').map(|quote| from + quote) {
        said.push_str(&rest[from..quote]);
        if rest[quote + 1..].starts_with('"') {
            said.push('"');
            from = quote + 2;
            continue;
        }
        let end = ends(quote + 1);
        let stray = !text[at + quote + 1..end].trim().is_empty();
        let fault = stray.then_some("something stands after the closing quote of this cell");
        return (Cell { span: Span::new(at + 1, at + quote), text: said, fault }, end);
    }
    let first_line = rest.find(['\n', '\r']).unwrap_or(rest.len());
    let span = Span::new(at, at + first_line);
    (Cell { span, text: said, fault: Some("the quote that opens this cell is never closed") }, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, at: usize) -> (Vec<String>, usize) {
        let (cells, end) = record(text, at);
        (cells.into_iter().map(|cell| cell.text).collect(), end)
    }

    #[test]
    fn cells_are_parted_as_rfc_4180_says() {
        let text = "a,\"b, c\",\"d \"\"e\"\"\nf\",\r\nx,y";
        let (cells, next) = texts(text, 0);
        assert_eq!(cells, ["a", "b, c", "d \"e\"\nf", ""]);
        assert_eq!(texts(text, next), (vec!["x".into(), "y".into()], text.len()));
        let (open, end) = record("\"a\nb,c", 0);
        assert_eq!((open.len(), open[0].fault.is_some(), end), (1, true, 6));
        assert!(record("\"a\"b,c", 0).0[0].fault.is_some());
    }

    #[test]
    fn names_that_no_folder_can_have_are_unfit() {
        for name in ["", ".", "..", "a/b", "a\\b", "a:b", "x\n", ".hidden", "end.", &"x".repeat(101)] {
            assert!(unfit(name).is_some(), "{name:?}");
        }
        for name in ["1", "a red circle", "seed=1,cfg=2", "ä"] {
            assert!(unfit(name).is_none(), "{name:?}");
        }
    }
}
