//! Choices that several nodes offer by name, and the checks on parameters that several nodes have.

use lsregen_diffusion::guidance::Metric;
use lsregen_diffusion::models::prompt::{Prompt, Sizes};
use lsregen_diffusion::sampler;
use lsregen_engine::NodeError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a latent is sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Sampler {
    /// DDIM, the paper's.
    #[default]
    Ddim,
    /// Euler.
    Euler,
    /// DPM-Solver++ 2M.
    #[serde(rename = "dpmpp_2m")]
    DpmSolverPp2M,
}

impl Sampler {
    /// As the graph writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sampler::Ddim => "ddim",
            Sampler::Euler => "euler",
            Sampler::DpmSolverPp2M => "dpmpp_2m",
        }
    }
}

impl From<Sampler> for sampler::Method {
    fn from(sampler: Sampler) -> Self {
        match sampler {
            Sampler::Ddim => Self::Ddim,
            Sampler::Euler => Self::Euler,
            Sampler::DpmSolverPp2M => Self::DpmSolverPp2M,
        }
    }
}

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
pub(crate) fn eta_faults(sampler: Sampler, eta: f64) -> Vec<NodeError> {
    match sampler {
        Sampler::Euler | Sampler::DpmSolverPp2M if eta != 0.0 => {
            vec![
                NodeError::new("eta", "eta is DDIM's: the other samplers add no noise")
                    .help("leave eta out, or sample with ddim"),
            ]
        }
        _ => vec![],
    }
}

/// By what a feature and its ideal are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Distance {
    /// The sum of squared differences.
    #[default]
    L2,
    /// Their mean.
    L2Mean,
    /// The sum of differences.
    L1,
    /// The sum of squared differences where they are small, of differences where they are large.
    Huber,
    /// 1 − cos of the angle between both.
    Cosine,
    /// Frobenius norm of the difference of both Gram matrices: texture, wherever it is.
    Gram,
    /// Cross-entropy: the feature is logits of classes, the ideal their probabilities.
    CrossEntropy,
}

impl From<Distance> for Metric {
    fn from(distance: Distance) -> Self {
        match distance {
            Distance::L2 => Metric::L2,
            Distance::L2Mean => Metric::L2Mean,
            Distance::L1 => Metric::L1,
            Distance::Huber => Metric::Huber,
            Distance::Cosine => Metric::Cosine,
            Distance::Gram => Metric::Gram,
            Distance::CrossEntropy => Metric::CrossEntropy,
        }
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
