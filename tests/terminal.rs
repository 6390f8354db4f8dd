//! What the command prints: writes that fail, strangers' bytes, and the width of a terminal.

use std::fs;
use std::process::Stdio;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::{lsregen, outcome, repository};

/// A graph that only resizes a picture, so that a run takes no time.
pub const QUICK: &str = "\
lsregen: 1
params: { size: 8, name: out.png }
nodes:
  photo: { type: LoadImage, path: photo.png }
  small: { type: Upsample, image: photo, width: \"${size}\", height: \"${size}\" }
  save: { type: SaveImage, image: small, path: \"${name}\" }
";

/// A folder with the graph `quick.yaml` and its picture.
pub fn quick() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("quick.yaml"), QUICK).unwrap();
    write_png(&folder.path().join("photo.png"));
    folder
}

fn write_png(path: &std::path::Path) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 8, 8);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[90; 3 * 64]).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_to_stdout_is_an_error() {
    let folder = quick();
    let verbs = [
        "--help",
        "--version",
        "run --help",
        "rows shapes --out -",
        "run quick.yaml",
        "run quick.yaml --events jsonl",
        "run quick.yaml --sweep size=8,9",
        "check --json quick.yaml",
        "plan quick.yaml",
        "nodes",
        "nodes SaveImage",
        "nodes --markdown",
        "models --models-dir models",
        "graph quick.yaml",
        "graph quick.yaml --format svg",
        "completions bash",
        "man",
        "cache status",
        "cache gc",
        "cache verify",
        "cache explain quick.yaml save",
        "inspect shapes/xl",
        "inspect shapes/xl --json",
        "explain",
        "explain syntax",
        "schema",
        "show out.png",
        "show out.png --json",
    ];
    fs::create_dir_all(folder.path().join("models/checkpoints")).unwrap();
    fs::write(folder.path().join("models/checkpoints/a.safetensors"), "").unwrap();
    let command = |verb: &str, stdout: Stdio| {
        let mut command = lsregen();
        command.current_dir(folder.path()).env("LSREGEN_CACHE_DIR", folder.path().join("cache"));
        outcome(command.args(verb.split(' ')).stdout(stdout).output().unwrap())
    };
    let (_, stderr, code) = command("run quick.yaml", Stdio::piped());
    assert_eq!(code, 0, "{stderr}");
    for verb in verbs {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let (_, stderr, code) = command(verb, full.into());
        assert!(code == 1 && stderr.contains("stdout: cannot be written: "), "{verb}: {code} {stderr}");
        assert!(stderr.matches("cannot be written").count() == 1 && !stderr.contains("panicked"), "{verb}: {stderr}");
    }
    for verb in verbs {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (_, stderr, code) = command(verb, writer.into());
        assert!(code == 0 && !stderr.contains("cannot be written"), "{verb}: {code} {stderr}");
    }
}

#[test]
fn events_replace_only_events() {
    let folder = quick();
    let run = |events: &str| {
        let mut command = lsregen();
        command.current_dir(folder.path()).args(["run", "quick.yaml", "--no-cache", "--events", events]);
        outcome(command.output().unwrap())
    };
    let (_, stderr, code) = run("quick.yaml");
    assert!(code == 2 && stderr.contains("this file holds something other than events"), "{code} {stderr}");
    assert_eq!(fs::read_to_string(folder.path().join("quick.yaml")).unwrap(), QUICK);
    // The second run replaces the events of the first.
    for _ in 0..2 {
        let (_, stderr, code) = run("events.jsonl");
        assert_eq!(code, 0, "{stderr}");
        let events = fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
        let finished = events.lines().filter(|line| line.contains("\"run_finished\"")).count();
        assert_eq!(finished, 1, "{events}");
    }
    if cfg!(target_os = "linux") {
        let (_, stderr, code) = run("/dev/full");
        assert!(code == 1 && stderr.contains("--events /dev/full: cannot be written: "), "{code} {stderr}");
        assert_eq!(stderr.matches("cannot be written").count(), 1, "{stderr}");
    }
}

#[test]
fn a_graph_does_not_overwrite_the_picture_that_it_reads() {
    let folder = quick();
    let before = fs::read(folder.path().join("photo.png")).unwrap();
    for name in ["photo.png", "./photo.png"] {
        let mut command = lsregen();
        command.current_dir(folder.path()).args(["run", "quick.yaml", "--set", &format!("name={name}")]);
        let (_, stderr, code) = outcome(command.output().unwrap());
        assert!(code == 78 && stderr.contains("error[overwritten-input]"), "{name}: {code} {stderr}");
    }
    assert!(fs::read(folder.path().join("photo.png")).unwrap() == before);
}

