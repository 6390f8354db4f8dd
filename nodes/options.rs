//! Choices that several nodes offer by name, and the checks on parameters that several nodes have.

use lsregen_diffusion::models::prompt::{Prompt, Sizes};
use lsregen_diffusion::sampler::SamplerKind;
use lsregen_engine::NodeError;

/// What to draw, with the text of the second encoder.
pub(crate) fn prompt(text: &str, text_2: &Option<String>) -> Prompt {
    Prompt { text: text.into(), text_2: text_2.clone() }
}

/// What not to draw; there if either text is.
pub(crate) fn negative(text: &Option<String>, text_2: &Option<String>) -> Option<Prompt> {
    let given = text.is_some() || text_2.is_some();
    given.then(|| prompt(text.as_deref().unwrap_or_default(), text_2))
}

/// What SDXL is told of sizes.
pub(crate) fn sizes(original: Option<[u32; 2]>, target: Option<[u32; 2]>, crop: [u32; 2]) -> Sizes {
    let pair = |[a, b]: [u32; 2]| (a as usize, b as usize);
    Sizes { original: original.map(pair), target: target.map(pair), crop: pair(crop) }
}

/// Every model so far works on latents of an eighth of the picture's side.
const SIZE_STEP: u32 = 8;

/// Faults of a picture's size.
pub(crate) fn size_faults(width: Option<u32>, height: Option<u32>) -> Vec<NodeError> {
    let sides = [("width", width), ("height", height)];
    let given = sides.iter().filter_map(|(name, side)| Some((name, (*side)?)));
    given
        .filter(|(_, side)| side % SIZE_STEP != 0)
        .map(|(name, side)| {
            let (below, above) = (side / SIZE_STEP * SIZE_STEP, side.div_ceil(SIZE_STEP) * SIZE_STEP);
            let choice = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
            NodeError::new(*name, format!("{name} must be a multiple of {SIZE_STEP} pixels, and {side} is none"))
                .help(format!("take {choice}"))
        })
        .collect()
}

/// Faults of η under a sampler.
pub(crate) fn eta_faults(sampler: SamplerKind, eta: f64) -> Vec<NodeError> {
    match sampler {
        SamplerKind::Euler | SamplerKind::DpmSolverPp2M if eta != 0.0 => {
            vec![
                NodeError::new("eta", "eta is DDIM's: the other samplers add no noise")
                    .help("leave eta out, or sample with ddim"),
            ]
        }
        _ => vec![],
    }
}

/// `#rrggbb` as red, green and blue in [0, 1].
///
/// # Errors
/// When it is none.
pub(crate) fn colour(text: &str) -> anyhow::Result<[f32; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let number = number.ok_or_else(|| anyhow::anyhow!("{text:?} is no colour"))?;
    Ok([16, 8, 0].map(|shift| (number >> shift & 255) as f32 / 255.0))
}

/// The fault of a colour at `path`, if any.
pub(crate) fn colour_fault(path: String, text: &str) -> Option<NodeError> {
    let error = colour(text).err()?;
    Some(
        NodeError::new(path, error.to_string())
            .help("write red, green and blue as \"#rrggbb\", in quotes: \"#ff0000\" is red"),
    )
}
