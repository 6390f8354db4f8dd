//! Collects diagnostics, up to a limit.

use super::Diagnostic;

/// How many errors, and how many warnings, are kept. Limits the memory and time of files with very many errors.
pub(crate) const MAX_DIAGNOSTICS: usize = 10_000;

/// Errors and warnings, in the order in which they were reported.
#[derive(Default)]
pub(crate) struct DiagnosticSink {
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    /// The last diagnostic that was not kept.
    spare: Option<Diagnostic>,
}

impl DiagnosticSink {
    /// Adds a diagnostic, unless there are too many. Returns it, so that the caller can add to it.
    pub fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        let count = if diagnostic.is_error() { &mut self.errors } else { &mut self.warnings };
        if *count == MAX_DIAGNOSTICS {
            return self.spare.insert(diagnostic);
        }
        *count += 1;
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

    /// Whether diagnostics were not kept.
    pub fn is_full(&self) -> bool {
        self.spare.is_some()
    }

    /// Removes the diagnostics from the index `start` on for which `keep` returns false. Others can take their place.
    pub fn retain_from(&mut self, start: usize, keep: impl FnMut(&Diagnostic) -> bool) {
        let (kept, removed): (Vec<_>, Vec<_>) = self.list.split_off(start).into_iter().partition(keep);
        let errors = removed.iter().filter(|diagnostic| diagnostic.is_error()).count();
        self.errors -= errors;
        self.warnings -= removed.len() - errors;
        self.list.extend(kept);
    }

    pub fn into_list(self) -> Vec<Diagnostic> {
        self.list
    }
}
