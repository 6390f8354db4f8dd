//! Documents that nobody would write: valid ones damaged or spliced, some from a grammar, and large ones built to be slow.
//!
//! A document depends on its seed alone, so that the seed is enough to make it again.

mod damaged;
mod dice;
mod grown;
mod large;

use std::fs;
use std::path::Path;

use self::damaged::{PIECES, damaged};
use self::dice::Dice;
use self::grown::{NAMES, grown, value};
pub use self::large::LARGE;

/// The documents that others are made from: every graph of the repository, with and without errors.
pub struct Corpus {
    texts: Vec<String>,
}

impl Corpus {
    /// Reads the graphs of the repository.
    ///
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

    /// The document of a seed, and how it was made.
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
                // Mostly small, because a million of them are checked; `main.rs` makes each once at full size.
                let bytes = 1 << (6 + dice.roll(9));
                (name, cut(make(bytes), bytes))
            }
        }
    }

    fn pick_text(&self) -> impl Fn(&mut Dice) -> String {
        |dice| self.pick(dice).to_string()
    }
}

/// The text cut after a character, to at most this many bytes.
fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// The first part of one document and the last part of another.
fn spliced(corpus: &Corpus, dice: &mut Dice) -> String {
    let (first, second) = (corpus.pick(dice), corpus.pick(dice));
    let line_starts = |text: &str| -> Vec<usize> { text.match_indices('\n').map(|(at, _)| at + 1).collect() };
    let (a, b) = (line_starts(first), line_starts(second));
    let end = if a.is_empty() { first.len() } else { a[dice.roll(a.len())] };
    let start = if b.is_empty() { 0 } else { b[dice.roll(b.len())] };
    format!("{}{}", &first[..end], &second[start..])
}

/// The `--set` argument of a seed.
pub fn set_argument(seed: u64) -> String {
    let mut dice = Dice::new(seed);
    if dice.one_in(2) {
        return (0..dice.roll(8)).map(|_| dice.pick(PIECES)).collect();
    }
    format!("{}={}", dice.pick(NAMES), value(&mut dice, 3))
}
