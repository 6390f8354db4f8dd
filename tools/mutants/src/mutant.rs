//! A mutant: one change to one file, behind a switch.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// How a changed part of a file is put behind its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// The inside of a function's braces: `{ if on(N) { changed } else { original } }`.
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
    /// Bytes of the original file.
    pub span: Range<usize>,
    /// What stands there when the switch is on.
    pub text: String,
}

/// One change to one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutant {
    /// The number of its switch, from 1.
    pub id: u32,
    /// The file, from the root of the repository.
    pub file: String,
    pub line: usize,
    /// The rule that made it; `bug` if it was written by hand.
    pub rule: String,
    /// The change in words, or its texts before and after.
    pub change: String,
    pub site: Site,
    /// Larger sites for the same change, the smallest first, to be tried if this one does not compile.
    pub wider: Vec<Site>,
}

impl Mutant {
    /// A mutant of a rule, which has one site only. Its number is given when it is planted.
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

    /// Where it is, and what it changes, on one line.
    pub fn summary(&self) -> String {
        format!("{}:{} {}: {}", self.file, self.line, self.rule, self.change)
    }
}

/// The line of a byte, from 1.
pub fn line_of(source: &str, byte: usize) -> usize {
    source[..byte].matches('\n').count() + 1
}

/// A text on one line of at most 100 characters.
fn shortened(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}
