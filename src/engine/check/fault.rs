//! The faults of a check, each told once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span};

/// What was found so far.
#[derive(Default)]
pub(super) struct Faults {
    list: Vec<Diagnostic>,
    /// How many of them are known to be unlike each other.
    settled: usize,
    told: HashSet<(&'static str, *const Source, Span, String)>,
}

impl Faults {
    pub fn push(&mut self, fault: Diagnostic) -> &mut Diagnostic {
        self.list.push(fault);
        self.list.last_mut().expect("just pushed")
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn any_error(&self) -> bool {
        self.list.iter().any(Diagnostic::is_error)
    }

    /// Forgets what was told already: two steps may find one fault, and a file that is used twice has its faults twice.
    pub fn settle(&mut self) {
        let new = self.list.split_off(self.settled);
        self.list.extend(new.into_iter().filter(|fault| {
            let primary = &fault.primary;
            self.told.insert((fault.code, Arc::as_ptr(&primary.source), primary.span, fault.message.clone()))
        }));
        self.settled = self.list.len();
    }

    /// By their places in the graph's own file.
    pub fn in_order(mut self, source: &Arc<Source>) -> Vec<Diagnostic> {
        self.settle();
        self.list.sort_by_key(|fault| {
            let mut labels = std::iter::once(&fault.primary).chain(&fault.secondary);
            labels.find(|label| Arc::ptr_eq(&label.source, source)).map_or(0, |label| label.span.start)
        });
        self.list
    }
}
