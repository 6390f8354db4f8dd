//! Diagnostics: errors and warnings with their locations, printed for people or written as JSON.
//!
//! Deals with texts and spans, not with nodes or graphs.

use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Map, Value as Json};

use super::lines::filled;
use super::visible::{visible, visible_in_place};
use super::{Source, Span};

/// How serious a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The graph cannot run.
    Error,
    /// The graph can run, but probably not as intended.
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

/// A marked span, and the text to print there.
#[derive(Clone)]
pub struct Label {
    /// The text that contains the span.
    pub source: Arc<Source>,
    /// The marked span.
    pub span: Span,
    /// What to print at the span; may be empty.
    pub text: String,
}

impl Label {
    /// A label at a span.
    pub fn new(source: &Arc<Source>, span: Span, text: impl Into<String>) -> Label {
        Label { source: source.clone(), span, text: text.into() }
    }
}

/// An error or a warning.
#[derive(Clone)]
pub struct Diagnostic {
    /// A stable name for tools, in kebab-case: `unknown-type`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where the problem is.
    pub primary: Label,
    /// Related locations: the first of two equal keys, the producer of a value of the wrong type.
    pub secondary: Vec<Label>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without related locations and help.
    pub fn error(code: &'static str, message: impl Into<String>, primary: Label) -> Diagnostic {
        let message = message.into();
        Diagnostic { code, severity: Severity::Error, message, primary, secondary: vec![], help: None }
    }

    /// A warning without related locations and help.
    pub fn warning(code: &'static str, message: impl Into<String>, primary: Label) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, message, primary) }
    }

    /// Adds a related location.
    pub fn label(mut self, label: Label) -> Diagnostic {
        self.secondary.push(label);
        self
    }

    /// Sets the help.
    pub fn help(mut self, help: impl Into<Option<String>>) -> Diagnostic {
        self.help = help.into();
        self
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// How many diagnostics are printed. For the others only their number is printed, so that a file with very many errors does
/// not flood the terminal.
const MAX_PRINTED: usize = 100;

/// Labels that are more than this many lines apart are printed in separate snippets.
const GAP: usize = 40;

/// Lines with more bytes than this are not printed, only their position: nobody reads them, and printing them is slow.
const MAX_LINE: usize = 4096;

/// Formats diagnostics for people, where there is no terminal: see [`render_within`]. Messages are not broken into lines.
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    render_within(diagnostics, color, usize::MAX)
}

/// Formats diagnostics for people: the lines of the text with marks and labels, and the help, each as far as possible
/// within `columns`. A label that does not fit behind its mark is a note below it. `color` adds ANSI colours.
pub fn render_within(diagnostics: &[Diagnostic], color: bool, columns: usize) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut text = String::new();
    for diagnostic in diagnostics.iter().take(MAX_PRINTED) {
        let mut shown = diagnostic.clone();
        let mut notes = vec![];
        if !fits_beside_its_mark(&shown.primary, columns) {
            notes.push(std::mem::take(&mut shown.primary.text));
        }
        for label in shown.secondary.iter_mut().filter(|label| !fits_beside_its_mark(label, columns)) {
            let line = label.source.position(label.span.start).line;
            notes.push(format!("line {line}: {}", std::mem::take(&mut label.text)));
        }
        // The renderer's width is that of the source alone, behind `12 | `.
        let width = columns.min(120).saturating_sub(digits(diagnostic) + 3);
        text.push_str(&renderer.clone().term_width(width).render(&[group(&shown, &notes, columns)]));
        text.push_str("\n\n");
    }
    if let Some(more @ 1..) = diagnostics.len().checked_sub(MAX_PRINTED) {
        text.push_str(&format!("… and {more} more; `--json` prints them all\n\n"));
    }
    text
}

/// Breaks a text into lines that fit into `columns`, the first of them behind `before` other columns, and the others behind
/// `indent`. The renderer adds the indentation.
fn wrapped(text: &str, before: usize, indent: usize, columns: usize) -> String {
    if columns == usize::MAX {
        return text.into();
    }
    let (first, others) = (" ".repeat(before), " ".repeat(indent));
    let lines = filled(text, &first, &others, columns);
    let lines = lines.lines().enumerate().map(|(i, line)| line.get(if i == 0 { before } else { indent }..));
    lines.map(Option::unwrap_or_default).collect::<Vec<_>>().join("\n")
}

