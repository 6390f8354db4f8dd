//! Models in folders, which `lsregen models` lists, and on the hub, which a local server replaces.

#[path = "../src/weights/tests/hub/server.rs"]
#[allow(dead_code)]
mod server;

use std::fs;
use std::path::Path;

use crate::{lsregen, outcome, repository};
use server::Server;

fn tree(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [0; 2000]).unwrap();
    }
}

/// The lines of the list: name, kind, size.
fn listed(stdout: &str) -> Vec<String> {
    let lines = stdout
        .lines()
        .filter(|line| !line.ends_with("built in"))
        .map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
    lines.collect()
}

#[test]
fn models_of_all_folders_are_listed() {
    let folders = tempfile::tempdir().unwrap();
    let root = folders.path();
    tree(root, &["comfy/models/checkpoints/xl/base.safetensors", "comfy/models/vae/fix.pt", "disk/sd.ckpt"]);
    tree(root, &["plain/a.safetensors", "plain/folder/model_index.json", "work/models/own.ckpt"]);
    // As ComfyUI expands it.
    let yaml = "disk:\n  base_path: $COMFY_DISK\n  checkpoints: |\n    ${COMFY_SUBFOLDER}\n    $COMFY_UNSET/x\n";
    fs::write(root.join("comfy/extra_model_paths.yaml"), yaml).unwrap();
    let mut command = lsregen();
    command.current_dir(root.join("work")).args(["models", "--models-dir"]).arg(root.join("comfy"));
    command.env("LSREGEN_MODELS_DIR", root.join("plain"));
    command.env("COMFY_DISK", root).env("COMFY_SUBFOLDER", "disk");
    let (stdout, stderr, code) = outcome(command.output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    let expected = [
        "a.safetensors any 2.0 KiB",
        "fix.pt VAE 2.0 KiB",
        "folder any 2.0 KiB",
        "own.ckpt any 2.0 KiB",
        "sd.ckpt model 2.0 KiB",
        "xl/base.safetensors model 2.0 KiB",
    ];
    assert_eq!(listed(&stdout), expected, "{stdout}");
    assert!(stdout.contains(&root.join("disk/sd.ckpt").display().to_string()), "{stdout}");
}

#[test]
fn missing_models_and_wrong_folders_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (stdout, stderr, code) = outcome(lsregen().current_dir(folder.path()).arg("models").output().unwrap());
    assert!(listed(&stdout).is_empty() && stderr.contains("no other models in") && code == 0, "{stderr}");
    let builtin: Vec<_> = stdout.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(builtin, ["shapes/gligen", "shapes/xl", "shapes/clip"], "{stdout}");
    for (name, form) in [("shapes/xl", ": sdxl, "), ("shapes/gligen", ": gligen, "), ("shapes/clip", ": CLIP in ")] {
        let output = lsregen().current_dir(folder.path()).args(["inspect", name]).output().unwrap();
        let (stdout, stderr, code) = outcome(output);
        assert!(code == 0 && stdout.starts_with(&format!("built-in {name}{form}")), "{stdout}{stderr}");
        let (_, stderr, code) = outcome(lsregen().current_dir(folder.path()).args(["fetch", name]).output().unwrap());
        assert!(code == 0 && stderr.contains("is built in"), "{stderr}");
    }
    let (_, stderr, code) =
        outcome(lsregen().args(["check", "graphs/sdxl.yaml", "--models-dir", "nowhere"]).output().unwrap());
    assert!(stderr.contains("--models-dir: `nowhere` is not a folder") && code == 2, "{stderr}");
    fs::write(folder.path().join("extra_model_paths.yaml"), "a: [").unwrap();
    let mut command = lsregen();
    let (_, stderr, code) = outcome(command.args(["models", "--models-dir"]).arg(folder.path()).output().unwrap());
    assert!(stderr.contains("extra_model_paths.yaml") && code == 2, "{stderr}");
}

#[test]
fn fetch_reports_errors() {
    let (_, stderr, code) = outcome(lsregen().args(["fetch", "models/sd"]).output().unwrap());
    assert!(stderr.contains("there is no graph `models/sd`") && code == 2, "{stderr}");
    let (_, stderr, code) = outcome(lsregen().args(["fetch", "hf:a/b/c.safetensors"]).output().unwrap());
    assert!(stderr.contains("hf:a/b:c.safetensors") && code == 2, "{stderr}");
    let cache = tempfile::tempdir().unwrap();
    let mut command = lsregen();
    command.args(["fetch", "hf:a/b"]).env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", cache.path());
    let (_, stderr, code) = outcome(command.output().unwrap());
    assert!(stderr.contains("HF_HUB_OFFLINE is set") && code == 1, "{stderr}");
}

