//! Every graph in graphs/ is checked without warnings and runs with the built-in models.

use std::fs;
use std::path::Path;

use crate::{lsregen, outcome, repository};

fn graphs() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(repository("graphs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_graph_runs() {
    let graphs = graphs();
    for name in [
        "lsregen",
        "gligen",
        "gligen-large",
        "sdxl",
        "sdedit",
        "boxdiff",
        "bounded-attention",
        "layout-guidance",
        "multidiffusion",
        "demofusion",
        "onnx",
        "compare",
        "variations",
        "batch",
        "attention",
        "ablation-fraction",
        "ablation-strength",
        "ablation-steps",
        "ablation-boxes",
    ] {
        assert!(graphs.contains(&format!("{name}.yaml")), "graphs/{name}.yaml is missing");
    }
    for name in graphs {
        let folder = tempfile::tempdir().unwrap();
        // Two steps: one with guidance and one without.
        let few = match name.as_str() {
            "ablation-steps.yaml" => vec!["few=2", "some=3", "many=4"],
            _ => vec!["steps=2"],
        };
        let sets = few.into_iter().flat_map(|set| ["--set", set]);
        let arguments = ["run", &format!("graphs/{name}"), "--device", "cpu", "--output-dir"];
        let run = lsregen().args(arguments).arg(folder.path()).args(sets).output().unwrap();
        let (stdout, stderr, code) = outcome(run);
        assert_eq!(code, 0, "{name}: {stderr}");
        assert!(stdout.lines().all(|file| Path::new(file).is_file()) && !stdout.is_empty(), "{name}: {stdout}");
        assert!(!stderr.contains("warning"), "{name}: {stderr}");
        let written: Vec<_> = fs::read_dir(folder.path().join("out")).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(!written.is_empty(), "{name} wrote nothing");
        for path in written {
            // A complete PNG file: the signature at the start, the end chunk at the end.
            let bytes = fs::read(&path).unwrap();
            assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(b"IEND\xaeB`\x82"), "{path:?}");
        }
    }
}
