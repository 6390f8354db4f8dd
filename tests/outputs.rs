//! The files that graphs write: where they may lie, which files they replace, and how they are numbered.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::{lsregen, outcome};

/// A graph that copies `in.png`, without a model.
fn copies(path: &str) -> String {
    let path = json!(path);
    format!(
        "lsregen: 1\nparams: {{ name: \"a/b: c\", seed: 7 }}\nnodes:\n  image: {{ type: LoadImage, path: in.png }}\n  \
         seen: {{ type: Upsample, image: image, width: 8, height: 8 }}\n  save: {{ type: SaveImage, image: seen, path: {path} }}\n"
    )
}

/// A graph that copies `in.safetensors`.
fn copies_latent(path: &str) -> String {
    let path = json!(path);
    format!(
        "lsregen: 1\nnodes:\n  z: {{ type: LoadLatent, path: in.safetensors }}\n  save: {{ type: SaveLatent, latent: z, path: {path} }}\n"
    )
}

fn png(width: u32, texts: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, width, 4);
    encoder.set_color(png::ColorType::Rgb);
    for (keyword, text) in texts {
        encoder.add_itxt_chunk(keyword.to_string(), text.to_string()).unwrap();
    }
    encoder.write_header().unwrap().write_image_data(&vec![90; 12 * width as usize]).unwrap();
    bytes
}

fn latent() -> Vec<u8> {
    let header = r#"{"latent":{"dtype":"F32","shape":[1,4,1,1],"data_offsets":[0,16]}}      "#;
    let header = &header[..header.len() / 8 * 8];
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 16]].concat()
}

/// A picture that carries a graph.
fn carrier(graph: &str) -> Vec<u8> {
    let record = json!({ "record": 1, "program": "lsregen 0.1.0", "file": "x.yaml", "graph": graph });
    png(4, &[("Software", "lsregen 0.1.0"), ("lsregen", &record.to_string())])
}

/// A folder with what a person may have: `work` in which the command runs, and other folders.
pub struct Home {
    all: TempDir,
}

impl Home {
    pub fn new() -> Home {
        let home = Home { all: tempfile::tempdir().unwrap() };
        for folder in ["work/out", "work/models", "elsewhere", "home"] {
            fs::create_dir_all(home.path(folder)).unwrap();
        }
        fs::write(home.path("work/in.png"), png(8, &[])).unwrap();
        fs::write(home.path("work/in.safetensors"), latent()).unwrap();
        for name in ["work/photo.png", "elsewhere/photo.png", "home/photo.png", "photo.png", "work/out/photo.png"] {
            fs::write(home.path(name), png(3, &[("Software", "a camera")])).unwrap();
        }
        for name in ["work/models/unet.safetensors", "elsewhere/unet.safetensors", "unet.safetensors"] {
            fs::write(home.path(name), "weights of somebody").unwrap();
        }
        #[cfg(unix)]
        for (link, to) in [
            ("work/link", "../elsewhere"),
            ("work/out/link", "../../elsewhere"),
            ("work/out/photo-link.png", "../photo.png"),
        ] {
            std::os::unix::fs::symlink(to, home.path(link)).unwrap();
        }
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.all.path().join(name)
    }

    pub fn run(&self, arguments: &[&str]) -> (String, String, i32) {
        let mut command = lsregen();
        command.current_dir(self.path("work")).env("HOME", self.path("home"));
        command.env("LSREGEN_CACHE_DIR", self.path("cache")).args(arguments);
        outcome(command.output().unwrap())
    }

    /// Writes a graph and runs it. Returns stderr and the exit code.
    pub fn runs(&self, graph: &str, arguments: &[&str]) -> (String, i32) {
        fs::write(self.path("work/graph.yaml"), graph).unwrap();
        let (_, stderr, code) = self.run(&[&["run", "graph.yaml", "--device", "cpu"], arguments].concat());
        (stderr, code)
    }

