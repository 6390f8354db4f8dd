//! Names: which are valid, which are similar, and lists of them in sentences.

use std::cell::Cell;
use std::collections::HashMap;

/// How many comparisons one check may make: enough for any real file, and a limit for others.
const COMPARISONS: usize = 200_000;

/// A comparison counts once for this many pairs of letters.
const PAIRS: usize = 64;

/// A name that users of other programs bring, and what it is called here.
#[derive(Clone, Copy, Debug)]
pub struct ForeignName {
    /// The name there. It is compared as similar names are: without case, `-`, `_` and spaces.
    pub name: &'static str,
    /// What it may be called here: wherever one of these is valid, it is suggested, the first of them first.
    pub ours: &'static [&'static str],
    /// What to do where none of them is valid; may be empty.
    pub help: &'static str,
}

/// Finds names that a wrong one may mean: its counterpart, if it comes from another program, and otherwise a similar one,
/// until the comparisons are spent.
pub(crate) struct NameFinder {
    left: Cell<usize>,
    /// By [plain] name.
    foreign: HashMap<String, &'static ForeignName>,
}

/// Returns the candidate that is most similar to `name`, if one is similar enough: at most a third of the letters differ,
/// not counting case, `-`, `_` and spaces.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    NameFinder::new().nearest(name, candidates)
}

impl NameFinder {
    /// A finder that knows no foreign names.
    pub fn new() -> NameFinder {
        NameFinder::knowing(&[])
    }

    /// A finder that knows these foreign names.
    pub fn knowing(foreign: &'static [ForeignName]) -> NameFinder {
        let foreign = foreign.iter().map(|foreign| (plain(foreign.name), foreign)).collect();
        NameFinder { left: Cell::new(COMPARISONS), foreign }
    }

    /// The entry of a foreign name.
    fn foreign(&self, name: &str) -> Option<&'static ForeignName> {
        const LONGEST: usize = 40;
        let name = (!self.foreign.is_empty() && name.len() <= LONGEST).then(|| plain(name))?;
        self.foreign.get(&name).copied()
    }

    /// What to do instead of writing a foreign name that has no counterpart.
    pub fn advice(&self, name: &str) -> Option<&'static str> {
        self.foreign(name).map(|foreign| foreign.help).filter(|help| !help.is_empty())
    }

    /// Whether no comparisons are left.
    pub fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// Returns the candidate that `name` most likely means: the counterpart of a foreign name, or else the one that is most
    /// similar, if it is similar enough: at most a third of the letters differ, not counting case, `-`, `_` and spaces.
    pub fn nearest<'a>(&self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        if let Some(foreign) = self.foreign(name) {
            let candidates: Vec<_> = candidates.into_iter().collect();
            let counterpart = |ours: &&str| candidates.iter().find(|candidate| *candidate == ours).copied();
            let found = foreign.ours.iter().find_map(counterpart);
            // A name that has no counterpart at all is not misspelt.
            let is_settled = found.is_some() || foreign.ours.is_empty();
            return if is_settled { found } else { self.similar(name, candidates) };
        }
        self.similar(name, candidates)
    }

    fn similar<'a>(&self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let target = plain(name);
        let length = target.chars().count();
        let max_distance = (length / 3).max(1);
        let mut best = None;
        for candidate in candidates {
            self.spend(1)?;
            if candidate.len().abs_diff(name.len()) > max_distance * 4 + 8 || length > 100 {
                continue;
            }
            // The time grows with both lengths, so comparing long names costs more.
            let cost = length * candidate.len() / PAIRS;
            self.spend(cost)?;
            let distance = strsim::damerau_levenshtein(&target, &plain(candidate));
            // Names of one letter are never similar.
            let near = distance <= max_distance && distance < length.max(1);
            if near && best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }

    /// Spends comparisons. `None` if too few are left; then none are left.
    fn spend(&self, comparisons: usize) -> Option<()> {
        let left = self.left.get().checked_sub(comparisons);
        self.left.set(left.unwrap_or(0));
        left.map(drop)
    }
}

/// A name as it is compared: without case, `-`, `_` and spaces.
fn plain(name: &str) -> String {
    name.to_lowercase().replace(['-', '_', ' '], "")
}

/// Lists names in backticks: `a`, `b` and `c`. If there are many names, lists the first ones and the number of the
/// others. Without names, returns `nothing`.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    joined(names, "and")
}

/// Lists names as [`listed`], but with "or": `a`, `b` or `c`.
pub(crate) fn either<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    joined(names, "or")
}

/// Lists `count` names as [`either`]. Calls `name` only for those that are shown.
pub(crate) fn either_of(count: usize, name: impl Fn(usize) -> String) -> String {
    let parts: Vec<_> = (0..count.min(SHOWN)).map(|index| format!("`{}`", name(index))).collect();
    let more = count - parts.len();
    sentence(parts, more, "or")
}

/// How many names a list shows: at least all keys of a node.
pub(crate) const SHOWN: usize = 24;

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

/// Whether a node, parameter or output may have this name: letters, digits, `_` and `-`, with a letter or `_` first.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// The label at a misspelt name.
pub(crate) fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}
