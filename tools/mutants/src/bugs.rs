//! Bugs written by hand: `bugs.toml`.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use syn::Expr;

use crate::mutant::{Kind, Mutant, Site, line_of};
use crate::sites::{self, Visitor, bytes};

/// The content of `bugs.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    bug: Vec<Bug>,
}

/// One bug.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// The file, relative to the root of the repository, or a glob that matches one file.
    pub file: String,
    /// A text that occurs exactly once in the file.
    pub find: String,
    /// The text that replaces it.
    pub put: String,
    /// What the bug breaks, for the report.
    pub breaks: String,
}

/// Reads `bugs.toml`.
pub fn read(path: &Path) -> Result<Vec<Bug>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(toml::from_str::<List>(&text).with_context(|| format!("{} is malformed", path.display()))?.bug)
}

impl Bug {
    /// Returns the path of the only file that matches.
    pub fn locate<'f>(&self, files: &'f [String]) -> Result<&'f str> {
        let pattern = glob::Pattern::new(&self.file)?;
        let found: Vec<_> = files.iter().filter(|file| pattern.matches(file)).collect();
        let [file] = found[..] else { bail!("`{}` matches {} files, and must match one", self.file, found.len()) };
        Ok(file)
    }

    /// Returns the mutant, at the smallest site around the change that can be put behind a switch.
    pub fn mutant(&self, name: &str, source: &str, file: &syn::File) -> Result<Mutant> {
        let found: Vec<_> = source.match_indices(&self.find).map(|(at, _)| at).collect();
        let [at] = found[..] else { bail!("{name} has `{}` {} times, and must have it once", self.find, found.len()) };
        ensure!(self.find != self.put, "{name}: `{}` is replaced by itself", self.find);
        let mut around = Around { changed: at..at + self.find.len(), found: Vec::new() };
        sites::walk(file, &mut around);
        around.found.sort_by_key(|(kind, span)| (span.len(), *kind));
        let changed = |(kind, span): (Kind, Range<usize>)| {
            let text = [&source[span.start..at], &self.put, &source[at + self.find.len()..span.end]].concat();
            Site { kind, span, text }
        };
        let mut all = around.found.into_iter().map(changed);
        let site = all
            .next()
            .with_context(|| format!("{name}: `{}` is in no expression, statement or function", self.find))?;
        Ok(Mutant {
            id: 0,
            file: name.to_string(),
            line: line_of(source, at),
            rule: "bug".to_string(),
            change: self.breaks.clone(),
            site,
            wider: all.collect(),
        })
    }
}

/// Collects the sites around a change.
struct Around {
    changed: Range<usize>,
    found: Vec<(Kind, Range<usize>)>,
}

impl Around {
    fn site(&mut self, kind: Kind, span: Range<usize>) {
        if span.start <= self.changed.start && self.changed.end <= span.end {
            self.found.push((kind, span));
        }
    }
}

impl Visitor for Around {
    fn expression(&mut self, kind: Kind, expr: &Expr) {
        self.site(kind, bytes(expr));
    }

    fn statement(&mut self, span: Range<usize>, _: Option<&Expr>) {
        self.site(Kind::Statement, span);
    }

    fn function(&mut self, _: &syn::Signature, body: Range<usize>) {
        self.site(Kind::Body, body);
    }
}
