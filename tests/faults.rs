//! A corpus of graphs with errors, one for each kind, and the exact text that a user reads.
//!
//! `faults/NAME.yaml` is checked as the command does, and the output is compared with `faults/NAME.snap`. After a change of
//! messages run `INSTA_UPDATE=always cargo test --test lsregen faults`, and read every difference.

use std::fs;
use std::path::Path;

use lsregen_engine::{Host, Source, check, render, to_json};

use crate::repository;

fn faults() -> Vec<String> {
    let files = fs::read_dir(repository("tests/faults")).unwrap().map(|entry| entry.unwrap().path());
    let yaml = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let mut names: Vec<_> = yaml.map(|path| path.file_stem().unwrap().to_str().unwrap().to_string()).collect();
    names.sort();
    names
}

#[test]
fn every_error_is_reported_in_these_words() {
    let names = faults();
    assert!(names.len() >= 60, "{} faults", names.len());
    let registry = lsregen_nodes::registry();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("faults");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for name in names {
        let path = repository("tests/faults").join(&name).with_extension("yaml");
        let text = fs::read_to_string(&path).unwrap();
        let source = Source::new(format!("{name}.yaml"), text.as_str());
        let checked = check(source, &[], &registry, &Host::new(repository("tests/faults"), Path::new("")));
        assert!(!checked.diagnostics.is_empty(), "{name}: no diagnostics");
        for fault in to_json(&checked.diagnostics).as_array().unwrap() {
            assert!(fault["line"].as_u64().unwrap() >= 1 && fault["column"].as_u64().unwrap() >= 1, "{fault}");
        }
        let shown = render(&checked.diagnostics, false);
        // Messages name resolved paths; the folders of this machine do not belong in a snapshot.
        let shown = shown.replace(&format!("{}/", repository("tests/faults").display()), "");
        settings.bind(|| insta::assert_snapshot!(name.as_str(), shown));
    }
}
