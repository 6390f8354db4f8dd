//! The weights in prompts, and the syntax of other programs, which would be read as plain text.

use lsregen_diffusion::models::prompt::parse;
use lsregen_engine::NodeError;

/// The greatest weight of a word. Above 2, images are rarely of use; far above, numbers overflow.
const MOST_WEIGHT: f64 = 1000.0;

/// Reports weights that are too large, and warns of what only other programs understand. `param` is the parameter of the
/// prompt.
pub(crate) fn problems(param: &str, prompt: &str) -> Vec<NodeError> {
    let heavy = parse(prompt).into_iter().find(|segment| segment.weight.is_nan() || segment.weight.abs() > MOST_WEIGHT);
    let heavy = heavy.map(|segment| {
        let start: String = segment.text.chars().take(40).collect();
        NodeError::new(param, format!("the weight of `{start}` is more than {MOST_WEIGHT}"))
            .help("write a weight near 1, such as `(red:1.2)`, or fewer parentheses around it")
    });
    let syntax = foreign_syntax(param, prompt);
    heavy.into_iter().chain(syntax).collect()
}

fn foreign_syntax(param: &str, prompt: &str) -> Vec<NodeError> {
    let found = [
        (tag(prompt), "networks such as LoRA are not supported: merge it into the checkpoint, and remove it here"),
        (embedding(prompt), "textual inversion is not supported: describe it in words"),
        (wildcard(prompt), "wildcards are not supported: `--inputs` and `--sweep` run a graph for many prompts"),
        (choice(prompt), "choices are not supported: `--sweep` runs a graph for several prompts"),
        (editing(prompt), "prompts that change from step to step are not supported"),
        (word(prompt, "BREAK"), "long prompts are divided by themselves: remove it"),
        (word(prompt, "AND"), "several prompts in one are not supported: MultiDiffusionSample has one for each box"),
    ];
    let found = found.into_iter().filter_map(|(part, help)| Some((part?, help)));
    found
        .map(|(part, help)| {
            NodeError::new(param, format!("`{part}` in the prompt is read as plain text"))
                .help(help)
                .as_warning("prompt-syntax")
        })
        .collect()
}

/// `<lora:name:0.8>` and the like.
fn tag(prompt: &str) -> Option<&str> {
    let starts = prompt.match_indices('<').map(|(at, _)| &prompt[at..]);
    let tags = starts.filter_map(|rest| rest.find('>').map(|end| &rest[..=end]));
    tags.into_iter().find(|tag| ["<lora:", "<lyco:", "<hypernet:", "<lora "].iter().any(|name| tag.starts_with(name)))
}

/// `embedding:name`, as ComfyUI writes it.
fn embedding(prompt: &str) -> Option<&str> {
    let rest = prompt.find("embedding:").map(|at| &prompt[at..])?;
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')')).unwrap_or(rest.len());
    (end > "embedding:".len()).then_some(&rest[..end])
}

/// `__name__`.
fn wildcard(prompt: &str) -> Option<&str> {
    prompt.match_indices("__").find_map(|(at, _)| {
        let rest = &prompt[at + 2..];
        let name = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '/' | '*')))?;
        (name > 0 && rest[name..].starts_with("__")).then(|| &prompt[at..at + name + 4])
    })
}

/// `{red|blue}`.
fn choice(prompt: &str) -> Option<&str> {
    let starts = prompt.match_indices('{').map(|(at, _)| &prompt[at..]);
    let mut choices = starts.filter_map(|rest| rest.find('}').map(|end| &rest[..=end]));
    choices.find(|choice| choice.contains('|'))
}

/// `[red:blue:0.5]`, and `[red|blue]`.
fn editing(prompt: &str) -> Option<&str> {
    let starts = prompt.match_indices('[').map(|(at, _)| &prompt[at..]);
    let mut parts = starts.filter_map(|rest| rest.find(']').map(|end| &rest[..=end]));
    parts.find(|part| part.contains([':', '|']))
}

/// A word in capitals, between spaces.
fn word(prompt: &str, word: &'static str) -> Option<&'static str> {
    prompt.split_whitespace().any(|part| part == word).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_overflow_are_errors() {
        for prompt in ["(a:1e38)", &format!("{}a{}", "(".repeat(100), ")".repeat(100))] {
            let found = problems("prompt", prompt);
            assert!(found.len() == 1 && found[0].message.contains("the weight of `a` is more than 1000"), "{found:?}");
        }
    }

    #[test]
    fn the_syntax_of_other_programs_is_found_and_plain_text_is_not() {
        let found = |prompt: &str| {
            let part = |warning: NodeError| warning.message.split('`').nth(1).unwrap().to_string();
            problems("prompt", prompt).into_iter().map(part).collect::<Vec<_>>()
        };
        assert_eq!(found("a cat <lora:detail:0.8> on sand"), ["<lora:detail:0.8>"]);
        assert_eq!(found("(embedding:EasyNegative:1.1), blurry"), ["embedding:EasyNegative:1.1"]);
        assert_eq!(found("a __colour/warm__ {circle|square}"), ["__colour/warm__", "{circle|square}"]);
        assert_eq!(found("a [red:blue:0.5] circle BREAK on sand AND sea"), ["[red:blue:0.5]", "BREAK", "AND"]);
        for prompt in [
            "a [red] circle",
            "a brand",
            "a (red:1.2) circle",
            "x < y > z",
            "snake__case",
            "an embedding: of words",
            "{phrase} on sand",
            "__",
        ] {
            assert_eq!(found(prompt), [""; 0], "{prompt}");
        }
    }
}
