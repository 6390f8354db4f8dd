//! The name that was surely meant.
//!
//! Knows only names.

use std::cell::Cell;

/// Comparisons that one check may spend: enough for any honest file, and a bound for the others.
const COMPARISONS: usize = 200_000;

/// Letters of one name times those of the other, up to which a comparison counts once.
const USUAL: usize = 64;

/// Finds the nearest of some names, until its comparisons are spent.
pub(crate) struct NameFinder {
    left: Cell<usize>,
}

/// Returns the candidate nearest to `name`, if one is near: see [`NameFinder::nearest`].
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    NameFinder::new().nearest(name, candidates)
}

impl NameFinder {
    pub fn new() -> NameFinder {
        NameFinder { left: Cell::new(COMPARISONS) }
    }

    /// Nothing more will be found.
    pub fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// The candidate nearest to `name`, if one is near: the same but for upper case and `-`, `_`; or at most a third
    /// of its letters apart.
    pub fn nearest<'a>(&self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
        let wanted = plain(name);
        let length = wanted.chars().count();
        let reach = (length / 3).max(1);
        let mut best = None;
        for candidate in candidates {
            self.spend(1)?;
            if candidate.len().abs_diff(name.len()) > reach * 4 + 8 || length > 100 {
                continue;
            }
            // Its time grows with both lengths: long names spend more.
            let cost = length * candidate.len() / USUAL;
            self.spend(cost)?;
            let distance = strsim::damerau_levenshtein(&wanted, &plain(candidate));
            // One letter of two says nothing.
            let near = distance <= reach && distance < length.max(1);
            if near && best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }

    /// `None` where there are not so many left; then there are none.
    fn spend(&self, comparisons: usize) -> Option<()> {
        let left = self.left.get().checked_sub(comparisons);
        self.left.set(left.unwrap_or(0));
        left.map(drop)
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

/// Of so many names, those that are shown: only these are made.
pub(crate) fn either_of(count: usize, name: impl Fn(usize) -> String) -> String {
    let parts: Vec<_> = (0..count.min(SHOWN)).map(|index| format!("`{}`", name(index))).collect();
    let more = count - parts.len();
    sentence(parts, more, "or")
}

/// Names that a list shows.
pub(crate) const SHOWN: usize = 8;

fn joined<'a>(names: impl IntoIterator<Item = &'a str>, word: &str) -> String {
    let mut names = names.into_iter();
    let parts = names.by_ref().take(SHOWN).map(|name| format!("`{name}`")).collect();
    sentence(parts, names.count(), word)
}

fn sentence(mut parts: Vec<String>, more: usize, word: &str) -> String {
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    match parts.as_slice() {
        [] => "nothing".into(),
        [one] => one.clone(),
        [firsts @ .., last] => format!("{} {word} {last}", firsts.join(", ")),
    }
}
