//! One edit of each kind, and the nodes that it starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{BLUE, RED, Text, png, replace, touch};
use super::live::{Answer, Live};

/// A watch of [`Text`].
pub fn start(arguments: &[&str]) -> (Live, Text) {
    let text = Text::new();
    let live = Live::start(arguments, |folder| {
        fs::write(folder.join("picture.png"), png(RED)).unwrap();
        fs::write(folder.join("picture2.png"), png(RED)).unwrap();
        text.write(folder);
    });
    (live, text)
}

/// Makes one edit of each kind and asserts which nodes it starts. Every round uses values of its own. `times` collects the
/// latencies of the edits that lead to a run, and of all others.
pub fn every_kind(live: &mut Live, text: &mut Text, round: u32, times: &mut [Vec<Duration>; 2]) {
    let mut expect = |answer: Answer, kind: &str, started: &[&str], last: &str| {
        assert_eq!(answer.started, started, "{kind}: {answer:?}");
        assert_eq!(answer.answers.last().unwrap(), last, "{kind}: {answer:?}");
        match answer.planned {
            Some(time) => times[0].push(time),
            None => times[1].extend(answer.changed),
        }
    };
    let fresh = FRESH + 40 * round;
    edits_of_the_graph(live, text, fresh, &mut expect);
    edits_without_effect(live, text, fresh, &mut expect);
    edits_of_files(live, text, fresh, &mut expect);
}

/// The first value of the first round.
const FRESH: u32 = 16;

/// Asserts which nodes an edit of this kind started, and the last event that answered it.
type Expect<'a> = &'a mut dyn FnMut(Answer, &str, &[&str], &str);

const FIRST: [&str; 4] = ["big", "picture", "save", "small"];
const FIRST_BUT_PICTURE: [&str; 3] = ["big", "save", "small"];

fn edits_of_the_graph(live: &mut Live, text: &mut Text, fresh: u32, expect: Expect) {
    text.width = fresh;
    expect(live.edit(|folder| text.write(folder)), "written in place", &FIRST_BUT_PICTURE, "reloaded");
    text.width = fresh + 1;
    expect(live.edit(|folder| text.replace(folder)), "replaced", &FIRST_BUT_PICTURE, "reloaded");
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
}

fn edits_without_effect(live: &mut Live, text: &mut Text, fresh: u32, expect: Expect) {
    expect(live.edit(|folder| touch(&graph(folder))), "touched", &[], "unchanged");
    text.comment = format!("# comment {fresh}\n\n");
    expect(live.edit(|folder| text.write(folder)), "a comment", &[], "unchanged");
    text.name = if text.name == "big" { "large" } else { "big" };
    expect(live.edit(|folder| text.replace(folder)), "a node renamed", &[], "unchanged");
    text.name = "big";
    expect(live.edit(|folder| text.replace(folder)), "and named as before", &[], "unchanged");

    let (former, width) = (text.width, fresh + 6);
    text.width = width;
    expect(live.edit(|folder| text.write(folder)), "changed", &FIRST_BUT_PICTURE, "reloaded");
    text.width = former;
    expect(live.edit(|folder| text.write(folder)), "and changed back", &["save"], "reloaded");
}

fn edits_of_files(live: &mut Live, text: &mut Text, fresh: u32, expect: Expect) {
    let grey = [fresh as u8; 3];
    expect(live.edit(|folder| replace(&folder.join("picture.png"), &png(grey))), "a picture", &FIRST, "reloaded");
    let same = live.edit(|folder| fs::write(folder.join("picture.png"), png(grey)).unwrap());
    expect(same, "the same bytes", &[], "unchanged");
    let same = live.edit(|folder| replace(&folder.join("picture.png"), &png(grey)));
    expect(same, "another file of the same bytes", &[], "unchanged");

    expect(live.edit(|folder| fs::remove_file(folder.join("picture.png")).unwrap()), "removed", &[], "bad_graph");
    let back = live.edit(|folder| fs::write(folder.join("picture.png"), png(grey)).unwrap());
    expect(back, "there again", &[], "unchanged");
    expect(live.edit(|folder| fs::remove_file(graph(folder)).unwrap()), "no graph", &[], "bad_graph");
    text.width = fresh + 7;
    expect(live.edit(|folder| text.write(folder)), "a graph again", &FIRST_BUT_PICTURE, "reloaded");

    // After two quick saves the result is that of the second; whether the first is noticed depends on timing.
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

    // Changes to a blue image, and back to the cached one.
    expect(
        live.edit(|folder| replace(&folder.join("picture2.png"), &png(BLUE))),
        "blue",
        if fresh == FRESH { &["picture2", "save2", "small2"] } else { &["save2", "small2"] },
        "reloaded",
    );
    expect(live.edit(|folder| replace(&folder.join("picture2.png"), &png(RED))), "red", &["save2"], "reloaded");
}

fn graph(folder: &Path) -> PathBuf {
    folder.join("graph.yaml")
}
