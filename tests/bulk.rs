//! Bulk runs of the command: one graph, run once for each row.
//!
//! The full measurement takes minutes: `cargo test --release --test lsregen -- --ignored --nocapture layouts_in_bulk`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::{lsregen, outcome, repository};

const GRAPH: &str = "\
lsregen: 1
params:
  prompt: a red circle on sand
  boxes: [{ phrase: a red circle, box: [0.1, 0.1, 0.6, 0.6] }]
  seed: 7
  steps: 1
nodes:
  small: { type: LoadModel, model: shapes/gligen }
  layout:
    { type: GLIGENLayout, model: small, prompt: \"${prompt}\", boxes: \"${boxes}\", width: 64, height: 64,
      seed: \"${seed}\", steps: \"${steps}\" }
  save: { type: SaveImage, image: layout.image, path: picture.png }
";

/// A folder with a graph, rows and its own cache.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new(rows: &str) -> Case {
        let case = Case { folder: tempfile::tempdir().unwrap() };
        case.write("graph.yaml", GRAPH);
        case.write("rows.jsonl", rows);
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes a graph that also copies a photo: by default `good.png`. The run cannot decode `broken.png`, which the check
    /// does not try.
    fn with_photos(&self) {
        let good = fs::read(repository("docs/compare.png")).unwrap();
        fs::write(self.path("good.png"), &good).unwrap();
        let mut broken = good;
        let data = broken.windows(4).position(|name| name == b"IDAT").unwrap() + 4;
        broken[data..data + 8].fill(0xff);
        fs::write(self.path("broken.png"), broken).unwrap();
        let copies = "  photo: { type: LoadImage, path: \"${photo}\" }\n  \
                      copy: { type: SaveImage, image: photo, path: copy.png }\n";
        self.write("graph.yaml", &(GRAPH.replace("  steps: 1\n", "  steps: 1\n  photo: good.png\n") + copies));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = lsregen();
        command.current_dir(self.folder.path()).env("LSREGEN_CACHE_DIR", self.path("cache"));
        command.args(["run", "graph.yaml", "--device", "cpu", "--output-dir", "out"]).args(arguments);
        command
    }

    /// Runs the rows; returns the exit code and stderr.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let (_, stderr, code) = outcome(self.command(arguments).output().unwrap());
        (code, stderr)
    }

    /// The lines of the manifest by row name. Asserts that each row has one line.
    fn manifest(&self, name: &str) -> BTreeMap<String, Json> {
        lines(&fs::read_to_string(self.path("out").join(name)).unwrap())
    }

    fn status(&self) -> Vec<(String, String)> {
        let manifest = self.manifest("graph.manifest.jsonl");
        manifest.iter().map(|(name, line)| (name.clone(), line["status"].as_str().unwrap().into())).collect()
    }

    fn picture(&self, row: &str) -> Vec<u8> {
        fs::read(self.path("out").join(row).join("picture.png")).unwrap()
    }
}

fn lines(text: &str) -> BTreeMap<String, Json> {
    assert!(text.ends_with('\n'), "{text}");
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        let name = line["name"].as_str().unwrap().to_string();
        assert!(rows.insert(name, line).is_none(), "a row stands twice:\n{text}");
    }
    rows
}

fn done(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| (name.to_string(), "done".to_string())).collect()
}

