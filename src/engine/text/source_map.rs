//! The texts that the values of a check come from, and how each text came to be used.
//!
//! A value may come from the command line or from an outer graph, and pass through several files by `${…}`. Its errors
//! point at where it was written, with labels for each step on its way. Independent of documents.

use std::sync::Arc;

use super::yaml::Location;
use super::{Diagnostic, Label, Severity, Source, Span};

/// All texts of a check. A [`Location`] refers to them by index.
pub(crate) struct SourceMap {
    /// The first one is the graph's own file.
    origins: Vec<Origin>,
}

struct Origin {
    source: Arc<Source>,
    /// The index of the file that uses the values of this text; for a file, its own index.
    file: usize,
    /// Where that file declares the parameter that gets the value.
    declared: Option<Span>,
    provenance: Provenance,
}

/// Where a text comes from.
enum Provenance {
    /// From the caller of the check.
    Caller,
    /// It is the graph file that the node `name` includes; `node_type` is the location of the node's `type`.
    Node { name: String, node_type: Location },
    /// It is a value in a node of an outer graph, at this location.
    OuterValue(Location),
    /// It is a text of the file with the values of parameters in it: their names, and where the values are.
    Composed(Vec<(String, Location)>),
}

impl SourceMap {
    pub fn new(source: Arc<Source>) -> SourceMap {
        SourceMap { origins: vec![Origin { source, file: 0, declared: None, provenance: Provenance::Caller }] }
    }

    fn add(&mut self, origin: Origin) -> usize {
        self.origins.push(origin);
        self.origins.len() - 1
    }

    /// Adds the file that is the `type` of the node `name`.
    pub fn add_file(&mut self, source: Arc<Source>, name: String, node_type: Location) -> usize {
        let file = self.origins.len();
        self.add(Origin { source, file, declared: None, provenance: Provenance::Node { name, node_type } })
    }

    /// Adds a value from the command line, for a parameter of `file`.
    pub fn add_override(&mut self, file: usize, source: Arc<Source>, declared: Option<Span>) -> usize {
        self.add(Origin { source, file, declared, provenance: Provenance::Caller })
    }

    /// Adds a value that an outer file has at `location`, for a parameter that `file` declares.
    pub fn add_given(&mut self, file: usize, location: Location, declared: Span) -> usize {
        let source = self.source(location.origin).clone();
        self.add(Origin { source, file, declared: Some(declared), provenance: Provenance::OuterValue(location) })
    }

    /// Adds a text of `file` that contains the values of parameters.
    pub fn add_composed(&mut self, file: usize, parts: Vec<(String, Location)>) -> usize {
        let source = self.source(file).clone();
        self.add(Origin { source, file, declared: None, provenance: Provenance::Composed(parts) })
    }

    pub fn source(&self, origin: usize) -> &Arc<Source> {
        &self.origins[origin].source
    }

    pub fn label(&self, location: Location, text: impl Into<String>) -> Label {
        Label::new(self.source(location.origin), location.span, text)
    }

    /// A label at a value in the file that uses it, or at the `${…}` that stands for it.
    pub fn usage(&self, location: Location, text: impl Into<String>) -> Label {
        let origin = &self.origins[location.origin];
        match location.via {
            Some(via) => Label::new(self.source(origin.file), via, text),
            None => Label::new(&origin.source, location.span, text),
        }
    }

    /// Labels for the steps by which the value at a location came to be used, the last step first.
    pub fn provenance(&self, mut location: Location) -> Vec<Label> {
        let mut labels = vec![];
        loop {
            let origin = &self.origins[location.origin];
            let file = self.source(origin.file);
            labels.extend(location.via.map(|via| Label::new(file, via, "used here")));
            labels.extend(origin.declared.map(|declared| Label::new(file, declared, "declared here")));
            location = match &origin.provenance {
                Provenance::Caller => return labels,
                Provenance::OuterValue(outer) => *outer,
                Provenance::Composed(parts) => {
                    for (name, part) in parts {
                        labels.push(self.label(*part, format!("the value of `{name}`")));
                        labels.extend(self.provenance(*part));
                    }
                    Location { origin: origin.file, ..Location::default() }
                }
                Provenance::Node { name, node_type } => {
                    labels.push(self.usage(*node_type, format!("`{name}` is this graph")));
                    // Continue with the outer file. How the name of the file was given is not relevant to the error.
                    Location { origin: self.origins[node_type.origin].file, ..Location::default() }
                }
            };
        }
    }

    /// An error at a location, with labels for its provenance.
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
