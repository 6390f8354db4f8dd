//! `lsregen watch` from outside: edits of every kind, and exactly which nodes each of them starts.
//!
//! What happened is read off the events on stdout; no test looks at a clock, but one measures, and is ignored for it:
//! `cargo test --test lsregen watch -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::{lsregen, repository};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// So long nothing more comes: an edit is done with. Longer than a change is waited for to end.
const SILENCE: Duration = Duration::from_millis(150);

/// A watch under way, in a folder of its own.
struct Live {
    child: Child,
    events: Receiver<(Instant, Json)>,
    log: Vec<Json>,
    folder: TempDir,
}

/// What came of an edit.
#[derive(Debug, Default)]
struct Answer {
    /// Nodes that were started or restored, in alphabetical order.
    started: Vec<String>,
    /// `unchanged`, `bad_graph` and `reloaded`, in the order of their coming.
    answers: Vec<String>,
    /// From just before the write to the first `changed`, and to the first `plan_made`.
    changed: Option<Duration>,
    planned: Option<Duration>,
}

impl Live {
    /// Watches `graph.yaml`, once `fill` has put it and its files into the folder; up to the end of the first run.
    fn start(arguments: &[&str], fill: impl FnOnce(&Path)) -> Live {
        let mut live = Live::launch(arguments, fill);
        live.wait("run_finished", |_| true);
        live
    }

    fn launch(arguments: &[&str], fill: impl FnOnce(&Path)) -> Live {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let mut command: Command = lsregen();
        // Without the cache, in which other tests may have left the same results.
        command.args(["watch", "--no-cache", "graph.yaml", "--device", "cpu", "--events", "jsonl"]);
        command.current_dir(folder.path());
        let stderr = fs::File::create(folder.path().join("stderr")).unwrap();
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap();
                if send.send((Instant::now(), event)).is_err() {
                    break;
                }
            }
        });
        Live { child, events, log: vec![], folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap()
    }

    /// The next event, if one comes in time.
    fn next(&mut self, time: Duration) -> Option<(Instant, Json)> {
        match self.events.recv_timeout(time) {
            Ok((at, event)) => {
                self.log.push(event.clone());
                Some((at, event))
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the watch has ended:\n{}", self.stderr()),
        }
    }

    /// Reads on to an event; gives it.
    fn wait(&mut self, name: &str, is_it: impl Fn(&Json) -> bool) -> Json {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some((_, event)) = self.next(Duration::from_secs(1))
                && event["event"] == name
                && is_it(&event)
            {
                return event;
            }
        }
        let log: Vec<_> = self.log.iter().rev().take(30).rev().map(Json::to_string).collect();
        panic!("no `{name}` comes:\n{}\n{}", log.join("\n"), self.stderr());
    }

    /// Edits something, and reads on until that is done with.
    fn edit(&mut self, write: impl FnOnce(&Path)) -> Answer {
        let start = Instant::now();
        write(self.folder.path());
        let mut answer = Answer::default();
        let mut runs: Vec<Json> = vec![];
        let (mut changes, mut answers) = (0, 0);
        loop {
            let settled = changes > 0 && answers >= changes && runs.is_empty();
            let Some((at, event)) = self.next(if settled { SILENCE } else { Duration::from_secs(1) }) else {
                if settled {
                    break;
                }
                assert!(start.elapsed() < PATIENCE, "{answer:?}\n{}", self.stderr());
                continue;
            };
            let name = event["event"].as_str().unwrap();
            match name {
                "changed" => {
                    changes += 1;
                    answer.changed.get_or_insert(at - start);
                }
                "plan_made" => {
                    answer.planned.get_or_insert(at - start);
                }
                "unchanged" | "bad_graph" | "reloaded" => {
                    answers += 1;
                    answer.answers.push(name.into());
                    if name == "reloaded" {
                        runs.push(event["run"].clone());
                    }
                }
                "node_started" | "restored" => answer.started.push(event["node"].as_str().unwrap().into()),
                "run_finished" => runs.retain(|run| *run != event["run"]),
                _ => {}
            }
        }
        answer.started.sort();
        answer
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A picture of stripes of one colour, 24 by 16, as a PNG file: the pixels are stored as they are.
fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut pixels = vec![];
    for _ in 0..16 {
        pixels.push(0);
        pixels.extend((0..24).flat_map(|x| colour.map(|c| c.wrapping_mul(x % 5))));
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for &byte in &pixels {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    let length = pixels.len() as u16;
    let mut data = vec![0x78, 1, 1];
    data.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
    data.extend(&pixels);
    data.extend((b << 16 | a).to_be_bytes());
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        let crc = body.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        });
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(body);
        file.extend((!crc).to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 24, 0, 0, 0, 16, 8, 2, 0, 0, 0]);
    chunk(b"IDAT", &data);
    chunk(b"IEND", &[]);
    file
}

