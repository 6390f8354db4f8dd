//! Guidances are interchangeable: in graphs/lsregen.yaml each can replace the other by a change of one node.

use std::fs;

use lsregen_nodes::registry;

use crate::guided::{GUIDANCES, graph, write};
use crate::{lsregen, outcome, repository};

/// Every guidance node of the registry is in the list.
#[test]
fn every_guidance_node_is_listed() {
    let registry = registry();
    let guidances = registry.iter().filter(|entry| entry.node_type.outputs.iter().any(|o| o.type_name == "Guidance"));
    for entry in guidances {
        let name = entry.node_type.name;
        assert!(GUIDANCES.iter().any(|(kind, _)| *kind == name), "{name} is not tried");
    }
}

#[test]
fn a_guidance_is_replaced_by_changing_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = vec![];
    for (i, a) in GUIDANCES.iter().enumerate() {
        for (j, b) in GUIDANCES.iter().enumerate().filter(|(j, _)| *j != i) {
            let (before, after) = (graph(Some(*a)), graph(Some(*b)));
            let nodes = |text: &str| -> Vec<String> {
                let nodes = text[text.find("nodes:").unwrap()..].lines();
                nodes.filter(|line| !line.starts_with("  guide:")).map(String::from).collect()
            };
            assert_eq!(nodes(&before), nodes(&after));
            files.push(write(folder.path(), &format!("{i}-{j}.yaml"), &after));
        }
    }
    let run = lsregen().arg("check").args(&files).output().unwrap();
    let (stdout, stderr, code) = outcome(run);
    assert_eq!(code, 0, "{stdout}{stderr}");
    // The new guidance may leave nodes without use, which gives warnings.
    let judged =
        files.iter().filter(|file| [&stdout, &stderr].iter().any(|text| text.contains(&format!("{file}: ")))).count();
    assert_eq!(judged, files.len(), "{stdout}{stderr}");
}

/// Each guidance runs with the built-in models and changes the image.
#[test]
fn every_guidance_changes_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let picture = |name: &str, text: &str| {
        let file = write(folder.path(), &format!("{name}.yaml"), text);
        let out = folder.path().join(name);
        let arguments = ["run", &file, "--device", "cpu", "--no-metadata", "--set", "steps=3", "--output-dir"];
        let (_, stderr, code) = outcome(lsregen().args(arguments).arg(&out).output().unwrap());
        assert_eq!(code, 0, "{name}: {stderr}");
        fs::read(out.join("out/lsregen-0001.png")).unwrap()
    };
    let plain =
        picture("plain", &graph(None).replace("guidance: [guide]", "guidance: []\n    width: 256\n    height: 256"));
    let mut pictures = vec![plain];
    for (i, guidance) in GUIDANCES.iter().enumerate() {
        let made = picture(&format!("{i}-{}", guidance.0), &graph(Some(*guidance)));
        assert!(!pictures.contains(&made), "{guidance:?} changes nothing");
        pictures.push(made);
    }
}

/// The verdict about a network's gradient is kept in the cache, so that another seed does not test it again.
#[test]
fn a_network_is_tested_once_for_all_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let findings = || -> Vec<_> {
        let files = fs::read_dir(cache.join("v1/findings")).unwrap().map(Result::unwrap);
        files.map(|file| (file.file_name(), file.metadata().unwrap().modified().unwrap())).collect()
    };
    let run = |seed: u32, output: &str| {
        let text = fs::read_to_string(repository("graphs/onnx.yaml")).unwrap();
        let text = text
            .replace("../models/shapes/onnx/look.onnx", "${onnx}")
            .replace("output: colours", &format!("output: {output}"));
        let graph = write(folder.path(), "onnx.yaml", &text);
        let mut command = lsregen();
        command.args(["run", &graph, "--set", "steps=2", "--set", &format!("seed={seed}"), "--device", "cpu"]);
        let out = folder.path().join(seed.to_string());
        let run = command.arg("--cache-dir").arg(&cache).arg("--output-dir").arg(out).output().unwrap();
        let (_, stderr, code) = outcome(run);
        assert_eq!(code, 0, "{stderr}");
    };
    run(1, "colours");
    let first = findings();
    assert_eq!(first.len(), 1);
    run(2, "colours");
    assert_eq!(findings(), first);
    // Another output is another test.
    run(3, "edges");
    assert_eq!(findings().len(), 2);
}
