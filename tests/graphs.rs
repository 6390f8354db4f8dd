//! Every graph in graphs/ is checked without warnings and runs with the built-in models.

use std::fs;
use std::path::Path;

use crate::{lsregen, outcome, repository};

/// The graphs of a folder, by name.
fn graphs(folder: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(repository(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_graph_runs() {
    let graphs = graphs("graphs");
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

/// The paper's graphs name models of gigabytes. With the built-in ones in their place, each runs.
#[test]
fn the_paper_s_graphs_run_with_the_built_in_models() {
    let names = graphs("graphs/paper");
    assert!(names.contains(&"lsregen-sdxl.yaml".to_string()), "{names:?}");
    let small = [
        ("small", "shapes/gligen"),
        ("gligen", "null"),
        ("large", "shapes/xl"),
        ("vae", "null"),
        ("small_width", "128"),
        ("small_height", "128"),
        ("width", "256"),
        ("height", "256"),
        ("downscale", "2"),
        ("steps", "2"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("paper")).unwrap();
    for name in graphs("graphs") {
        fs::copy(repository(&format!("graphs/{name}")), at(&name)).unwrap();
    }
    for name in names {
        let graph = format!("graphs/paper/{name}");
        let (_, stderr, code) = outcome(lsregen().args(["check", &graph]).output().unwrap());
        assert_eq!(code, 0, "{name}: {stderr}");
        // The image of GLIGEN is square, as in the paper; it is known to be stretched.
        let known = |line: &&str| !["[not-downloaded]", "[stretched]"].iter().any(|code| line.contains(code));
        let others: Vec<_> = stderr.lines().filter(|line| line.starts_with("warning[")).filter(known).collect();
        assert!(others.is_empty(), "{name}: {others:?}");

        let line = |line: &str| match small.iter().find(|(param, _)| line.starts_with(&format!("  {param}: "))) {
            Some((param, value)) => format!("  {param}: {value}\n"),
            None => format!("{line}\n"),
        };
        let text = fs::read_to_string(repository(&graph)).unwrap();
        let (params, rest) = text.split_once("nodes:\n").unwrap();
        let copy = at(&format!("paper/{name}"));
        fs::write(&copy, params.lines().map(line).collect::<String>() + "nodes:\n" + rest).unwrap();
        let prompt = "prompt=a red circle and a blue square on moss";
        let boxes =
            "boxes=[{ phrase: a red circle, box: [0, 0, 0.5, 0.5] }, { phrase: a blue square, box: [0.5, 0.5, 1, 1] }]";
        let mut run = lsregen();
        run.arg("run").arg(&copy).args(["--device", "cpu", "--set", prompt, "--output-dir"]).arg(at("out"));
        if text.contains("\n  boxes:") {
            run.args(["--set", boxes]);
        }
        let (stdout, stderr, code) = outcome(run.output().unwrap());
        assert_eq!((code, stdout.lines().count()), (0, 1), "{name}: {stderr}");
        assert!(!stderr.contains("warning"), "{name}: {stderr}");
    }
}