const RED: [u8; 3] = [200, 30, 20];
const BLUE: [u8; 3] = [20, 30, 200];

/// Two branches, each a picture that is resized and saved. The first has a node more.
#[derive(Clone)]
struct Text {
    width: u32,
    height: u32,
    other: u32,
    name: &'static str,
    comment: String,
}

impl Text {
    fn new() -> Text {
        Text { width: 8, height: 8, other: 8, name: "big", comment: String::new() }
    }

    fn yaml(&self) -> String {
        let Text { width, height, other, name, comment } = self;
        format!(
            "lsregen: 1\n{comment}\nnodes:\n\
            \x20 picture: {{ type: LoadImage, path: picture.png }}\n\
            \x20 small: {{ type: Upsample, image: picture, width: {width}, height: 8 }}\n\
            \x20 {name}: {{ type: Upsample, image: small, width: 8, height: {height} }}\n\
            \x20 save: {{ type: SaveImage, image: {name}, path: out/first.png }}\n\
            \x20 picture2: {{ type: LoadImage, path: picture2.png }}\n\
            \x20 small2: {{ type: Upsample, image: picture2, width: {other}, height: 8 }}\n\
            \x20 save2: {{ type: SaveImage, image: small2, path: out/second.png }}\n"
        )
    }

    fn write(&self, folder: &Path) {
        fs::write(folder.join("graph.yaml"), self.yaml()).unwrap();
    }

