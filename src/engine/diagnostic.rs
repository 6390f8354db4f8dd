//! What is wrong with a document, as data: drawn for a person or written as JSON from one type.
//!
//! Knows texts and places. Knows no node and no graph.

use std::sync::Arc;

use crate::source::{Source, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing runs.
    Error,
    /// The graph runs, but surely not as meant.
    Warning,
}

/// A marked place and what is to be said there.
#[derive(Clone)]
pub struct Label {
    pub source: Arc<Source>,
    pub span: Span,
    pub text: String,
}

/// One fault, or one warning.
#[derive(Clone)]
pub struct Diagnostic {
    /// A stable name for tools, in kebab-case: `unknown-type`.
    pub code: &'static str,
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where.
    pub primary: Label,
    /// Other places that matter: the first of two equal keys, the producer of a value that does not fit.
    pub secondary: Vec<Label>,
    /// What to do.
    pub help: Option<String>,
}
