//! Documents that nobody would write: good ones damaged, grown from a grammar, spliced, or large and built to be slow.
//!
//! A document is made of its seed alone, so that a seed is enough to make it again.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// A small generator of numbers (SplitMix64), the same on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `sides`, which is at least 1.
    pub fn roll(&mut self, sides: usize) -> usize {
        (self.next() % sides.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.roll(n) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.roll(list.len())]
    }
}

/// The documents that others are made of: every graph and every fault of the repository.
pub struct Corpus {
    texts: Vec<String>,
}

impl Corpus {
    /// # Panics
    /// When a folder of the repository cannot be read.
    pub fn read(repository: &Path) -> Corpus {
        let mut paths = vec![];
        for folder in ["graphs", "tests/faults"] {
            let entries = fs::read_dir(repository.join(folder)).expect("a folder of the repository");
            paths.extend(entries.map(|entry| entry.expect("an entry of the folder").path()));
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        paths.sort();
        let text = |path: &_| String::from_utf8_lossy(&fs::read(path).expect("a readable file")).into_owned();
        Corpus { texts: paths.iter().map(text).collect() }
    }

    fn pick(&self, dice: &mut Dice) -> &str {
        &self.texts[dice.roll(self.texts.len())]
    }

    /// A document, and how it was made.
    pub fn document(&self, seed: u64) -> (&'static str, String) {
        let mut dice = Dice::new(seed);
        match dice.roll(16) {
            0..6 => ("damaged", damaged(&mut dice, self.pick_text())),
            6..12 => ("grown", grown(&mut dice)),
            12 | 13 => ("grown, damaged", {
                let text = grown(&mut dice);
                damaged(&mut dice, |_| text.clone())
            }),
            14 => ("spliced", spliced(self, &mut dice)),
            _ => {
                let (name, make) = LARGE[dice.roll(LARGE.len())];
                // Mostly small, for a million of them have to be checked; the program makes each once at full size.
                let bytes = 1 << (6 + dice.roll(9));
                (name, cut(make(bytes), bytes))
            }
        }
    }

    fn pick_text(&self) -> impl Fn(&mut Dice) -> String {
        |dice| self.pick(dice).to_string()
    }
}

/// Not longer than this, cut at a character.
fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// What is put into documents to damage them.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ": ",
    ",",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "-",
    "\t",
    "'",
    "\"",
    "${",
    "$${",
    "}",
    "${prompt}",
    "${seed}",
    "${ seed }",
    "${}",
    "${a}${b}",
    "*a",
    "&a ",
    "*a ",
    "!t ",
    "!!str ",
    "#",
    " #",
    "|",
    "|2-\n",
    ">",
    ">+\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "<<: ",
    "<<: *a",
    "? ",
    "~",
    "null",
    ".nan",
    "-.inf",
    "-1",
    "0x1f",
    "0o17",
    "1_000",
    "1e999",
    "99999999999999999999",
    "18446744073709551615",
    "-9223372036854775808",
    "0.1e-400",
    "ü",
    "日本",
    "🦀",
    "e\u{301}",
    "\u{202e}",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
    "\r\n",
    "\r",
    "\u{feff}",
    "\0",
    "\u{7f}",
    "\u{fdd0}",
    "type: ",
    "type",
    "nodes:",
    "params:",
    "outputs:",
    "lsregen: 1",
    "LoadModel",
    "GLIGENLayout",
    "layout.image",
    "up",
    "large",
    "%",
    "@",
    "`",
    "\\",
    "\\x",
    "\"\\u12\"",
    "true",
    "no",
    "a.yaml",
    "path: ../x",
    "boxes: [[]]",
];

