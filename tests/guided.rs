//! graphs/lsregen.yaml with each guidance in turn.

use std::fs;
use std::path::Path;

use crate::repository;

/// Every guidance as a node of lsregen.yaml, with its required parameters.
pub const GUIDANCES: &[(&str, &str)] = &[
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
pub fn graph(guidance: Option<(&str, &str)>) -> String {
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

pub fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    let onnx = repository("models/shapes/onnx/look.onnx");
    fs::write(&path, text.replace("${onnx}", onnx.to_str().unwrap())).unwrap();
    path.to_str().unwrap().to_string()
}
