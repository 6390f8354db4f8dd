//! The syntax of other programs in prompts, which would be read as plain text.

use lsregen_engine::NodeError;

/// Warns of what a prompt contains that only other programs understand. `param` is the parameter of the prompt.
pub(crate) fn warnings(param: &str, prompt: &str) -> Vec<NodeError> {
    let found = [
        (tag(prompt), "networks such as LoRA are not supported: merge it into the checkpoint, and remove it here"),
        (embedding(prompt), "textual inversion is not supported: describe it in words"),
        (wildcard(prompt), "wildcards are not supported: `--inputs` and `--sweep` run a graph for many prompts"),
        (choice(prompt), "choices are not supported: `--sweep` runs a graph for several prompts"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syntax_of_other_programs_is_found_and_plain_text_is_not() {
        let found = |prompt: &str| {
            let part = |warning: NodeError| warning.message.split('`').nth(1).unwrap().to_string();
            warnings("prompt", prompt).into_iter().map(part).collect::<Vec<_>>()
        };
        assert_eq!(found("a cat <lora:detail:0.8> on sand"), ["<lora:detail:0.8>"]);
        assert_eq!(found("(embedding:EasyNegative:1.1), blurry"), ["embedding:EasyNegative:1.1"]);
        assert_eq!(found("a __colour/warm__ {circle|square}"), ["__colour/warm__", "{circle|square}"]);
        for prompt in
            ["a (red:1.2) circle", "x < y > z", "snake__case", "an embedding: of words", "{phrase} on sand", "__"]
        {
            assert_eq!(found(prompt), [""; 0], "{prompt}");
        }
    }
}
