//! Faults as they are found, of which no more are kept than anyone would read.
//!
//! Knows only that they are errors or warnings.

use crate::diagnostic::Diagnostic;

/// Errors that are kept, and warnings: a bound for the memory and time of hopeless files.
pub(crate) const MOST: usize = 10_000;

#[derive(Default)]
pub(crate) struct DiagnosticSink {
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    /// The last that was not kept.
    spare: Option<Diagnostic>,
}

impl DiagnosticSink {
    /// The diagnostic, to be added to. Where there are enough it is not kept.
    pub fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        let alike = if diagnostic.is_error() { &mut self.errors } else { &mut self.warnings };
        if *alike == MOST {
            return self.spare.insert(diagnostic);
        }
        *alike += 1;
        self.list.push(diagnostic);
        self.list.last_mut().expect("just pushed")
    }

    pub fn append(&mut self, other: DiagnosticSink) {
        self.spare = self.spare.take().or(other.spare);
        for diagnostic in other.list {
            self.push(diagnostic);
        }
    }

    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Diagnostic> {
        self.list.iter_mut()
    }

    pub fn any_error(&self) -> bool {
        self.errors > 0
    }

    /// Whether some were not kept.
    pub fn more(&self) -> bool {
        self.spare.is_some()
    }

    /// Forgets those from the place `start` on that are not to be kept, and makes room for others.
    pub fn retain_from(&mut self, start: usize, keep: impl FnMut(&Diagnostic) -> bool) {
        let (kept, forgotten): (Vec<_>, Vec<_>) = self.list.split_off(start).into_iter().partition(keep);
        let errors = forgotten.iter().filter(|diagnostic| diagnostic.is_error()).count();
        self.errors -= errors;
        self.warnings -= forgotten.len() - errors;
        self.list.extend(kept);
    }

    pub fn into_list(self) -> Vec<Diagnostic> {
        self.list
    }
}
