//! Hides `${name}` from the YAML parser, so that it needs no quotes inside `{…}`.

use std::borrow::Cow;

/// They replace the braces of `${name}` while the parser reads. A document must not contain them: see `is_stray`.
const MASKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// Hides the braces of every `${name}`. The number of characters stays the same.
pub(super) fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at + 1);
        let name = reference[1..]
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | ' ')))
            .unwrap_or(reference.len() - 1);
        masked.push_str(before);
        rest = &reference[1 + name..];
        if let Some(after) = rest.strip_prefix('}') {
            masked.extend([MASKS[0]]);
            masked.push_str(&reference[1..1 + name]);
            masked.extend([MASKS[1]]);
            rest = after;
        } else {
            masked.push_str(&reference[..1 + name]);
        }
    }
    if masked.is_empty() {
        return Cow::Borrowed(text);
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

pub(super) fn unmask(text: &str) -> String {
    text.replace(MASKS[0], "{").replace(MASKS[1], "}")
}
