//! `lsregen run --profile`: what a trace holds, and when it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::{lsregen, outcome, repository};

const GRAPH: &str = "
lsregen: 1
params: { steps: 3, prompt: a red circle on sand }
nodes:
  model: { type: LoadModel, model: shapes/xl }
  z:     { type: SDXLSample, model: model, prompt: \"${prompt}\", steps: \"${steps}\", width: 64, height: 64 }
  image: { type: Decode, model: model, latent: z }
  save:  { type: SaveImage, image: image, path: out.png }
";

struct Case(TempDir);

impl Case {
    fn new() -> Case {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("graph.yaml"), GRAPH).unwrap();
        Case(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = lsregen();
        command.current_dir(self.0.path()).env("LSREGEN_CACHE_DIR", self.path("cache"));
        command.args(["run", "graph.yaml", "--device", "cpu", "--quiet"]).args(arguments);
        command
    }
}

/// A trace whose slices nest.
struct Trace {
    events: Vec<Json>,
    other: Json,
}

impl Trace {
    fn read(path: &Path) -> Trace {
        let json: Json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let trace = Trace { events: json["traceEvents"].as_array().unwrap().clone(), other: json["otherData"].clone() };
        trace.nests();
        trace
    }

    fn slices(&self) -> impl Iterator<Item = &Json> {
        self.events.iter().filter(|event| event["ph"] == "X")
    }

    /// The names of slices of a category, in the order of their starts.
    fn names(&self, category: &str) -> Vec<&str> {
        let mut slices: Vec<_> = self.slices().filter(|event| event["cat"] == category).collect();
        slices.sort_by(|a, b| a["ts"].as_f64().unwrap().total_cmp(&b["ts"].as_f64().unwrap()));
        slices.iter().map(|event| event["name"].as_str().unwrap()).collect()
    }

    fn slice(&self, name: &str) -> &Json {
        self.slices().find(|event| event["name"] == name).unwrap_or_else(|| panic!("no slice {name}"))
    }

    /// Of two slices on a track, one contains the other, or they do not overlap.
    fn nests(&self) {
        let mut tracks: BTreeMap<String, Vec<(f64, f64, &str)>> = BTreeMap::new();
        for event in self.slices() {
            let (start, duration) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            let track = tracks.entry(format!("{} {}", event["pid"], event["tid"])).or_default();
            track.push((start, start + duration, event["name"].as_str().unwrap()));
        }
        // The times are whole nanoseconds.
        const EDGE: f64 = 0.002;
        for (track, mut slices) in tracks {
            slices.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
            let mut open: Vec<(f64, &str)> = vec![];
            for (start, end, name) in slices {
                open.retain(|(until, _)| *until > start + EDGE);
                if let Some((until, outer)) = open.last() {
                    assert!(end <= until + EDGE, "track {track}: {name} leaves {outer}");
                }
                open.push((end, name));
            }
        }
    }
}

#[test]
fn a_trace_has_nodes_their_steps_and_what_is_loaded() {
    let case = Case::new();
    let (_, stderr, code) = outcome(case.run(&["--profile", "run.json"]).output().unwrap());
    assert_eq!((stderr.as_str(), code), ("", 0));
    let trace = Trace::read(&case.path("run.json"));
    assert_eq!(trace.names("node"), ["model", "z", "image", "save"]);
    assert_eq!(trace.names("run"), ["graph.yaml"]);
    let spans: BTreeSet<_> = trace.names("span").into_iter().collect();
    assert!(["load unet", "load vae", "load text encoders"].iter().all(|name| spans.contains(name)), "{spans:?}");
    let args = &trace.slice("z")["args"];
    assert_eq!((&args["type"], &args["result"]), (&"SDXLSample".into(), &"computed".into()));
    assert_eq!(args["key"].as_str().unwrap().len(), 12);
    let z = trace.slice("z");
    let within = |event: &&Json| {
        let (start, end) = (z["ts"].as_f64().unwrap(), z["ts"].as_f64().unwrap() + z["dur"].as_f64().unwrap());
        event["cat"] == "step" && event["tid"] == z["tid"] && (start..=end).contains(&event["ts"].as_f64().unwrap())
    };
    let steps: Vec<_> = trace.slices().filter(within).map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["before the steps", "step 1 of 3", "step 2 of 3", "step 3 of 3", "after the steps"]);
    let image = &trace.other["nodes"]["image"];
    assert_eq!((&image["type"], &image["computed"], &image["cached"]), (&"Decode".into(), &1.into(), &0.into()));
    assert_eq!(trace.other["nodes"]["z"]["steps"], 3);
    assert_eq!(trace.other["runs"][0]["succeeded"], true);

    // A second run finds everything, and replaces the trace.
    assert!(case.run(&["--profile", "run.json"]).status().unwrap().success());
    let trace = Trace::read(&case.path("run.json"));
    let marks: Vec<_> = trace.events.iter().filter(|event| event["ph"] == "i").map(|event| &event["name"]).collect();
    assert!(trace.names("node").is_empty() && marks.contains(&&"save: cached".into()), "{marks:?}");
    assert_eq!(trace.other["nodes"]["save"]["cached"], 1);
}

