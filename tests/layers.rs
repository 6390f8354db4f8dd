//! The dependencies between crates: the engine does not depend on tensors, the numeric crates do not depend on graphs,
//! and crates depend only on lower layers. One crate opens files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

use crate::repository;

/// Package name → names of the packages that it is built from, itself included, by `cargo metadata`.
fn closures() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(repository(""))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Json = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let list = |json: &Json| json.as_array().cloned().expect("a list");
    let text = |json: &Json| json.as_str().expect("a text").to_string();
    let names: BTreeMap<_, _> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    let needs: BTreeMap<_, Vec<_>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            // Development dependencies do not end up in the crate.
            let built = |dep: &&Json| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
            let deps = list(&node["deps"]);
            (text(&node["id"]), deps.iter().filter(built).map(|dep| text(&dep["pkg"])).collect())
        })
        .collect();
    let ours = list(&metadata["workspace_members"]);
    ours.iter()
        .map(|id| {
            let mut seen = BTreeSet::new();
            let mut ahead = vec![text(id)];
            while let Some(id) = ahead.pop() {
                if seen.insert(id.clone()) {
                    ahead.extend(needs[&id].clone());
                }
            }
            (names[&text(id)].clone(), seen.iter().map(|id| names[id].clone()).collect())
        })
        .collect()
}

/// Each crate, and all crates of this workspace that it may depend on, from the lowest layer up.
const LAYERS: [(&str, &[&str]); 9] = [
    ("lsregen-files", &[]),
    ("lsregen-engine", &["lsregen-files"]),
    ("lsregen-tensor", &["lsregen-files"]),
    ("lsregen-weights", &["lsregen-files", "lsregen-tensor"]),
    ("lsregen-onnx", &["lsregen-files", "lsregen-tensor"]),
    ("lsregen-diffusion", &["lsregen-files", "lsregen-tensor", "lsregen-weights", "lsregen-onnx"]),
    ("lsregen-evaluation", &["lsregen-files", "lsregen-tensor"]),
    (
        "lsregen-nodes",
        &["lsregen-files", "lsregen-engine", "lsregen-tensor", "lsregen-weights", "lsregen-onnx", "lsregen-diffusion"],
    ),
    (
        "lsregen",
        &[
            "lsregen-files",
            "lsregen-engine",
            "lsregen-tensor",
            "lsregen-weights",
            "lsregen-onnx",
            "lsregen-diffusion",
            "lsregen-evaluation",
            "lsregen-nodes",
        ],
    ),
];

#[test]
fn dependencies_lead_downwards_only() {
    let closures = closures();
    for (name, below) in LAYERS {
        let ours = closures[name].iter().filter(|other| closures.contains_key(*other) && *other != name);
        let expected: BTreeSet<_> = below.iter().map(|name| name.to_string()).collect();
        assert_eq!(ours.cloned().collect::<BTreeSet<_>>(), expected, "{name}");
    }
    assert_eq!(closures.len(), LAYERS.len(), "a crate of the workspace has no layer");
}

/// Crates outside this workspace from which a crate must not be built. candle-core itself is built from tokenizers.
#[test]
fn each_crate_keeps_to_its_subject() {
    let closures = closures();
    let never = |name: &str, strangers: &[&str]| {
        let found: Vec<_> =
            closures[name].iter().filter(|other| strangers.iter().any(|s| other.starts_with(s))).collect();
        assert!(found.is_empty(), "{name} is built from {found:?}");
    };
    never("lsregen-engine", &["candle", "image", "safetensors", "tokenizers"]);
    never("lsregen-diffusion", &["petgraph", "serde_yaml", "tokio"]);
    never("lsregen-weights", &["candle-transformers", "prost"]);
    never("lsregen-onnx", &["candle-transformers", "ureq"]);
    never("lsregen-tensor", &["candle-transformers", "prost", "ureq"]);
}

/// The source files of the program, without tests, examples and benchmarks.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["tests", "examples", "benches", "target"].contains(&name) {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// Everything that reads a file that a person or another file names does so through `lsregen-files`, which refuses pipes and
/// devices, and bounds the size.
#[test]
fn one_crate_opens_files() {
    let ways = ["File::open(", "fs::read(", "fs::read_to_string(", "OpenOptions::open(", "Mmap", "image::open("];
    // Options are opened by the method of the builder.
    let options = |text: &str| text.contains(".open(") && (text.contains("options()") || text.contains("OpenOptions"));
    let is_way = |text: &str, way: &str| {
        text.match_indices(way).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let mut found = vec![];
    ["src", "nodes"].iter().for_each(|folder| sources(&repository(folder), &mut found));
    assert!(found.len() > 200, "{} files", found.len());
    for path in found.iter().filter(|path| !path.starts_with(repository("src/files"))) {
        let text = fs::read_to_string(path).unwrap();
        let program = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (line, text) in program.lines().enumerate() {
            let opens = options(text) || ways.iter().any(|way| is_way(text, way));
            assert!(!opens, "{}:{}: {text}", path.display(), line + 1);
        }
    }
}