/// An error of a row names the row and its field, also if the value is only a part of a text, or fails in the run.
#[test]
fn errors_name_the_line_and_field_of_their_row() {
    let case = Case::new("");
    let graph =
        GRAPH.replace("path: picture.png", "path: \"${name}.png\"").replace("  steps: 1\n", "  steps: 1\n  name: x\n");
    case.write("graph.yaml", &graph);
    case.write("rows.csv", "seed,name\n1,a\n2,b/\n");
    let (code, stderr) = case.run(&["--inputs", "rows.csv"]);
    assert!(code == 78 && stderr.contains("::: rows.csv:3:3") && stderr.contains("the value of `name`"), "{stderr}");
    case.write("rows.csv", "seed,prompt\n1,[a red circle\n2,\"\"\"a\"\" red circle\"\n3,{a red circle}\n");
    case.write("graph.yaml", GRAPH);
    let (code, stderr) = case.run(&["--inputs", "rows.csv"]);
    assert_eq!(code, 0, "{stderr}");
    let manifest = case.manifest("graph.manifest.jsonl");
    let prompts: Vec<_> = manifest.values().map(|line| line["params"]["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["[a red circle", "\"a\" red circle", "{a red circle}"]);
    // A row that fails in the run.
    case.with_photos();
    case.write("rows.csv", "id,photo\nfine,good.png\nblocked,broken.png\n");
    let (code, stderr) = case.run(&["--inputs", "rows.csv"]);
    assert!(code == 1 && stderr.contains("blocked (rows.csv:3) failed: "), "{code} {stderr}");
}

#[test]
fn rows_give_parameters_of_every_kind() {
    let case = Case::new(concat!(
        r#"{"seed": 1}"#,
        "\n\n",
        r#"{"id": "square", "prompt": "a blue square", "boxes": [{"phrase": "a blue square", "box": [0, 0, 0.5, 0.5]}]}"#,
        "\n",
        r#"{"seed": 1, "id": "like the first"}"#,
        "\n",
    ));
    let (code, stderr) = case.run(&["--inputs", "rows.jsonl"]);
    assert_eq!(code, 0, "{stderr}");
    let manifest = case.manifest("graph.manifest.jsonl");
    assert_eq!(manifest.keys().collect::<Vec<_>>(), ["0001", "like the first", "square"]);
    assert_eq!(manifest["0001"]["params"], json!({ "seed": 1 }));
    assert_eq!(manifest["square"]["files"][0]["path"], "square/picture.png");
    assert!(case.picture("0001") == case.picture("like the first"));
    assert!(case.picture("0001") != case.picture("square"));

    // The same rows as CSV: an empty cell keeps the graph's value, and cached results are not computed again.
    case.write("rows.csv", "id,seed,prompt\na,1,\nb,2,\"a \"\"red\"\" circle, and more\"\n");
    let (code, stderr) = case.run(&["--inputs", "rows.csv", "--manifest", "out/csv.jsonl"]);
    assert_eq!(code, 0, "{stderr}");
    let manifest = case.manifest("csv.jsonl");
    assert_eq!(manifest["b"]["params"]["prompt"], "a \"red\" circle, and more");
    assert_eq!((&manifest["a"]["ran"], &manifest["a"]["params"]), (&json!(0), &json!({ "seed": 1 })));
    assert!(case.picture("a") == case.picture("0001"));
}

#[test]
fn errors_of_rows_are_reported_with_their_lines_and_nothing_runs() {
    let case = Case::new("{\"seed\": 1}\n{\"sed\": 2}\n{\"steps\": 0}\n[1]\n{\"id\": \"../x\"}\n");
    let (code, stderr) = case.run(&["--inputs", "rows.jsonl"]);
    assert_eq!(code, 78, "{stderr}");
    for place in ["rows.jsonl:2:2", "did you mean `seed`", "rows.jsonl:3:11", "rows.jsonl:4:1", "rows.jsonl:5:"] {
        assert!(stderr.contains(place), "{place}: {stderr}");
    }
    case.write(
        "twice.jsonl",
        "{\"seed\": 1, \"seed\": 2}\n{\"seed\": 1, \"seed\": 2, \"prompt\": \"\\ud83d\\ude00\"}\n",
    );
    let (code, twice) = case.run(&["--inputs", "twice.jsonl"]);
    assert!(code == 78 && twice.contains("twice.jsonl:1:13") && twice.contains("twice.jsonl:2:1"), "{twice}");
    assert!(stderr.contains("4 of 5 rows have errors; nothing was run") && !case.path("out").exists(), "{stderr}");
    for (arguments, code, words) in [
        (&["--inputs", "no.jsonl"][..], 2, "no.jsonl"),
        (&["--inputs", "rows.jsonl", "--shard", "3/2"], 2, "I/N"),
        (&["--shard", "1/2"], 2, "--inputs"),
        (&["--sweep", "sed=1,2"], 78, "did you mean `seed`"),
        (&["--sweep", "seed=1,2", "--inputs", "rows.jsonl"], 2, "cannot be used with"),
    ] {
        let (ended, stderr) = case.run(arguments);
        assert!(ended == code && stderr.contains(words), "{arguments:?}: {ended} {stderr}");
    }
}

#[test]
fn a_failed_row_is_reported_and_the_others_continue() {
    let case = Case::new("{\"id\": \"a\"}\n{\"id\": \"b\", \"photo\": \"broken.png\"}\n{\"id\": \"c\", \"seed\": 3}\n");
    case.with_photos();
    let (code, stderr) = case.run(&["--inputs", "rows.jsonl"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("] b (rows.jsonl:2) failed: photo: ")
            && stderr.contains("2 done, 0 already done, 1 failed (b)"),
        "{stderr}"
    );
    assert_eq!(case.status()[1], ("b".into(), "failed".into()));
    // Only the failed row runs again.
    fs::copy(case.path("good.png"), case.path("broken.png")).unwrap();
    let (code, stderr) = case.run(&["--inputs", "rows.jsonl"]);
    assert!(code == 0 && stderr.contains("1 done, 2 already done, 0 failed"), "{stderr}");
    assert_eq!(case.status(), done(&["a", "b", "c"]));
}

#[test]
fn an_edit_runs_what_it_affects_and_a_deleted_file_is_restored() {
    let case = Case::new("{\"id\": \"a\"}\n{\"id\": \"b\", \"seed\": 2}\n");
    assert_eq!(case.run(&["--inputs", "rows.jsonl"]).0, 0);
    let before = [case.picture("a"), case.picture("b")];
    // Only one of the rows takes the seed from the graph.
    case.write("graph.yaml", &GRAPH.replace("seed: 7", "seed: 8"));
    let (code, stderr) = case.run(&["--inputs", "rows.jsonl"]);
    assert!(code == 0 && stderr.contains("1 done, 1 already done"), "{stderr}");
    assert!(case.picture("a") != before[0] && case.picture("b") == before[1]);
    fs::remove_file(case.path("out/b/picture.png")).unwrap();
    let (code, stderr) = case.run(&["--inputs", "rows.jsonl"]);
    assert!(code == 0 && stderr.contains("b: 0 ran") && case.picture("b") == before[1], "{stderr}");
    assert_eq!(case.status(), done(&["a", "b"]));
}

#[test]
fn shards_are_disjoint_and_complete() {
    let case = Case::new(&(1..=5).map(|seed| format!("{{\"seed\": {seed}}}\n")).collect::<String>());
    let mut names = BTreeSet::new();
    for (shard, count) in [("1/2", 3), ("2/2", 2)] {
        let (code, stderr) = case.run(&["--inputs", "rows.jsonl", "--shard", shard]);
        assert_eq!(code, 0, "{stderr}");
        let manifest = case.manifest(&format!("graph.{}.manifest.jsonl", shard.replace('/', "-of-")));
        assert_eq!(manifest.len(), count);
        assert!(manifest.into_keys().all(|name| names.insert(name)));
    }
    assert_eq!(names.len(), 5);
}

#[test]
fn a_sweep_draws_every_combination_on_one_sheet() {
    let case = Case::new("");
    let size = |png: &Path| {
        let png = fs::read(png).unwrap();
        [16, 20].map(|at| u32::from_be_bytes(png[at..at + 4].try_into().unwrap()))
    };
    // Runs a sweep; returns its sheet and the lines of its manifest.
    let sweep = |arguments: &[&str]| {
        let (stdout, stderr, code) = outcome(case.command(arguments).output().unwrap());
        assert_eq!(code, 0, "{stderr}");
        let sheet = case.path(stdout.lines().last().unwrap());
        let manifest = sheet.parent().unwrap().join("graph.manifest.jsonl");
        (sheet, lines(&fs::read_to_string(manifest).unwrap()))
    };
    let (first, manifest) = sweep(&["--sweep", "seed=1..3", "--sweep", "steps=1,2"]);
    assert_eq!(manifest.len(), 6);
    assert_eq!(manifest["seed=3,steps=2"]["params"], json!({ "seed": 3, "steps": 2 }));
    // Three rows of two images, with labels.
    let [width, height] = size(&first);
    assert!(width > 2 * 64 && height > 3 * 64 && height > width, "{width} × {height}");
    // Each axis but the last makes the rows: four rows of two images, and one row of two.
    let (three, _) = sweep(&["--sweep", "seed=1,2", "--sweep", "prompt=a red circle,red", "--sweep", "steps=1,2"]);
    let [width, height] = size(&three);
    assert!(height > width, "{width} × {height}");
    let (one, _) = sweep(&["--sweep", "seed=1,2"]);
    assert!(size(&one)[0] > size(&one)[1]);

    // Another sweep overwrites nothing, and the same one finds what it made.
    let before = fs::metadata(&first).unwrap().modified().unwrap();
    let folders = |case: &Case| fs::read_dir(case.path("out")).unwrap().count();
    assert_eq!(folders(&case), 3);
    sweep(&["--sweep", "seed=1..3", "--sweep", "steps=1,2", "--set", "prompt=red"]);
    assert_eq!((folders(&case), fs::metadata(&first).unwrap().modified().unwrap()), (4, before));
    let (again, _) = sweep(&["--sweep", "seed=1,2,3", "--sweep", "steps=1..2"]);
    assert_eq!((again, folders(&case)), (first, 4));

    for (arguments, words) in [
        (&["--sweep", "seed=1,2", "--seed", "3"][..], "`seed` is set as well"),
        (&["--sweep", "seed=1,2", "--set", "seed=3"], "`seed` is set as well"),
        (&["--sweep", "seed=3..1"], "the range `3..1` has no values"),
    ] {
        let (code, stderr) = case.run(arguments);
        assert!(code == 2 && stderr.contains(words), "{arguments:?}: {code} {stderr}");
    }
}

/// The share of a Slurm array's task, and of an index from 0.
#[test]
fn shares_may_be_counted_from_0() {
    let case = Case::new(&(1..=5).map(|seed| format!("{{\"seed\": {seed}}}\n")).collect::<String>());
    let share = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = case.command(&["--inputs", "rows.jsonl", "--quiet"]);
        let (stdout, stderr, code) = outcome(command.args(arguments).envs(variables.iter().copied()).output().unwrap());
        let mut rows: Vec<_> = stdout.lines().map(|line| line[4..8].to_string()).collect();
        rows.sort(); // They are printed as they end, and may end in any order.
        (rows, stderr, code)
    };
    let array = |id: &'static str| {
        let (count, min, step) = ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP");
        [("SLURM_ARRAY_TASK_ID", id), (count, "2"), (min, "10"), (step, "5")]
    };
    assert_eq!(share(&["--shard-index", "0", "--shard-count", "2"], &[]).0, ["0001", "0003", "0005"]);
    assert_eq!(share(&["--shard", "1/2"], &array("15")).0, ["0001", "0003", "0005"]);
    assert_eq!(share(&["--shard-index"], &array("15")).0, ["0002", "0004"]);
    assert_eq!(share(&["--shard", "2/2"], &[]).0, ["0002", "0004"]);
    for (arguments, words) in [
        (&["--shard-index", "2", "--shard-count", "2"][..], "the index is at most 1"),
        (&["--shard-index"], "SLURM_ARRAY_TASK_ID is not set"),
        (&["--shard-index", "1"], "--shard-count"),
        (&["--shard", "0/4"], "`--shard-index` counts from 0"),
    ] {
        let (_, stderr, code) = share(arguments, &[]);
        assert!(code == 2 && stderr.contains(words), "{arguments:?}: {code} {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn two_processes_do_not_share_a_manifest() {
    let case = Case::new("{\"steps\": 300}\n");
    let mut first = case.command(&["--inputs", "rows.jsonl", "--events", "jsonl"]);
    let mut first = Started::new(&mut first);
    first.until("node_started");
    let (code, stderr) = case.run(&["--inputs", "rows.jsonl"]);
    assert!(code != 0 && stderr.contains("graph.manifest.jsonl"), "{code} {stderr}");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
}

#[cfg(unix)]
#[test]
fn a_killed_or_interrupted_run_is_resumed() {
    let rows: String = (1..=6).map(|seed| format!("{{\"seed\": {seed}}}\n")).collect();
    interrupted(&Case::new(&rows), &["--set", "steps=20"], &[1, 3, 4], 6);
}

/// Runs LSReGen on 200 layouts, with few steps.
#[cfg(unix)]
#[test]
#[ignore = "takes minutes"]
fn layouts_in_bulk() {
    let shapes = ["circle", "square", "triangle"];
    let colours = ["red", "blue", "green", "yellow"];
    let row = |i: usize| {
        let phrase = format!("a {} {}", colours[i % 4], shapes[i / 4 % 3]);
        let x = 0.05 + 0.4 * ((i * 7 % 10) as f64 / 10.0);
        let boxes = json!([{ "phrase": phrase, "box": [x, 0.1 + 0.03 * (i % 5) as f64, x + 0.45, 0.7] }]);
        json!({ "prompt": format!("{phrase} on moss"), "boxes": boxes, "seed": i }).to_string() + "\n"
    };
    let rows = |count: usize| (0..count).map(row).collect::<String>();
    let graph = fs::read_to_string(repository("graphs/lsregen.yaml")).unwrap();
    let memory = [50, 200].map(|count| {
        let case = Case::new(&rows(count));
        case.write("graph.yaml", &graph);
        interrupted(&case, &["--set", "steps=4"], &if count == 200 { vec![60, 130] } else { vec![] }, count)
    });
    println!("peak memory of a process: {} MiB for 50 rows, {} MiB for 200 (at most 70 in one)", memory[0], memory[1]);
    let case = Case::new(&rows(200));
    case.write("graph.yaml", &graph);
    let memory = interrupted(&case, &["--set", "steps=4"], &[], 200);
    println!("{memory} MiB for 200 rows in one");
}

/// Runs the rows, and kills and interrupts the process in turns after a number of rows, until all are done. Asserts that
/// each row has one line in the manifest and that nothing was computed twice. Returns the peak memory of the last process
/// in MiB.
#[cfg(unix)]
fn interrupted(case: &Case, arguments: &[&str], stops: &[usize], count: usize) -> u64 {
    let start = std::time::Instant::now();
    let mut finished = BTreeSet::new();
    let mut before = 0;
    for (turn, &stop) in stops.iter().chain(&[count]).enumerate() {
        let mut command = case.command(&["--inputs", "rows.jsonl", "--events", "jsonl"]);
        let mut process = Started::new(command.args(arguments));
        (before..stop).for_each(|_| process.until("row_finished"));
        if stop < count {
            let signal = ["-KILL", "-INT", "-TERM"][turn % 3];
            let killed = Command::new("kill").args([signal, &process.child.id().to_string()]).status().unwrap();
            assert!(killed.success());
        }
        process.until_end();
        let code = process.child.wait().unwrap().code();
        assert_eq!(code, if stop == count { Some(0) } else { [None, Some(130), Some(143)][turn % 3] });
        let mut started = BTreeSet::new();
        for key in keys(&process.events, "node_started") {
            assert!(!finished.contains(&key), "{key} was known, and is computed again");
            assert!(started.insert(key), "computed twice");
        }
        finished.extend(keys(&process.events, "node_finished"));
        let text = fs::read_to_string(case.path("out/graph.manifest.jsonl")).unwrap();
        // The last line may be incomplete: the next run removes it.
        before = text.lines().filter(|line| serde_json::from_str::<Json>(line).is_ok()).count();
        if stop == count {
            println!("{count} rows, stopped {} times: {:.1} s", stops.len(), start.elapsed().as_secs_f64());
            assert_eq!(case.status().len(), count);
            assert!(case.status().iter().all(|(_, status)| status == "done"));
            return process.peak_mib;
        }
    }
    unreachable!("the last turn is not stopped")
}

/// The keys of all events of a kind, except those of models, which every process loads for itself.
fn keys(events: &[Json], kind: &str) -> Vec<String> {
    let of_kind = events.iter().filter(|event| event["event"] == kind);
    let kept = of_kind.filter(|event| !matches!(event["node"].as_str(), Some("small" | "large")));
    kept.map(|event| event["key"].as_str().unwrap().to_string()).collect()
}

/// A process that writes events to stdout.
struct Started {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    events: Vec<Json>,
    /// The peak of its memory so far.
    peak_mib: u64,
}

impl Started {
    fn new(command: &mut Command) -> Started {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Started { child, lines, events: vec![], peak_mib: 0 }
    }

    /// Reads events until one of this kind.
    fn until(&mut self, kind: &str) {
        while let Some(line) = self.lines.next() {
            if self.read(&line.unwrap()) == kind {
                return;
            }
        }
        panic!("it ended without {kind}: {:?}", self.events.last());
    }

    fn until_end(&mut self) {
        while let Some(Ok(line)) = self.lines.next() {
            self.read(&line);
        }
    }

    fn read(&mut self, line: &str) -> String {
        // A killed process may leave an incomplete line.
        let Ok(event) = serde_json::from_str::<Json>(line) else { return String::new() };
        let kind = event["event"].as_str().unwrap().to_string();
        if kind == "row_finished" {
            self.peak_mib = self.peak_mib.max(peak(&self.child));
        }
        self.events.push(event);
        kind
    }
}

/// VmHWM, if the system reports it.
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(child.id().to_string()).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
