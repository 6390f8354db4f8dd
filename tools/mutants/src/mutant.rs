//! A mutant: one change to one file, behind a switch.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// How a changed part of a file is put behind its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// The body of a function: `{ if on(N) { changed } else { original } }`.
    Body,
    /// A statement, or the expression that ends a block: `if on(N) { changed } else { original }`.
    Statement,
    /// Any other expression: `(if on(N) { changed } else { original })`.
    Expression,
}

/// A part of a file that can be put behind a switch, and its changed text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub kind: Kind,
    /// Its bytes in the original file.
    pub span: Range<usize>,
    /// The text that replaces them when the switch is on.
    pub text: String,
}

/// One change to one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutant {
    /// The number of its switch, from 1.
    pub id: u32,
    /// The file, relative to the root of the repository.
    pub file: String,
    pub line: usize,
    /// The rule that made it; `bug` if it was written by hand.
    pub rule: String,
    /// A description of the change, or the text before and after it.
    pub change: String,
    pub site: Site,
    /// Larger sites for the same change, the smallest first, for the case that this one does not compile.
    pub wider: Vec<Site>,
}

impl Mutant {
    /// Creates a mutant of a rule, which has only one site. Planting assigns its number.
    pub fn by_rule(rule: &str, source: &str, kind: Kind, span: Range<usize>, text: String) -> Self {
        let before = shortened(&source[span.clone()]);
        let change = match text.as_str() {
            "" => format!("`{before}` deleted"),
            _ => format!("`{before}` → `{}`", shortened(&text)),
        };
        Mutant {
            id: 0,
            file: String::new(),
            line: line_of(source, span.start),
            rule: rule.to_string(),
            change,
            site: Site { kind, span, text },
            wider: Vec::new(),
        }
    }

    pub fn is_bug(&self) -> bool {
        self.rule == "bug"
    }

    /// Describes its location and its change on one line.
    pub fn summary(&self) -> String {
        format!("{}:{} {}: {}", self.file, self.line, self.rule, self.change)
    }
}

/// Returns the line of a byte, counted from 1.
pub fn line_of(source: &str, byte: usize) -> usize {
    source[..byte].matches('\n').count() + 1
}

/// Shortens a text to one line of at most 100 characters.
fn shortened(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}
