//! The texts that a check's values come from, and the way by which each came to where it is used.
//!
//! A value may be given on the command line or by an outer graph, and be written in by `${…}`, in several files one after
//! the other. Its faults are shown where it was written, the way it went beside it. Knows no document.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Label, Severity};
use crate::source::{Source, Span};
use crate::yaml::Place;

pub(crate) struct Texts {
    /// The first is the graph's own file.
    origins: Vec<Origin>,
}

struct Origin {
    source: Arc<Source>,
    /// The file in which values of this text are used, by its own number; of a file, itself.
    file: usize,
    /// Where that file declares the parameter that this text gives.
    declared: Option<Span>,
    way: Way,
}

/// How a text came in.
enum Way {
    /// From whoever asked for the check.
    Outside,
    /// As the file of a node that is a graph.
    Node { name: String, kind: Place },
    /// As a value that such a node was given, as it stands in the outer file.
    Given(Place),
}

impl Texts {
    pub fn new(source: Arc<Source>) -> Texts {
        Texts { origins: vec![Origin { source, file: 0, declared: None, way: Way::Outside }] }
    }

    fn add(&mut self, origin: Origin) -> usize {
        self.origins.push(origin);
        self.origins.len() - 1
    }

    /// A file that is the `type` of the node `name`.
    pub fn add_file(&mut self, source: Arc<Source>, name: String, kind: Place) -> usize {
        let file = self.origins.len();
        self.add(Origin { source, file, declared: None, way: Way::Node { name, kind } })
    }

    /// A value from the command line, for a parameter of `file`.
    pub fn add_override(&mut self, file: usize, source: Arc<Source>, declared: Option<Span>) -> usize {
        self.add(Origin { source, file, declared, way: Way::Outside })
    }

    /// A value that an outer file has at `place`, for a parameter that `file` declares.
    pub fn add_given(&mut self, file: usize, place: Place, declared: Span) -> usize {
        let source = self.source(place.origin).clone();
        self.add(Origin { source, file, declared: Some(declared), way: Way::Given(place) })
    }

    pub fn source(&self, origin: usize) -> &Arc<Source> {
        &self.origins[origin].source
    }

    pub fn label(&self, place: Place, text: impl Into<String>) -> Label {
        Label::new(self.source(place.origin), place.span, text)
    }

    /// Where a value stands in the file that uses it: itself, or the `${…}` that gave it.
    pub fn standing(&self, place: Place, text: impl Into<String>) -> Label {
        let origin = &self.origins[place.origin];
        match place.via {
            Some(via) => Label::new(self.source(origin.file), via, text),
            None => Label::new(&origin.source, place.span, text),
        }
    }

    /// The way that led to a place, the nearest first.
    pub fn way(&self, mut place: Place) -> Vec<Label> {
        let mut labels = vec![];
        loop {
            let origin = &self.origins[place.origin];
            let file = self.source(origin.file);
            labels.extend(place.via.map(|via| Label::new(file, via, "used here")));
            labels.extend(origin.declared.map(|declared| Label::new(file, declared, "declared here")));
            place = match &origin.way {
                Way::Outside => return labels,
                Way::Given(outer) => *outer,
                Way::Node { name, kind } => {
                    labels.push(self.standing(*kind, format!("`{name}` is this graph")));
                    // The way into the outer file; that of the name itself says nothing of the fault.
                    Place { origin: self.origins[kind.origin].file, ..Place::default() }
                }
            };
        }
    }

    /// An error at a place, the way to it marked too.
    pub fn error(
        &self,
        code: &'static str,
        message: impl Into<String>,
        place: Place,
        label: impl Into<String>,
    ) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(code, message, self.label(place, label));
        diagnostic.secondary = self.way(place);
        diagnostic
    }

    pub fn warning(&self, code: &'static str, message: impl Into<String>, place: Place) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..self.error(code, message, place, "") }
    }
}
