//! Documents from a grammar.

use std::fmt::Write;

use super::damaged::PIECES;
use super::dice::Dice;

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
pub const NAMES: &[&str] =
    &["a", "b", "c", "d", "e", "model", "small", "größe", "a-b", "_x", "n1", "1x", "a.b", "", "日本"];
const OUTPUTS: &[&str] = &["image", "latent", "model", "layout", "guidance", "file", "imag", "", "a.b"];

/// A workflow by the rules of the format, each of which is broken now and then.
pub fn grown(dice: &mut Dice) -> String {
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

pub fn value(dice: &mut Dice, depth: usize) -> String {
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