/// What a terminal obeys: colours, titles, a cleared screen, a reversed text, C1 controls.
const EVIL: &str = "\u{1b}[31m\u{1b}]0;t\u{7}\u{202e}gnp\u{2066}\u{9b}2J";

#[cfg(unix)]
#[test]
fn no_name_of_a_file_or_tensor_reaches_a_terminal_raw() {
    let folder = quick();
    let evil = |end: &str| folder.path().join(format!("{EVIL}{end}"));
    fs::write(evil(".yaml"), "lsregen: 1\nnodes: { m: { type: LoadModel, model: shapes/no } }\n").unwrap();
    fs::write(evil(".csv"), format!("name,{EVIL}\n{EVIL}.png,1\n")).unwrap();
    let header = serde_json::json!({ EVIL: { "dtype": "F32", "shape": [1], "data_offsets": [0, 4] } }).to_string();
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header.as_bytes());
    weights.extend([0; 4]);
    fs::write(evil(".safetensors"), weights).unwrap();
    let path = |end: &str| evil(end).to_str().unwrap().to_string();
    let (yaml, csv, weights) = (path(".yaml"), path(".csv"), path(".safetensors"));
    for arguments in [
        &["check", &yaml][..],
        &["check", "--json", &yaml],
        &["run", &yaml],
        &["run", &path("missing")],
        &["run", "quick.yaml", "--inputs", &csv],
        &["run", "quick.yaml", "--inputs", &path("missing.csv")],
        &["run", "quick.yaml", "--set", &format!("name={EVIL}.png"), "--no-cache", "-v"],
        &["run", "quick.yaml", "--set", &format!("name={EVIL}.png"), "--no-cache", "--events", "jsonl"],
        &["run", "quick.yaml", "--set", &format!("{EVIL}=1")],
        &["run", "quick.yaml", "--sweep", &format!("name={EVIL}.png,{EVIL}")],
        &["run", "quick.yaml", "--events", &path("no/folder")],
        &["show", &yaml],
        &["inspect", "--json", &weights],
        &["fetch", &path("x")],
        &["nodes", EVIL],
        &["explain", EVIL],
        &[EVIL],
        &["run", &format!("--{EVIL}")],
        &["cache", "status", "--cache-dir", &path("cache")],
    ] {
        let (stdout, stderr, code) = outcome(lsregen().current_dir(folder.path()).args(arguments).output().unwrap());
        // What another program reads from stdout is exact, unless it is JSON.
        let shown =
            if arguments.contains(&"--json") || arguments.contains(&"jsonl") { stdout + &stderr } else { stderr };
        let raw = shown.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{2066}', '\u{9b}']);
        assert!(!raw && !shown.contains("panicked"), "{arguments:?}: {code} {shown:?}");
    }
    let (stdout, _, _) =
        outcome(lsregen().current_dir(folder.path()).args(["check", "--json"]).arg(evil(".yaml")).output().unwrap());
    let json: Json = serde_json::from_str(&stdout).unwrap();
    assert!(json[0]["file"].as_str().unwrap().contains(EVIL), "the same name in JSON: {json}");
}

