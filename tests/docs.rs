//! Documents that are made from the code are as the code makes them.

use std::fs;

use crate::{lsregen, outcome, repository};

#[test]
fn the_reference_of_nodes_is_fresh() {
    let (made, stderr, code) = outcome(lsregen().args(["nodes", "--markdown"]).output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    let stands = fs::read_to_string(repository("docs/nodes.md")).unwrap_or_default();
    assert!(made == stands, "docs/nodes.md is stale: cargo run -- nodes --markdown > docs/nodes.md");
}

#[test]
fn every_type_has_a_reference() {
    let (list, _, _) = outcome(lsregen().arg("nodes").output().unwrap());
    let types: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for wanted in ["LoadModel", "GLIGENLayout", "Upsample", "VAEEncode", "Invert", "GuidedSDXLSample", "Decode"] {
        assert!(types.contains(&wanted), "{list}");
    }
    for name in types {
        let (text, stderr, code) = outcome(lsregen().args(["nodes", name]).output().unwrap());
        assert!(code == 0 && text.contains(name), "{name}: {stderr}");
    }
}
