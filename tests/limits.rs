//! Files that are no files, too few of the system's means, and paths that are no text.

#![cfg(unix)]

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use serde_json::Value as Json;

use crate::{copy_folder, lsregen, repository};

/// Runs a command for at most 30 seconds. Returns stderr and the exit code.
fn ends(command: &mut Command) -> (String, i32) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > Duration::from_secs(30) => {
                child.kill().unwrap();
                panic!("{command:?} does not end");
            }
            None => sleep(Duration::from_millis(10)),
        }
    };
    let mut stderr = String::new();
    child.stderr.unwrap().read_to_string(&mut stderr).unwrap();
    (stderr, status.code().expect("it was not killed"))
}

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

const GRAPH: &str = "\
lsregen: 1
nodes:
  small: { type: LoadModel, model: MODEL }
  layout: { type: Layout, layout_file: LAYOUT }
  image: { type: LoadImage, path: IMAGE }
  look: { type: OnnxFeature, path: NETWORK, image: image }
  sample: { type: GuidedSDSample, model: small, guidance: [look], prompt: a circle, steps: 1 }
  out: { type: Decode, model: small, latent: sample }
  boxes: { type: DrawLayout, image: out, layout: layout }
  save: { type: SaveImage, image: boxes, path: x.png }
";

/// Events may go to a pipe, but not to one that nobody reads: opening it would wait.
#[test]
fn a_pipe_for_events_needs_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    pipe(&here("pipe"));
    let command = || {
        let mut command = lsregen();
        command.current_dir(folder.path()).env("LSREGEN_CACHE_DIR", here("cache"));
        command
    };
    let graph = "lsregen: 1\nnodes:\n  layout: { type: Layout, boxes: [{ phrase: a, box: [0, 0, 0.5, 0.5] }] }\n  \
                 ok: { type: LoadImage, path: a.png }\n  save: { type: SaveImage, image: ok, path: x.png }\n";
    fs::copy(repository("docs/compare.png"), here("a.png")).unwrap();
    fs::write(here("graph.yaml"), graph).unwrap();
    let (stderr, code) = ends(command().args(["run", "graph.yaml", "--events", "pipe"]));
    assert!(code == 2 && stderr.contains("no process reads this pipe"), "{stderr}");
}

