//! Every graph in graphs/ checks without a word and runs on the built-in models.

use std::fs;

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
    for name in ["lsregen.yaml", "gligen.yaml", "gligen-large.yaml", "sdxl.yaml", "compare.yaml", "variations.yaml"] {
        assert!(graphs.contains(&name.to_string()), "graphs/{name} is missing");
    }
    for name in graphs {
        let folder = tempfile::tempdir().unwrap();
        // Two steps: enough for a guided and an unguided one.
        let arguments = ["run", &format!("graphs/{name}"), "--device", "cpu", "--set", "steps=2", "--output-dir"];
        let (stdout, stderr, code) = outcome(lsregen().args(arguments).arg(folder.path()).output().unwrap());
        assert_eq!((stdout.as_str(), code), ("", 0), "{name}: {stderr}");
        assert!(!stderr.contains("warning"), "{name}: {stderr}");
        let written: Vec<_> = fs::read_dir(folder.path().join("out")).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(!written.is_empty(), "{name} wrote nothing");
        for path in written {
            // A PNG, whole: signature at the start, end chunk at the end.
            let bytes = fs::read(&path).unwrap();
            assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(b"IEND\xaeB`\x82"), "{path:?}");
        }
    }
}
