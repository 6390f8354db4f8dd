//! A text with a name, and locations in it.
//!
//! Deals with bytes, lines and characters, not with YAML.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A range of bytes in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
}

impl Span {
    /// The bytes from `start` to before `end`.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    /// The span as a range.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A location for people. Lines and columns begin at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A text and its name in messages: the path of the file as the user gave it.
pub struct Source {
    name: String,
    text: String,
    /// The byte at which each line begins.
    lines: Vec<usize>,
    /// How many characters begin before every [`STEP`]th byte, so that the column in a very long line is found fast.
    steps: Vec<usize>,
}

const STEP: usize = 64;

impl Source {
    /// A source from its name and text.
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

    /// The name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the file, without its folder.
    pub(crate) fn file_name(&self) -> String {
        Path::new(&self.name).file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span; empty if the span is not within the text.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
    }

    /// The position of a byte. A byte beyond the end has the position of the end.
    pub fn position(&self, byte: usize) -> Position {
        let byte = byte.min(self.text.len());
        let line = self.lines.partition_point(|&start| start <= byte);
        Position { line, column: self.characters(byte).saturating_sub(self.characters(self.lines[line - 1])) + 1 }
    }

    /// How many characters begin before a byte.
    fn characters(&self, byte: usize) -> usize {
        let step = byte / STEP;
        let before = self.steps.get(step).copied().unwrap_or_else(|| {
            // The end of a text whose length is a multiple of the step.
            self.steps.last().map_or(0, |last| last + starts(&self.text.as_bytes()[(step - 1) * STEP..byte]))
        });
        before + starts(self.text.as_bytes().get(step * STEP..byte).unwrap_or_default())
    }

    /// The span of a line without its line break. Lines begin at 1; a line beyond the end is empty.
    pub fn line_span(&self, line: usize) -> Span {
        let at = |line: usize| self.lines.get(line).copied().unwrap_or(self.text.len());
        let (start, end) = (at(line.saturating_sub(1)), at(line));
        Span::new(start, start + self.text[start..end].trim_end_matches(['\n', '\r']).len())
    }
}

/// How many characters begin in these bytes of UTF-8.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}