/// A pipe would make a command wait, and a device would be read without end.
#[test]
fn pipes_and_devices_are_refused_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    pipe(&here("pipe"));
    for part in ["", "unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        let (from, to) = (repository("models/shapes/gligen").join(part), here("model").join(part));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let command = || {
        let mut command = lsregen();
        command.current_dir(folder.path()).env("LSREGEN_CACHE_DIR", here("cache"));
        command
    };
    let kinds = ["MODEL", "LAYOUT", "IMAGE", "NETWORK"];
    for stranger in [here("pipe").display().to_string(), "/dev/zero".to_string()] {
        for kind in kinds {
            let mut graph = GRAPH.replace(kind, &stranger);
            kinds.iter().for_each(|other| graph = graph.replace(other, "missing"));
            fs::write(here("graph.yaml"), graph).unwrap();
            let (stderr, code) = ends(command().args(["check", "graph.yaml"]));
            assert!(code == 78 && stderr.contains("pipe or a device"), "{kind}: {stderr}");
        }
        for arguments in [
            vec!["check", &stranger],
            vec!["run", &stranger],
            vec!["show", &stranger],
            vec!["inspect", &stranger],
            vec!["run", "graph.yaml", "--inputs", "pipe.jsonl"],
        ] {
            pipe(&here("pipe.jsonl"));
            let (stderr, code) = ends(command().args(&arguments));
            assert!(code != 0 && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
        }
    }
    // Parts of a model.
    for part in [
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
        "scheduler/scheduler_config.json",
    ] {
        let path = here("model").join(part);
        let Ok(bytes) = fs::read(&path) else { continue };
        pipe(&path);
        let (stderr, code) = ends(command().args(["inspect", "./model"]));
        assert!(code != 0 && !stderr.contains("panicked"), "{part}: {stderr}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    // The cache: its lock, an entry, a value.
    fs::write(here("in.png"), fs::read(repository("docs/compare.png")).unwrap()).unwrap();
    let copies = "lsregen: 1\nnodes:\n  image: { type: LoadImage, path: in.png }\n  small: { type: Upsample, image: image, width: 8, height: 8 }\n  save: { type: SaveImage, image: small, path: x.png }\n";
    fs::write(here("graph.yaml"), copies).unwrap();
    let run = || ends(command().args(["run", "graph.yaml", "--device", "cpu", "--quiet"]));
    assert_eq!(run().1, 0);
    let mut replaced = 0;
    for kind in ["entries", "blobs"] {
        for inner in fs::read_dir(here("cache/v1").join(kind)).unwrap() {
            for file in fs::read_dir(inner.unwrap().path()).unwrap() {
                pipe(&file.unwrap().path());
                replaced += 1;
            }
        }
    }
    assert!(replaced >= 4);
    let (stderr, code) = run();
    assert!(code == 0 && !stderr.contains("panicked"), "{stderr}");
    pipe(&here("cache/v1/lock"));
    fs::write(here("graph.yaml"), copies.replace("width: 8", "width: 16")).unwrap();
    let (stderr, code) = run();
    assert!(code == 0 && stderr.contains("pipe or a device"), "{stderr}");
    for verb in ["status", "verify", "gc", "clear"] {
        let (stderr, _) = ends(command().args(["cache", verb]));
        assert!(!stderr.contains("panicked"), "{verb}: {stderr}");
    }
}

#[test]
fn too_few_open_files_are_an_error() {
    for verb in ["run", "watch"] {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "ulimit -n 6 && exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_lsregen"),
            verb,
            "graphs/sdxl.yaml",
        ]);
        let (stderr, code) = ends(command.args(["--no-cache", "--device", "cpu"]).current_dir(repository("")));
        assert!(code == 1 && stderr.contains("6 open files are too few") && stderr.contains("ulimit -n"), "{stderr}");
    }
}

#[test]
fn paths_that_are_no_text_are_paths() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(OsStr::from_bytes(b"m\xff"));
    copy_folder(&repository("models/shapes/gligen"), &odd);
    let (stderr, code) = ends(lsregen().arg("inspect").arg(&odd));
    assert_eq!(code, 0, "{stderr}");
    // A graph, its output folder, and the events.
    let graph = odd.join("graph.yaml");
    fs::write(odd.join("in.png"), fs::read(repository("docs/compare.png")).unwrap()).unwrap();
    let text = "lsregen: 1\nnodes:\n  image: { type: LoadImage, path: in.png }\n  small: { type: Upsample, image: image, width: 8, height: 8 }\n  save: { type: SaveImage, image: small, path: x.png }\n";
    fs::write(&graph, text).unwrap();
    for arguments in [&["--json"][..], &["--events", "jsonl"], &[]] {
        let run = ["run", "--no-cache", "--device", "cpu", "--output-dir"];
        let (stderr, code) = ends(lsregen().args(run).arg(odd.join("out")).arg(&graph).args(arguments));
        assert_eq!(code, 0, "{stderr}");
    }
    let mut watch = lsregen();
    watch
        .args(["watch", "--no-cache", "--device", "cpu", "--events", "jsonl", "--output-dir"])
        .arg(odd.join("watched"));
    let mut watch = watch.arg(&graph).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !odd.join("watched/x.png").is_file() && start.elapsed() < Duration::from_secs(30) {
        sleep(Duration::from_millis(20));
    }
    fs::write(&graph, text.replace("width: 8", "width: 16")).unwrap();
    sleep(Duration::from_millis(700));
    assert!(watch.try_wait().unwrap().is_none(), "the watch has ended");
    watch.kill().unwrap();
    let mut stderr = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    watch.wait().unwrap();
    assert!(!stderr.contains("panicked") && odd.join("watched/x.png").is_file(), "{stderr}");
}

