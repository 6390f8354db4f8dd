//! Lists of existing names for messages about a name that does not exist.

use std::cmp::Reverse;

/// The most names that a message lists.
const LISTED: usize = 8;

/// The similarity of two names takes time for each pair of letters, so names that are longer than one limit, or come
/// after the other, are not compared.
const LONGEST: usize = 200;
const MOST: usize = 100_000;

/// Lists names, those most similar to `name` (Jaro–Winkler of the last path segment) first: `` `a`, `b`, and 7 more ``.
pub fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_lowercase();
    let similarity = |other: &str| match (other.len(), name.len()) {
        (..=LONGEST, ..=LONGEST) => (strsim::jaro_winkler(&last(name), &last(other)) * 1e6) as u32,
        _ => 0,
    };
    let mut names: Vec<_> = names.into_iter().take(MOST).map(|other| (Reverse(similarity(other)), other)).collect();
    names.sort();
    let more = names.len().saturating_sub(LISTED);
    let shown: Vec<_> = names.iter().take(LISTED).map(|(_, name)| format!("`{name}`")).collect();
    match (shown.len(), more) {
        (0, _) => "nothing".into(),
        (_, 0) => shown.join(", "),
        _ => format!("{}, and {more} more", shown.join(", ")),
    }
}