/// Whether the text of a label fits on the line of its mark, behind the mark.
fn fits_beside_its_mark(label: &Label, columns: usize) -> bool {
    let (start, end) = (label.source.position(label.span.start), label.source.position(label.span.end));
    let mark = if start.line == end.line { end.column } else { start.column };
    // `12 | `
    let margin = end.line.to_string().len() + 3;
    columns == usize::MAX || label.text.is_empty() || margin + mark + visible(&label.text).chars().count() <= columns
}

/// The digits of the largest line number of a diagnostic.
fn digits(diagnostic: &Diagnostic) -> usize {
    let labels = std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary);
    labels.map(|label| label.source.position(label.span.end).line).max().unwrap_or(1).to_string().len()
}

fn group<'a>(diagnostic: &'a Diagnostic, notes: &'a [String], columns: usize) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    // `error[code]: `.
    let before = diagnostic.severity.name().len() + diagnostic.code.len() + 4;
    let message = wrapped(&visible(&diagnostic.message), before, before, columns);
    let title = level.primary_title(message).id(diagnostic.code);
    let mut group = Group::with_title(title).elements(pieces(diagnostic, columns));
    // `   = note: ` and `   = help: `, below the number of the last line.
    let before = digits(diagnostic) + " = help: ".len();
    for note in notes {
        group = group.element(Level::NOTE.message(wrapped(&visible(note), before, before, columns)));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(wrapped(&visible(help), before, before, columns)));
    }
    group
}

/// First line, last line, and the labels between.
type Cluster<'a> = (usize, usize, Vec<(AnnotationKind, &'a Label)>);

/// The snippets of a diagnostic: one for each cluster of labels, beginning with that of the primary label.
fn pieces(diagnostic: &Diagnostic, columns: usize) -> Vec<Element<'_>> {
    let primary = &diagnostic.primary;
    if primary.source.text().is_empty() {
        return vec![Origin::path(visible(primary.source.name())).into()];
    }
    let position = primary.source.position(primary.span.start);
    let line = |label: &Label| label.source.line_span(label.source.position(label.span.start).line);
    let all = std::iter::once(primary).chain(&diagnostic.secondary);
    if all.map(line).any(|line| line.end - line.start > MAX_LINE) {
        let origin = Origin::path(visible(primary.source.name())).line(position.line).char_column(position.column);
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
    clusters.into_iter().map(|(first, last, labels)| piece(first, last, &labels, columns).into()).collect()
}

/// The lines `first` to `last` with their labels. Only these lines are passed to the renderer, so that it stays fast.
fn piece<'a>(
    first: usize,
    last: usize,
    labels: &[(AnnotationKind, &'a Label)],
    columns: usize,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let source = &labels[0].1.source;
    let window = Span::new(source.line_span(first).start, source.line_span(last).end);
    let annotations = labels.iter().map(|(kind, label)| {
        // If a span has several lines, only the part on the first line is marked.
        let line = source.line_span(source.position(label.span.start).line);
        let start = label.span.start.min(line.end);
        let end = label.span.end.clamp(start, line.end);
        // A mark that leaves no place for the renderer's `...` before and after it would not fit.
        let longest = source.slice(Span::new(start, end)).char_indices().nth(columns.saturating_sub(24));
        let end = longest.map_or(end, |(length, _)| start + length);
        let text = (!label.text.is_empty()).then(|| visible(&label.text));
        kind.span(start - window.start..end - window.start).label(text)
    });
    // Borrowed from the diagnostic, for 'a.
    let (text, name) = (labels[0].1.source.slice(window), labels[0].1.source.name());
    Snippet::source(visible_in_place(text)).path(visible(name)).line_start(first).annotations(annotations)
}

/// Writes diagnostics as JSON: a list of objects with `code`, `severity`, `message`, `file`, `line`, `column`,
/// `end_line`, `end_column` (from 1, columns in characters, the end exclusive), `label`, `related` and `help`.
pub fn to_json(diagnostics: &[Diagnostic]) -> Json {
    let objects = diagnostics.iter().map(|diagnostic| {
        let mut object = Map::new();
        object.insert("code".into(), diagnostic.code.into());
        object.insert("severity".into(), diagnostic.severity.name().into());
        object.insert("message".into(), diagnostic.message.as_str().into());
        object.extend(location(&diagnostic.primary));
        object.insert("related".into(), diagnostic.secondary.iter().map(location).collect());
        object.insert("help".into(), diagnostic.help.as_deref().into());
        object
    });
    objects.collect()
}

fn location(label: &Label) -> Map<String, Json> {
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