/// Root is exempt from the limit of processes, and others share it among all that they run, so a stack larger than any
/// address space stands for it.
#[test]
fn too_few_threads_are_an_error() {
    for verb in ["run", "watch"] {
        let arguments = [verb, "graphs/sdxl.yaml", "--no-cache", "--device", "cpu"];
        let (stderr, code) = ends(lsregen().args(arguments).env("RUST_MIN_STACK", (1u64 << 50).to_string()));
        assert!(code == 1 && stderr.contains("a thread cannot be started"), "{stderr}");
        assert!(stderr.contains("ulimit -u") && !stderr.contains("panicked"), "{stderr}");
    }
}

/// A row that needs more memory than there is fails; the others run. The large rows need 3 GB, of 2 GB.
#[cfg(target_os = "linux")]
#[test]
fn a_row_without_memory_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    let mut large = vec![];
    let mut encoder = png::Encoder::new(&mut large, 16384, 16384);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.set_compression(png::Compression::High);
    encoder.write_header().unwrap().write_image_data(&vec![0; 16384 * 16384 / 8]).unwrap();
    fs::write(here("large.png"), large).unwrap();
    fs::write(here("small.png"), fs::read(repository("docs/compare.png")).unwrap()).unwrap();
    let nodes = "  image: { type: LoadImage, path: \"${file}\" }\n  other: { type: Upsample, image: image, factor: \"${factor}\" }\n  save: { type: SaveImage, image: other, path: x.png }\n";
    fs::write(here("graph.yaml"), format!("lsregen: 1\nparams: {{ file: small.png, factor: 1.0 }}\nnodes:\n{nodes}"))
        .unwrap();
    // Decoded, and enlarged to 16160×17660.
    let rows = "file,factor\nsmall.png,0.01\nlarge.png,0.01\nsmall.png,0.02\nsmall.png,18.5\nsmall.png,0.03\n";
    fs::write(here("rows.csv"), rows).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 2000000 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_lsregen"), "run", "graph.yaml"]);
    command.args(["--inputs", "rows.csv", "--no-cache", "--device", "cpu", "--output-dir", "out"]);
    // What the C library and the threads reserve grows with the processors of the machine.
    command.env("MALLOC_ARENA_MAX", "2").env("RAYON_NUM_THREADS", "2").current_dir(folder.path());
    let (stderr, code) = ends(&mut command);
    assert_eq!(code, 1, "{stderr}");
    let manifest = fs::read_to_string(here("out/graph.manifest.jsonl")).unwrap();
    let lines: Vec<Json> = manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5, "{manifest}");
    for line in lines {
        let row = line["row"].as_u64().unwrap();
        match row {
            2 | 4 => {
                assert_eq!(line["status"], "failed", "{line}");
                assert!(line["error"].as_str().unwrap().contains("not enough memory: an image needs"), "{line}");
            }
            _ => assert!(line["status"] == "done" && here("out").join(format!("{row:04}/x.png")).is_file(), "{line}"),
        }
    }
}

/// The check opens images: another format under the name of a PNG file, and a text.
#[test]
fn files_that_are_no_images_are_errors_of_the_check() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("gif.png", &b"GIF89a\x01\0\x01\0\0\0\0;"[..]), ("text.png", b"a red circle\n")] {
        fs::write(folder.path().join(name), content).unwrap();
        let nodes = format!(
            "  image: {{ type: LoadImage, path: {name} }}\n  save: {{ type: SaveImage, image: image, path: x.png }}\n"
        );
        fs::write(folder.path().join("graph.yaml"), format!("lsregen: 1\nnodes:\n{nodes}")).unwrap();
        let (stderr, code) = ends(lsregen().current_dir(folder.path()).args(["check", "graph.yaml"]));
        assert!(code == 78 && stderr.contains("graph.yaml:3:35"), "{name}: {stderr}");
        assert!(stderr.contains("not an image in a supported format (PNG, JPEG, WebP)"), "{name}: {stderr}");
    }
}
