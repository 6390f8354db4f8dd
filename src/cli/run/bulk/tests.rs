//! Rows that nobody would write: none panics or takes long, and every error has a place.
//!
//! `LSREGEN_ROWS=100000` reads so many files; `LSREGEN_SEED` begins elsewhere. See docs/performance.md.

#[path = "../../../../tests/fuzz/documents/dice.rs"]
mod dice;

use std::fs;
use std::time::{Duration, Instant};

use lsregen_engine::{Diagnostic, Host, Source, check, render, to_json};
use serde_json::{Value as Json, json};

use self::dice::Dice;
use super::Rows;

/// How many files are read without `LSREGEN_ROWS`.
const COUNT: u64 = 1_000;

const PATIENCE: Duration = Duration::from_secs(10);

const GRAPH: &str = r#"lsregen: 1
params:
  prompt: a red circle
  seed: 1
  scale: 0.5
  boxes: [{ phrase: a red circle, box: [0, 0, 0.5, 0.5] }]
nodes:
  model: { type: LoadModel, model: shapes/xl }
  layout: { type: Layout, boxes: ${boxes} }
  guide: { type: LayoutGuidance, layout: layout, scale: ${scale} }
  sample: { type: GuidedSDXLSample, model: model, guidance: [guide], prompt: "${prompt}", seed: ${seed} }
  image: { type: Decode, model: model, latent: sample }
  save: { type: SaveImage, image: image, path: a.png }
"#;

const NAMES: [&str; 9] = ["prompt", "seed", "scale", "boxes", "id", "", " seed", "sede", "\u{202e}x"];

/// A value, as JSON and as a cell.
fn value(dice: &mut Dice) -> (Json, String) {
    let text = dice.pick(&[
        "a red circle",
        "",
        " ",
        "1",
        "-1",
        "1e400",
        "18446744073709551616",
        "random",
        "[1, 2",
        "{a: b}",
        "&a *a",
        "\"",
        "'",
        "a\nb",
        "a,b",
        "\u{202e}é 😀",
        "..",
        "nul",
        "x/../../y",
        "!!binary x",
        "a\u{1b}[31m\u{0}",
        "null",
        "~",
        "[{phrase: a red circle, box: [0, 0, 0.5, 0.5]}]",
    ]);
    let json = match dice.roll(10) {
        0 => json!(dice.roll(1 << 20)),
        1 => json!(-0.5),
        2 => json!(1e308),
        3 => Json::Null,
        4 => json!([{ "phrase": "a red circle", "box": [0, 0, 0.5, 0.5] }]),
        5 => (0..1 + dice.roll(200)).fold(json!(1), |inner, _| json!([inner])),
        6 => json!("x".repeat(1 << dice.roll(12))),
        _ => json!(text),
    };
    let cell = if dice.one_in(2) { text.to_string() } else { json.to_string() };
    (json, cell)
}

fn lines(dice: &mut Dice) -> String {
    let line = |dice: &mut Dice| {
        let members = (0..dice.roll(6)).map(|_| {
            let name = dice.pick(&NAMES);
            format!("{}: {}", json!(name), value(dice).0)
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
    };
    (0..dice.roll(6)).map(|_| line(dice) + dice.pick(&["\n", "\r\n", "\n\n", ""])).collect()
}

fn table(dice: &mut Dice) -> String {
    let columns = 1 + dice.roll(6);
    let header: Vec<_> = (0..columns).map(|_| dice.pick(&NAMES)).collect();
    let cell = |dice: &mut Dice| {
        let cell = value(dice).1;
        if dice.one_in(8) { cell } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
    };
    let row = |dice: &mut Dice| {
        let cells = if dice.one_in(8) { dice.roll(9) } else { columns };
        (0..cells).map(|_| cell(dice)).collect::<Vec<_>>().join(",")
    };
    let rows: Vec<_> = (0..dice.roll(6)).map(|_| row(dice)).collect();
    format!("{}\n{}", header.join(","), rows.join(dice.pick(&["\n", "\r\n"])))
}

/// Damages bytes, which may no longer be UTF-8.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..1 + dice.roll(4) {
        let at = dice.roll(bytes.len());
        match dice.roll(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, dice.pick(&[b"\"", b"{", b",", b"\n", b"\\", b"\0"])[0]),
            _ if at < bytes.len() => bytes[at] = (32 + dice.roll(95)) as u8,
            _ => {}
        }
    }
}

/// Asserts that every place is within its text and that every form can be written.
fn told(errors: &[Diagnostic]) {
    assert!(!errors.is_empty(), "refused without an error");
    for error in errors {
        for label in std::iter::once(&error.primary).chain(&error.secondary) {
            assert!(label.source.text().get(label.span.range()).is_some(), "{}: {:?}", error.message, label.span);
        }
    }
    assert!(!render(errors, true).is_empty());
    assert_eq!(to_json(errors).as_array().map(Vec::len), Some(errors.len()));
}

#[test]
fn no_row_makes_the_check_panic() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (count, first) = (number("LSREGEN_ROWS").unwrap_or(COUNT), number("LSREGEN_SEED").unwrap_or(0));
    let folder = tempfile::tempdir().unwrap();
    let (registry, host) = (lsregen_nodes::registry(), Host::new(folder.path(), "out"));
    let graph = Source::new("graph.yaml", GRAPH);
    assert!(check(graph.clone(), &[], &registry, &host).graph.is_some());
    let params = ["prompt", "seed", "scale", "boxes"].map(String::from);
    let (mut files, mut refused, mut accepted, mut slowest) = (0, 0, 0, Duration::ZERO);
    for seed in first..first + count {
        let mut dice = Dice::new(seed);
        let (ending, text) = if dice.one_in(2) { ("jsonl", lines(&mut dice)) } else { ("csv", table(&mut dice)) };
        let mut bytes = text.into_bytes();
        if dice.one_in(3) {
            damage(&mut bytes, &mut dice);
        }
        let path = folder.path().join(format!("rows.{ending}"));
        fs::write(&path, &bytes).unwrap();
        let begin = Instant::now();
        let Ok(rows) = Rows::read(&path) else { continue };
        files += 1;
        for index in 0..rows.count() {
            let errors = match rows.row(index, &params) {
                Err(errors) => errors,
                Ok(row) => {
                    assert!(!row.name.is_empty() && !row.name.contains(['/', '\\', '\0']), "seed {seed}: {}", row.name);
                    let checked = check(graph.clone(), &row.overrides, &registry, &host);
                    if checked.graph.is_some() {
                        accepted += 1;
                        continue;
                    }
                    checked.diagnostics
                }
            };
            refused += 1;
            told(&rows.located(index, errors));
        }
        assert!(begin.elapsed() < PATIENCE, "seed {seed} took {:?}", begin.elapsed());
        slowest = slowest.max(begin.elapsed());
    }
    println!("{files} of {count} files, {accepted} rows accepted, {refused} refused; slowest {slowest:?}");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak = peak.and_then(|peak| peak.parse::<u64>().ok()).unwrap_or(0) / 1024;
    println!("peak memory {peak} MiB");
    assert!(peak < 512, "{peak} MiB");
    assert!(accepted > count / 100 && refused > count / 4, "{accepted} accepted, {refused} refused");
}
