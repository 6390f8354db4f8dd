//! Python's JSON as strict JSON.
//!
//! A number that JSON does not have becomes a text of the same length, so that the positions of errors stay true: a
//! control character, which no configuration contains, and spaces.

use std::borrow::Cow;

use serde_json::Value;

/// What such a text begins with.
const MARK: char = '\u{7f}';

/// The constants that Python writes, with their values.
const CONSTANTS: [(&str, f64); 3] = [("-Infinity", f64::NEG_INFINITY), ("Infinity", f64::INFINITY), ("NaN", f64::NAN)];

/// The most characters of a value in a message.
const SHOWN: usize = 80;

/// Returns the text without a byte order mark, and with texts for the constants.
pub(super) fn strict(text: &[u8]) -> Cow<'_, [u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut strict = Cow::Borrowed(text);
    let (mut at, mut quoted) = (0, false);
    while let Some(byte) = text.get(at) {
        match (byte, quoted) {
            (b'"', _) => quoted = !quoted,
            // The escaped character cannot end the text.
            (b'\\', true) => at += 1,
            (b'-' | b'I' | b'N', false) => {
                if let Some((name, _)) = CONSTANTS.iter().find(|(name, _)| text[at..].starts_with(name.as_bytes())) {
                    let quote = format!("\"{MARK:<width$}\"", width = name.len() - 2);
                    strict.to_mut()[at..at + name.len()].copy_from_slice(quote.as_bytes());
                    at += name.len() - 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    strict
}

/// Returns the constant that a text stands for.
fn constant(value: &Value) -> Option<(&'static str, f64)> {
    let text = value.as_str().filter(|text| text.starts_with(MARK))?;
    CONSTANTS.into_iter().find(|(name, _)| name.len() == text.len() + 2)
}

/// Returns a value as a number, which may be infinite or NaN.
pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| constant(value).map(|(_, number)| number))
}

/// Returns one value for a list of equal ones.
pub(super) fn single(value: &Value) -> &Value {
    match value {
        Value::Array(items) => match items.split_first() {
            Some((first, rest)) if !first.is_object() && rest.iter().all(|item| item == first) => single(first),
            _ => value,
        },
        _ => value,
    }
}

/// Whether two values mean the same: equal numbers, or a list of equal values and that value.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    let (one, other) = (single(one), single(other));
    one == other || one.as_f64().is_some_and(|number| other.as_f64() == Some(number))
}

/// Returns a value as Python writes it, cut if it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = constant(value).map_or_else(|| value.to_string(), |(name, _)| name.into());
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
