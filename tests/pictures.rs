//! PNG files that hold their graph: run again, shown and refused. And previews.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::{lsregen, outcome};

const GRAPH: &str = "\
lsregen: 1
params: { seed: 7, steps: 1 } # small
nodes:
  small: { type: LoadModel, model: shapes/gligen }
  layout:
    type: GLIGENLayout
    model: small
    prompt: a red circle on sand # what to draw
    boxes: [{ phrase: a red circle, box: [0.1, 0.1, 0.6, 0.6] }]
    width: 64
    height: 64
    seed: ${seed}
    steps: ${steps}
  save: { type: SaveImage, image: layout.image, path: picture.png }
";

/// Runs the command in `folder`, asserts success, and returns stdout.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let (stdout, stderr, code) = outcome(lsregen().current_dir(folder).args(arguments).output().unwrap());
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

/// A folder in which the graph was run with these arguments.
fn drawn(arguments: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("graph.yaml"), GRAPH).unwrap();
    run(folder.path(), &[&["run", "graph.yaml", "--device", "cpu", "--quiet"], arguments].concat());
    folder
}

/// The types of the chunks of a PNG file, and its compressed pixels.
fn chunks(png: &[u8]) -> (Vec<String>, Vec<u8>) {
    let (mut types, mut pixels, mut rest) = (vec![], vec![], &png[8..]);
    while rest.len() >= 12 {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        types.push(String::from_utf8(rest[4..8].to_vec()).unwrap());
        if &rest[4..8] == b"IDAT" {
            pixels.extend(&rest[8..8 + length]);
        }
        rest = &rest[12 + length..];
    }
    (types, pixels)
}

#[test]
fn an_image_file_runs_again_and_reproduces_itself() {
    let folder = drawn(&["--set", "seed=8"]);
    let here = folder.path();
    run(here, &["run", "picture.png", "--device", "cpu", "--quiet", "--output-dir", "again"]);
    let (first, again) =
        (fs::read(here.join("picture.png")).unwrap(), fs::read(here.join("again/picture.png")).unwrap());
    assert!(chunks(&first).1 == chunks(&again).1, "other pixels");
    let keys = run(here, &["show", "picture.png", "--keys"]);
    assert_eq!(
        keys.lines().map(|line| line.split_whitespace().next().unwrap()).collect::<Vec<_>>(),
        ["small", "layout", "save"]
    );
    assert_eq!(run(here, &["show", "again/picture.png", "--keys"]), keys);
    // The same keys as the file has with these values, and other keys with other values.
    let planned = |arguments: &[&str]| run(here, &[&["plan", "--device", "cpu"], arguments].concat());
    assert_eq!(planned(&["picture.png"]), planned(&["graph.yaml", "--seed", "8"]));
    assert_ne!(planned(&["picture.png"]), planned(&["graph.yaml"]));
    assert_eq!(planned(&["picture.png", "--seed", "7"]), planned(&["graph.yaml"]));
    assert!(run(here, &["graph", "picture.png"]).contains("GLIGENLayout"));
    run(here, &["check", "picture.png"]);
}

#[test]
fn show_prints_the_graph_as_it_was_run() {
    let folder = drawn(&["--set", "seed=8"]);
    assert_eq!(run(folder.path(), &["show", "picture.png"]), GRAPH.replace("seed: 7", "seed: 8"));
    let json: Json = serde_json::from_str(&run(folder.path(), &["show", "picture.png", "--json"])).unwrap();
    assert_eq!((&json["record"], &json["file"]), (&Json::from(1), &Json::from("graph.yaml")));
    assert_eq!(json["program"], concat!("lsregen ", env!("CARGO_PKG_VERSION")));
    assert_eq!(json["keys"].as_object().unwrap().len(), 3);
    assert!(!json.to_string().contains(folder.path().to_str().unwrap()), "{json}");
}

#[test]
fn an_error_in_a_recorded_graph_names_the_png_file() {
    let folder = drawn(&[]);
    let check =
        lsregen().current_dir(folder.path()).args(["check", "picture.png", "--set", "steps=0"]).output().unwrap();
    let (_, stderr, code) = outcome(check);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("picture.png:"), "{stderr}");
}

