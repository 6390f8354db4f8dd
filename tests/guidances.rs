//! Guidances are interchangeable: in graphs/lsregen.yaml each can replace the other by a change of one node.

use std::fs;
use std::path::Path;

use lsregen_nodes::registry;

use crate::{lsregen, outcome, repository};

/// Every guidance as a node of lsregen.yaml, with its required parameters.
const GUIDANCES: &[(&str, &str)] = &[
    ("Invert", "model: large, latent: z0, prompt: \"${prompt}\", steps: \"${steps}\", window: \"${window}\""),
    ("Invert", "model: large, latent: z0, mode: noise, steps: \"${steps}\", strength: auto, layout: layout.layout"),
    ("ReferenceImage", "image: up, strength: \"${strength}\", mask: [[0.1, 0.1, 0.5, 0.5]], feather: 0.1"),
    ("LowPass", "image: up, factor: 4, scale: auto, layout: layout.layout, outside: 0.5"),
    ("Edges", "image: up, schedule: cosine, window: [0, 0.6]"),
    ("ColourLayout", "colours: [{ colour: \"#d02020\", box: [0.1, 0.2, 0.4, 0.5] }], repeats: 2, renoise: true"),
    ("ClipText", "clip: shapes/clip, text: \"a blue star on moss\", window: [0.1, 0.7]"),
    ("ClipImage", "clip: shapes/clip, image: up, distance: l2, scale: auto, layout: layout.layout"),
    ("Style", "clip: shapes/clip, image: up, layer: 2, renoise: false"),
    ("BoxDiff", "layout: layout.layout, scale: auto"),
    ("LayoutGuidance", "layout: layout.layout, until: 0.3, normalise: freedom, scale: 0.2"),
    ("BoundedAttention", "layout: layout.layout, scale: 30"),
    ("OnnxFeature", "path: ${onnx}, output: edges, image: up, scale: 0.5, window: [0, 0.4]"),
    ("Segmentation", "image: up, tolerance: 0.5, regions: [{ phrase: red circle, colour: \"#c04040\" }]"),
];

/// graphs/lsregen.yaml with another guidance node.
fn graph(guidance: Option<(&str, &str)>) -> String {
    let text = fs::read_to_string(repository("graphs/lsregen.yaml")).unwrap();
    let start = text.find("  guide:\n").unwrap();
    let end = start + text[start..].find("  sample:\n").unwrap();
    let node = match guidance {
        Some((kind, told)) => format!("  guide: {{ type: {kind}, {told} }}\n"),
        None => String::new(),
    };
    let text = [&text[..start], &node, &text[end..]].concat();
    // Parameters that only some of them use would give a warning.
    let params = ["strength", "window"].iter().filter(|name| !node.contains(&format!("${{{name}}}")));
    params.fold(text, |text, name| {
        let line = text.lines().find(|line| line.starts_with(&format!("  {name}: "))).unwrap().to_string();
        text.replace(&format!("{line}\n"), "")
    })
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    let onnx = repository("models/shapes/onnx/look.onnx");
    fs::write(&path, text.replace("${onnx}", onnx.to_str().unwrap())).unwrap();
    path.to_str().unwrap().to_string()
}

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
