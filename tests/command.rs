//! The command from outside: arguments, streams and exit codes.

use std::fs;

use serde_json::Value as Json;

use crate::{lsregen, outcome, repository};

#[test]
fn a_valid_graph_has_no_errors() {
    let (stdout, stderr, code) = outcome(lsregen().args(["check", "graphs/lsregen.yaml"]).output().unwrap());
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("", "graphs/lsregen.yaml: no errors\n", 0));
}

#[test]
fn a_bad_graph_ends_with_78_everywhere_and_nothing_runs() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("bad.yaml");
    fs::write(&graph, "lsregen: 1\nnodes:\n  save: { type: SaveImage, image: nothing, path: x.png }\n").unwrap();
    for verb in ["check", "run", "plan", "graph"] {
        let mut command = lsregen();
        command.arg(verb).arg(&graph);
        if matches!(verb, "run" | "plan") {
            command.arg("--output-dir").arg(folder.path()).args(["--device", "cpu"]);
        }
        let (stdout, stderr, code) = outcome(command.output().unwrap());
        assert_eq!((stdout.as_str(), code), ("", 78), "{verb}: {stderr}");
        assert!(stderr.contains("bad.yaml:3:") && stderr.contains("1 error"), "{verb}: {stderr}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_log_names_nodes_weights_and_steps_and_is_off_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.yaml");
    let text = "lsregen: 1\nnodes:\n\
        \x20 small: { type: LoadModel, model: shapes/gligen }\n\
        \x20 layout: { type: GLIGENLayout, model: small, prompt: a red circle, boxes: [], steps: 2, slots: 1, cfg: 1,\n\
        \x20   width: 64, height: 64 }\n\
        \x20 save: { type: SaveImage, image: layout.image, path: out.png }\n";
    fs::write(&graph, text).unwrap();
    let run = |arguments: &[&str], directives: Option<&str>| {
        let mut command = lsregen();
        command.arg("run").arg(&graph).args(["--no-cache", "--quiet", "--device", "cpu", "--output-dir"]);
        command.arg(folder.path()).args(arguments).envs(directives.map(|directives| ("RUST_LOG", directives)));
        let (stdout, stderr, code) = outcome(command.output().unwrap());
        assert_eq!(stdout.trim_end(), folder.path().join("out.png").to_str().unwrap().repeat(usize::from(code == 0)));
        (stderr, code)
    };
    assert_eq!(run(&[], None), (String::new(), 0));
    let (info, _) = run(&["-v"], None);
    assert!(info.contains("node{node=layout") && info.contains("network=\"unet\""), "{info}");
    assert!(!info.contains("step{"), "{info}");
    let (debug, _) = run(&["-vv"], None);
    assert!(debug.contains("node=layout") && debug.contains("step{number=2 of=2"), "{debug}");
    let (engine, _) = run(&["-vv"], Some("lsregen_engine=info"));
    assert!(engine.contains("node{node=save") && !engine.contains("unet"), "{engine}");
    let (malformed, code) = run(&[], Some("lsregen=loud"));
    assert!(code == 2 && malformed.contains("RUST_LOG=lsregen=loud"), "{malformed}");
}

#[test]
fn json_has_each_error_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("bad.yaml");
    fs::write(&graph, "lsregen: 1\nnodes:\n  save: { type: SaveImage, image: nothing, path: x.png }\n").unwrap();
    let (stdout, stderr, code) = outcome(lsregen().args(["check", "--json"]).arg(&graph).output().unwrap());
    assert_eq!((stderr.as_str(), code), ("", 78));
    let faults: Json = serde_json::from_str(&stdout).unwrap();
    let fault = &faults[0];
    assert_eq!((&fault["line"], &fault["severity"]), (&Json::from(3), &Json::from("error")));
    assert!(fault["file"].as_str().unwrap().ends_with("bad.yaml"));
    assert!(fault["column"].as_u64().unwrap() > 1 && fault["code"].is_string());
}

