//! Properties that the check of every document must have.

use std::collections::HashSet;
use std::path::Path;

use lsregen_engine::{Checked, Diagnostic, Host, Override, Registry, Severity, Source, check, render, to_json};

/// Checks documents as the command does.
pub struct Judge {
    registry: Registry,
    host: Host,
}

impl Judge {
    pub fn new(repository: &Path) -> Judge {
        Judge { registry: lsregen_nodes::registry(), host: Host::new(repository.join("graphs"), "out") }
    }

    /// Checks a document.
    pub fn check(&self, text: &str, overrides: &[Override]) -> Checked {
        check(Source::new("graph.yaml", text), overrides, &self.registry, &self.host)
    }

    /// Checks a document and writes its diagnostics in every form; returns whether it was accepted.
    ///
    /// # Panics
    /// When a property does not hold.
    pub fn judge(&self, text: &str, overrides: &[Override]) -> bool {
        let checked = self.check(text, overrides);
        told(&checked.diagnostics);
        let faulty = checked.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        assert_ne!(checked.graph.is_some(), faulty, "a graph beside an error, or neither");
        let Some(graph) = checked.graph else { return false };
        let document = checked.document.expect("a graph without a document");
        assert!(document.params().iter().all(|(name, _)| !name.is_empty()));
        let mut before = HashSet::new();
        for &index in graph.order() {
            let node = graph.node(index);
            assert!(!node.name.is_empty());
            assert_eq!(node.inputs.len(), node.node_type.inputs.len());
            for link in node.inputs.iter().flatten() {
                assert!(before.contains(&link.producer), "`{}` comes before what it needs", node.name);
                assert!(link.output < graph.node(link.producer).node_type.outputs.len());
            }
            assert!(before.insert(index), "`{}` twice", node.name);
            // The nodes of an included graph are in another text.
            for path in ["", "boxes/0/box"] {
                let label = graph.locate(index, path);
                assert!(label.source.text().get(label.span.range()).is_some());
            }
        }
        true
    }

    /// Parses an argument of `--set`.
    ///
    /// # Panics
    /// When a property does not hold.
    pub fn set(&self, argument: &str) -> Option<Override> {
        match Override::parse(argument) {
            Ok(given) => Some(given),
            Err(fault) => {
                told(&[*fault]);
                None
            }
        }
    }
}

/// Asserts that every place is within its text and that every form can be written.
fn told(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        for label in std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary) {
            let inside = label.span.start <= label.span.end && label.source.text().get(label.span.range()).is_some();
            assert!(inside, "{}: {:?} does not lie in its text", diagnostic.message, label.span);
        }
        assert!(!diagnostic.message.is_empty() && !diagnostic.code.is_empty());
    }
    for color in [false, true] {
        assert_eq!(render(diagnostics, color).is_empty(), diagnostics.is_empty());
    }
    let json = to_json(diagnostics);
    let list = json.as_array().expect("a list");
    assert_eq!(list.len(), diagnostics.len());
    for fault in list {
        assert!(fault["line"].as_u64() >= Some(1) && fault["column"].as_u64() >= Some(1), "{fault}");
    }
}
