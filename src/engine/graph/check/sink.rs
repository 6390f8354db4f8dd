//! The errors and warnings of a check, each reported once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::text::{Diagnostic, DiagnosticSink, Label, MAX_DIAGNOSTICS, Source, Span};

/// The diagnostics so far.
#[derive(Default)]
pub(super) struct CheckDiagnostics {
    sink: DiagnosticSink,
    /// How many diagnostics were reported, including those that are not kept.
    count: usize,
    /// How many of the kept ones have been deduplicated.
    settled: usize,
    seen: HashSet<(&'static str, *const Source, Span, String)>,
}

impl CheckDiagnostics {
    pub fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        self.count += 1;
        self.sink.push(diagnostic)
    }

    pub fn append(&mut self, diagnostics: DiagnosticSink) {
        self.count += diagnostics.list().len();
        self.sink.append(diagnostics);
    }

    /// How many diagnostics were reported, including duplicates.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn any_error(&self) -> bool {
        self.sink.any_error()
    }

    /// Removes duplicates: two steps may find the same error, and a file that is included twice has its errors twice.
    pub fn settle(&mut self) {
        if self.sink.list().len() > self.settled {
            self.sink.retain_from(self.settled, |diagnostic| {
                let primary = &diagnostic.primary;
                self.seen.insert((
                    diagnostic.code,
                    Arc::as_ptr(&primary.source),
                    primary.span,
                    diagnostic.message.clone(),
                ))
            });
            self.settled = self.sink.list().len();
        }
    }

    /// All diagnostics, in the order of their locations in the graph's own file.
    pub fn in_order(mut self, source: &Arc<Source>) -> Vec<Diagnostic> {
        self.settle();
        let more = self.sink.is_full();
        let mut list = self.sink.into_list();
        list.sort_by_key(|diagnostic| {
            let mut labels = std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary);
            labels.find(|label| Arc::ptr_eq(&label.source, source)).map_or(0, |label| label.span.start)
        });
        if more {
            let message = format!("this graph has more problems than the {MAX_DIAGNOSTICS} that are reported");
            let diagnostic = Diagnostic::warning("more-faults", message, Label::new(source, Span::default(), ""));
            list.push(diagnostic.help("correct some of them, and check again".to_string()));
        }
        list
    }
}
