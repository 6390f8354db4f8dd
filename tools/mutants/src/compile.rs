//! Plants mutants, and drops those that do not compile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

use crate::mutant::{Kind, Mutant, Site};
use crate::rewrite::{Owner, Region};
use crate::tree::Tree;

/// Writes the tree, without mutants that do not compile, until it compiles. Returns the mutants that compile, and the
/// others.
pub fn plant(tree: &Tree, mutants: Vec<Mutant>) -> Result<(Vec<Mutant>, Vec<Mutant>)> {
    let (mut planted, mut dropped) = (Vec::new(), Vec::new());
    for mut mutant in mutants {
        let kept = if is_valid(&mut mutant) { &mut planted } else { &mut dropped };
        kept.push(mutant);
    }
    for round in 1.. {
        let regions = tree.write(&planted)?;
        let errors = check(tree)?;
        println!("round {round}: {} mutants planted, {} errors", planted.len(), errors.len());
        if errors.is_empty() {
            break;
        }
        let mut blamed = BTreeSet::new();
        for error in &errors {
            let ids = error.blamed(&regions);
            if ids.is_empty() {
                bail!("the tree does not compile, and not for a mutant:\n{}", error.rendered);
            }
            blamed.extend(ids);
        }
        for mut mutant in std::mem::take(&mut planted) {
            let kept = !blamed.contains(&mutant.id) || widen(&mut mutant);
            let kept = if kept { &mut planted } else { &mut dropped };
            kept.push(mutant);
        }
    }
    Ok((planted, dropped))
}

fn parses(site: &Site) -> bool {
    match site.kind {
        Kind::Expression => syn::parse_str::<syn::Expr>(&site.text).is_ok(),
        Kind::Body | Kind::Statement => syn::parse_str::<syn::Block>(&format!("{{{}\n}}", site.text)).is_ok(),
    }
}

/// Moves a mutant to its smallest site at which it is valid Rust. Returns whether there is one.
fn is_valid(mutant: &mut Mutant) -> bool {
    parses(&mutant.site) || widen(mutant)
}

/// Moves a mutant to its next larger site at which it is valid Rust. Returns whether there is one.
fn widen(mutant: &mut Mutant) -> bool {
    while !mutant.wider.is_empty() {
        mutant.site = mutant.wider.remove(0);
        if parses(&mutant.site) {
            return true;
        }
    }
    false
}

/// An error of the compiler.
struct CompileError {
    /// Files and bytes that the error points to, and whether each is the primary location.
    spans: Vec<(String, Range<usize>, bool)>,
    rendered: String,
}

impl CompileError {
    /// Returns the mutants that may have caused an error: those whose changed text contains it, or else all mutants of
    /// the sites around it or inside it.
    fn blamed(&self, regions: &BTreeMap<String, Vec<Region>>) -> Vec<u32> {
        let at = |file: &String| regions.get(file).into_iter().flatten();
        let mut changed = Vec::new();
        for (file, span, _) in &self.spans {
            let around =
                at(file).filter(|region| matches!(region.owner, Owner::Changed(_)) && holds(&region.span, span));
            if let Some(Region { owner: Owner::Changed(id), .. }) = around.min_by_key(|region| region.span.len()) {
                changed.push(*id);
            }
        }
        if !changed.is_empty() {
            return changed;
        }
        let primary = || self.spans.iter().filter(|(_, _, primary)| *primary);
        for (file, span, _) in primary() {
            let around = at(file).filter(|region| holds(&region.span, span)).min_by_key(|region| region.span.len());
            if let Some(Region { owner: Owner::Site(ids), .. }) = around {
                return ids.clone();
            }
        }
        // For instance a mutant deletes the assignment of a variable that is used later.
        let near = |a: &Range<usize>, b: &Range<usize>| a.start < b.end + 1500 && b.start < a.end + 1500;
        let inside = primary().flat_map(|(file, span, _)| at(file).filter(|region| near(&region.span, span)));
        inside.filter_map(|region| if let Owner::Changed(id) = region.owner { Some(id) } else { None }).collect()
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Runs `cargo check` on the libraries and programs of the tree.
fn check(tree: &Tree) -> Result<Vec<CompileError>> {
    let output = Command::new("cargo")
        .args(["check", "--workspace", "--keep-going", "--message-format=json", "--target-dir"])
        .arg(&tree.target)
        .current_dir(&tree.copy)
        .stderr(Stdio::piped())
        .output()
        .context("cannot run cargo")?;
    let mut errors = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let json: Json = serde_json::from_str(line).context("cargo prints JSON")?;
        let message = &json["message"];
        let spans = spans(message);
        if json["reason"] == "compiler-message" && message["level"] == "error" && !spans.is_empty() {
            let rendered = message["rendered"].as_str().unwrap_or_default().to_string();
            errors.push(CompileError { spans, rendered });
        }
    }
    let failed = !output.status.success() && errors.is_empty();
    ensure!(!failed, "cargo check fails: {}", String::from_utf8_lossy(&output.stderr));
    Ok(errors)
}

/// Returns every location that a message and its notes point to, also inside macro expansions.
fn spans(message: &Json) -> Vec<(String, Range<usize>, bool)> {
    let mut found = Vec::new();
    let list = |json: &Json| json.as_array().cloned().unwrap_or_default();
    for span in list(&message["spans"]) {
        let mut span = &span;
        let primary = span["is_primary"] == true;
        while span.is_object() {
            let byte = |name: &str| span[name].as_u64().unwrap_or_default() as usize;
            let file = span["file_name"].as_str().unwrap_or_default().to_string();
            found.push((file, byte("byte_start")..byte("byte_end"), primary));
            span = &span["expansion"]["span"];
        }
    }
    for child in list(&message["children"]) {
        found.extend(spans(&child).into_iter().map(|(file, span, _)| (file, span, false)));
    }
    found
}
