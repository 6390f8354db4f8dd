//! The name that was surely meant.
//!
//! Knows only names.

use std::cell::Cell;

/// Comparisons that one check may spend: enough for any honest file, and a bound for the others.
const COMPARISONS: usize = 200_000;

/// Letters of one name times those of the other, up to which a comparison counts once.
const USUAL: usize = 64;

/// Finds the nearest of some names, until its comparisons are spent.
pub(crate) struct Nearest {
    left: Cell<usize>,
}

impl Nearest {
    pub fn new() -> Nearest {
        Nearest { left: Cell::new(COMPARISONS) }
    }

    /// The candidate nearest to `name`, if one is near: the same but for upper case and `-`, `_`; or at most a third
    /// of its letters apart.
    pub fn find<'a>(&self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
        let wanted = plain(name);
        let length = wanted.chars().count();
        let reach = (length / 3).max(1);
        let mut best = None;
        for candidate in candidates {
            self.left.set(self.left.get().checked_sub(1)?);
            if candidate.len().abs_diff(name.len()) > reach * 4 + 8 || length > 100 {
                continue;
            }
            // Its time grows with both lengths: long names spend more.
            let cost = length * candidate.len() / USUAL;
            self.left.set(self.left.get().checked_sub(cost)?);
            let distance = strsim::damerau_levenshtein(&wanted, &plain(candidate));
            // One letter of two says nothing.
            let near = distance <= reach && distance < length.max(1);
            if near && best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }
}

/// `a`, `b` and `c`, each in backticks, of many the first and the number of the others; `nothing` where there is none.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    joined(names, "and")
}

/// `a`, `b` or `c`.
pub(crate) fn either<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    joined(names, "or")
}

fn joined<'a>(names: impl IntoIterator<Item = &'a str>, word: &str) -> String {
    const SHOWN: usize = 8;
    let mut names = names.into_iter();
    let mut parts: Vec<_> = names.by_ref().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.count() {
        0 => {}
        more => parts.push(format!("{more} more")),
    }
    match parts.as_slice() {
        [] => "nothing".into(),
        [one] => one.clone(),
        [firsts @ .., last] => format!("{} {word} {last}", firsts.join(", ")),
    }
}
