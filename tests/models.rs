//! Where models are looked for by name: `lsregen models`.

use std::fs;
use std::path::Path;

use crate::{lsregen, outcome};

fn tree(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [0; 2000]).unwrap();
    }
}

/// Lines of the list: name, kind, size.
fn listed(stdout: &str) -> Vec<String> {
    let lines = stdout.lines().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
    lines.collect()
}

#[test]
fn models_of_all_folders_are_listed() {
    let folders = tempfile::tempdir().unwrap();
    let root = folders.path();
    tree(root, &["comfy/models/checkpoints/xl/base.safetensors", "comfy/models/vae/fix.pt", "disk/sd.ckpt"]);
    tree(root, &["plain/a.safetensors", "plain/folder/model_index.json", "work/models/own.ckpt"]);
    let yaml = format!("disk:\n  base_path: {}\n  checkpoints: |\n    disk\n", root.display());
    fs::write(root.join("comfy/extra_model_paths.yaml"), yaml).unwrap();
    let mut command = lsregen();
    command.current_dir(root.join("work")).args(["models", "--models-dir"]).arg(root.join("comfy"));
    command.env("LSREGEN_MODELS_DIR", root.join("plain"));
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
fn no_models_and_wrong_folders_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (stdout, stderr, code) = outcome(lsregen().current_dir(folder.path()).arg("models").output().unwrap());
    assert!(stdout.is_empty() && stderr.contains("no models in") && code == 0, "{stderr}");
    let (_, stderr, code) =
        outcome(lsregen().args(["check", "graphs/sdxl.yaml", "--models-dir", "nowhere"]).output().unwrap());
    assert!(stderr.contains("--models-dir: `nowhere` is no folder") && code == 2, "{stderr}");
    fs::write(folder.path().join("extra_model_paths.yaml"), "a: [").unwrap();
    let mut command = lsregen();
    let (_, stderr, code) = outcome(command.args(["models", "--models-dir"]).arg(folder.path()).output().unwrap());
    assert!(stderr.contains("extra_model_paths.yaml") && code == 2, "{stderr}");
}

#[test]
fn fetch_says_what_is_wrong() {
    let (_, stderr, code) = outcome(lsregen().args(["fetch", "models/sd"]).output().unwrap());
    assert!(stderr.contains("there is no file `models/sd`") && code == 2, "{stderr}");
    let (_, stderr, code) = outcome(lsregen().args(["fetch", "hf:a/b/c.safetensors"]).output().unwrap());
    assert!(stderr.contains("hf:a/b:c.safetensors") && code == 2, "{stderr}");
    let cache = tempfile::tempdir().unwrap();
    let mut command = lsregen();
    command.args(["fetch", "hf:a/b"]).env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", cache.path());
    let (_, stderr, code) = outcome(command.output().unwrap());
    assert!(stderr.contains("HF_HUB_OFFLINE is set") && code == 1, "{stderr}");
}
