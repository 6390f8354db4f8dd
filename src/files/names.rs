//! Names of files that every system accepts and that look like what they are.

/// The most bytes that a text contributes to the name of a file.
const LONGEST: usize = 100;

/// The most bytes of a name on the common file systems.
const LONGEST_NAME: usize = 255;

/// Why a name cannot be that of a file or folder on every system, or deceives the person who reads it; `None` if it can.
pub fn invalid_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > LONGEST_NAME {
        Some("it has more than 255 bytes")
    } else if name.chars().any(char::is_control) {
        Some("it contains a control character")
    } else if name.chars().any(reorders) {
        Some("it contains an invisible character that changes the direction or the line of the text")
    } else if is_device(name) {
        Some("Windows reserves it for a device")
    } else {
        None
    }
}

/// Makes a part of a file name of a text: characters that no name may have become `_`, and a long text is cut.
pub fn file_name_from(text: &str) -> String {
    let safe = |c: char| if c.is_control() || reorders(c) || "/\\:*?\"<>|{}".contains(c) { '_' } else { c };
    let mut name: String = text.trim().chars().map(safe).collect();
    name.truncate((0..=LONGEST.min(name.len())).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0));
    // A part such as `..` must not become a step to another folder, nor `~` a home.
    let length = name.trim_end_matches(['.', ' ']).len();
    name.truncate(length);
    if name.starts_with(['.', '~']) { format!("_{name}") } else { name }
}

/// Whether a character changes the order in which others are shown.
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character changes the order in which others are shown, or begins a line.
fn reorders(c: char) -> bool {
    is_bidi_control(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Whether Windows takes a name for a device, in whatever case and with whatever extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let numbered = |stem: &str| {
        let mut rest = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")).unwrap_or_default().chars();
        matches!((rest.next(), rest.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    };
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&&*stem) || numbered(&stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_and_deceptive_names_are_invalid() {
        for name in [
            "",
            "nul",
            "CON",
            "Aux.png",
            "com1",
            "LPT9.txt",
            "com\u{b9}",
            "a\u{202e}gnp.exe",
            "a\nb",
            "a\u{7}",
            "x\u{2066}",
        ] {
            assert!(invalid_name(name).is_some(), "{name:?}");
        }
        assert!(invalid_name(&"a".repeat(256)).is_some());
        for name in ["null", "com", "com10", "console", "a red circle", "ä", "מעגל", "👩‍🎨", "x.nul"] {
            assert_eq!(invalid_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn any_text_becomes_a_part_of_a_name() {
        for (text, name) in [
            ("a red circle", "a red circle"),
            ("../../etc/x: y?", "_.._.._etc_x_ y_"),
            ("..", ""),
            ("~/x", "_~_x"),
            (" {counter}\u{202e}\n", "_counter__"),
            ("end. ", "end"),
        ] {
            assert_eq!(file_name_from(text), name, "{text:?}");
        }
        assert_eq!(file_name_from(&"ä".repeat(99)).len(), 100);
        assert_eq!(file_name_from(&format!("a{}", "ä".repeat(99))).len(), 99);
    }
}
