//! The dependencies between crates: the engine does not depend on tensors, the numeric crates do not depend on graphs,
//! and crates depend only on lower layers.

use std::collections::{BTreeMap, BTreeSet};
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
const LAYERS: [(&str, &[&str]); 7] = [
    ("lsregen-engine", &[]),
    ("lsregen-tensor", &[]),
    ("lsregen-weights", &["lsregen-tensor"]),
    ("lsregen-onnx", &["lsregen-tensor"]),
    ("lsregen-diffusion", &["lsregen-tensor", "lsregen-weights", "lsregen-onnx"]),
    ("lsregen-nodes", &["lsregen-engine", "lsregen-tensor", "lsregen-weights", "lsregen-onnx", "lsregen-diffusion"]),
    (
        "lsregen",
        &["lsregen-engine", "lsregen-tensor", "lsregen-weights", "lsregen-onnx", "lsregen-diffusion", "lsregen-nodes"],
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