fn damaged(dice: &mut Dice, base: impl Fn(&mut Dice) -> String) -> String {
    let mut text = base(dice);
    for _ in 0..=dice.roll(4) {
        let (a, b) = (place(dice, &text), place(dice, &text));
        let (a, b) = (a.min(b), a.max(b));
        let near = near(dice, &text, a);
        match dice.roll(9) {
            0 => text.truncate(b),
            1 => text.replace_range(a..near, ""),
            2 | 3 => text.insert_str(a, dice.pick(PIECES)),
            4 => text.replace_range(a..near, dice.pick(PIECES)),
            5 => {
                let copy = text[a..b].to_string();
                let at = place(dice, &text);
                text.insert_str(at, &copy);
            }
            6 => text = lines(dice, &text),
            7 => {
                let flipped = bytes_flipped(dice, text.into_bytes());
                text = String::from_utf8_lossy(&flipped).into_owned();
            }
            _ => text = text.replace('\n', dice.pick(&["\r\n", "\n\n", "\r", "\n "])),
        }
    }
    cut(text, 1 << 16)
}

/// A place between two characters.
fn place(dice: &mut Dice, text: &str) -> usize {
    let at = dice.roll(text.len() + 1);
    (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

fn near(dice: &mut Dice, text: &str, from: usize) -> usize {
    let at = (from + 1 + dice.roll(12)).min(text.len());
    (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

/// Lines lost, doubled, swapped, indented anew.
fn lines(dice: &mut Dice, text: &str) -> String {
    let mut lines: Vec<_> = text.lines().map(str::to_string).collect();
    if lines.is_empty() {
        return String::new();
    }
    let (a, b) = (dice.roll(lines.len()), dice.roll(lines.len()));
    match dice.roll(4) {
        0 => _ = lines.remove(a),
        1 => lines.insert(b, lines[a].clone()),
        2 => lines.swap(a, b),
        _ => lines[a] = format!("{}{}", " ".repeat(dice.roll(8)), lines[a].trim_start()),
    }
    lines.join("\n")
}

fn bytes_flipped(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.roll(3) {
        if !bytes.is_empty() {
            let at = dice.roll(bytes.len());
            bytes[at] ^= 1 << dice.roll(8);
        }
    }
    bytes
}

/// The first part of one document and the last of another.
fn spliced(corpus: &Corpus, dice: &mut Dice) -> String {
    let (first, second) = (corpus.pick(dice), corpus.pick(dice));
    let line_starts = |text: &str| -> Vec<usize> { text.match_indices('\n').map(|(at, _)| at + 1).collect() };
    let (a, b) = (line_starts(first), line_starts(second));
    let end = if a.is_empty() { first.len() } else { a[dice.roll(a.len())] };
    let start = if b.is_empty() { 0 } else { b[dice.roll(b.len())] };
    format!("{}{}", &first[..end], &second[start..])
}

const TYPES: &[&str] = &[
    "LoadModel",
    "GLIGENLayout",
    "Upsample",
    "VAEEncode",
    "Invert",
    "GuidedSDXLSample",
    "SDXLSample",
    "Decode",
    "LoadImage",
    "SaveImage",
    "LoadLatent",
    "SaveLatent",
    "DrawLayout",
    "ImageGrid",
    "loadmodel",
    "Sampler",
    "x.yaml",
    "${t}",
    "",
];
const KEYS: &[&str] = &[
    "model",
    "image",
    "images",
    "latent",
    "layout",
    "guidance",
    "prompt",
    "negative",
    "boxes",
    "layout_file",
    "width",
    "height",
    "factor",
    "method",
    "mode",
    "strength",
    "window",
    "from_timestep",
    "steps",
    "sampler",
    "cfg",
    "seed",
    "shared_noise",
    "mask",
    "feather",
    "slots",
    "beta",
    "eta",
    "path",
    "labels",
    "columns",
    "cell",
    "promt",
    "typ",
    "<<",
    "größe",
];
const NAMES: &[&str] =
    &["a", "b", "c", "d", "e", "model", "small", "größe", "a-b", "_x", "n1", "1x", "a.b", "", "日本"];
const OUTPUTS: &[&str] = &["image", "latent", "model", "layout", "guidance", "file", "imag", "", "a.b"];

/// A workflow by the rules, each of which is broken now and then.
fn grown(dice: &mut Dice) -> String {
    let mut text = String::new();
    if dice.one_in(40) {
        text.push_str(dice.pick(&["\u{feff}", "---\n", "# c\n", "%YAML 1.2\n---\n", "\n\n", " "]));
    }
    text.push_str(dice.pick(&["lsregen: 1\n", "lsregen: 1\n", "lsregen: 1\n", "lsregen: 1 # v\n", "lsregen: 2\n", ""]));
    if dice.one_in(3) {
        let _ = writeln!(text, "about: {}", scalar(dice));
    }
    if !dice.one_in(4) {
        text.push_str("params:\n");
        for _ in 0..dice.roll(5) {
            let (name, anchor) = (dice.pick(NAMES), anchor(dice));
            let _ = writeln!(text, "  {name}: {anchor}{}", value(dice, 3));
        }
    }
    if dice.one_in(6) {
        let _ = writeln!(text, "outputs: {{ {}: {} }}", dice.pick(NAMES), link(dice));
    }
    text.push_str(dice.pick(&["nodes:\n", "nodes:\n", "nodes:\n", "nodes:\n", "node:\n", "nodes: \n- "]));
    for index in 0..dice.roll(8) {
        let name = if dice.one_in(3) { dice.pick(NAMES).to_string() } else { format!("n{index}") };
        node(dice, &name, &mut text);
    }
    text
}

fn node(dice: &mut Dice, name: &str, text: &mut String) {
    let kind = dice.pick(TYPES);
    let keys: Vec<_> = (0..dice.roll(7)).map(|_| (dice.pick(KEYS), key_value(dice))).collect();
    let anchor = anchor(dice);
    if dice.one_in(2) {
        let entries: Vec<_> = keys.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let comma = if entries.is_empty() { "" } else { ", " };
        let _ = writeln!(text, "  {name}: {anchor}{{ type: {kind}{comma}{} }}", entries.join(", "));
        return;
    }
    let _ = writeln!(text, "  {name}: {anchor}");
    let _ = writeln!(text, "    type: {kind}");
    for (key, value) in keys {
        let _ = writeln!(text, "    {key}: {value}");
    }
}

fn anchor(dice: &mut Dice) -> &'static str {
    if dice.one_in(8) { dice.pick(&["&a ", "&b ", "&ü ", "!t ", "&a !!str "]) } else { "" }
}

fn link(dice: &mut Dice) -> String {
    let name = if dice.one_in(2) { format!("n{}", dice.roll(8)) } else { dice.pick(NAMES).to_string() };
    if dice.one_in(2) { name } else { format!("{name}.{}", dice.pick(OUTPUTS)) }
}

fn key_value(dice: &mut Dice) -> String {
    match dice.roll(6) {
        0..3 => link(dice),
        3 => format!("[{}]", (0..dice.roll(4)).map(|_| link(dice)).collect::<Vec<_>>().join(", ")),
        _ => value(dice, 3),
    }
}

fn value(dice: &mut Dice, depth: usize) -> String {
    match dice.roll(if depth == 0 { 6 } else { 10 }) {
        0..6 => scalar(dice),
        6 | 7 => format!("[{}]", (0..dice.roll(5)).map(|_| value(dice, depth - 1)).collect::<Vec<_>>().join(", ")),
        8 => {
            let entries = (0..dice.roll(4)).map(|_| format!("{}: {}", dice.pick(KEYS), value(dice, depth - 1)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        _ => format!("[{{ phrase: {}, box: [{}, 0, 1, {}] }}]", scalar(dice), scalar(dice), scalar(dice)),
    }
}

fn scalar(dice: &mut Dice) -> String {
    match dice.roll(8) {
        0 => dice.roll(2000).to_string(),
        1 => format!("{}.{}", dice.roll(3), dice.roll(100)),
        2 => format!("${{{}}}", dice.pick(NAMES)),
        3 => format!("\"a ${{{}}} b ${{{}}}\"", dice.pick(NAMES), dice.pick(NAMES)),
        4 => dice
            .pick(&["a red circle", "shapes/xl", "shapes/gligen", "ddim", "euler", "out/x.png", "x.safetensors"])
            .into(),
        5 => dice.pick(&["*a", "*b", "*ü", "*c"]).into(),
        6 => dice.pick(PIECES).into(),
        _ => {
            dice.pick(&["true", "~", "null", "''", "\"ü\\n\"", "'it''s'", "0", "-0.0", "1e3", "[]", "{}", "128"]).into()
        }
    }
}

/// Makes a document of about so many bytes.
type Make = fn(usize) -> String;

/// Ways to be large.
pub const LARGE: &[(&str, Make)] = &[
    ("chain of nodes", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  n0: { type: LoadImage, path: no.png }\n", |i| {
            format!("  n{}: {{ type: Upsample, image: n{i}, factor: 2 }}\n", i + 1)
        })
    }),
    ("nodes without a fault", |bytes| {
        let head = "lsregen: 1\nnodes:\n  m: { type: LoadModel, model: shapes/xl }\n";
        repeated(bytes, head, |i| {
            format!(
                "  s{i}: {{ type: SDXLSample, model: m, prompt: x, seed: {i} }}\n  d{i}: {{ type: Decode, model: m, latent: \
                 s{i} }}\n  w{i}: {{ type: SaveImage, image: d{i}, path: o{i}.png }}\n"
            )
        })
    }),
    ("models", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  m{i}: {{type: LoadModel, model: shapes/gligen}}\n"))
    }),
    ("models that are not there", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  m{i}: {{type: LoadModel, model: shape{i}}}\n"))
    }),
    ("pictures that are not there", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  m{i}: {{type: LoadImage, path: layout{i}.json}}\n"))
    }),
    ("layouts from a file", |bytes| {
        let head = "lsregen: 1\nnodes:\n  m: { type: LoadModel, model: shapes/gligen }\n";
        repeated(bytes, head, |i| {
            format!("  l{i}: {{type: GLIGENLayout, model: m, prompt: x, layout_file: layout.json}}\n")
        })
    }),
    ("one node of many keys", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a:\n    type: SDXLSample\n", |i| format!("    k{i}: 1\n"))
    }),
    ("one node of many near keys", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a:\n    type: SDXLSample\n", |i| format!("    promp{i}: 1\n"))
    }),
    ("one mapping of many keys in a parameter", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a:\n    type: GLIGENLayout\n    boxes:\n      - phrase: x\n";
        repeated(bytes, head, |i| format!("        k{i}: 1\n"))
    }),
    ("many wrong items", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a:\n    type: ImageGrid\n    labels:\n", |_| "      - 1\n".into())
    }),
    ("wrong and poisoned items in turn", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a:\n    type: ImageGrid\n    labels:\n", |_| {
            "      - 1\n      - !t x\n".into()
        })
    }),
    ("wrong items on one line", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes: { a: { type: ImageGrid, labels: [", |_| "1,".into()) + "] } }"
    }),
    ("wrong items on one line beyond ASCII", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes: { ü: { type: ImageGrid, labels: [", |_| "1,".into()) + "] } }"
    }),
    ("nodes on one line", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes: {", |i| format!("n{i}: {{type: Decode, latent: n{i}}}, ")) + "}"
    }),
    ("boxes", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a:\n    type: GLIGENLayout\n    prompt: x\n    boxes:\n";
        repeated(bytes, head, |_| "      - { phrase: x, box: [0.5, 0, 0.2, 1] }\n".into())
    }),
    ("faults of every kind", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  n{i}: {{ type: Decod, model: m{i}, latnt: n{i}.imag, steps: ${{p{i}}} }}\n")
        })
    }),
    ("unknown references", |bytes| {
        let head = "lsregen: 1\nparams: { prompt: x }\nnodes:\n  a:\n    type: ImageGrid\n    labels:\n";
        repeated(bytes, head, |i| format!("      - ${{promt{i}}}\n"))
    }),
    ("unknown references in one text", |bytes| {
        let head = "lsregen: 1\nparams: { prompt: x }\nnodes:\n  a: { type: SDXLSample, prompt: \"";
        repeated(bytes, head, |i| format!("${{promt{i}}} ")) + "\" }\n"
    }),
    ("known references in one text", |bytes| {
        let head = "lsregen: 1\nparams: { p: x }\nnodes:\n  a: { type: SDXLSample, prompt: \"";
        repeated(bytes, head, |_| "${p} ".into()) + "\" }\n"
    }),
    ("unclosed references in one text", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a: { type: SDXLSample, prompt: \"", |_| "${p $${".into()) + "\" }\n"
    }),
    ("many params, each unknown to the nodes", |bytes| {
        let params = repeated(bytes / 2, "lsregen: 1\nparams:\n", |i| format!("  p{i}: {i}\n"));
        let head = params + "nodes:\n  a:\n    type: ImageGrid\n    labels:\n";
        repeated(bytes, &head, |i| format!("      - ${{q{i}}}\n"))
    }),
    ("params that name those below", |bytes| {
        repeated(bytes, "lsregen: 1\nparams:\n", |i| format!("  p{i}: ${{p{}}}\n", i + 1)) + "nodes: {}\n"
    }),
    ("chain of params", |bytes| {
        let head = "lsregen: 1\nparams:\n  p0: x\n";
        repeated(bytes, head, |i| format!("  p{}: \"${{p{i}}}y\"\n", i + 1)) + "nodes: { a: { type: LoadImage } }\n"
    }),
    ("chain of params inside lists", |bytes| {
        let head = "lsregen: 1\nparams:\n  p0: x\n";
        repeated(bytes, head, |i| format!("  p{}: [\"${{p{i}}}\"]\n", i + 1)) + "nodes: { a: { type: LoadImage } }\n"
    }),
    ("references to a large param", |bytes| {
        let list = repeated(bytes / 2, "lsregen: 1\nparams:\n  big: [", |_| "x, ".into());
        let head = list + "]\nnodes:\n";
        repeated(bytes, &head, |i| format!("  n{i}: {{ type: ImageGrid, labels: ${{big}} }}\n"))
    }),
    ("references to a long text", |bytes| {
        let list = repeated(bytes / 2, "lsregen: 1\nparams:\n  big: ", |_| "x".into());
        let head = list + "\nnodes:\n";
        repeated(bytes, &head, |i| format!("  n{i}: {{ type: SDXLSample, prompt: \"a ${{big}}\" }}\n"))
    }),
    ("unused params", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes: { a: { type: LoadImage, path: x } }\nparams:\n", |i| format!("  p{i}: 1\n"))
    }),
    ("near names", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  picture{i}: {{ type: Upsample, image: picturr{} }}\n", i + 1)
        })
    }),
    ("long near names", |bytes| {
        let name = "n".repeat(95);
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  {name}{i}: {{ type: Upsample, image: {name}x{} }}\n", i + 1)
        })
    }),
    ("names that are none, and links to them", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  1x{i}: {{ type: LoadImage, path: a }}\n  n{i}: {{ type: Upsample, image: 2x{i} }}\n")
        })
    }),
    ("links to one node", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a: { type: LoadLatent, path: x.safetensors }\n";
        repeated(bytes, head, |i| format!("  n{i}: {{ type: SaveLatent, latent: a, path: {i}.safetensors }}\n"))
    }),
    ("one node with many links", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a: { type: Upsample, factor: 2, image: g }\n  g:\n    type: ImageGrid\n    images:\n";
        repeated(bytes, head, |_| "      - a\n".into())
    }),
    ("links to outputs that are not there", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a: { type: GLIGENLayout }\n  g:\n    type: ImageGrid\n    images:\n";
        repeated(bytes, head, |i| format!("      - a.imag{i}\n"))
    }),
    ("cycles of two", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  a{i}: {{type: Upsample, image: b{i}}}\n  b{i}: {{type: Upsample, image: a{i}}}\n")
        })
    }),
    ("one long cycle", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  n0: { type: Upsample, image: n1 }\n", |i| {
            format!("  n{}: {{ type: Upsample, image: n{} }}\n", i + 1, i + 2)
        }) + "  last: { type: Upsample, image: n0 }\n"
    }),
    ("links to themselves", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  a{i}: {{type: Upsample, image: a{i}}}\n"))
    }),
    ("files written twice", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a: { type: LoadImage, path: x.png }\n";
        repeated(bytes, head, |i| format!("  n{i}: {{ type: SaveImage, image: a, path: x.png }}\n"))
    }),
    ("a family that does not fit", |bytes| {
        let head = "lsregen: 1\nnodes:\n  m: { type: LoadModel, model: shapes/xl }\n";
        repeated(bytes, head, |i| format!("  n{i}: {{ type: GLIGENLayout, model: m, prompt: x, boxes: [] }}\n"))
    }),
    ("keys twice", |bytes| repeated(bytes, "lsregen: 1\nnodes:\n", |_| "  a: {type: LoadImage}\n".into())),
    ("top keys", |bytes| repeated(bytes, "lsregen: 1\n", |i| format!("node{i}: 1\n"))),
    ("keys that are no texts", |bytes| repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  {i}: 1\n"))),
    ("numbers too large", |bytes| repeated(bytes, "lsregen: 1\nparams:\n  a:\n", |i| format!("  - 1e999{i}\n"))),
    ("tags", |bytes| repeated(bytes, "lsregen: 1\nparams:\n  a: [", |_| "!t x, ".into()) + "]\n"),
    ("anchors", |bytes| repeated(bytes, "lsregen: 1\nparams:\n", |i| format!("  p{i}: &a{i} x\n"))),
    ("aliases", |bytes| repeated(bytes, "lsregen: 1\nparams:\n  a: &a [1, 2]\n  b: [", |_| "*a, ".into()) + "]\n"),
    ("aliases of a large value", |bytes| {
        let list = repeated(bytes / 2, "lsregen: 1\nparams:\n  a: &a [", |_| "1, ".into());
        repeated(bytes, &(list + "]\n  b: ["), |_| "*a, ".into()) + "]\n"
    }),
    ("aliases of aliases", |bytes| {
        repeated(bytes, "lsregen: 1\nparams:\n  p0: &a0 [x]\n", |i| {
            format!("  p{}: &a{} [*a{i}, *a{i}]\n", i + 1, i + 1)
        })
    }),
    ("anchors around anchors", |bytes| {
        let deep = "[".repeat(60);
        let anchored = deep.replace('[', "&a [");
        repeated(bytes, "lsregen: 1\nparams:\n", |i| format!("  p{i}: {anchored}x{}\n", "]".repeat(60)))
    }),
    ("merge keys", |bytes| {
        let head = "lsregen: 1\nparams: { a: &a { type: LoadImage, path: x } }\nnodes:\n";
        repeated(bytes, head, |i| format!("  n{i}: {{ <<: *a }}\n"))
    }),
    ("merges of a node with faults", |bytes| {
        let list = repeated(bytes / 4, "lsregen: 1\nparams:\n  a: &a\n", |i| format!("    k{i}: 1\n"));
        repeated(bytes, &(list + "nodes:\n"), |i| format!("  n{i}: {{ <<: *a, type: LoadImage }}\n"))
    }),
    ("brackets", |bytes| format!("lsregen: {}", "[".repeat(bytes))),
    ("braces", |bytes| format!("lsregen: {}", "{a: ".repeat(bytes / 4))),
    ("closing brackets", |bytes| format!("lsregen: {}", "]".repeat(bytes))),
    ("nested lines", |bytes| {
        let mut text = String::new();
        for depth in 0.. {
            if text.len() >= bytes {
                break;
            }
            let _ = writeln!(text, "{}a:", " ".repeat(depth));
        }
        text
    }),
    ("dashes on one line", |bytes| format!("lsregen: 1\nparams:\n  a:\n    {}x\n", "- ".repeat(bytes / 2))),
    ("question marks", |bytes| format!("lsregen: 1\nparams:\n{}", "? a\n".repeat(bytes / 4))),
    ("one long word", |bytes| format!("lsregen: 1\nnodes: {{ {}: 1 }}\n", "n".repeat(bytes))),
    ("one long type", |bytes| format!("lsregen: 1\nnodes: {{ a: {{ type: {} }} }}\n", "n".repeat(bytes))),
    ("one long link", |bytes| {
        format!("lsregen: 1\nnodes: {{ a: {{ type: Upsample, image: {} }} }}\n", "n.".repeat(bytes / 2))
    }),
    ("one long text of many lines", |bytes| {
        repeated(bytes, "lsregen: 1\nabout: \"", |i| format!("word{i}\n")) + "\"\nnodes: {}\n"
    }),
    ("one long plain text of many lines", |bytes| repeated(bytes, "lsregen: 1\nabout:\n", |i| format!("  word{i}\n"))),
    ("one block text", |bytes| repeated(bytes, "lsregen: 1\nabout: |\n", |i| format!("  word{i}\n\n"))),
    ("one folded text of empty lines", |bytes| format!("lsregen: 1\nabout: >\n  a\n{}  b\n", "\n".repeat(bytes))),
    ("an unclosed quote", |bytes| format!("lsregen: 1\nabout: \"{}", "a\n ".repeat(bytes / 3))),
    ("escapes", |bytes| format!("lsregen: 1\nabout: \"{}\"\n", "\\u00fc".repeat(bytes / 6))),
    ("comments", |bytes| format!("lsregen: 1\n{}nodes: {{}}\n", "# a\n".repeat(bytes / 4))),
    ("one long comment", |bytes| format!("lsregen: 1 #{}\nnodes: {{}}\n", "a".repeat(bytes))),
    ("spaces", |bytes| format!("lsregen: 1\nnodes: {{ a: {} {{ type: X }} }}\n", " ".repeat(bytes))),
    ("empty lines", |bytes| format!("lsregen: 1{}nodes: {{}}\n", "\n".repeat(bytes))),
    ("carriage returns", |bytes| repeated(bytes, "lsregen: 1\r\nnodes:\r\n", |i| format!("  n{i}: 1\r\n"))),
    ("signs beyond ASCII", |bytes| format!("lsregen: 1\nabout: {}\nnodes: {{ ü: 1 }}\n", "🦀".repeat(bytes / 4))),
    ("documents", |bytes| "---\n".repeat(bytes / 4)),
    ("directives", |bytes| "%YAML 1.2\n".repeat(bytes / 10)),
    ("dollar signs", |bytes| format!("lsregen: 1\nabout: {}\nnodes: {{}}\n", "$${${".repeat(bytes / 5))),
    ("colons", |bytes| format!("lsregen: 1\nnodes: {{ {} }}\n", ": ".repeat(bytes / 2))),
    ("commas", |bytes| format!("lsregen: 1\nnodes: {{ {} }}\n", "a, ".repeat(bytes / 3))),
    ("commas in a node", |bytes| format!("lsregen: 1\nnodes: {{ a: {{ type: LoadImage, {} }} }}\n", words(bytes))),
    ("a key and many spaces, merged", |bytes| {
        let head = format!("lsregen: 1\nparams: {{ a: &a {{ k{} }} }}\nnodes:\n", " ".repeat(bytes / 2));
        repeated(bytes, &head, |i| format!("  n{i}: {{ <<: *a, type: LoadImage }}\n"))
    }),
];

fn words(bytes: usize) -> String {
    repeated(bytes, "", |i| format!("w{i}, "))
}

/// `head`, then pieces until there are about as many bytes.
fn repeated(bytes: usize, head: &str, piece: impl Fn(usize) -> String) -> String {
    let mut text = head.to_string();
    let mut index = 0;
    // Room for an end.
    while text.len() + 128 < bytes {
        text.push_str(&piece(index));
        index += 1;
    }
    text
}

/// An argument of `--set`.
pub fn set_argument(seed: u64) -> String {
    let mut dice = Dice::new(seed);
    if dice.one_in(2) {
        return (0..dice.roll(8)).map(|_| dice.pick(PIECES)).collect();
    }
    format!("{}={}", dice.pick(NAMES), value(&mut dice, 3))
}