    /// Writes another file and puts it in the place of the graph, as editors do.
    fn replace(&self, folder: &Path) {
        replace(&folder.join("graph.yaml"), self.yaml().as_bytes());
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    let temporary = path.with_extension("temporary");
    fs::write(&temporary, bytes).unwrap();
    fs::rename(temporary, path).unwrap();
}

fn touch(path: &Path) {
    fs::File::options().append(true).open(path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
}

fn start(arguments: &[&str]) -> (Live, Text) {
    let text = Text::new();
    let live = Live::start(arguments, |folder| {
        fs::write(folder.join("picture.png"), png(RED)).unwrap();
        fs::write(folder.join("picture2.png"), png(RED)).unwrap();
        text.write(folder);
    });
    (live, text)
}

/// One edit of each kind, with what it starts; each with values that no other round has. `times` takes the latencies
/// of the edits that lead to a run, and of all others.
fn every_kind(live: &mut Live, text: &mut Text, round: u32, times: &mut [Vec<Duration>; 2]) {
    let mut expect = |answer: Answer, kind: &str, started: &[&str], last: &str| {
        assert_eq!(answer.started, started, "{kind}: {answer:?}");
        assert_eq!(answer.answers.last().unwrap(), last, "{kind}: {answer:?}");
        match answer.planned {
            Some(time) => times[0].push(time),
            None => times[1].extend(answer.changed),
        }
    };
    let all_first = ["big", "picture", "save", "small"];
    let first_but_picture = ["big", "save", "small"];
    let fresh = 16 + 40 * round;

    text.width = fresh;
    expect(live.edit(|folder| text.write(folder)), "written in place", &first_but_picture, "reloaded");
    text.width = fresh + 1;
    expect(live.edit(|folder| text.replace(folder)), "replaced", &first_but_picture, "reloaded");
    text.height = fresh + 2;
    expect(live.edit(|folder| text.replace(folder)), "a late node", &["big", "save"], "reloaded");
    text.other = fresh + 3;
    expect(live.edit(|folder| text.write(folder)), "the other branch", &["save2", "small2"], "reloaded");

    text.other = fresh + 4;
    let late = text.clone();
    let cut = move |folder: &Path| {
        fs::write(folder.join("graph.yaml"), "").unwrap();
        std::thread::sleep(Duration::from_millis(30));
        late.write(folder);
    };
    expect(live.edit(cut), "cut, then written", &["save2", "small2"], "reloaded");

    let broken =
        |folder: &Path| fs::write(folder.join("graph.yaml"), "lsregen: 1\nnodes: { a: { type: Nope } }\n").unwrap();
    expect(live.edit(broken), "bad", &[], "bad_graph");
    expect(live.edit(|folder| text.write(folder)), "good as before", &[], "unchanged");
    expect(live.edit(broken), "bad again", &[], "bad_graph");
    text.other = fresh + 5;
    expect(live.edit(|folder| text.replace(folder)), "good and new", &["save2", "small2"], "reloaded");

    let graph = |folder: &Path| folder.join("graph.yaml");
    expect(live.edit(|folder| touch(&graph(folder))), "touched", &[], "unchanged");
    text.comment = format!("# comment {round}\n\n");
    expect(live.edit(|folder| text.write(folder)), "a comment", &[], "unchanged");
    text.name = if text.name == "big" { "large" } else { "big" };
    expect(live.edit(|folder| text.replace(folder)), "a node renamed", &[], "unchanged");
    text.name = "big";
    expect(live.edit(|folder| text.replace(folder)), "and named as before", &[], "unchanged");

    let (former, width) = (text.width, fresh + 6);
    text.width = width;
    expect(live.edit(|folder| text.write(folder)), "changed", &first_but_picture, "reloaded");
    text.width = former;
    expect(live.edit(|folder| text.write(folder)), "and changed back", &["save"], "reloaded");

    let grey = [round as u8 + 1; 3];
    expect(live.edit(|folder| replace(&folder.join("picture.png"), &png(grey))), "a picture", &all_first, "reloaded");
    let same = live.edit(|folder| fs::write(folder.join("picture.png"), png(grey)).unwrap());
    expect(same, "the same bytes", &[], "unchanged");
    let same = live.edit(|folder| replace(&folder.join("picture.png"), &png(grey)));
    expect(same, "another file of the same bytes", &[], "unchanged");

    expect(live.edit(|folder| fs::remove_file(folder.join("picture.png")).unwrap()), "removed", &[], "bad_graph");
    let back = live.edit(|folder| fs::write(folder.join("picture.png"), png(grey)).unwrap());
    expect(back, "there again", &[], "unchanged");
    expect(live.edit(|folder| fs::remove_file(graph(folder)).unwrap()), "no graph", &[], "bad_graph");
    text.width = fresh + 7;
    expect(live.edit(|folder| text.write(folder)), "a graph again", &first_but_picture, "reloaded");

    // Of two quick saves the second stands; whether the first was seen is a matter of luck.
    text.other = fresh + 8;
    let first = text.clone();
    text.other = fresh + 9;
    let answer = live.edit(|folder| {
        first.write(folder);
        text.write(folder);
    });
    assert_eq!(answer.started[answer.started.len() - 1], "small2", "{answer:?}");
    assert!(answer.started.iter().all(|node| node.ends_with('2')), "{answer:?}");
    expect(live.edit(|folder| touch(&graph(folder))), "and all is done", &[], "unchanged");

    // To a blue picture and back to a known one.
    expect(
        live.edit(|folder| replace(&folder.join("picture2.png"), &png(BLUE))),
        "blue",
        if round == 0 { &["picture2", "save2", "small2"] } else { &["save2", "small2"] },
        "reloaded",
    );
    expect(live.edit(|folder| replace(&folder.join("picture2.png"), &png(RED))), "red", &["save2"], "reloaded");
}

#[test]
fn each_edit_starts_what_it_must_and_nothing_else() {
    let (mut live, mut text) = start(&[]);
    every_kind(&mut live, &mut text, 0, &mut Default::default());
    let stderr = live.stderr();
    assert!(stderr.contains("watching graph.yaml and 2 files that it names"), "{stderr}");
    assert!(
        stderr.contains("graph.yaml changed\n  cached     picture, save2\n  runs       small, big, save\n"),
        "{stderr}"
    );
    assert!(stderr.contains("there is no node type `Nope`") && stderr.contains("graph.yaml: 1 error"), "{stderr}");
}

/// Save to first event, over 50 edits and more. What it prints stands in docs/performance.md.
#[test]
#[ignore = "measures"]
fn how_long_it_takes_from_save_to_plan() {
    let (mut live, mut text) = start(&[]);
    let mut times = [vec![], vec![]];
    for round in 0..3 {
        every_kind(&mut live, &mut text, round, &mut times);
    }
    for (what, times) in ["save to `plan_made`", "save to `changed`, where nothing is to be run"].iter().zip(&mut times)
    {
        times.sort();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{what}: median {median:.1?}, maximum {most:.1?}, of {} edits", times.len());
    }
}

#[test]
fn polling_does_the_same() {
    let (mut live, mut text) = start(&["--poll", "20"]);
    text.width = 11;
    assert_eq!(live.edit(|folder| text.replace(folder)).started, ["big", "save", "small"]);
    text.comment = "# nothing".into();
    assert!(live.edit(|folder| text.write(folder)).started.is_empty());
    let answer = live.edit(|folder| replace(&folder.join("picture2.png"), &png(BLUE)));
    assert_eq!(answer.started, ["picture2", "save2", "small2"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    use std::os::unix::fs::symlink;
    let mut text = Text::new();
    let mut live = Live::start(&[], |folder| {
        fs::create_dir(folder.join("real")).unwrap();
        fs::write(folder.join("real/one.png"), png(RED)).unwrap();
        fs::write(folder.join("real/two.png"), png(BLUE)).unwrap();
        symlink("real/one.png", folder.join("picture.png")).unwrap();
        symlink("real/two.png", folder.join("picture2.png")).unwrap();
        fs::write(folder.join("real/graph.yaml"), text.yaml()).unwrap();
        symlink("real/graph.yaml", folder.join("graph.yaml")).unwrap();
    });
    text.height = 9;
    let answer = live.edit(|folder| replace(&folder.join("real/graph.yaml"), text.yaml().as_bytes()));
    assert_eq!(answer.started, ["big", "save"]);
    let answer = live.edit(|folder| fs::write(folder.join("real/one.png"), png([9; 3])).unwrap());
    assert_eq!(answer.started, ["big", "picture", "save", "small"]);
    // The link leads elsewhere.
    let answer = live.edit(|folder| {
        symlink("real/two.png", folder.join("new")).unwrap();
        fs::rename(folder.join("new"), folder.join("picture.png")).unwrap();
    });
    assert_eq!(answer.started, ["big", "picture", "save", "small"]);
    // No one reads this any longer.
    let answer = live.edit(|folder| {
        fs::write(folder.join("real/one.png"), png([8; 3])).unwrap();
        touch(&folder.join("graph.yaml"));
    });
    assert_eq!((answer.started.len(), answer.answers.as_slice()), (0, &["unchanged".to_string()][..]));
}

/// A graph in the graph is a file like any other, also while it is faulty or not there.
#[test]
fn included_graphs_are_watched() {
    let inner = |width: u32| {
        format!(
            "lsregen: 1\nnodes:\n\
            \x20 picture: {{ type: LoadImage, path: one.png }}\n\
            \x20 small: {{ type: Upsample, image: picture, width: {width}, height: 8 }}\n\
            outputs: {{ image: small }}\n"
        )
    };
    let mut live = Live::start(&[], |folder| {
        fs::create_dir(folder.join("parts")).unwrap();
        fs::write(folder.join("parts/one.png"), png(RED)).unwrap();
        fs::write(folder.join("parts/inner.yaml"), inner(8)).unwrap();
        let graph = "lsregen: 1\nnodes:\n\
            \x20 a: { type: ./parts/inner.yaml }\n\
            \x20 save: { type: SaveImage, image: a.image, path: out/first.png }\n";
        fs::write(folder.join("graph.yaml"), graph).unwrap();
    });
    let write = |text: String| move |folder: &Path| replace(&folder.join("parts/inner.yaml"), text.as_bytes());
    assert_eq!(live.edit(write(inner(9))).started, ["a/small", "save"]);
    let answer = live.edit(write(inner(0)));
    assert_eq!((answer.started.len(), answer.answers.as_slice()), (0, &["bad_graph".to_string()][..]));
    assert!(live.stderr().contains("parts/inner.yaml:4:"), "{}", live.stderr());
    let answer = live.edit(|folder| fs::remove_file(folder.join("parts/inner.yaml")).unwrap());
    assert_eq!((answer.started.len(), answer.answers.as_slice()), (0, &["bad_graph".to_string()][..]));
    assert_eq!(live.edit(write(inner(10))).started, ["a/small", "save"]);
    // Its pictures lie beside it.
    let answer = live.edit(|folder| replace(&folder.join("parts/one.png"), &png(BLUE)));
    assert_eq!(answer.started, ["a/picture", "a/small", "save"]);
}

/// A layout in a file of its own, and a model in a folder.
#[test]
fn layouts_and_weights_are_watched() {
    let layout = |x: f32| format!("{{\"boxes\": [{{\"phrase\": \"a red circle\", \"box\": [{x}, 0.1, 0.9, 0.9]}}]}}");
    let yaml = "lsregen: 1\nnodes:\n\
        \x20 model: { type: LoadModel, model: ./model }\n\
        \x20 draw: { type: GLIGENLayout, model: model, prompt: a red circle, layout_file: layout.json, steps: 1, slots: 1,\n\
        \x20         cfg: 1, width: 64, height: 64 }\n\
        \x20 save: { type: SaveImage, image: draw.image, path: out.png }\n";
    let mut live = Live::start(&[], |folder| {
        copy(&repository("models/shapes/gligen"), &folder.join("model"));
        fs::write(folder.join("layout.json"), layout(0.1)).unwrap();
        fs::write(folder.join("graph.yaml"), yaml).unwrap();
    });
    assert_eq!(
        live.edit(|folder| fs::write(folder.join("layout.json"), layout(0.2)).unwrap()).started,
        ["draw", "save"]
    );
    let weights = "model/unet/diffusion_pytorch_model.safetensors";
    let answer = live.edit(|folder| touch(&folder.join(weights)));
    assert_eq!((answer.started.len(), answer.answers.as_slice()), (0, &["unchanged".to_string()][..]));
    let answer = live.edit(|folder| replace(&folder.join(weights), &fs::read(folder.join(weights)).unwrap()));
    assert_eq!((answer.started.len(), answer.answers.as_slice()), (0, &["unchanged".to_string()][..]));
    let answer = live.edit(|folder| fs::write(folder.join("layout.json"), "{").unwrap());
    assert_eq!(answer.answers, ["bad_graph"]);
    assert_eq!(live.edit(|folder| fs::write(folder.join("layout.json"), layout(0.1)).unwrap()).started, ["save"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)
        } else {
            fs::write(to, fs::read(entry.path()).unwrap()).unwrap()
        }
    }
}

/// A slow branch, where `seed` is given, and a quick one.
fn slow_and_quick(seed: Option<u32>, width: u32) -> String {
    let slow = seed.map_or(String::new(), |seed| {
        format!(
            "\x20 model: {{ type: LoadModel, model: shapes/gligen }}\n\
             \x20 slow: {{ type: GLIGENLayout, model: model, prompt: a red circle, boxes: [], steps: 999, slots: 1, cfg: 1,\n\
             \x20         width: 128, height: 128, seed: {seed} }}\n\
             \x20 save: {{ type: SaveImage, image: slow.image, path: slow.png }}\n"
        )
    });
    format!(
        "lsregen: 1\nnodes:\n{slow}\
         \x20 picture: {{ type: LoadImage, path: picture.png }}\n\
         \x20 quick: {{ type: Upsample, image: picture, width: {width}, height: 8 }}\n\
         \x20 save2: {{ type: SaveImage, image: quick, path: quick.png }}\n"
    )
}

#[test]
fn work_goes_on_while_it_is_wanted_and_stops_when_it_is_not() {
    let mut live = Live::launch(&[], |folder| {
        fs::write(folder.join("picture.png"), png(RED)).unwrap();
        fs::write(folder.join("graph.yaml"), slow_and_quick(Some(1), 8)).unwrap();
    });
    let write = |live: &Live, text: &str| fs::write(live.path("graph.yaml"), text).unwrap();
    let saved = |event: &Json| event["event"] == "node_finished" && event["node"] == "save2";
    live.wait("step", |event| event["node"] == "slow");
    if !live.log.iter().any(saved) {
        live.wait("node_finished", saved);
    }

    // Another branch is edited: the slow one goes on.
    write(&live, &slow_and_quick(Some(1), 9));
    let reloaded = live.wait("reloaded", |_| true);
    let counts = |event: &Json| ["kept", "to_run", "joined", "cancelled"].map(|name| event[name].as_u64().unwrap());
    assert_eq!(counts(&reloaded), [2, 3, 1, 0], "{reloaded}");
    live.wait("joined", |event| event["node"] == "slow" && event["run"] == 1);
    live.wait("node_finished", |event| event["node"] == "save2" && event["run"] == 1);

    // A faulty graph stops nothing, and the same graph again starts nothing.
    write(&live, "lsregen: 1\nnodes: {}\n");
    live.wait("bad_graph", |_| true);
    live.wait("step", |event| event["node"] == "slow" && event["run"] == 1);
    write(&live, &slow_and_quick(Some(1), 9));
    live.wait("unchanged", |_| true);
    live.wait("step", |event| event["node"] == "slow" && event["run"] == 1);

    // Another seed: the model is known, the former drawing stops.
    write(&live, &slow_and_quick(Some(2), 9));
    let reloaded = live.wait("reloaded", |_| true);
    assert_eq!(counts(&reloaded), [2, 2, 0, 1], "{reloaded}");
    live.wait("cancelled", |event| event["node"] == "slow" && event["run"] == 1);
    live.wait("step", |event| event["node"] == "slow" && event["run"] == 2);

    // The slow branch goes: nothing is left to be run.
    write(&live, &slow_and_quick(None, 9));
    let reloaded = live.wait("reloaded", |_| true);
    assert_eq!(counts(&reloaded), [1, 0, 0, 1], "{reloaded}");
    live.wait("cancelled", |event| event["node"] == "slow" && event["run"] == 2);

    let mut started: BTreeMap<String, usize> = BTreeMap::new();
    for event in live.log.iter().filter(|event| event["event"] == "node_started") {
        *started.entry(event["node"].as_str().unwrap().into()).or_default() += 1;
    }
    let expected = [("model", 1), ("picture", 1), ("quick", 2), ("save2", 2), ("slow", 2)];
    assert_eq!(started, expected.map(|(node, count)| (node.to_string(), count)).into());
    assert!(!live.path("slow.png").exists());
}

#[test]
fn a_node_that_fails_leaves_the_watch_alive() {
    let (mut live, mut text) = start(&[]);
    // A folder stands where the picture is to be written; the check sees to it, and says so.
    fs::remove_file(live.path("out/first.png")).unwrap();
    fs::create_dir(live.path("out/first.png")).unwrap();
    text.width = 12;
    assert_eq!(live.edit(|folder| text.write(folder)).answers, ["bad_graph"]);
    fs::remove_dir(live.path("out/first.png")).unwrap();
    let answer = live.edit(|folder| touch(&folder.join("graph.yaml")));
    assert_eq!(answer.started, ["big", "save", "small"]);
    // A broken picture is found only when it is read.
    let answer = live.edit(|folder| fs::write(folder.join("picture.png"), "no picture").unwrap());
    assert_eq!(answer.started, ["picture"]);
    assert!(live.stderr().contains("picture failed"), "{}", live.stderr());
    let answer = live.edit(|folder| fs::write(folder.join("picture.png"), png(BLUE)).unwrap());
    assert_eq!(answer.started, ["big", "picture", "save", "small"]);
}

#[test]
fn a_faulty_graph_may_be_the_first() {
    let mut live = Live::launch(&["--set", "width=9"], |folder| {
        fs::write(folder.join("graph.yaml"), "lsregen: 1\nnodes: {}\n").unwrap();
        fs::write(folder.join("picture.png"), png(RED)).unwrap();
    });
    live.wait("bad_graph", |event| event["diagnostics"].as_array().is_some_and(|faults| !faults.is_empty()));
    let text = slow_and_quick(None, 8)
        .replace("nodes:", "params: { width: 5 }\nnodes:")
        .replace("width: 8", "width: ${width}");
    let answer = live.edit(|folder| fs::write(folder.join("graph.yaml"), text).unwrap());
    assert_eq!(answer.started, ["picture", "quick", "save2"]);
    let (_, stderr, code) = crate::outcome(lsregen().args(["watch", "no-such.yaml"]).output().unwrap());
    assert!(code == 2 && stderr.contains("no-such.yaml"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_watch() {
    let interrupt = |live: &Live| {
        assert!(Command::new("kill").args(["-INT", &live.child.id().to_string()]).status().unwrap().success());
    };
    let (mut live, _) = start(&[]);
    interrupt(&live);
    assert_eq!(live.child.wait().unwrap().code(), Some(0));
    // In the middle of a run.
    let mut live = Live::launch(&[], |folder| {
        fs::write(folder.join("picture.png"), png(RED)).unwrap();
        fs::write(folder.join("graph.yaml"), slow_and_quick(Some(1), 8)).unwrap();
    });
    live.wait("step", |event| event["node"] == "slow");
    interrupt(&live);
    live.wait("run_finished", |event| event["succeeded"] == false);
    assert_eq!(live.child.wait().unwrap().code(), Some(0));
}
