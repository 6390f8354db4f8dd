//! Who may know whom: the engine knows no tensor, the diffusion library no graph, the root package is the command alone.

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

#[test]
fn engine_and_diffusion_never_see_each_other() {
    let closures = closures();
    let (engine, diffusion) = (&closures["lsregen-engine"], &closures["lsregen-diffusion"]);
    for stranger in ["lsregen-diffusion", "lsregen-nodes", "image", "safetensors", "tokenizers"] {
        assert!(!engine.contains(stranger), "the engine knows {stranger}");
    }
    let candle: Vec<_> = engine.iter().filter(|name| name.starts_with("candle")).collect();
    assert!(candle.is_empty(), "the engine knows {candle:?}");
    for stranger in ["lsregen-engine", "lsregen-nodes", "petgraph", "serde_yaml", "tokio"] {
        assert!(!diffusion.contains(stranger), "the diffusion library knows {stranger}");
    }
    let nodes = &closures["lsregen-nodes"];
    assert!(nodes.contains("lsregen-engine") && nodes.contains("lsregen-diffusion") && !nodes.contains("lsregen"));
    assert!(closures["lsregen"].contains("lsregen-nodes"));
}
