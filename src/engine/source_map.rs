//! The texts that a check's values come from, and the way by which each came to where it is used.
//!
//! A value may be given on the command line or by an outer graph, and be written in by `${…}`, in several files one after
//! the other. Its faults are shown where it was written, the way it went beside it. Knows no document.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Label, Severity};
use crate::source::{Source, Span};
use crate::yaml::Location;

pub(crate) struct SourceMap {
    /// The first is the graph's own file.
    origins: Vec<Origin>,
}

struct Origin {
    source: Arc<Source>,
    /// The file in which values of this text are used, by its own number; of a file, itself.
    file: usize,
    /// Where that file declares the parameter that this text gives.
    declared: Option<Span>,
    provenance: Provenance,
}

/// How a text came in.
enum Provenance {
    /// From whoever asked for the check.
    Outside,
    /// As the file of a node that is a graph.
    Node { name: String, kind: Location },
    /// As a value that such a node was given, as it stands in the outer file.
    Given(Location),
}

impl SourceMap {
    pub fn new(source: Arc<Source>) -> SourceMap {
        SourceMap { origins: vec![Origin { source, file: 0, declared: None, provenance: Provenance::Outside }] }
    }

    fn add(&mut self, origin: Origin) -> usize {
        self.origins.push(origin);
        self.origins.len() - 1
    }

    /// A file that is the `type` of the node `name`.
    pub fn add_file(&mut self, source: Arc<Source>, name: String, kind: Location) -> usize {
        let file = self.origins.len();
        self.add(Origin { source, file, declared: None, provenance: Provenance::Node { name, kind } })
    }

    /// A value from the command line, for a parameter of `file`.
    pub fn add_override(&mut self, file: usize, source: Arc<Source>, declared: Option<Span>) -> usize {
        self.add(Origin { source, file, declared, provenance: Provenance::Outside })
    }

    /// A value that an outer file has at `location`, for a parameter that `file` declares.
    pub fn add_given(&mut self, file: usize, location: Location, declared: Span) -> usize {
        let source = self.source(location.origin).clone();
        self.add(Origin { source, file, declared: Some(declared), provenance: Provenance::Given(location) })
    }

    pub fn source(&self, origin: usize) -> &Arc<Source> {
        &self.origins[origin].source
    }

    pub fn label(&self, location: Location, text: impl Into<String>) -> Label {
        Label::new(self.source(location.origin), location.span, text)
    }

    /// Where a value stands in the file that uses it: itself, or the `${…}` that gave it.
    pub fn usage(&self, location: Location, text: impl Into<String>) -> Label {
        let origin = &self.origins[location.origin];
        match location.via {
            Some(via) => Label::new(self.source(origin.file), via, text),
            None => Label::new(&origin.source, location.span, text),
        }
    }

    /// The way that led to a location, the nearest first.
    pub fn provenance(&self, mut location: Location) -> Vec<Label> {
        let mut labels = vec![];
        loop {
            let origin = &self.origins[location.origin];
            let file = self.source(origin.file);
            labels.extend(location.via.map(|via| Label::new(file, via, "used here")));
            labels.extend(origin.declared.map(|declared| Label::new(file, declared, "declared here")));
            location = match &origin.provenance {
                Provenance::Outside => return labels,
                Provenance::Given(outer) => *outer,
                Provenance::Node { name, kind } => {
                    labels.push(self.usage(*kind, format!("`{name}` is this graph")));
                    // The way into the outer file; that of the name itself says nothing of the fault.
                    Location { origin: self.origins[kind.origin].file, ..Location::default() }
                }
            };
        }
    }

    /// An error at a location, the way to it marked too.
    pub fn error(
        &self,
        code: &'static str,
        message: impl Into<String>,
        location: Location,
        label: impl Into<String>,
    ) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(code, message, self.label(location, label));
        diagnostic.secondary = self.provenance(location);
        diagnostic
    }

    pub fn warning(&self, code: &'static str, message: impl Into<String>, location: Location) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..self.error(code, message, location, "") }
    }
}
