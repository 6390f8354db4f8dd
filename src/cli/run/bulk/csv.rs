//! CSV (RFC 4180) whose cells keep their places, so that an error can be shown in the file.

use std::collections::HashSet;
use std::sync::Arc;

use lsregen_engine::{Diagnostic, Label, Override, Source, Span};

/// A cell of a record.
pub struct Cell {
    /// Without the quotes.
    span: Span,
    /// With doubled quotes replaced by single ones.
    text: String,
    /// An error in its quotes.
    error: Option<&'static str>,
}

/// The header and the records of a source that begins at byte `start`. Blank lines are skipped.
pub fn read(source: &Source, start: usize) -> (Vec<Cell>, Vec<Span>) {
    let mut records = vec![];
    let mut at = start;
    while at < source.text().len() {
        let (_, end) = record(source.text(), at);
        if !source.slice(Span::new(at, end)).trim().is_empty() {
            records.push(Span::new(at, end));
        }
        at = end;
    }
    let mut records = records.into_iter();
    let header = records.next().map_or(vec![], |span| record(source.text(), span.start).0);
    (header, records.collect())
}

/// Reads a record as overrides. An empty cell keeps the graph's own value.
///
/// # Errors
/// When the record does not have the columns of the header, or a cell cannot be read.
pub fn overrides(source: &Arc<Source>, header: &[Cell], span: Span) -> Result<Vec<Override>, Vec<Diagnostic>> {
    let error = |message: String, span, help: &str| {
        Diagnostic::error("row", message, Label::new(source, span, "")).help(help.to_string())
    };
    let (cells, _) = record(source.text(), span.start);
    let whole = Span::new(span.start, span.start + source.slice(span).trim_end().len());
    if cells.len() != header.len() {
        let message = format!("the row has {} cells, but the header has {}", cells.len(), header.len());
        return Err(vec![error(message, whole, "put a cell that contains a comma in quotes")]);
    }
    let mut overrides: Vec<Override> = vec![];
    let mut errors = vec![];
    // There may be very many columns.
    let mut seen = HashSet::new();
    for (cell, column) in cells.iter().zip(header) {
        let name = column.text.trim();
        let is_first = seen.insert(name);
        if let Some(reason) = column.error.or(cell.error) {
            let span = if column.error.is_some() { column.span } else { cell.span };
            errors.push(error(reason.into(), span, "write a quote inside quotes twice"));
            continue;
        }
        if !is_first {
            errors.push(error(format!("the column `{name}` occurs twice"), column.span, "remove one of them"));
            continue;
        }
        let text = cell.text.trim();
        if text.is_empty() {
            continue;
        }
        let start = cell.span.start + (cell.text.len() - cell.text.trim_start().len());
        let inner = Span::new(start, start + text.len());
        let span = if source.slice(inner) == text { inner } else { cell.span };
        overrides.push(Override::read(source, (name, column.span), (text, span)));
    }
    if errors.is_empty() { Ok(overrides) } else { Err(errors) }
}

/// The record that begins at byte `at`, and the byte at which the next one begins.
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

/// The cell that begins at byte `at`, and the byte of the comma or line end after it.
fn cell(text: &str, at: usize) -> (Cell, usize) {
    let rest = &text[at..];
    let end_after = |from: usize| at + rest[from..].find([',', '\n', '\r']).map_or(rest.len(), |end| from + end);
    if !rest.starts_with('"') {
        let end = end_after(0);
        return (Cell { span: Span::new(at, end), text: text[at..end].into(), error: None }, end);
    }
    let mut unquoted = String::new();
    let mut from = 1;
    while let Some(quote) = rest[from..].find('"').map(|quote| from + quote) {
        unquoted.push_str(&rest[from..quote]);
        if rest[quote + 1..].starts_with('"') {
            unquoted.push('"');
            from = quote + 2;
            continue;
        }
        let end = end_after(quote + 1);
        let is_stray = !text[at + quote + 1..end].trim().is_empty();
        let error = is_stray.then_some("there is text after the closing quote of this cell");
        return (Cell { span: Span::new(at + 1, at + quote), text: unquoted, error }, end);
    }
    let first_line = rest.find(['\n', '\r']).unwrap_or(rest.len());
    let span = Span::new(at, at + first_line);
    (Cell { span, text: unquoted, error: Some("the quote that opens this cell is never closed") }, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, at: usize) -> (Vec<String>, usize) {
        let (cells, end) = record(text, at);
        (cells.into_iter().map(|cell| cell.text).collect(), end)
    }

    #[test]
    fn cells_are_separated_as_rfc_4180_says() {
        let text = "a,\"b, c\",\"d \"\"e\"\"\nf\",\r\nx,y";
        let (cells, next) = texts(text, 0);
        assert_eq!(cells, ["a", "b, c", "d \"e\"\nf", ""]);
        assert_eq!(texts(text, next), (vec!["x".into(), "y".into()], text.len()));
        let (open, end) = record("\"a\nb,c", 0);
        assert_eq!((open.len(), open[0].error.is_some(), end), (1, true, 6));
        assert!(record("\"a\"b,c", 0).0[0].error.is_some());
    }
}