    /// All files and links with their content, except those of the cache.
    fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.all.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = path.strip_prefix(self.all.path()).unwrap().to_path_buf();
                if name == Path::new("cache") {
                    continue;
                }
                let facts = fs::symlink_metadata(&path).unwrap();
                if facts.is_symlink() {
                    files.insert(name, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
                } else if facts.is_dir() {
                    files.insert(name, vec![]);
                    folders.push(path);
                } else {
                    files.insert(name, fs::read(&path).unwrap());
                }
            }
        }
        files
    }
}

/// Paths by which a graph may try to reach other files, without extension.
const HOSTILE: [&str; 25] = [
    "../photo",
    "../elsewhere/photo",
    "out/../../photo",
    "./.././photo",
    "new/../../photo",
    "ABSOLUTE/photo",
    "ABSOLUTE/new/x",
    "//ABSOLUTE/photo",
    "~/photo",
    "./~/x",
    "~root/x",
    "link/photo",
    "link/new/x",
    "link/../link/x",
    "out/link/photo",
    "out/link/new/deep/x",
    "{name}/../../photo",
    "../{counter}",
    "../{date}/x",
    "link/{counter}",
    "{missing}/x",
    "{counter}/x",
    "con",
    "out/a\u{202e}b",
    "out/a\nb",
];

