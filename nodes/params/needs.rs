//! Whether a sampling has what its guidances need: their phrases, steps, size and conditioning.

use lsregen_diffusion::guidance::Window;
use lsregen_diffusion::models::clip::tokenizer::words;
use lsregen_diffusion::models::prompt::parse;
use lsregen_diffusion::models::{Family, ModelInfo};
use lsregen_engine::{LinkedNode, Links, NodeError};

use super::sampling::Sampling;
use crate::values::{Conditioning, ImageSize, SamplingNeeds, downscale_error};

impl Sampling {
    /// Reports guidances whose needs this sampling does not meet. `conditioning` is that of an SDXL model.
    pub(crate) fn guidance_errors(&self, links: &Links, conditioning: Option<&Conditioning>) -> Vec<NodeError> {
        let (size, family) = (self.size(links), links.variant("model").and_then(Family::from_name));
        let mut errors = vec![];
        for (link, needs) in links.declared::<SamplingNeeds>("guidance") {
            let mut report = |(message, help): (String, String)| {
                errors.push(NodeError::new(format!("guidance/{}", link.index), message).help(help));
            };
            needs.phrases.iter().filter_map(|phrase| self.phrase_error(link, phrase)).for_each(&mut report);
            let mismatch = self.timesteps_error(link, needs);
            let mismatch = mismatch.or_else(|| family_error(link, needs.family?, family?));
            let mismatch = mismatch.or_else(|| size_error(link, needs.size?, size?));
            let mismatch = mismatch.or_else(|| conditioning_error(link, needs.conditioning.as_ref()?, conditioning?));
            mismatch.into_iter().for_each(&mut report);
            let whose = format!("the guidance of `{}`", link.name);
            size.and_then(|size| needs.box_error(&whose, size)).into_iter().for_each(&mut report);
            let model = links.declaration::<ModelInfo>("model");
            if let (Some(downscale), Some(model)) = (needs.downscale, model) {
                errors.extend(downscale_error(model, &format!("guidance/{}", link.index), &whose, downscale));
            }
            errors.extend(model.and_then(|model| self.window_warning(link, needs.window?, model)));
            let more: Vec<_> = needs.layout.iter().filter(|phrase| !needs.phrases.contains(phrase)).cloned().collect();
            errors.extend(phrase_warnings(&self.prompt, &more));
        }
        errors
    }

    fn phrase_error(&self, link: &LinkedNode, phrase: &str) -> Option<(String, String)> {
        (!has_words(&self.prompt, phrase)).then(|| {
            (
                format!("`{}` guides the phrase `{phrase}`, but the prompt does not contain it", link.name),
                "write the phrase in the prompt, in the same words: attention exists only for words of the prompt"
                    .into(),
            )
        })
    }

    /// Warns of a guidance that acts in none of the steps, unless that is asked for by `window: 0`.
    fn window_warning(&self, link: &LinkedNode, window: Window, model: &ModelInfo) -> Option<NodeError> {
        let timesteps = self.steps.timesteps(self.range, model)?;
        (window != Window::first(0.0) && window.steps(&timesteps).is_empty()).then(|| {
            let message = format!("the guidance of `{}` acts in none of the {} steps", link.name, self.steps.steps);
            NodeError::new(format!("guidance/{}", link.index), message)
                .help("change its `window`, `from_timestep` or `to_timestep`, or remove the guidance")
                .as_warning("no-effect")
        })
    }

    fn timesteps_error(&self, link: &LinkedNode, needs: &SamplingNeeds) -> Option<(String, String)> {
        let (steps, range) = needs.steps.as_ref()?;
        if *steps == self.steps && *range == self.range {
            return None;
        }
        if *steps == self.steps {
            let message = format!(
                "the guidance of `{}` is for another part of the steps: `denoise: {}`, `start_step: {}`, {}",
                link.name,
                range.denoise,
                range.start_step,
                range.end_step.map_or("no `end_step`".into(), |end| format!("`end_step: {end}`"))
            );
            return Some((message, "give both the same `denoise`, `start_step` and `end_step`".into()));
        }
        let message = format!(
            "the guidance of `{}` is for {}, but this sampling has {}",
            link.name,
            steps.text(),
            self.steps.text()
        );
        let help = "give both the same `steps`, `sampler`, `scheduler` and `conventions`: the guidance acts at the timesteps \
                    that it was made for";
        Some((message, help.into()))
    }
}

