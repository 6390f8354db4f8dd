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
    /// Characters before each [`STEP`] of bytes, so that a place in a very long line is told as fast as any.
    steps: Vec<usize>,
}

const STEP: usize = 64;

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Source> {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let counts = text.as_bytes().chunks(STEP).scan(0, |sum, chunk| {
            let before = *sum;
            *sum += starts(chunk);
            Some(before)
        });
        let steps = counts.collect();
        Arc::new(Source { name: name.into(), text, lines, steps })
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
        Position { line, column: self.characters(byte).saturating_sub(self.characters(self.lines[line - 1])) + 1 }
    }

    /// Characters that begin before a byte of the text.
    fn characters(&self, byte: usize) -> usize {
        let step = byte / STEP;
        let before = self.steps.get(step).copied().unwrap_or_else(|| {
            // At the very end of a text of whole steps.
            self.steps.last().map_or(0, |last| last + starts(&self.text.as_bytes()[(step - 1) * STEP..byte]))
        });
        before + starts(self.text.as_bytes().get(step * STEP..byte).unwrap_or_default())
    }

    /// A line, counted from 1, without what ends it; beyond the text, its end.
    pub fn line_span(&self, line: usize) -> Span {
        let at = |line: usize| self.lines.get(line).copied().unwrap_or(self.text.len());
        let (start, end) = (at(line.saturating_sub(1)), at(line));
        Span::new(start, start + self.text[start..end].trim_end_matches(['\n', '\r']).len())
    }
}

/// Characters that begin in these bytes of UTF-8.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}
