//! Hides from the YAML parser what it would read otherwise: `${name}` and `{name}`, so that they need no quotes inside `{…}`,
//! and JSON's surrogate pairs (`\ud83d\ude00`), which YAML does not know although every JSON text is meant to be YAML.

use std::borrow::Cow;

/// They replace the braces of a name, and the backslashes of a surrogate pair, while the parser reads. A document must
/// not contain them: see `is_stray`.
const BRACES: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];
const BACKSLASH: char = '\u{fdd2}';

/// The characters of an escaped pair: `\ud83d\ude00`.
const PAIR: usize = 12;

/// Hides the braces of every `${name}`, of every `{name}` within a word, as in `out/{seed}.png`, and the backslashes of every
/// surrogate pair. The number of characters stays the same.
pub(super) fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '\\']) {
        masked.push_str(&rest[..at]);
        let found = &rest[at..];
        let before = &text[..text.len() - found.len()];
        rest = match found.starts_with('{') {
            true => mask_reference(before, found, &mut masked),
            false => mask_pair(before, found, &mut masked),
        };
    }
    if masked.is_empty() {
        return Cow::Borrowed(text);
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

/// Appends the reference at the beginning of a text, or only its brace, and returns what follows.
fn mask_reference<'t>(before: &str, text: &'t str, masked: &mut String) -> &'t str {
    let is_value = before.ends_with('$');
    let within_word = before.ends_with(|c: char| c.is_alphanumeric() || "/-_.=+@~".contains(c));
    let follows = masked.ends_with(BRACES[1]);
    let name = &text[1..];
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-') || is_value && c == ' ';
    let end = name.find(|c| !is_name(c)).unwrap_or(name.len());
    match name[end..].strip_prefix('}').filter(|_| is_value || (within_word || follows) && end > 0) {
        Some(rest) => {
            masked.push(BRACES[0]);
            masked.push_str(&name[..end]);
            masked.push(BRACES[1]);
            rest
        }
        None => {
            masked.push('{');
            name
        }
    }
}

/// Appends a text's surrogate pair, or only its first backslash, and returns what follows.
fn mask_pair<'t>(before: &str, text: &'t str, masked: &mut String) -> &'t str {
    // A backslash may itself be escaped.
    let backslashes = before.len() - before.trim_end_matches('\\').len();
    if backslashes.is_multiple_of(2) && pair(text, '\\').is_some() {
        masked.extend(text[..PAIR].chars().map(|c| if c == '\\' { BACKSLASH } else { c }));
        &text[PAIR..]
    } else {
        masked.push('\\');
        &text[1..]
    }
}

/// The character of the surrogate pair at the beginning of a text, whose escapes begin with `backslash`.
fn pair(text: &str, backslash: char) -> Option<char> {
    let (high, rest) = unit(text, backslash)?;
    let (low, _) = unit(rest, backslash)?;
    char::decode_utf16([high, low]).next()?.ok().filter(|c| c.len_utf16() == 2)
}

/// The code unit of the escape at the beginning of a text, and what follows.
fn unit(text: &str, backslash: char) -> Option<(u16, &str)> {
    let digits = text.strip_prefix(backslash)?.strip_prefix('u')?;
    let (digits, rest) = digits.split_at_checked(4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
    Some((u16::from_str_radix(digits, 16).ok()?, rest))
}

/// Restores what was hidden in a scalar. `escapes` says whether backslashes have a meaning in it, as in double quotes.
pub(super) fn unmask(text: &str, escapes: bool) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find([BRACES[0], BRACES[1], BACKSLASH]) {
        whole.push_str(&rest[..at]);
        rest = &rest[at..];
        let hidden = rest.chars().next().unwrap_or_default();
        let (shown, length) = match pair(rest, BACKSLASH).filter(|_| escapes) {
            Some(c) => (c, PAIR - 2 + 2 * BACKSLASH.len_utf8()),
            None if hidden == BACKSLASH => ('\\', hidden.len_utf8()),
            None => (if hidden == BRACES[0] { '{' } else { '}' }, hidden.len_utf8()),
        };
        whole.push(shown);
        rest = &rest[length..];
    }
    whole.push_str(rest);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_pairs_come_back() {
        for (text, quoted, plain) in [
            ("${a} {b}", "${a} {b}", "${a} {b}"),
            (r"a \ud83d\uDE00 b ${c}", "a 😀 b ${c}", r"a \ud83d\uDE00 b ${c}"),
            (r"\ud83d\ude00\ud83d\ude01", "😀😁", r"\ud83d\ude00\ud83d\ude01"),
            // Not a pair, or escaped.
            (r"\ud83d \u00e9\u0041", r"\ud83d \u00e9\u0041", r"\ud83d \u00e9\u0041"),
            (r"\\ud83d\ude00", r"\\ud83d\ude00", r"\\ud83d\ude00"),
            (r"\ude00\ud83d", r"\ude00\ud83d", r"\ude00\ud83d"),
        ] {
            let masked = mask(text);
            assert_eq!(masked.chars().count(), text.chars().count(), "{text}");
            assert_eq!(unmask(&masked, true), quoted, "{text}");
            assert_eq!(unmask(&masked, false), plain, "{text}");
        }
    }

    #[test]
    fn names_within_words_need_no_quotes() {
        let shown = |text: &str| mask(text).replace(BRACES[0], "<").replace(BRACES[1], ">");
        for (text, masked) in [
            ("{ path: out/{seed}-{counter}.png }", "{ path: out/<seed>-<counter>.png }"),
            ("{ path: a{b}{c}.png, x: ${y z} }", "{ path: a<b><c>.png, x: $<y z> }"),
            ("{a: {b}, c: [{d}], e: \"{f}\"}", "{a: {b}, c: [{d}], e: \"{f}\"}"),
            ("x{ a: b } {{a}} a{}", "x{ a: b } {{a}} a{}"),
        ] {
            assert_eq!(shown(text), masked, "{text}");
            assert_eq!(unmask(&mask(text), false), text);
        }
    }
}
