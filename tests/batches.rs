//! Batches as a user meets them: their files, names and records.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::outputs::Home;

/// A batch of three images of 64 × 64 pixels.
const BATCH: &str = "\
lsregen: 1
params: { seed: 7, count: 3, steps: 1 }
nodes:
  small: { type: LoadModel, model: shapes/gligen }
  batch:
    { type: GuidedSDSample, model: small, prompt: a red circle, seed: \"${seed}\", count: \"${count}\", steps: \"${steps}\",
      cfg: 1, width: 64, height: 64, guidance: [] }
  images: { type: Decode, model: small, latent: batch }
  save: { type: SaveImage, image: images, path: PATH }
";

/// The PNG's texts, by keyword.
fn record(path: &Path) -> Json {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let reader = decoder.read_info().unwrap();
    let text = reader.info().utf8_text.iter().find(|text| text.keyword == "lsregen").unwrap();
    serde_json::from_str(&text.get_text().unwrap()).unwrap()
}

fn pixels(path: &Path) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

/// Each image of a batch is a file, which is restored by itself, and says which image it is.
#[test]
fn a_batch_is_several_files() {
    let home = Home::new();
    let graph = |path: &str| BATCH.replace("PATH", &json!(path).to_string());
    let run = |path: &str, arguments: &[&str]| {
        fs::write(home.path("work/graph.yaml"), graph(path)).unwrap();
        let (stdout, stderr, code) = home.run(&[&["run", "graph.yaml", "--device", "cpu"], arguments].concat());
        assert_eq!(code, 0, "{stderr}");
        (stdout.lines().map(str::to_string).collect::<Vec<_>>(), stderr)
    };
    let names = ["new/a-1.png", "new/a-2.png", "new/a-3.png"];
    let (files, stderr) = run("new/a.png", &["--set", "steps=2"]);
    assert_eq!(files, names);
    assert!(stderr.contains("step 3 of 6 (image 2 of 3)"), "{stderr}");
    assert_eq!(run("new/a.png", &[]).0, names);
    // The record says which image it is, and its seed gives the image alone.
    for (i, name) in names.iter().enumerate() {
        let record = record(&home.path("work").join(name));
        assert_eq!(record["part"], json!({ "number": i + 1, "of": 3, "seed": 7 + i }));
        let seed = (7 + i).to_string();
        run("one.png", &["--set", "count=1", "--seed", &seed]);
        assert!(pixels(&home.path("work/one.png")) == pixels(&home.path("work").join(name)), "{name}");
        let (shown, stderr, code) = home.run(&["show", name]);
        assert!(
            code == 0 && shown.contains("count: 3") && stderr.contains(&format!("image {} of a batch of 3", i + 1))
        );
        assert!(stderr.contains(&format!("sampled with the seed {seed}")), "{stderr}");
    }
    // A deleted one is written again, and nothing runs; the others are left alone.
    let kept = fs::metadata(home.path("work/new/a-1.png")).unwrap().modified().unwrap();
    fs::remove_file(home.path("work/new/a-2.png")).unwrap();
    let (files, stderr) = run("new/a.png", &["--events", "events.jsonl"]);
    assert_eq!(files, names);
    assert!(!stderr.contains("] batch"), "{stderr}");
    assert_eq!(fs::metadata(home.path("work/new/a-1.png")).unwrap().modified().unwrap(), kept);
    let events = fs::read_to_string(home.path("work/events.jsonl")).unwrap();
    let events = events.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let saved: Vec<_> = events.filter(|event| event["event"] == "saved").map(|event| event["new"].clone()).collect();
    assert_eq!(saved, [false, true, false]);
    // The picture runs again as the batch.
    let (stdout, stderr, code) = home.run(&["run", "new/a-2.png", "--device", "cpu", "--output-dir", "again"]);
    assert_eq!((code, stdout.lines().count()), (0, 3), "{stderr}");
    assert!(pixels(&home.path("work/again/new/a-2.png")) == pixels(&home.path("work/new/a-2.png")));
    // By their seeds, and by numbers; each is written once.
    assert_eq!(run("{seed}/x-{seed}.png", &[]).0, ["7/x-7.png", "8/x-8.png", "9/x-9.png"]);
    assert_eq!(run("{seed}.png", &["--set", "count=1"]).0, ["7.png"]);
    for _ in 0..2 {
        assert_eq!(run("x-{counter}.png", &[]).0, ["x-0001.png", "x-0002.png", "x-0003.png"]);
    }
    assert_eq!(run("x-{counter}.png", &["--seed", "8"]).0, ["x-0004.png", "x-0005.png", "x-0006.png"]);
    let (stdout, _, _) = home.run(&["run", "graph.yaml", "--device", "cpu", "--json"]);
    let summary: Json = serde_json::from_str(&stdout).unwrap();
    assert_eq!(summary["files"], json!(["x-0001.png", "x-0002.png", "x-0003.png"]));
}

