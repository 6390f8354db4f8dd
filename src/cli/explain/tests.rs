//! Compares the table of codes with the sources, and its examples with the results of checks.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use lsregen_engine::{Diagnostic, Host, Override, Source, check, render};

use super::codes::{self, Example, FRAME, Form};
use crate::cli::run::bulk::Rows;

#[test]
fn every_code_in_the_sources_has_an_entry_and_every_entry_is_reported() {
    let reported = reported();
    let documented: BTreeSet<String> = codes::all().map(|code| code.name.into()).collect();
    assert_eq!(documented.len(), codes::all().count(), "a code has two entries");
    for (code, file) in &reported {
        assert!(documented.contains(code), "{}: the code `{code}` has no entry in src/cli/explain", file.display());
    }
    for code in &documented {
        assert!(reported.contains_key(code), "no source reports the code `{code}` of src/cli/explain");
    }
}

/// Returns the codes in the sources, each with a file that reports it: string literals for a parameter or field that is
/// called `code`.
fn reported() -> BTreeMap<String, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    ["src", "nodes"].iter().for_each(|folder| sources(&root.join(folder), &mut files));
    assert!(files.len() > 100, "{} sources", files.len());
    let texts: Vec<_> = files.into_iter().map(|path| (fs::read_to_string(&path).unwrap(), path)).collect();
    let takers: HashSet<&str> = texts.iter().flat_map(|(text, _)| takers(text)).collect();
    let literals = texts.iter().flat_map(|(text, path)| literals(text, &takers).map(move |code| (code, path.clone())));
    literals.collect()
}

/// Returns the Rust sources, without tests.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["tests", "benches", "examples", "explain"].contains(&name) {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns the functions and closures of a source that have a parameter `code`.
fn takers(text: &str) -> impl Iterator<Item = &str> {
    let parameter = text.match_indices("code: &'static str").filter_map(|(at, _)| {
        let (head, _) = text[..at].rsplit_once('(')?;
        let is_field = text[head.len()..at].contains(['{', '}', ';']);
        head.rsplit(' ').next().filter(|_| !is_field)
    });
    let closures = text.match_indices("|code").filter_map(|(at, _)| {
        let name = text[..at].trim_end().strip_suffix('=')?.trim_end();
        name.rsplit(' ').next()
    });
    parameter.chain(closures)
}

/// Returns the literals that are passed as a code: `taker("…"`, `taker(index, "…"`, or `code: "…"`.
fn literals<'t>(text: &'t str, takers: &HashSet<&str>) -> impl Iterator<Item = String> + use<'t> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let found: Vec<_> = text
        .match_indices('"')
        .filter(|(at, _)| {
            let before = text[..*at].trim_end();
            let before = before.strip_suffix(',').map_or(before, |rest| rest.trim_end_matches(is_word)).trim_end();
            // Not an attribute, such as `#[error("…")]`.
            let taker = |head: &str| {
                let rest = head.trim_end_matches(is_word);
                !rest.ends_with('[') && takers.contains(&head[rest.len()..])
            };
            before.ends_with(" code:") || before.strip_suffix('(').is_some_and(taker)
        })
        .filter_map(|(at, _)| text[at + 1..].split('"').next())
        .filter(|code| code.contains(|c: char| c.is_ascii_lowercase()))
        .filter(|code| code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        .map(str::to_string)
        .collect();
    found.into_iter()
}

#[test]
fn every_example_has_its_code_and_a_valid_correction() {
    let folder = tempfile::tempdir().unwrap();
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tensor/tests/fixtures/images/1.png");
    fs::copy(photo, folder.path().join("photo.png")).unwrap();
    let mut failures = vec![];
    for code in codes::all() {
        let Example { form, wrong, right } = code.example;
        assert!(wrong != right && wrong.ends_with('\n') && right.ends_with('\n'), "{}", code.name);
        if form == Form::Other {
            continue;
        }
        let is_code = |diagnostic: &Diagnostic| diagnostic.code == code.name;
        let found = diagnostics(form, wrong, folder.path());
        if !found.iter().any(is_code) || found.iter().any(|other| other.is_error() && !is_code(other)) {
            failures.push(format!("{}, wrong:\n{}", code.name, render(&found, false)));
        }
        let found = diagnostics(form, right, folder.path());
        if found.iter().any(|diagnostic| diagnostic.is_error() || is_code(diagnostic)) {
            failures.push(format!("{}, right:\n{}", code.name, render(&found, false)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn diagnostics(form: Form, example: &str, folder: &Path) -> Vec<Diagnostic> {
    let graph = match form {
        Form::Workflow => example.to_string(),
        Form::Nodes => framed(example),
        Form::Set => return Override::parse(example.trim_end()).err().map(|error| *error).into_iter().collect(),
        Form::Rows => return Rows::json(Source::new("rows.jsonl", example)).row(0, &[]).err().unwrap_or_default(),
        Form::Other => return vec![],
    };
    check(Source::new("example.yaml", graph), &[], &lsregen_nodes::registry(), &Host::new(folder, folder)).diagnostics
}

/// Returns the frame with the nodes of an example, each in place of the frame's node of the same name.
fn framed(example: &str) -> String {
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_string();
    let own: HashSet<_> = example.lines().map(name).collect();
    let frame = FRAME.lines().filter(|line| !own.contains(&name(line)));
    frame.chain(example.lines()).map(|line| format!("{line}\n")).collect()
}
