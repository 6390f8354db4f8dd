//! A corpus of faulty graphs, one for each kind of fault, each with the exact words that a user reads.
//!
//! `faults/<fault>.yaml` is checked as the command checks it; what it prints stands in `faults/<fault>.txt`. After a
//! change of words: `INSTA_UPDATE=always cargo test --test lsregen faults`, and read every one of them.

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
fn every_fault_is_told_in_its_own_words() {
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
        assert!(!checked.diagnostics.is_empty(), "{name}: nothing is found");
        for fault in to_json(&checked.diagnostics).as_array().unwrap() {
            assert!(fault["line"].as_u64().unwrap() >= 1 && fault["column"].as_u64().unwrap() >= 1, "{fault}");
        }
        let shown = render(&checked.diagnostics, false);
        // Messages name files as they were resolved; this machine's folders do not belong into a snapshot.
        let shown = shown.replace(&format!("{}/", repository("tests/faults").display()), "");
        settings.bind(|| insta::assert_snapshot!(name.as_str(), shown));
    }
}
