//! What is wrong with a document, as data: drawn for a person or written as JSON from one type.
//!
//! Knows texts and places. Knows no node and no graph.

use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Map, Value as Json};

use crate::source::{Source, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing runs.
    Error,
    /// The graph runs, but surely not as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A marked place and what is to be said there.
#[derive(Clone)]
pub struct Label {
    pub source: Arc<Source>,
    pub span: Span,
    pub text: String,
}

impl Label {
    pub fn new(source: &Arc<Source>, span: Span, text: impl Into<String>) -> Label {
        Label { source: source.clone(), span, text: text.into() }
    }
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

impl Diagnostic {
    pub fn error(code: &'static str, message: impl Into<String>, primary: Label) -> Diagnostic {
        let message = message.into();
        Diagnostic { code, severity: Severity::Error, message, primary, secondary: vec![], help: None }
    }

    pub fn warning(code: &'static str, message: impl Into<String>, primary: Label) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, message, primary) }
    }

    pub fn label(mut self, label: Label) -> Diagnostic {
        self.secondary.push(label);
        self
    }

    pub fn help(mut self, help: impl Into<Option<String>>) -> Diagnostic {
        self.help = help.into();
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Drawn in full; of the others only the number is told, so that a hopeless file does not flood the terminal.
const DRAWN: usize = 100;

/// Places further apart than this many lines are drawn as two pieces of the text.
const GAP: usize = 40;

/// A line of more bytes than this is not drawn, only its place is told: no one reads it, and drawing takes long.
const LONGEST: usize = 4096;

/// Draws diagnostics for a person: the lines of the text, carets, labels, help.
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(120);
    let mut text = String::new();
    for diagnostic in diagnostics.iter().take(DRAWN) {
        text.push_str(&renderer.render(&[group(diagnostic)]));
        text.push_str("\n\n");
    }
    if let Some(more @ 1..) = diagnostics.len().checked_sub(DRAWN) {
        text.push_str(&format!("… and {more} more; `--json` tells them all\n\n"));
    }
    text
}

fn group(diagnostic: &Diagnostic) -> Group<'_> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
    let mut group = Group::with_title(title).elements(pieces(diagnostic));
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// First line, last line, and the labels between.
type Cluster<'a> = (usize, usize, Vec<(AnnotationKind, &'a Label)>);

/// The pieces of text to show: one for each cluster of labels, that with the primary label first.
fn pieces(diagnostic: &Diagnostic) -> Vec<Element<'_>> {
    let primary = &diagnostic.primary;
    if primary.source.text().is_empty() {
        return vec![Origin::path(primary.source.name()).into()];
    }
    let position = primary.source.position(primary.span.start);
    let line = |label: &Label| label.source.line_span(label.source.position(label.span.start).line);
    let all = std::iter::once(primary).chain(&diagnostic.secondary);
    if all.map(line).any(|line| line.end - line.start > LONGEST) {
        let origin = Origin::path(primary.source.name()).line(position.line).char_column(position.column);
        return vec![origin.into()];
    }
    let mut clusters: Vec<Cluster<'_>> = vec![];
    let labels = diagnostic.secondary.iter().map(|label| (AnnotationKind::Context, label));
    for (kind, label) in std::iter::once((AnnotationKind::Primary, primary)).chain(labels) {
        let line = label.source.position(label.span.start).line;
        let near = clusters.iter_mut().find(|(first, last, labels)| {
            Arc::ptr_eq(&labels[0].1.source, &label.source) && line + GAP >= *first && line <= *last + GAP
        });
        match near {
            Some((first, last, labels)) => {
                (*first, *last) = (line.min(*first), line.max(*last));
                labels.push((kind, label));
            }
            None => clusters.push((line, line, vec![(kind, label)])),
        }
    }
    clusters.into_iter().map(|(first, last, labels)| piece(first, last, &labels).into()).collect()
}

/// Lines `first` to `last` with their labels. Only these lines are handed on, so that drawing stays cheap.
fn piece<'a>(
    first: usize,
    last: usize,
    labels: &[(AnnotationKind, &'a Label)],
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let source = &labels[0].1.source;
    let window = Span::new(source.line_span(first).start, source.line_span(last).end);
    let annotations = labels.iter().map(|(kind, label)| {
        // A place of several lines is marked on its first.
        let line = source.line_span(source.position(label.span.start).line);
        let start = label.span.start.min(line.end);
        let end = label.span.end.clamp(start, line.end);
        let text = (!label.text.is_empty()).then_some(label.text.as_str());
        kind.span(start - window.start..end - window.start).label(text)
    });
    // The reference is to the source that the diagnostic holds, which lives for 'a.
    let text = labels[0].1.source.slice(window);
    Snippet::source(text).path(labels[0].1.source.name()).line_start(first).annotations(annotations)
}

/// The diagnostics for tools: a list of objects with `code`, `severity`, `message`, `file`, `line`, `column`,
/// `end_line`, `end_column` (from 1, columns in characters, the end exclusive), `label`, `related` and `help`.
pub fn to_json(diagnostics: &[Diagnostic]) -> Json {
    let objects = diagnostics.iter().map(|diagnostic| {
        let mut object = Map::new();
        object.insert("code".into(), diagnostic.code.into());
        object.insert("severity".into(), diagnostic.severity.name().into());
        object.insert("message".into(), diagnostic.message.as_str().into());
        object.extend(place(&diagnostic.primary));
        object.insert("related".into(), diagnostic.secondary.iter().map(place).collect());
        object.insert("help".into(), diagnostic.help.as_deref().into());
        object
    });
    objects.collect()
}

fn place(label: &Label) -> Map<String, Json> {
    let (start, end) = (label.source.position(label.span.start), label.source.position(label.span.end));
    let mut object = Map::new();
    object.insert("file".into(), label.source.name().into());
    object.insert("line".into(), start.line.into());
    object.insert("column".into(), start.column.into());
    object.insert("end_line".into(), end.line.into());
    object.insert("end_column".into(), end.column.into());
    object.insert("label".into(), label.text.as_str().into());
    object
}