#[test]
fn without_metadata_only_pixels_are_written() {
    let folder = drawn(&["--no-metadata"]);
    let bare = fs::read(folder.path().join("picture.png")).unwrap();
    let (types, pixels) = chunks(&bare);
    assert_eq!(types, ["IHDR", "IDAT", "IEND"]);
    let full = drawn(&[]);
    let (types, same) = chunks(&fs::read(full.path().join("picture.png")).unwrap());
    assert_eq!(types, ["IHDR", "iTXt", "iTXt", "IDAT", "IEND"]);
    assert!(pixels == same, "other pixels");
}

/// Runs a verb on a file with these bytes; returns stderr and the exit code.
fn refused(verb: &str, bytes: &[u8]) -> (String, i32) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("picture.png"), bytes).unwrap();
    let (stdout, stderr, code) =
        outcome(lsregen().current_dir(folder.path()).args([verb, "picture.png"]).output().unwrap());
    assert!(stdout.is_empty() && stderr.contains("picture.png"), "{stderr}");
    (stderr, code)
}

/// A PNG file of one pixel with a text chunk.
fn with_text(keyword: &str, text: &str) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.add_itxt_chunk(keyword.into(), text.into()).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0]).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn png_files_without_a_graph_are_refused() {
    let mut damaged = with_text("lsregen", "{}");
    let at = damaged.windows(7).position(|w| w == b"lsregen").unwrap();
    damaged[at + 9] ^= 0xff;
    let newer = r#"{ "record": 99, "graphs": [] }"#;
    let bad_graph = r#"{ "record": 1, "program": "lsregen 0.1.0", "file": "a.yaml", "graph": "lsregen: 1" }"#;
    for (bytes, words, code) in [
        (with_text("Comment", "hello"), "holds no graph", 2),
        (with_text("prompt", r#"{"3": {"class_type": "KSampler"}}"#), "ComfyUI", 2),
        (with_text("lsregen", "hello"), "does not carry a record of lsregen", 78),
        (with_text("lsregen", newer), "newer lsregen", 78),
        (damaged, "cannot be read", 78),
        (b"\x89PNG\r\n\x1a\n".to_vec(), "ends too early", 78),
    ] {
        for verb in ["show", "check", "run"] {
            let (stderr, ended) = refused(verb, &bytes);
            assert!(stderr.contains(words) && ended == code, "{verb}: {ended} {stderr}");
        }
    }
    let (stderr, code) = refused("run", &with_text("lsregen", bad_graph));
    assert!(code == 78 && stderr.contains("no `nodes`") && stderr.contains("picture.png:1:1"), "{stderr}");
    let (stderr, code) = refused("show", b"lsregen: 1");
    assert!(code == 2 && stderr.contains("not a PNG file"), "{stderr}");
}

#[test]
fn previews_show_the_progress_of_a_sampling() {
    // Without the cache: a cached result is not sampled and has no previews.
    let folder = drawn(&["--no-cache", "--set", "steps=12", "--previews", "previews"]);
    let mut names: Vec<_> = fs::read_dir(folder.path().join("previews"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected: Vec<_> = (1..=6).map(|i| format!("layout-{:03}.png", 2 * i)).collect();
    assert_eq!(names, expected);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    // A latent of 8 × 8 is small enough for a preview of full size: 64 × 64 pixels, as the image.
    let size = |png: &[u8]| png[16..24].to_vec();
    let (first, last) = (read("previews/layout-002.png"), read("previews/layout-012.png"));
    assert_eq!([size(&first), size(&last)], [size(&read("picture.png")), size(&read("picture.png"))]);
    assert!(chunks(&first).1 != chunks(&last).1, "nothing happened between");
    let plain = drawn(&["--no-cache", "--set", "steps=12"]);
    let same = fs::read(plain.path().join("picture.png")).unwrap() == read("picture.png");
    assert!(same, "previews changed the picture");
    let (_, stderr, code) = outcome(
        lsregen()
            .current_dir(folder.path())
            .args(["run", "graph.yaml", "--device", "cpu", "--previews", "graph.yaml/below"])
            .output()
            .unwrap(),
    );
    assert!(code == 2 && stderr.contains("the folder for previews cannot be created"), "{code} {stderr}");
}