fn family_error(link: &LinkedNode, own: Family, family: Family) -> Option<(String, String)> {
    (!own.shares_latents(family)).then(|| {
        let (name, own, family) = (link.name, own.name(), family.name());
        (
            format!("the guidance of `{name}` is for a model of the family `{own}`, but this sampling's is `{family}`"),
            "link both to the same model".into(),
        )
    })
}

fn size_error(link: &LinkedNode, own: ImageSize, size: ImageSize) -> Option<(String, String)> {
    (own != size).then(|| {
        (
            format!("the guidance of `{}` is for images of {own}, but this sampling generates {size}", link.name),
            "make the sizes equal, or leave `width` and `height` out".into(),
        )
    })
}

fn conditioning_error(link: &LinkedNode, own: &Conditioning, sampling: &Conditioning) -> Option<(String, String)> {
    // Another prompt may be intended. The same prompt with another second half is an oversight.
    let second = |c: &Conditioning| c.prompt_2.clone().unwrap_or_else(|| c.prompt.clone());
    let parameters = [
        ("prompt_2", own.prompt == sampling.prompt && second(own) != second(sampling)),
        ("original_size", own.sizes.original != sampling.sizes.original),
        ("target_size", own.sizes.target != sampling.sizes.target),
        ("crop", own.sizes.crop != sampling.sizes.crop),
        ("clip_skip", own.clip_skip != sampling.clip_skip),
    ];
    let others: Vec<_> =
        parameters.iter().filter(|(_, differs)| *differs).map(|(name, _)| format!("`{name}`")).collect();
    let others = (!others.is_empty()).then(|| others.join(" and "))?;
    Some((
        format!("the guidance of `{}` was inverted with another {others} than this sampling has", link.name),
        format!("give both the same {others}, or leave {others} out of both"),
    ))
}

/// Whether a prompt contains the words of a phrase in order, apart from a leading article. Words are CLIP's, so that case,
/// weights and the form of composed letters do not matter, but punctuation does.
pub(crate) fn has_words(prompt: &str, phrase: &str) -> bool {
    let prompt: Vec<String> = parse(prompt).iter().flat_map(|segment| words(&segment.text)).collect();
    let phrase = words(phrase);
    let phrase = match phrase.as_slice() {
        [article, rest @ ..] if !rest.is_empty() && ["a", "an", "the"].contains(&article.as_str()) => rest,
        all => all,
    };
    !phrase.is_empty() && prompt.windows(phrase.len()).any(|words| words == phrase)
}

/// Warns of phrases of a layout that the prompt does not contain.
pub(crate) fn phrase_warnings(prompt: &str, phrases: &[String]) -> Vec<NodeError> {
    // A blank phrase is an error of the layout.
    let absent = phrases.iter().filter(|phrase| !phrase.trim().is_empty() && !has_words(prompt, phrase));
    absent
        .map(|phrase| {
            NodeError::new("prompt", format!("the prompt does not contain `{phrase}`, a phrase of the layout"))
                .help("name every object of the layout in the prompt; otherwise the image may lack it")
                .as_warning("absent-phrase")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_prompts() {
        for (prompt, phrase) in [
            ("a red circle and a blue square", "the blue square"),
            ("a (Red:1.2) circle", "a red circle"),
            ("a the\u{301} at night", "a th\u{e9}"),
            ("2cats on sand", "cats"),
            ("a cat", "a"),
            ("wow!! a cat", "!!"),
        ] {
            assert!(has_words(prompt, phrase), "{prompt}: {phrase}");
        }
        for (prompt, phrase) in [
            ("a red square", "a red circle"),
            ("cats on sand", "a cat"),
            ("red, a circle", "circle red"),
            ("a red, round ball", "a red round ball"),
            ("wow!! a cat", "!"),
            ("a cat", " "),
        ] {
            assert!(!has_words(prompt, phrase), "{prompt}: {phrase}");
        }
    }
}
