//! Texts that are safe to print: file names, metadata and messages may contain characters that control a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Replaces the characters that a terminal does not show but obeys, by escapes such as `\u001b`: control characters, and
/// those that reverse the direction of a text (Unicode's bidirectional controls). Line breaks and tabs stay. The escapes
/// are those of JSON, so that a JSON text means the same as before.
pub fn visible(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut done = 0;
    for (at, c) in text.char_indices().filter(|&(at, c)| is_unsafe(c) && !text[at..].starts_with("\r\n")) {
        shown.push_str(&text[done..at]);
        let _ = write!(shown, "\\u{:04x}", u32::from(c));
        done = at + c.len_utf8();
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(&text[done..]);
    Cow::Owned(shown)
}

/// Replaces the same characters by marks of the same number of bytes, so that spans in the text stay valid. ASCII is left to
/// the renderer of diagnostics, which has a picture of each control character.
pub(super) fn visible_in_place(text: &str) -> Cow<'_, str> {
    let is_marked = |c: char| !c.is_ascii() && is_unsafe(c);
    if !text.contains(is_marked) {
        return Cow::Borrowed(text);
    }
    let mark = |c: char| match c.len_utf8() {
        _ if !is_marked(c) => c,
        2 => '\u{b7}',
        _ => '\u{fffd}',
    };
    Cow::Owned(text.chars().map(mark).collect())
}

fn is_unsafe(c: char) -> bool {
    lsregen_files::is_bidi_control(c) || (c.is_control() && !matches!(c, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_character_of_a_visible_text() {
        assert_eq!(visible("a\u{1b}[2Jb\u{9b}1m\u{202e}gnp.exe\u{7f}"), "a\\u001b[2Jb\\u009b1m\\u202egnp.exe\\u007f");
        assert_eq!(visible("Maß: 5 µm\n\t日本語\r\n"), "Maß: 5 µm\n\t日本語\r\n");
        assert_eq!(visible("over\rwritten"), "over\\u000dwritten");
        let json = serde_json::json!({ "text": "\u{202e}\u{7f}\u{9b}" });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&visible(&json.to_string())).unwrap(), json);
        for text in ["\u{9b}a", "\u{61c}\u{2067}a"] {
            assert!(!visible_in_place(text).contains(is_unsafe) && visible_in_place(text).len() == text.len());
        }
    }
}