#[test]
fn invalid_command_lines_end_with_2() {
    for arguments in [
        &["run", "no-such.yaml"][..],
        &["check"],
        &["nodes", "LoadModle"],
        &["run", "graphs/sdxl.yaml", "--device", "tpu"],
        &["run", "graphs/sdxl.yaml", "--set", "noequals"],
        &["graph", "graphs/sdxl.yaml", "--format", "png"],
    ] {
        let (stdout, stderr, code) = outcome(lsregen().args(arguments).output().unwrap());
        assert_eq!((stdout.as_str(), code), ("", 2), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty() && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
    let (_, stderr, _) = outcome(lsregen().args(["nodes", "LoadModle"]).output().unwrap());
    assert!(stderr.contains("LoadModel"), "{stderr}");
}

/// Flags, subcommands and names that users of other programs bring.
#[test]
fn an_argument_of_another_program_gets_a_hint() {
    for (arguments, words) in [
        (&["run", "g.yaml", "--steps", "5"][..], "--set steps=VALUE"),
        (&["run", "g.yaml", "--num_inference_steps=5"], "--set steps=VALUE"),
        (&["check", "g.yaml", "--prompt", "x"], "--set prompt=VALUE"),
        (&["run", "g.yaml", "-o", "x.png"], "--output-dir DIR"),
        (&["run", "g.yaml", "--dry-run"], "lsregen plan GRAPH"),
        (&["run", "g.yaml", "--swep", "seed=1"], "--sweep"),
        (&["rum", "g.yaml"], "'run'"),
        (&["rnu", "g.yaml"], "write `lsregen run`"),
        (&["g.yaml"], "lsregen run g.yaml"),
        (&["validate", "g.yaml"], "lsregen check"),
        (&["nodes", "KSampler"], "did you mean SDXLSample?"),
        (&["nodes", "CLIPTextEncode"], "a sampling node encodes its own `prompt`"),
        (&["fetch", "stabilityai/sdxl-turbo"], "hf:stabilityai/sdxl-turbo"),
        (&["inspect", "https://huggingface.co/a/b/blob/main/c.safetensors"], "hf:a/b:c.safetensors"),
    ] {
        let (_, stderr, code) = outcome(lsregen().args(arguments).output().unwrap());
        assert!(code == 2 && stderr.contains(words), "{arguments:?}: {code} {stderr}");
    }
    let arguments = ["check", "graphs/sdxl.yaml", "--set", "num_inference_steps=3"];
    let (_, stderr, code) = outcome(lsregen().args(arguments).output().unwrap());
    assert!(code == 78 && stderr.contains("did you mean `steps`?"), "{stderr}");
}

#[test]
fn a_graph_without_output_nodes_is_valid_but_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("model.yaml");
    fs::write(&graph, "lsregen: 1\nnodes: { m: { type: LoadModel, model: shapes/xl } }\noutputs: { model: m }\n")
        .unwrap();
    let (_, stderr, code) = outcome(lsregen().arg("check").arg(&graph).output().unwrap());
    assert!(stderr.ends_with("no errors\n") && code == 0, "{stderr}");
    let (_, stderr, code) = outcome(lsregen().args(["run", "--device", "cpu"]).arg(&graph).output().unwrap());
    assert!(stderr.contains("this graph writes nothing") && code == 2, "{stderr}");
}

#[test]
fn an_unknown_parameter_on_the_command_line_is_shown_with_a_caret() {
    let arguments = ["check", "graphs/sdxl.yaml", "--set", "promt=a star"];
    let (_, stderr, code) = outcome(lsregen().args(arguments).output().unwrap());
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("promt") && stderr.contains("prompt") && stderr.contains('^'), "{stderr}");
}

#[test]
fn plan_names_every_node() {
    let (stdout, stderr, code) = outcome(lsregen().args(["plan", "graphs/gligen.yaml"]).output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.lines().count() >= 3 && stdout.contains("GLIGENLayout"), "{stdout}");
}

#[test]
fn graphs_are_drawn_in_every_format() {
    let draw = |format: &str| {
        let (stdout, stderr, code) =
            outcome(lsregen().args(["graph", "graphs/lsregen.yaml", "--format", format]).output().unwrap());
        assert_eq!(code, 0, "{format}: {stderr}");
        stdout
    };
    let dot = draw("dot");
    assert!(dot.starts_with("digraph") && dot.contains("GLIGENLayout") && dot.contains("->"), "{dot}");
    let mermaid = draw("mermaid");
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains("-->"), "{mermaid}");
    let svg = draw("svg");
    assert!(svg.contains("<svg") && svg.contains("GLIGENLayout") && svg.trim_end().ends_with("</svg>"), "{svg}");
}

#[test]
fn a_failed_run_reports_the_node_and_what_it_blocks() {
    let folder = tempfile::tempdir().unwrap();
    // The check does not decode an image.
    let mut image = fs::read(repository("docs/compare.png")).unwrap();
    let data = image.windows(4).position(|name| name == b"IDAT").unwrap() + 4;
    image[data..data + 8].fill(0xff);
    fs::write(folder.path().join("broken.png"), image).unwrap();
    let graph = "lsregen: 1\nnodes:\n  photo: { type: LoadImage, path: broken.png }\n  \
                 save: { type: SaveImage, image: photo, path: x.png }\n";
    fs::write(folder.path().join("graph.yaml"), graph).unwrap();
    let (_, stderr, code) =
        outcome(lsregen().current_dir(folder.path()).args(["run", "graph.yaml", "--device", "cpu"]).output().unwrap());
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("photo failed: ") && stderr.contains("corrupt image") && stderr.contains("save"),
        "{stderr}"
    );
}

#[test]
fn a_run_from_another_folder_finds_the_built_in_models() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["run", "--device", "cpu", "--quiet", "--set", "steps=1"];
    let output =
        lsregen().current_dir(folder.path()).args(arguments).arg(repository("graphs/sdxl.yaml")).output().unwrap();
    let (stdout, stderr, code) = outcome(output);
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("out/sdxl-0001.png\n", "", 0));
    assert!(folder.path().join("out/sdxl-0001.png").is_file());
}
