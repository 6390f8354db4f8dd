//! Names of categories as phrases, and phrases with their article.

/// Returns the phrase of a category: underscores become spaces, and what stands in parentheses is left out, as in LVIS's
/// `bow_(weapon)`.
pub fn phrase(category: &str) -> String {
    let mut depth = 0usize;
    let mut text = String::new();
    for letter in category.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '_' if depth == 0 => text.push(' '),
            _ if depth == 0 => text.push(letter),
            _ => {}
        }
    }
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A name that is all in parentheses keeps its letters.
    match words(&text) {
        empty if empty.is_empty() => words(&category.replace(['_', '(', ')'], " ")),
        text => text,
    }
}

/// Words that begin with a vowel as written, and with a consonant as spoken.
const SPOKEN_CONSONANT: [&str; 12] =
    ["eu", "ewe", "one", "once", "uni", "unanim", "use", "usu", "uti", "ute", "uku", "ura"];

/// Words with a silent h, and those that begin with `un-`, not with `uni-`.
const SPOKEN_VOWEL: [&str; 8] = ["unin", "unim", "hour", "honest", "honor", "honour", "heir", "herb"];

/// Singular nouns that end with an s, besides those with -ss, -us and -is.
const SINGULAR: [&str; 8] = ["gas", "lens", "atlas", "canvas", "bias", "chaos", "pancreas", "texas"];

/// Returns the phrase with `a` or `an`. A plural such as `skis`, and a phrase that has an article, are returned unchanged.
pub fn with_article(phrase: &str) -> String {
    let lower = phrase.to_lowercase();
    let first = lower.split(' ').next().unwrap_or_default();
    let last = lower.rsplit(' ').next().unwrap_or_default();
    let is_singular = !last.ends_with('s')
        || ["ss", "us", "is"].iter().any(|end| last.ends_with(end)) && last != "skis"
        || SINGULAR.contains(&last);
    if ["a", "an", "the"].contains(&first) || !is_singular {
        return phrase.into();
    }
    let starts = |list: &[&str]| list.iter().any(|start| first.starts_with(start));
    let has_vowel = first.starts_with(['a', 'e', 'i', 'o', 'u']);
    let is_vowel = starts(&SPOKEN_VOWEL) || has_vowel && !starts(&SPOKEN_CONSONANT);
    format!("{} {phrase}", if is_vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_become_phrases() {
        for (category, expected) in [
            ("fire hydrant", "fire hydrant"),
            ("bow_(weapon)", "bow"),
            ("bell_pepper", "bell pepper"),
            ("(all)", "all"),
            ("  a  b ", "a b"),
            ("x)", "x"),
            ("_", ""),
        ] {
            assert_eq!(phrase(category), expected, "{category}");
        }
    }

    #[test]
    fn articles_follow_the_sound() {
        for expected in [
            "an apple",
            "an oven",
            "an umbrella",
            "an elephant",
            "a person",
            "a unicycle",
            "a utensil",
            "a one-way sign",
            "an hourglass",
            "a horse",
            "a bus",
            "a wine glass",
            "a tennis racket",
            "a gas mask",
            "a ukulele",
            "a ewer",
            "an uninhabited island",
            "an urn",
            "an herb",
            "a lens",
        ] {
            assert_eq!(with_article(expected.split_once(' ').unwrap().1), expected);
        }
        for unchanged in ["skis", "scissors", "ski goggles", "a red circle", "the sun"] {
            assert_eq!(with_article(unchanged), unchanged);
        }
    }
}
