//! The faults of a check, each told once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Label};
use crate::sink::{DiagnosticSink, MOST};
use crate::source::{Source, Span};

/// What was found so far.
#[derive(Default)]
pub(super) struct CheckDiagnostics {
    found: DiagnosticSink,
    /// Of those that were found, also what is not kept.
    count: usize,
    /// How many of them are known to be unlike each other.
    settled: usize,
    told: HashSet<(&'static str, *const Source, Span, String)>,
}

impl CheckDiagnostics {
    pub fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        self.count += 1;
        self.found.push(diagnostic)
    }

    pub fn append(&mut self, found: DiagnosticSink) {
        self.count += found.list().len();
        self.found.append(found);
    }

    /// How many were found, told once or more often.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn any_error(&self) -> bool {
        self.found.any_error()
    }

    /// Forgets what was told already: two steps may find one diagnostic, and a file that is used twice has its faults twice.
    pub fn settle(&mut self) {
        if self.found.list().len() > self.settled {
            self.found.retain_from(self.settled, |diagnostic| {
                let primary = &diagnostic.primary;
                self.told.insert((
                    diagnostic.code,
                    Arc::as_ptr(&primary.source),
                    primary.span,
                    diagnostic.message.clone(),
                ))
            });
            self.settled = self.found.list().len();
        }
    }

    /// By their places in the graph's own file.
    pub fn in_order(mut self, source: &Arc<Source>) -> Vec<Diagnostic> {
        self.settle();
        let more = self.found.more();
        let mut list = self.found.into_list();
        list.sort_by_key(|diagnostic| {
            let mut labels = std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary);
            labels.find(|label| Arc::ptr_eq(&label.source, source)).map_or(0, |label| label.span.start)
        });
        if more {
            let message = format!("there is more to say of this graph than the {MOST} faults that are told");
            let diagnostic = Diagnostic::warning("more-faults", message, Label::new(source, Span::default(), ""));
            list.push(diagnostic.help("mend some of them, and check again".to_string()));
        }
        list
    }
}