/// A stranger's graph, or a picture that carries one, changes nothing outside the output folder, and no file in it that
/// another program wrote.
#[test]
fn nothing_is_written_outside_the_output_folder() {
    let home = Home::new();
    let absolute = home.path("elsewhere").display().to_string();
    let mut cases = 0;
    for hostile in HOSTILE {
        let hostile = hostile.replace("ABSOLUTE", &absolute);
        let graphs = [copies(&format!("{hostile}.png")), copies_latent(&format!("{hostile}.safetensors"))];
        for graph in graphs {
            fs::write(home.path("work/hostile.yaml"), &graph).unwrap();
            fs::write(home.path("work/hostile.png"), carrier(&graph)).unwrap();
            for file in ["hostile.yaml", "hostile.png"] {
                for output in [&[][..], &["--output-dir", "out"]] {
                    let before = home.tree();
                    let run = ["run", file, "--device", "cpu", "--quiet", "--no-cache"];
                    let (_, stderr, code) = home.run(&[&run[..], output].concat());
                    let after = home.tree();
                    let added: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
                    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "{hostile:?}: {stderr}");
                    // From `out`, these lead to new folders in it.
                    let is_inside = !output.is_empty() && hostile.starts_with("out/link");
                    assert_eq!(code == 0, is_inside, "{hostile:?}: {stderr}");
                    assert_eq!(added.is_empty(), !is_inside, "{hostile:?}: {added:?}");
                    assert!(added.iter().all(|path| path.starts_with("work/out")), "{hostile:?}: {added:?}");
                    let _ = fs::remove_dir_all(home.path("work/out/out"));
                    assert!(!stderr.contains("panicked"), "{stderr}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 200);
    // Files of other programs, and weights.
    for graph in [copies("photo.png"), copies("out/photo-link.png"), copies_latent("models/unet.safetensors")] {
        let before = home.tree();
        let (stderr, code) = home.runs(&graph, &["--quiet"]);
        assert!(code == 1 && stderr.contains("--overwrite"), "{stderr}");
        let mut after = home.tree();
        after.remove(Path::new("work/graph.yaml"));
        assert!(after.iter().all(|(path, bytes)| before.get(path) == Some(bytes)));
    }
}

#[test]
fn a_check_says_which_path_leaves_the_output_folder() {
    let home = Home::new();
    let check = |path: &str, arguments: &[&str]| {
        fs::write(home.path("work/graph.yaml"), copies(path)).unwrap();
        let (_, stderr, code) = home.run(&[&["check", "graph.yaml"], arguments].concat());
        (code, stderr)
    };
    for (path, words) in [
        ("../x.png", "leads above that folder by `..`"),
        ("/tmp/x.png", "is an absolute path"),
        ("~/x.png", "begins with `~`"),
        ("link/x.png", "a link on the way leads out of it"),
        ("nul.png", "Windows reserves it for a device"),
        ("{sed}.png", "did you mean `seed`?"),
        ("a{.png", "is never closed"),
        ("{counter}/x.png", "only in the name of the file"),
        ("{counter}-{counter}.png", "two counters"),
    ] {
        let (code, stderr) = check(path, &[]);
        assert!(code == 78 && stderr.contains(words) && stderr.contains("graph.yaml:6:"), "{path}: {stderr}");
    }
    for path in ["../x.png", "/tmp/x.png", "link/x.png"] {
        assert_eq!(check(path, &["--allow-outside"]).0, 0, "{path}");
    }
    assert_eq!(check("~/x.png", &["--allow-outside"]).0, 78);
    assert_eq!(check("a/../b/./x.png", &[]).0, 0);
    // Whoever means it.
    let (stderr, code) = home.runs(&copies("../new/x.png"), &["--allow-outside", "--quiet"]);
    assert!(code == 0 && home.path("new/x.png").is_file(), "{stderr}");
}

/// What the program wrote itself it may replace: the metadata of the file or the cache says so.
#[test]
fn only_own_files_are_replaced() {
    let home = Home::new();
    let photo = home.path("work/photo.png");
    let camera = fs::read(&photo).unwrap();
    let (graph, other) = (copies("photo.png"), copies("photo.png").replace("width: 8", "width: 16"));
    let (stderr, code) = home.runs(&graph, &[]);
    assert!(code == 1 && stderr.contains("lsregen did not write it") && stderr.contains("graph.yaml:6:"), "{stderr}");
    assert!(!stderr.contains("[1/"), "nothing is computed in vain: {stderr}");
    assert_eq!(fs::read(&photo).unwrap(), camera);
    assert_eq!(home.runs(&graph, &["--overwrite"]).1, 0);
    assert_ne!(fs::read(&photo).unwrap(), camera);
    // By its metadata.
    assert_eq!(home.runs(&other, &["--no-cache"]).1, 0);
    // By the cache.
    assert_eq!(home.runs(&graph, &["--no-metadata"]).1, 0);
    assert_eq!(home.runs(&other, &["--no-metadata"]).1, 0);
    assert_eq!(home.runs(&graph, &["--no-metadata", "--no-cache"]).1, 1, "nothing says who wrote it");
    // A file that was changed by hand is not restored.
    fs::write(&photo, &camera).unwrap();
    assert_eq!(home.runs(&other, &["--no-metadata"]).1, 1);
    assert_eq!(fs::read(&photo).unwrap(), camera);
    // A link is nobody's own, even to such a file.
    #[cfg(unix)]
    {
        assert_eq!(home.runs(&copies("own.png"), &[]).1, 0);
        std::os::unix::fs::symlink(home.path("work/own.png"), home.path("work/link.png")).unwrap();
        assert_eq!(home.runs(&copies("link.png"), &["--no-cache"]).1, 1);
    }
    // Latents.
    assert_eq!(home.runs(&copies_latent("z.safetensors"), &["--no-cache"]).1, 0);
    assert_eq!(home.runs(&copies_latent("z.safetensors"), &["--no-cache"]).1, 0);
}

/// A new file is written only if something new was made, as in ComfyUI.
#[test]
fn counters_number_new_images() {
    let home = Home::new();
    let graph = copies("pictures/{name}-{seed}-{counter}.png");
    let files = || {
        let entries = fs::read_dir(home.path("work/pictures")).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let run = |graph: &str, arguments: &[&str]| {
        let (stderr, code) = home.runs(graph, &[&["--events", "events.jsonl"], arguments].concat());
        assert_eq!((code, stderr.contains("is not used")), (0, !graph.contains("{seed}")), "{stderr}");
        let events = fs::read_to_string(home.path("work/events.jsonl")).unwrap();
        let events = events.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        let saved: Vec<_> = events.filter(|event| event["event"] == "saved").collect();
        assert_eq!(saved.len(), 1, "{saved:?}");
        assert_eq!(saved[0]["node"], "save");
        (saved[0]["file"].as_str().unwrap().to_string(), saved[0]["new"].as_bool().unwrap())
    };
    let first = "a_b_ c-7-0001.png";
    assert_eq!(run(&graph, &[]), (format!("pictures/{first}"), true));
    // From the cache, and computed again: the image is the same.
    assert_eq!(run(&graph, &[]), (format!("pictures/{first}"), false));
    assert_eq!(run(&graph, &["--no-cache"]), (format!("pictures/{first}"), false));
    assert_eq!(files(), [first]);
    let wider = graph.replace("width: 8", "width: 16");
    assert_eq!(run(&wider, &[]), ("pictures/a_b_ c-7-0002.png".into(), true));
    assert_eq!(run(&wider, &["--set", "seed=8"]), ("pictures/a_b_ c-8-0001.png".into(), true));
    // A file of another program counts, and is not replaced. A deleted one is written again from the cache.
    fs::rename(home.path("work/pictures").join(first), home.path("work/pictures/a_b_ c-7-0041.png")).unwrap();
    fs::write(home.path("work/pictures/a_b_ c-7-0041.png"), "notes").unwrap();
    assert_eq!(run(&graph, &[]), ("pictures/a_b_ c-7-0042.png".into(), true));
    assert_eq!(files().len(), 4);
    // The day.
    let (dated, new) = run(&copies("{date}/x-{date}.png"), &[]);
    let day = &dated[..10];
    assert!(new && dated == format!("{day}/x-{day}.png") && day.starts_with("20"), "{dated}");
    assert!(!run(&copies("{date}/x-{date}.png"), &[]).1);
}

#[test]
fn several_processes_take_different_numbers() {
    let home = Home::new();
    let processes: Vec<_> = (0..4)
        .map(|i| {
            let graph = copies("x-{counter}.png").replace("width: 8", &format!("width: {}", 8 * (i + 1)));
            let name = format!("graph-{i}.yaml");
            fs::write(home.path("work").join(&name), graph).unwrap();
            let mut command = lsregen();
            command.current_dir(home.path("work")).args(["run", &name, "--device", "cpu", "--no-cache", "--quiet"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    processes.into_iter().for_each(|mut process| assert!(process.wait().unwrap().success()));
    for number in 1..=4 {
        assert!(home.path(&format!("work/x-000{number}.png")).is_file(), "{number}");
    }
}

const SEEDS: &str = "\
lsregen: 1
params: { seed: random, width: 64 }
nodes:
  small: { type: LoadModel, model: shapes/gligen }
  a: &sampling
    { type: GLIGENLayout, model: small, prompt: a red circle, boxes: [{ phrase: a red circle, box: [0.1, 0.1, 0.6, 0.6] }],
      width: \"${width}\", height: 64, steps: 1, seed: \"${seed}\" }
  b: { <<: *sampling, width: 72 }
  c: { <<: *sampling, seed: -1 }
  both: { type: ImageGrid, images: [a, b, c] }
  save: { type: SaveImage, image: both, path: \"${seed}-{seed}.png\" }
";

/// A random seed is drawn once for each place where it is written, before the keys are made. It is reported and recorded.
#[test]
fn random_seeds_are_drawn_reported_and_recorded() {
    let home = Home::new();
    let run = |arguments: &[&str]| {
        let (stderr, code) = home.runs(SEEDS, arguments);
        assert_eq!(code, 0, "{stderr}");
        let drawn: Vec<u64> =
            stderr.lines().filter_map(|line| line.split("the random seed is ").nth(1)?.parse().ok()).collect();
        (drawn, stderr)
    };
    let (first, stderr) = run(&[]);
    let [seed, other] = first[..] else { panic!("{stderr}") };
    assert!(seed != other && seed < 1 << 32 && other < 1 << 32, "{stderr}");
    let picture = format!("{seed}-{seed}.png");
    let (record, _, _) = home.run(&["show", &picture]);
    assert!(record.contains(&format!("seed: {seed},")) && record.contains(&format!("seed: {other} ")), "{record}");
    assert!(!record.contains("random") && record.contains("seed: \"${seed}\""), "{record}");
    // The picture runs again, and everything is cached.
    let (_, stderr, code) = home.run(&["run", &picture, "--device", "cpu"]);
    assert!(code == 0 && !stderr.contains("drew"), "{stderr}");
    // Another run, another seed. One that is given is not drawn.
    assert_ne!(run(&[]).0, first);
    assert_eq!(run(&["--set", "seed=5"]).0.len(), 1);
    assert!(home.path("work/5-5.png").is_file());
    assert_eq!(run(&["--set", "seed=random"]).0.len(), 2);
    assert_eq!(run(&["--set", "seed=-1"]).0.len(), 2);
    // Rows draw for themselves.
    fs::write(home.path("work/rows.jsonl"), "{}\n{\"seed\": -1}\n{\"seed\": 3}\n").unwrap();
    let (_, stderr, code) =
        home.run(&["run", "graph.yaml", "--device", "cpu", "--inputs", "rows.jsonl", "--output-dir", "rows"]);
    assert_eq!(code, 0, "{stderr}");
    let names = |row: &str| {
        let entries = fs::read_dir(home.path("work/rows").join(row)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names("0003"), ["3-3.png"]);
    assert_ne!(names("0001"), names("0002"));
    let manifest = fs::read_to_string(home.path("work/rows/graph.manifest.jsonl")).unwrap();
    let rows = manifest.lines().map(|line| serde_json::from_str(line).unwrap());
    let second: Json = rows.into_iter().find(|row: &Json| row["row"] == 2).unwrap();
    let drawn = second["params"]["seed"].as_u64().unwrap();
    assert_eq!(second["files"][0]["path"], format!("0002/{drawn}-{drawn}.png"));
}

/// Rows whose paths differ in text but not in place.
#[test]
fn rows_do_not_write_one_file() {
    let home = Home::new();
    fs::write(home.path("work/rows.jsonl"), "{\"name\": \"a\"}\n{\"name\": \"b\"}\n").unwrap();
    for path in ["../same.png", "s/../../x.png", "../{name}/../same.png"] {
        fs::write(home.path("work/graph.yaml"), copies(path)).unwrap();
        let rows = ["run", "graph.yaml", "--device", "cpu", "--inputs", "rows.jsonl"];
        let (_, stderr, code) = home.run(&[&rows[..], &["--output-dir", "out"]].concat());
        assert!(code == 78 && stderr.contains("leaves the output folder"), "{stderr}");
        let (_, stderr, code) = home.run(&[&rows[..], &["--output-dir", "out", "--allow-outside"]].concat());
        assert!(code == 78 && stderr.contains("both write"), "{path}: {stderr}");
    }
    fs::write(home.path("work/graph.yaml"), copies("s/../s/x.png")).unwrap();
    let (_, stderr, code) = home.run(&["run", "graph.yaml", "--device", "cpu", "--inputs", "rows.jsonl"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(home.path("work/0001/s/x.png").is_file() && home.path("work/0002/s/x.png").is_file());
    for (id, words) in [("nul", "device"), ("CON.x", "device"), ("a\\u202eb", "direction")] {
        fs::write(home.path("work/rows.jsonl"), format!("{{\"id\": \"{id}\", \"name\": \"a\"}}\n")).unwrap();
        let (_, stderr, code) = home.run(&["run", "graph.yaml", "--device", "cpu", "--inputs", "rows.jsonl"]);
        assert!(code == 78 && stderr.contains(words), "{id}: {stderr}");
    }
}