#[test]
fn each_row_is_a_process() {
    let case = Case::new();
    let rows = ["--no-cache", "--sweep", "steps=1,2", "--profile", "run.json"];
    assert!(case.run(&rows).output().unwrap().status.success());
    let trace = Trace::read(&case.path("run.json"));
    let processes = trace.events.iter().filter(|event| event["name"] == "process_name");
    let names: Vec<_> = processes.map(|event| event["args"]["name"].as_str().unwrap().to_string()).collect();
    assert!(names.len() == 2 && names[0].starts_with("run 0: ") && names[1].starts_with("run 1: "), "{names:?}");
    assert_eq!((&trace.other["nodes"]["z"]["computed"], &trace.other["nodes"]["z"]["steps"]), (&2.into(), &3.into()));
    assert_eq!(trace.other["run_count"], 2);
}

#[test]
fn a_path_that_cannot_be_a_trace_is_refused_before_the_run() {
    let case = Case::new();
    fs::create_dir(case.path("folder")).unwrap();
    let mut paths = vec![
        ("graph.yaml", "something other than a trace"),
        ("folder", "something other than a trace"),
        ("missing/run.json", "its folder does not exist"),
        ("graph.yaml/run.json", "cannot be written"),
        ("-", "not written to stdout"),
        ("new/", "names no file"),
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("graph.yaml", case.path("link.json")).unwrap();
        assert!(Command::new("mkfifo").arg(case.path("pipe")).status().unwrap().success());
        paths.extend([
            ("link.json", "something other than a trace"),
            ("pipe", "something other than a trace"),
            ("/dev/full", "something other than a trace"),
        ]);
    }
    let long = "x".repeat(400);
    paths.push((&long, "cannot be written"));
    for (path, message) in paths {
        let (_, stderr, code) = outcome(case.run(&["--profile", path]).output().unwrap());
        assert_eq!(code, 2, "{path}: {stderr}");
        assert!(stderr.contains("--profile") && stderr.contains(message), "{path}: {stderr}");
        assert!(!case.path("out.png").exists(), "{path}");
    }
    assert_eq!(fs::read_to_string(case.path("graph.yaml")).unwrap(), GRAPH);
    let (_, stderr, code) = outcome(case.run(&["--profile", "both.json", "--events", "both.json"]).output().unwrap());
    assert!(code == 2 && stderr.contains("cannot both write both.json"), "{stderr}");
    // A graph with errors leaves no trace.
    let (.., code) = outcome(case.run(&["--profile", "run.json", "--set", "steps=-1"]).output().unwrap());
    assert_eq!(code, 78);
    assert!(!case.path("run.json").exists());
}

#[test]
fn a_run_that_fails_has_a_trace() {
    let case = Case::new();
    // The image cannot be saved: a folder is in its place since the check.
    let graph = GRAPH.replace("shapes/xl", "broken");
    let model = case.path("broken");
    crate::copy_folder(&repository("models/shapes/xl"), &model);
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let at = bytes.len() - 100;
    bytes[at..].fill(0xff);
    fs::write(weights, bytes).unwrap();
    fs::write(case.path("graph.yaml"), graph).unwrap();
    let (_, stderr, code) = outcome(case.run(&["--no-cache", "--profile", "run.json"]).output().unwrap());
    let trace = Trace::read(&case.path("run.json"));
    assert_eq!(code, 1, "{stderr}");
    assert!(trace.slices().any(|event| event["args"]["result"] == "failed"), "{stderr}");
    assert_eq!(trace.other["runs"][0]["succeeded"], false);
}

/// The first signal ends the run, the second the process: both leave a trace.
#[cfg(unix)]
#[test]
fn an_interrupted_run_has_a_trace() {
    for signals in [1, 2] {
        let case = Case::new();
        let events = case.path("events.jsonl");
        let mut command = case.run(&["--no-cache", "--set", "steps=900", "--profile", "run.json", "--events"]);
        let mut child = command.arg(&events).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let steps = |events: &str| events.lines().filter(|line| line.contains("\"step\"")).count();
        while !fs::read_to_string(&events).is_ok_and(|events| steps(&events) > 2) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        for _ in 0..signals {
            assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        }
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let trace = Trace::read(&case.path("run.json"));
        let result = &trace.slice("z")["args"]["result"];
        assert!(result == "cancelled" || result == "unfinished" && signals == 2, "{result}");
        assert!(trace.names("step").contains(&"step 2 of 900"));
        let left = fs::read_dir(case.0.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
        assert_eq!(left.count(), 0);
    }
}
