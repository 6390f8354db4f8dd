//! A text with a name, and where in it things stand.
//!
//! Knows bytes, lines and characters. Knows no YAML.

use std::ops::Range;
use std::sync::Arc;

/// Where something stands in a text: a range of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A place for a person: line and column from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// A text and the name by which messages call it: a file's path as the user gave it.
pub struct Source {
    name: String,
    text: String,
    /// Byte at which each line begins.
    lines: Vec<usize>,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Source> {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Arc::new(Source { name: name.into(), text, lines })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span; nothing where the span does not lie in the text.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
    }

    /// The place of a byte; beyond the text, its end.
    pub fn position(&self, byte: usize) -> Position {
        let byte = byte.min(self.text.len());
        let line = self.lines.partition_point(|&start| start <= byte);
        let before = self.text.get(self.lines[line - 1]..byte).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }

    /// A line, counted from 1, without what ends it; beyond the text, its end.
    pub fn line_span(&self, line: usize) -> Span {
        let at = |line: usize| self.lines.get(line).copied().unwrap_or(self.text.len());
        let (start, end) = (at(line.saturating_sub(1)), at(line));
        Span::new(start, start + self.text[start..end].trim_end_matches(['\n', '\r']).len())
    }
}