/// The files of a built-in model, as a repository of the hub has them.
fn repository_of(model: &str) -> Vec<(String, Vec<u8>)> {
    let root = repository("models/shapes").join(model);
    let mut files = vec![("README.md".to_string(), b"a model".to_vec())];
    let mut ahead = vec![root.clone()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                ahead.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_string();
                files.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    files
}

#[test]
fn a_run_fetches_what_it_names_and_needs_no_network_afterwards() {
    let files = repository_of("xl");
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    let server = Server::start(&files);
    let folder = tempfile::tempdir().unwrap();
    let graph = "lsregen: 1\nnodes:\n  xl: { type: LoadModel, model: \"hf:owner/name\" }\n  sample: { type: SDXLSample, \
                 model: xl, prompt: a red circle on sand, steps: 1 }\n  image: { type: Decode, model: xl, latent: sample \
                 }\n  save: { type: SaveImage, image: image, path: xl.png }\n";
    fs::write(folder.path().join("graph.yaml"), graph).unwrap();
    let run = |verb: &[&str], variables: &[(&str, &str)]| {
        let mut command = lsregen();
        command.args(verb).current_dir(folder.path()).env("HF_HOME", folder.path().join("hub"));
        command.env("HF_ENDPOINT", &server.endpoint).envs(variables.iter().copied());
        outcome(command.output().unwrap())
    };
    let offline = [("HF_HUB_OFFLINE", "1")];

    // A check does not use the network, and says what it has not seen. Offline, the missing model is an error.
    for verb in ["check", "plan"] {
        let (_, stderr, code) = run(&[verb, "graph.yaml"], &[]);
        assert!(code == 0 && server.contents().is_empty(), "{stderr}");
        assert!(stderr.contains("warning[not-downloaded]") && stderr.contains("graph.yaml:3:"), "{stderr}");
    }
    for verb in ["check", "run"] {
        let (_, stderr, code) = run(&[verb, "graph.yaml"], &offline);
        assert!(code != 0 && stderr.contains("HF_HUB_OFFLINE is set") && stderr.contains("graph.yaml:3:"), "{stderr}");
    }

    // What is missing, and how large it is, is known without a download.
    for what in ["graph.yaml", "hf:owner/name"] {
        let (stdout, stderr, code) = run(&["fetch", "--dry-run", what], &[]);
        assert!(code == 0 && server.contents().is_empty(), "{stderr}");
        let weights = repository("models/shapes/xl/unet/diffusion_pytorch_model.safetensors").metadata().unwrap().len();
        let line = format!("{}  hf:owner/name:unet/diffusion_pytorch_model.safetensors\n", bytesize::ByteSize(weights));
        assert!(stdout.contains(&line) && !stdout.contains("README.md"), "{stdout}");
        assert!(stderr.ends_with(&format!("to download, in {} files\n", stdout.lines().count())), "{stderr}");
    }

    let (_, stderr, code) = run(&["run", "graph.yaml", "--no-cache"], &[]);
    assert!(code == 0 && stderr.contains("fetching unet/diffusion_pytorch_model.safetensors"), "{stderr}");
    let fetched = server.contents();
    assert!(!fetched.is_empty() && fetched.iter().all(|request| !request.path.ends_with("README.md")));
    let picture = fs::read(folder.path().join("xl.png")).unwrap();

    // Files that are already downloaded are used.
    let (_, stderr, code) = run(&["run", "graph.yaml", "--no-cache"], &offline);
    assert!(code == 0 && !stderr.contains("fetching"), "{stderr}");
    assert_eq!(fs::read(folder.path().join("xl.png")).unwrap(), picture);
    let (stdout, stderr, code) = run(&["fetch", "--dry-run", "graph.yaml"], &[]);
    assert!(code == 0 && stdout.is_empty() && stderr.ends_with("nothing is missing\n"), "{stdout}{stderr}");
    let (stdout, stderr, code) = run(&["inspect", "hf:owner/name"], &offline);
    assert!(code == 0 && stdout.contains("sdxl, folder in diffusers' layout"), "{stdout}{stderr}");

    // The family of the model is known now: a node that cannot use it gives an error.
    let wrong = graph.replace("SDXLSample", "GLIGENLayout").replace(", steps: 1", ", boxes: []");
    fs::write(folder.path().join("wrong.yaml"), wrong).unwrap();
    let (_, stderr, code) = run(&["check", "wrong.yaml"], &offline);
    assert!(code == 78 && stderr.contains("gligen"), "{stderr}");
}

#[test]
fn inspect_describes_onnx_files() {
    let file = repository("models/shapes/onnx/look.onnx");
    let run = |arguments: &[&str]| outcome(lsregen().arg("inspect").arg(&file).args(arguments).output().unwrap());
    let (stdout, stderr, code) = run(&[]);
    assert_eq!(code, 0, "{stderr}");
    for line in
        ["122 parameters", "input   `picture` float (1, 3, height, width)", "output  `edges` float (1, 2, 8, 8)"]
    {
        assert!(stdout.contains(line), "{stdout}");
    }
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"]).0).unwrap();
    assert_eq!((&json["form"], &json["operators"]["Conv"]), (&"onnx".into(), &3.into()));
    let (_, stderr, code) = outcome(lsregen().args(["inspect", "none.onnx"]).output().unwrap());
    assert!(code == 1 && stderr.contains("none.onnx"), "{stderr}");
}
