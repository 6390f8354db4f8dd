//! `lsregen watch` from outside: edits of every kind, and exactly which nodes each of them starts.
//!
//! The tests read events from stdout and measure no time, except for one, which is ignored:
//! `cargo test --test lsregen watch -- --ignored --nocapture`.

mod edits;
mod files;
mod live;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use self::edits::{every_kind, start};
use self::files::{BLUE, RED, Text, png, replace, touch};
use self::live::Live;
use crate::{copy_folder, lsregen, repository};

#[test]
fn each_edit_starts_the_affected_nodes_and_no_others() {
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

/// Measures the time from a save to the first event over more than 50 edits, for docs/performance.md.
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
fn polling_finds_the_same_edits() {
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
    // The link gets another target.
    let answer = live.edit(|folder| {
        symlink("real/two.png", folder.join("new")).unwrap();
        fs::rename(folder.join("new"), folder.join("picture.png")).unwrap();
    });
    assert_eq!(answer.started, ["big", "picture", "save", "small"]);
    // The graph no longer reads this file.
    let answer = live.edit(|folder| {
        fs::write(folder.join("real/one.png"), png([8; 3])).unwrap();
        touch(&folder.join("graph.yaml"));
    });
    assert_eq!((answer.started.len(), answer.answers.as_slice()), (0, &["unchanged".to_string()][..]));
}

/// An included graph is watched like any other file, also while it has errors or is missing.
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
    // Its images are beside it.
    let answer = live.edit(|folder| replace(&folder.join("parts/one.png"), &png(BLUE)));
    assert_eq!(answer.started, ["a/picture", "a/small", "save"]);
}

/// A layout file, and a model in a folder.
#[test]
fn layouts_and_weights_are_watched() {
    let layout = |x: f32| format!("{{\"boxes\": [{{\"phrase\": \"a red circle\", \"box\": [{x}, 0.1, 0.9, 0.9]}}]}}");
    let yaml = "lsregen: 1\nnodes:\n\
        \x20 model: { type: LoadModel, model: ./model }\n\
        \x20 draw: { type: GLIGENLayout, model: model, prompt: a red circle, layout_file: layout.json, steps: 1, slots: 1,\n\
        \x20         cfg: 1, width: 64, height: 64 }\n\
        \x20 save: { type: SaveImage, image: draw.image, path: out.png }\n";
    let mut live = Live::start(&[], |folder| {
        copy_folder(&repository("models/shapes/gligen"), &folder.join("model"));
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

/// A graph with a quick branch, and with a slow branch if `seed` is given.
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
fn a_task_continues_while_a_run_needs_it_and_stops_otherwise() {
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

    // Another branch is edited: the slow one continues.
    write(&live, &slow_and_quick(Some(1), 9));
    let reloaded = live.wait("reloaded", |_| true);
    let counts = |event: &Json| ["kept", "to_run", "joined", "cancelled"].map(|name| event[name].as_u64().unwrap());
    assert_eq!(counts(&reloaded), [2, 3, 1, 0], "{reloaded}");
    live.wait("joined", |event| event["node"] == "slow" && event["run"] == 1);
    live.wait("node_finished", |event| event["node"] == "save2" && event["run"] == 1);

    // A graph with errors stops nothing, and the same graph again starts nothing.
    write(&live, "lsregen: 1\nnodes: {}\n");
    live.wait("bad_graph", |_| true);
    live.wait("step", |event| event["node"] == "slow" && event["run"] == 1);
    write(&live, &slow_and_quick(Some(1), 9));
    live.wait("unchanged", |_| true);
    live.wait("step", |event| event["node"] == "slow" && event["run"] == 1);

    // Another seed: the model is cached, and the former sampling stops.
    write(&live, &slow_and_quick(Some(2), 9));
    let reloaded = live.wait("reloaded", |_| true);
    assert_eq!(counts(&reloaded), [2, 2, 0, 1], "{reloaded}");
    live.wait("cancelled", |event| event["node"] == "slow" && event["run"] == 1);
    live.wait("step", |event| event["node"] == "slow" && event["run"] == 2);

    // The slow branch is removed: nothing is left to run.
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
    // A folder has the path of the image, which the check reports.
    fs::remove_file(live.path("out/first.png")).unwrap();
    fs::create_dir(live.path("out/first.png")).unwrap();
    text.width = 12;
    assert_eq!(live.edit(|folder| text.write(folder)).answers, ["bad_graph"]);
    fs::remove_dir(live.path("out/first.png")).unwrap();
    let answer = live.edit(|folder| touch(&folder.join("graph.yaml")));
    assert_eq!(answer.started, ["big", "save", "small"]);
    // The check does not decode an image.
    assert_eq!(live.edit(|folder| fs::write(folder.join("picture.png"), "no picture").unwrap()).answers, ["bad_graph"]);
    let mut broken = png(BLUE);
    let data = broken.windows(4).position(|name| name == b"IDAT").unwrap() + 4;
    broken[data..data + 8].fill(0xff);
    let answer = live.edit(|folder| fs::write(folder.join("picture.png"), broken).unwrap());
    assert_eq!(answer.started, ["picture"]);
    assert!(live.stderr().contains("picture failed"), "{}", live.stderr());
    let answer = live.edit(|folder| fs::write(folder.join("picture.png"), png(BLUE)).unwrap());
    assert_eq!(answer.started, ["big", "picture", "save", "small"]);
}

#[test]
fn the_first_graph_may_have_errors() {
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
fn ctrl_c_and_sigterm_end_the_watch() {
    let send = |signal: &str, live: &Live| {
        assert!(Command::new("kill").args([signal, &live.child.id().to_string()]).status().unwrap().success());
    };
    let (mut live, _) = start(&[]);
    send("-INT", &live);
    assert_eq!(live.child.wait().unwrap().code(), Some(130));
    // During a run.
    let mut live = Live::launch(&[], |folder| {
        fs::write(folder.join("picture.png"), png(RED)).unwrap();
        fs::write(folder.join("graph.yaml"), slow_and_quick(Some(1), 8)).unwrap();
    });
    live.wait("step", |event| event["node"] == "slow");
    send("-TERM", &live);
    live.wait("run_finished", |event| event["succeeded"] == false);
    assert_eq!(live.child.wait().unwrap().code(), Some(143));
}
