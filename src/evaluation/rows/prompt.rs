//! Prompts of rows.

use super::phrase::with_article;

/// Returns `a X and a Y`. Of more than two phrases, each is named once: `a X, a Y and a Z`.
pub fn names_prompt(phrases: &[&str]) -> String {
    let mut names: Vec<&str> = vec![];
    for phrase in phrases {
        if phrases.len() <= 2 || !names.contains(phrase) {
            names.push(phrase);
        }
    }
    let names: Vec<_> = names.into_iter().map(with_article).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Returns a caption as a prompt: parentheses would give weight to words, so they are escaped.
pub(super) fn literal(caption: &str) -> String {
    caption.replace('(', "\\(").replace(')', "\\)")
}

/// Whether a prompt contains a phrase, word by word and without regard to case.
pub(super) fn contains(prompt: &str, phrase: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    };
    let (prompt, phrase) = (words(prompt), words(phrase));
    phrase.is_empty() || prompt.windows(phrase.len()).any(|window| window == phrase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_name_the_objects() {
        for (phrases, expected) in [
            (&["orange"][..], "an orange"),
            (&["person", "surfboard"], "a person and a surfboard"),
            (&["person", "person"], "a person and a person"),
            (&["person", "skis", "person", "umbrella"], "a person, skis and an umbrella"),
            (&["person", "person", "person"], "a person"),
        ] {
            assert_eq!(names_prompt(phrases), expected);
        }
    }

    #[test]
    fn phrases_are_found_word_by_word() {
        assert!(contains("A red Fire-hydrant, on sand", "fire hydrant"));
        assert!(!contains("a cart", "car") && !contains("fire and a hydrant", "fire hydrant"));
        assert_eq!(literal("a man (with a hat)"), "a man \\(with a hat\\)");
    }
}