#[test]
fn a_run_names_its_files_on_stdout_whether_it_made_or_found_them() {
    let folder = quick();
    let run = |arguments: &[&str]| {
        let mut command = lsregen();
        command.current_dir(folder.path()).env("LSREGEN_CACHE_DIR", folder.path().join("cache"));
        outcome(command.args(["run", "quick.yaml", "--output-dir", "made"]).args(arguments).output().unwrap())
    };
    for end in ["done: 1 file; 3 nodes ran, 0 cached; ", "done: 1 file; 0 nodes ran, 1 cached; "] {
        let (stdout, stderr, code) = run(&[]);
        assert_eq!((stdout.as_str(), code), ("made/out.png\n", 0), "{stderr}");
        assert!(stderr.lines().last().unwrap().starts_with(end), "{stderr}");
        assert!(folder.path().join(stdout.trim_end()).is_file());
    }

    let json = |arguments: &[&str]| {
        let (stdout, stderr, code) = run(&[arguments, &["--json", "--quiet"]].concat());
        let json: Json = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
        assert!(stderr.is_empty() && json["succeeded"] == (code == 0), "{code} {stderr}");
        json
    };
    let again = json(&[]);
    assert_eq!(
        (&again["ran"], &again["cached"], &again["files"]),
        (&0.into(), &1.into(), &["made/out.png"][..].into())
    );
    assert_eq!(again["nodes"][2]["files"], again["files"]);
    let other = json(&["--set", "size=9"]);
    let nodes = other["nodes"].as_array().unwrap();
    assert_eq!(nodes.iter().map(|node| node["node"].as_str().unwrap()).collect::<Vec<_>>(), ["photo", "small", "save"]);
    assert!(nodes.iter().all(|node| node["key"].as_str().unwrap().len() == 64), "{other}");
    assert!(nodes[1]["outcome"] == "ran" && nodes[1]["seconds"].is_number() && other["seconds"].is_number(), "{other}");

    // Events carry the files as data, and nothing else is written beside them.
    let (stdout, _, _) = run(&["--events", "jsonl", "--set", "size=10"]);
    let events: Vec<Json> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with_files = events.iter().filter(|event| event["files"] == serde_json::json!(["made/out.png"]));
    let names: Vec<_> = with_files.map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["node_finished", "run_finished"], "{stdout}");
    assert_eq!(run(&["--events", "jsonl", "--json"]).2, 2);

    // A row that was done earlier has its files too.
    for _ in 0..2 {
        let (stdout, stderr, code) = run(&["--sweep", "size=8,9"]);
        assert_eq!(code, 0, "{stderr}");
        for line in stdout.lines() {
            assert!(folder.path().join(line).is_file(), "{line}");
        }
        assert_eq!(stdout.lines().count(), 3, "two rows and the sheet: {stdout}");
    }
    let sweep = json(&["--sweep", "size=8,9"]);
    assert_eq!((&sweep["earlier"], &sweep["rows"].as_array().unwrap().len()), (&2.into(), &2), "{sweep}");
}

#[test]
fn colours_are_where_they_are_wanted() {
    let folder = quick();
    let coloured = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = lsregen();
        command.current_dir(folder.path()).env_remove("NO_COLOR").envs(variables.iter().copied());
        let (stdout, stderr, _) = outcome(command.args(arguments).output().unwrap());
        (stdout + &stderr).contains("\u{1b}[")
    };
    for verb in [&["check", "no.yaml"][..], &["run", "quick.yaml", "--no-cache"], &["rum"], &["run", "--help"]] {
        let with = |color: &'static str| [verb, &[color][..]].concat();
        let forced = [("CLICOLOR_FORCE", "1")];
        assert!(!coloured(verb, &[]) && !coloured(&with("--color=never"), &forced), "{verb:?}");
        assert!(coloured(&with("--color=always"), &[("NO_COLOR", "1")]), "{verb:?}");
        assert!(!coloured(verb, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), "{verb:?}");
        // What is written to a pipe as data has no colours, unless they are asked for.
        assert!(coloured(verb, &forced), "{verb:?}");
    }
}

/// The widest line of a text, in characters.
fn widest(text: &str) -> (usize, &str) {
    text.lines().map(|line| (line.chars().count(), line)).max().unwrap_or_default()
}

