//! Valid documents with random edits.

use super::cut;
use super::dice::Dice;

/// Text that is inserted into documents to damage them.
pub const PIECES: &[&str] = &[
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

/// A document with up to five random edits.
pub fn damaged(dice: &mut Dice, base: impl Fn(&mut Dice) -> String) -> String {
    let mut text = base(dice);
    for _ in 0..=dice.roll(4) {
        let (a, b) = (position(dice, &text), position(dice, &text));
        let (a, b) = (a.min(b), a.max(b));
        let near = near(dice, &text, a);
        match dice.roll(9) {
            0 => text.truncate(b),
            1 => text.replace_range(a..near, ""),
            2 | 3 => text.insert_str(a, dice.pick(PIECES)),
            4 => text.replace_range(a..near, dice.pick(PIECES)),
            5 => {
                let copy = text[a..b].to_string();
                let at = position(dice, &text);
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

/// A position between two characters.
fn position(dice: &mut Dice, text: &str) -> usize {
    let at = dice.roll(text.len() + 1);
    (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

/// A position a few characters after `from`.
fn near(dice: &mut Dice, text: &str, from: usize) -> usize {
    let at = (from + 1 + dice.roll(12)).min(text.len());
    (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

/// Removes, copies, swaps or indents a line.
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

/// Flips up to three bits.
fn bytes_flipped(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.roll(3) {
        if !bytes.is_empty() {
            let at = dice.roll(bytes.len());
            bytes[at] ^= 1 << dice.roll(8);
        }
    }
    bytes
}