/// A file of another program among those of a batch is not replaced, and nothing is computed in vain.
#[test]
fn a_batch_replaces_only_own_files() {
    let home = Home::new();
    let graph = BATCH.replace("PATH", "a.png");
    fs::copy(home.path("work/photo.png"), home.path("work/a-3.png")).unwrap();
    let camera = fs::read(home.path("work/a-3.png")).unwrap();
    let (stderr, code) = home.runs(&graph, &[]);
    assert!(code == 1 && stderr.contains("`a-3.png` exists, and lsregen did not write it"), "{stderr}");
    assert!(stderr.contains("graph.yaml:9:") && !stderr.contains("[1/"), "{stderr}");
    assert!(!home.path("work/a-1.png").exists() && fs::read(home.path("work/a-3.png")).unwrap() == camera);
    assert_eq!(home.runs(&graph, &["--overwrite"]).1, 0);
    assert!(fs::read(home.path("work/a-3.png")).unwrap() != camera);
    // By the metadata, and without it by the cache.
    assert_eq!(home.runs(&graph, &["--no-cache", "--seed", "8"]).1, 0);
    for arguments in [&["--no-metadata"][..], &["--no-metadata", "--seed", "9"], &["--no-metadata"]] {
        let (stderr, code) = home.runs(&graph, arguments);
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
    }
    assert_eq!(home.runs(&graph, &["--no-metadata", "--no-cache", "--seed", "5"]).1, 1, "nothing says who wrote it");
    // A path of its own for each row.
    fs::write(home.path("work/rows.jsonl"), "{\"seed\": 1}\n{\"seed\": 2}\n").unwrap();
    let rows = ["run", "graph.yaml", "--device", "cpu", "--inputs", "rows.jsonl", "--output-dir", "rows"];
    let (_, stderr, code) = home.run(&rows);
    assert_eq!(code, 0, "{stderr}");
    let manifest = fs::read_to_string(home.path("work/rows/graph.manifest.jsonl")).unwrap();
    let line: Json = serde_json::from_str(manifest.lines().next().unwrap()).unwrap();
    let files: Vec<_> = line["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(files, ["0001/a-1.png", "0001/a-2.png", "0001/a-3.png"]);
    fs::write(home.path("work/graph.yaml"), BATCH.replace("PATH", "../same.png")).unwrap();
    let (_, stderr, code) = home.run(&[&rows[..], &["--allow-outside"]].concat());
    assert!(code == 78 && stderr.contains("rows 1 and 2 both write") && stderr.contains("same-1.png"), "{stderr}");
}

/// Two nodes that save one batch under different names write all files, in a run and from the cache.
#[test]
fn names_by_seed_and_by_number_are_different_files() {
    let home = Home::new();
    let both = BATCH.replace("PATH", "7.png") + "  save2: { type: SaveImage, image: images, path: \"{seed}.png\" }\n";
    let names = ["7-1.png", "7-2.png", "7-3.png", "7.png", "8.png", "9.png"];
    for _ in 0..2 {
        let (stderr, code) = home.runs(&both, &[]);
        assert_eq!(code, 0, "{stderr}");
        for name in names {
            fs::remove_file(home.path("work").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

/// The names of all images of a batch are judged before the run.
#[test]
fn names_of_later_images_are_checked() {
    let home = Home::new();
    fs::write(home.path("work/8"), "").unwrap();
    fs::create_dir(home.path("work/folder-2.png")).unwrap();
    let large =
        "  large: { type: Upsample, image: images, factor: 2 }\n  save2: { type: SaveImage, image: large, path: ";
    for (path, more, words) in [
        (format!("{}.png", "a".repeat(250)), String::new(), "more than 255 bytes"),
        ("\"{seed}/a.png\"".into(), String::new(), "`8` is a file, not a folder"),
        ("folder.png".into(), String::new(), "`folder-2.png` is a folder"),
        (
            "a.png".into(),
            "  save2: { type: SaveImage, image: images, path: a-2.png }\n".replace("images", "one"),
            "a-2.png",
        ),
        ("8.png".into(), format!("{large}\"{{seed}}.png\" }}\n"), "8-1.png"),
    ] {
        let one = "  one: { type: LoadImage, path: photo.png }\n";
        let graph = BATCH.replace("PATH", &path) + one + &more;
        fs::write(home.path("work/graph.yaml"), graph).unwrap();
        let (stdout, stderr, code) = home.run(&["check", "graph.yaml"]);
        if words == "8-1.png" {
            assert_eq!(code, 0, "no file is written twice: {stdout}{stderr}");
        } else {
            assert!(code == 78 && (stdout.clone() + &stderr).contains(words), "{path}: {code} {stdout}{stderr}");
        }
    }
    // Resized images keep their seeds, by which their names collide.
    let graph = BATCH.replace("PATH", "\"{seed}.png\"") + large + "\"{seed}.png\" }\n";
    fs::write(home.path("work/graph.yaml"), graph).unwrap();
    let (stdout, stderr, code) = home.run(&["check", "graph.yaml"]);
    assert!(code == 78 && (stdout.clone() + &stderr).contains("written-twice"), "{stdout}{stderr}");
}

/// A latent that is not finite is an error of the sampling, not of what takes its result.
#[test]
fn a_sampling_that_diverges_is_an_error() {
    let home = Home::new();
    let values: Vec<u8> = [f32::INFINITY; 4 * 64].iter().flat_map(|value| value.to_le_bytes()).collect();
    let header = r#"{"latent":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat();
    fs::write(home.path("work/z.safetensors"), bytes).unwrap();
    let graph = BATCH.replace(
        "images: { type: Decode, model: small, latent: batch }",
        "z: { type: LoadLatent, path: z.safetensors }",
    );
    let graph = graph
        .replace("guidance: []", "guidance: [], latent: z, denoise: 0.5, count: 1")
        .replace("count: \"${count}\", ", "");
    let graph =
        graph.replace("SaveImage, image: images, path: PATH", "SaveLatent, latent: batch, path: out.safetensors");
    let (stderr, code) = home.runs(&graph, &[]);
    assert!(code == 1 && stderr.contains("batch failed: the sampling diverged"), "{code} {stderr}");
    assert!(!home.path("work/out.safetensors").exists());
}