#[test]
fn what_is_printed_fits_the_columns_of_the_terminal() {
    let graph = "lsregen: 1\nnodes:\n  canvas: { type: EmptyLatnt, width: 64, height: 64 }\n  \
        model: { type: LoadModel, model: shapes/xl, precision: half }\n";
    let folder = quick();
    fs::write(folder.path().join("bad.yaml"), graph).unwrap();
    let verbs = "run watch rows check plan nodes models fetch graph cache inspect explain schema show completions man";
    let helps = verbs.split(' ').map(|verb| format!("{verb} --help"));
    let rows = ["coco", "lvis", "yolo", "shapes"].map(|dataset| format!("rows {dataset} --help"));
    let others = ["--help", "nodes", "nodes SaveLatent", "nodes SaveImage", "plan quick.yaml", "check bad.yaml"];
    for arguments in helps.chain(rows).chain(others.map(String::from)) {
        for columns in [80, 120] {
            let mut command = lsregen();
            command.current_dir(folder.path()).env("COLUMNS", columns.to_string()).args(arguments.split(' '));
            let (stdout, stderr, _) = outcome(command.output().unwrap());
            for text in [&stdout, &stderr] {
                let (width, line) = widest(text);
                assert!(width <= columns, "{arguments} at {columns}: {width}: {line}");
            }
            assert!(!arguments.ends_with("--help") || arguments == "--help" || stdout.contains("Examples:\n  lsregen"));
        }
    }
    // Every diagnostic that has an example.
    let faults = fs::read_dir(repository("tests/faults")).unwrap().map(|entry| entry.unwrap().path());
    let faults: Vec<_> = faults.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    for columns in [80, 120] {
        let mut command = lsregen();
        command.current_dir(repository("tests/faults")).env("COLUMNS", columns.to_string()).arg("check");
        let (_, stderr, _) =
            outcome(command.args(faults.iter().map(|path| path.file_name().unwrap())).output().unwrap());
        // Two marks of one line that are far apart keep the line in one piece.
        let is_source = |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(" | ");
        let (width, line) = stderr
            .lines()
            .map(|line| (line.chars().count().saturating_sub(6 * usize::from(is_source(&line))), line))
            .max()
            .unwrap();
        assert!(width <= columns, "at {columns}: {width}: {line}");
        assert!(stderr.contains("= note: ") && !stderr.lines().any(|line| line.ends_with("= note: ")), "{stderr}");
    }
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let (stdout, stderr, code) = outcome(lsregen().args(["completions", shell]).output().unwrap());
        assert!(code == 0 && stdout.contains("inspect") && stdout.contains("output-dir"), "{shell}: {stderr}");
    }
    let (page, _, code) = outcome(lsregen().arg("man").output().unwrap());
    assert!(code == 0 && page.contains(".TH lsregen 1") && page.contains("inspect"), "{page}");
    let (page, _, _) = outcome(lsregen().args(["man", "run"]).output().unwrap());
    assert!(page.contains("output") && page.contains(".TH lsregen-run 1"), "{page}");
    assert_eq!(outcome(lsregen().args(["man", "rum"]).output().unwrap()).2, 2);
}

#[test]
fn a_graph_is_read_from_stdin() {
    let folder = quick();
    let with = |arguments: &[&str], text: &str| {
        let input = folder.path().join("input");
        fs::write(&input, text).unwrap();
        let mut command = lsregen();
        command.current_dir(folder.path()).args(arguments).stdin(fs::File::open(input).unwrap());
        outcome(command.output().unwrap())
    };
    let (stdout, stderr, code) = with(&["run", "-", "--no-cache"], QUICK);
    assert_eq!((stdout.as_str(), code), ("out.png\n", 0), "{stderr}");
    for verb in ["check", "plan", "graph"] {
        let (_, stderr, code) = with(&[verb, "-"], QUICK);
        assert_eq!(code, 0, "{verb}: {stderr}");
    }
    let (_, stderr, code) = with(&["check", "-"], "lsregen: 1\nnodes: { a: { type: SaveImag } }\n");
    assert!(code == 78 && stderr.contains("<stdin>:2:"), "{code} {stderr}");
    let (stdout, stderr, code) = with(&["run", "-", "--no-cache", "--sweep", "size=8,9"], QUICK);
    assert!(code == 0 && stdout.lines().count() == 3, "{stdout} {stderr}");
    let (_, stderr, code) = with(&["run", "-", "--inputs", "-"], QUICK);
    assert!(code == 2 && stderr.contains("cannot both be stdin"), "{code} {stderr}");
}

#[test]
fn an_output_folder_that_takes_no_files_is_refused_before_the_run() {
    let folder = quick();
    let mut folders = vec!["photo.png", "photo.png/below"];
    if cfg!(target_os = "linux") {
        folders.push("/proc/x");
    }
    for place in folders {
        for arguments in
            [&["run", "quick.yaml"][..], &["check", "quick.yaml"], &["run", "quick.yaml", "--sweep", "size=8,9"]]
        {
            let mut command = lsregen();
            command.current_dir(folder.path()).args(arguments).args(["--output-dir", place]);
            let (_, stderr, code) = outcome(command.output().unwrap());
            let refusal = format!("--output-dir {place}: no files can be written there: ");
            assert!(
                code == 2 && stderr.contains(&refusal) && !stderr.contains("[1/"),
                "{arguments:?}: {code} {stderr}"
            );
        }
    }
    let (_, stderr, code) = outcome(
        lsregen().current_dir(folder.path()).args(["check", "quick.yaml", "--output-dir", "new/er"]).output().unwrap(),
    );
    assert!(code == 0 && !folder.path().join("new").exists(), "{code} {stderr}");
}

