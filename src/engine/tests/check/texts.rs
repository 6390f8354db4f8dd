//! Texts that nobody would write: damaged, huge or malicious.

use std::time::{Duration, Instant};

use lsregen_engine::{Checked, Override, Severity, render, to_json};

use crate::{GOOD, checked};

/// A small random number generator with a fixed seed, so that every run makes the same damage.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides.max(1)
    }
}

pub fn assert_sound(checked: &Checked) {
    for diagnostic in &checked.diagnostics {
        for label in std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary) {
            let (span, text) = (label.span, label.source.text());
            assert!(span.start <= span.end && text.get(span.range()).is_some(), "{} {span:?}", diagnostic.message);
        }
    }
    assert!(checked.graph.is_some() || checked.diagnostics.iter().any(|d| d.severity == Severity::Error));
    let drawn = render(&checked.diagnostics, false);
    assert_eq!(drawn.is_empty(), checked.diagnostics.is_empty());
    assert_eq!(to_json(&checked.diagnostics).as_array().map(Vec::len), Some(checked.diagnostics.len()));
}

/// Valid YAML with features that the other workflow does not have: anchors, block texts, references inside braces.
const OTHER: &str = "\
lsregen: 1
params: { boxes: [{ phrase: x, box: [0, 0, 1, 1] }], n: 64 }
nodes:
  a: &a { type: Upsample, width: ${n}, height: 8, image: layout.image }
  b: { <<: *a, image: \"a\" }
  layout:
    type: Layout
    boxes: ${boxes}
    prompt: |
      ü ${n} $${n}
      x
    model: m
  m: {type: LoadModel, model: gligen}
  k: { type: Kinds, frame: {shape: line, width: 1}, colour: [1, 2, 3] }
  save:
    type: SaveImage
    image: b
    path: >-
      a
      b
";

/// Damages a text in up to five places.
pub fn damage(text: &mut String, dice: &mut Dice) {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "\t",
        "'",
        "\"",
        "${",
        "}",
        "${prompt}",
        "${seed}",
        "*a",
        "&a ",
        "!t ",
        "#",
        "|",
        ">",
        "---\n",
        "...\n",
        "<<: ",
        "?",
        "null",
        ".nan",
        "-1",
        "99999999999999999999",
        "ü",
        "日本",
        "\r\n",
        "\u{feff}",
        "\0",
        "type: ",
        "layout.image",
        "up",
        "large",
        "%",
        "@",
        "\\",
        ",",
        "1e999",
    ];
    for _ in 0..=dice.roll(4) {
        let places: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (a, b) = (places[dice.roll(places.len())], places[dice.roll(places.len())]);
        let near = text.len().min(a + 1 + dice.roll(12));
        let end = (near..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        match dice.roll(5) {
            0 => text.truncate(a),
            1 => text.replace_range(a..end, ""),
            2 => text.insert_str(a, pieces[dice.roll(pieces.len())]),
            3 => text.replace_range(a..end, pieces[dice.roll(pieces.len())]),
            _ => {
                let copy = text[a.min(b)..a.max(b)].to_string();
                text.insert_str(places[dice.roll(places.len())], &copy);
            }
        }
    }
}

#[test]
fn damaged_texts_are_reported_and_never_panic() {
    assert_eq!(codes(OTHER), ["unneeded-node"]);
    let mut dice = Dice(1);
    for round in 0..10_000 {
        let mut text = [GOOD, OTHER][round % 2].to_string();
        damage(&mut text, &mut dice);
        let outcome = std::panic::catch_unwind(|| assert_sound(&checked(&text, &[])));
        assert!(outcome.is_ok(), "round {round}: {text:?}");
    }
}

#[test]
fn damaged_overrides_never_panic() {
    let mut dice = Dice(2);
    let pieces =
        ["=", "seed", "[", "]", "{", "}", "'", "\"", ": ", "ü", "\n", "*a", "&a ", "7", ".inf", " ", "${x}", "\0"];
    for _ in 0..3_000 {
        let arg: String = (0..dice.roll(8)).map(|_| pieces[dice.roll(pieces.len())]).collect();
        if let Err(fault) = Override::parse(&arg) {
            assert!(fault.primary.source.text().get(fault.primary.span.range()).is_some(), "{arg:?}");
            assert!(!render(&[*fault], false).is_empty());
        }
    }
}

fn chain(nodes: usize, faulty: bool) -> String {
    let mut text = String::from("lsregen: 1\nnodes:\n  n0: { type: LoadImage, path: picture.png }\n");
    for i in 1..nodes {
        let key = if faulty { "widht" } else { "width" };
        text.push_str(&format!("  n{i}: {{ type: Upsample, image: n{}, {key}: 64, height: 64 }}\n", i - 1));
    }
    text.push_str(&format!("  save: {{ type: SaveImage, image: n{}, path: a.png }}\n", nodes - 1));
    text
}

/// Generous for a debug build on a busy machine: quadratic time would take minutes.
#[test]
fn long_chains_take_linear_time() {
    for faulty in [false, true] {
        let begin = Instant::now();
        let checked = checked(&chain(10_000, faulty), &[]);
        assert_eq!(checked.graph.is_none(), faulty);
        assert_eq!(checked.diagnostics.len(), if faulty { 9_999 } else { 0 });
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        assert!(render(&checked.diagnostics, false).len() < 200_000);
    }
}

fn codes(text: &str) -> Vec<&'static str> {
    checked(text, &[]).diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn texts_that_grow_are_refused() {
    let mut laughs = String::from("lsregen: 1\nparams:\n  p0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    let mut fills = String::from("lsregen: 1\nparams:\n  p0: [x, x, x, x, x, x, x, x, x]\n");
    let mut words = String::from("lsregen: 1\nparams:\n  p0: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n");
    for i in 1..40 {
        let (alias, fill, word) =
            (format!("*a{}, ", i - 1), format!("\"${{p{}}}\", ", i - 1), format!("${{p{}}}", i - 1));
        laughs.push_str(&format!("  p{i}: &a{i} [{}]\n", alias.repeat(9)));
        fills.push_str(&format!("  p{i}: [{}]\n", fill.repeat(9)));
        words.push_str(&format!("  p{i}: {}\n", word.repeat(9)));
    }
    assert_eq!(codes(&laughs), ["too-large"]);
    assert!(codes(&fills).contains(&"too-large"));
    assert!(codes(&words).contains(&"too-large"));
}

#[test]
fn texts_that_are_too_much_are_refused() {
    assert_eq!(codes(&"#".repeat((1 << 20) + 1)), ["too-large"]);
    assert_eq!(codes(&format!("lsregen: {}", "[".repeat(100_000))), ["too-deep"]);
    let mut deep = String::from("lsregen: 1\nparams:\n  p0: x\n");
    for i in 1..2000 {
        deep.push_str(&format!("  p{i}: [\"${{p{}}}\"]\n", i - 1));
    }
    assert!(codes(&deep).contains(&"too-deep"));
}

/// Each of these would take minutes if a step took quadratic time.
#[test]
fn very_many_errors_in_one_place_are_reported() {
    let keys: String = (0..30_000).map(|i| format!("    k{i}: 1\n")).collect();
    let keys = format!("lsregen: 1\nnodes:\n  a:\n    type: LoadImage\n{keys}");
    let reported = codes(&keys);
    // If there are very many errors, only some are reported, and a warning says so.
    assert_eq!((reported.len(), reported.last()), (10_001, Some(&"more-faults")));
    let items = format!("lsregen: 1\nnodes: {{ a: {{ type: Kinds, methods: [{}] }} }}", "1,".repeat(50_000));
    let faults = checked(&items, &[]).diagnostics;
    assert_eq!(faults.iter().filter(|fault| fault.code == "wrong-type").count(), 10_000);
    let reported = to_json(&faults);
    let columns: Vec<_> = reported.as_array().unwrap().iter().filter_map(|fault| fault["column"].as_u64()).collect();
    assert!(columns[..10_000].windows(2).all(|pair| pair[0] <= pair[1]) && columns.iter().max() > Some(&20_000));
    // A line of this length is not printed, only its position.
    let drawn = render(&faults[..1], false);
    assert!(drawn.contains("graph.yaml:2:") && drawn.len() < 1000, "{drawn}");
    let references: String = (0..20_000).map(|i| format!("${{x{i}}}")).collect();
    assert!(
        codes(&format!("lsregen: 1\nparams: {{ p: \"{references}\" }}\nnodes: {{ a: {{ type: Patch }} }}")).len()
            >= 100
    );
}
