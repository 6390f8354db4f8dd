//! Documents that are generated from the code are up to date.

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
fn the_reference_of_codes_is_fresh() {
    let (generated, stderr, code) = outcome(lsregen().args(["explain", "--markdown"]).output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    let committed = fs::read_to_string(repository("docs/errors.md")).unwrap_or_default();
    assert!(generated == committed, "docs/errors.md is stale: cargo run -- explain --markdown > docs/errors.md");
}

#[test]
fn every_listed_code_is_explained_and_an_unknown_code_names_the_nearest() {
    let (list, _, _) = outcome(lsregen().arg("explain").output().unwrap());
    let codes = list.lines().filter(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next());
    let codes: Vec<_> = codes.collect();
    assert!(codes.len() > 40, "{list}");
    for name in ["unknown-type", codes[codes.len() - 1]] {
        let (text, stderr, code) = outcome(lsregen().args(["explain", name]).output().unwrap());
        assert!(code == 0 && text.starts_with(&format!("{name}: ")), "{name}: {text}{stderr}");
        assert!(text.contains("\nWrong:\n") && text.contains("\nRight:\n"), "{text}");
    }
    let (text, stderr, code) = outcome(lsregen().args(["explain", "unknwon-type"]).output().unwrap());
    assert!(code == 2 && text.is_empty() && stderr.contains("did you mean unknown-type?"), "{stderr}");
}

#[test]
fn the_schema_of_graphs_is_fresh_and_every_graph_names_it() {
    let (made, stderr, code) = outcome(lsregen().arg("schema").output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    let stands = fs::read_to_string(repository("docs/graph.schema.json")).unwrap_or_default();
    assert!(made == stands, "docs/graph.schema.json is stale: cargo run -- schema > docs/graph.schema.json");
    let graphs = fs::read_dir(repository("graphs")).unwrap().map(|entry| entry.unwrap().path());
    for path in graphs.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let text = fs::read_to_string(&path).unwrap();
        let modeline = "# yaml-language-server: $schema=../docs/graph.schema.json\n";
        assert!(text.starts_with(modeline), "{path:?} does not begin with {modeline}");
    }
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

/// README shows a graph and, with three mistakes in it, what the check prints.
#[test]
fn the_errors_in_readme_are_those_that_the_check_prints() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let from = |start: &str| {
        let at = readme.find(start).unwrap();
        &readme[at..at + readme[at..].find("```").unwrap()]
    };
    let graph = from("lsregen: 1\nparams:\n  prompt: a red");
    let mistakes =
        [("${prompt}", "${promt}"), ("[0.55, 0.50, 0.92,", "[0.92, 0.50, 0.55,"), ("layout.image", "layout.latent")];
    let graph = mistakes.iter().fold(graph.to_string(), |graph, (right, wrong)| graph.replace(right, wrong));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("my.yaml"), graph).unwrap();
    let (_, stderr, code) = outcome(lsregen().current_dir(folder.path()).args(["check", "my.yaml"]).output().unwrap());
    assert_eq!((stderr.as_str(), code), (from("error[unknown-param]: there is no parameter `promt`"), 78));
}