#[test]
fn rows_of_very_many_columns_take_linear_time() {
    let folder = quick();
    let seconds = |rows: &str, columns: usize| {
        let names: Vec<_> = (0..columns).map(|number| format!("column{number}")).collect();
        let row: serde_json::Map<_, _> = names.iter().map(|name| (name.clone(), Json::from(1))).collect();
        let text = match rows {
            "rows.csv" => format!("{}\n{}\n", names.join(","), vec!["1"; columns].join(",")),
            _ => format!("{}\n", Json::Object(row)),
        };
        fs::write(folder.path().join(rows), text).unwrap();
        // The least of several tries is that of a quiet moment.
        let tries = (0..3).map(|_| {
            let start = std::time::Instant::now();
            let mut command = lsregen();
            command.current_dir(folder.path()).args(["run", "quick.yaml", "--inputs", rows]);
            let (_, stderr, code) = outcome(command.output().unwrap());
            assert!(code == 78 && stderr.contains("has no parameter `column0`"), "{rows}: {code} {stderr}");
            start.elapsed().as_secs_f64()
        });
        tries.fold(f64::INFINITY, f64::min)
    };
    for rows in ["rows.csv", "rows.jsonl"] {
        let (few, many) = (seconds(rows, 4_000), seconds(rows, 64_000));
        // 16 times as many: 256 times as long, if the time were quadratic.
        assert!(many < 60.0 * few, "{rows}: {few} s and {many} s");
    }
}

/// The attributes `names` of each element of an SVG image that begins with `start`.
fn elements(svg: &str, start: &str, names: &[&str]) -> Vec<Vec<f64>> {
    let lines = svg.lines().filter(|line| line.starts_with(start));
    let attribute = |line: &str, name: &str| -> f64 {
        let rest = line.split_once(&format!(" {name}=\"")).expect("the attribute").1;
        rest.split('"').next().unwrap().parse().expect("a number")
    };
    lines.map(|line| names.iter().map(|name| attribute(line, name)).collect()).collect()
}

#[test]
fn in_a_drawn_graph_texts_fit_boxes_and_boxes_their_groups() {
    for graph in ["graphs/ablation-boxes.yaml", "graphs/ablation-fraction.yaml"] {
        let (svg, stderr, code) = outcome(lsregen().args(["graph", graph, "--format", "svg"]).output().unwrap());
        assert!(code == 0 && svg.contains("@media (prefers-color-scheme: dark)"), "{graph}: {stderr}");
        let rect = ["x", "y", "width", "height"];
        let boxes = elements(&svg, "<rect class=\"node\"", &rect);
        let groups = elements(&svg, "<rect class=\"group\"", &rect);
        assert!(boxes.len() > 10 && groups.len() > 3, "{graph}: {} boxes, {} groups", boxes.len(), groups.len());
        let (right, bottom) = (|a: &[f64]| a[0] + a[2], |a: &[f64]| a[1] + a[3]);
        let contains =
            |a: &[f64], b: &[f64]| a[0] <= b[0] && a[1] <= b[1] && right(b) <= right(a) && bottom(b) <= bottom(a);
        let overlap = |a: &[f64], b: &[f64]| a[0] < right(b) && b[0] < right(a) && a[1] < bottom(b) && b[1] < bottom(a);
        for (i, a) in boxes.iter().enumerate() {
            assert!(boxes[..i].iter().all(|b| !overlap(a, b)), "{graph}: two boxes overlap at {a:?}");
            assert!(groups.iter().all(|group| contains(group, a) || !overlap(group, a)), "{graph}: a frame cuts {a:?}");
        }
        for (i, a) in groups.iter().enumerate() {
            assert!(groups[..i].iter().all(|b| contains(a, b) || contains(b, a) || !overlap(a, b)), "{graph}: {a:?}");
        }
        for class in ["name", "small"] {
            for text in elements(&svg, &format!("<text class=\"{class}\""), &["x", "y", "textLength", "font-size"]) {
                // From the line that the letters stand on.
                let text = [text[0], text[1] - text[3], text[2], text[3]];
                assert!(boxes.iter().chain(&groups).any(|place| contains(place, &text)), "{graph}: {text:?}");
            }
        }
        let names = svg.lines().filter(|line| line.starts_with("<text class=\"name\"")).count();
        assert_eq!(names, boxes.len());
    }
}
