//! What a network predicts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a U-Net predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum PredictionType {
    /// The noise ε.
    #[default]
    Epsilon,
    /// v = √ᾱ ε − √(1−ᾱ) x₀.
    VPrediction,
    /// x₀, the clean latent.
    Sample,
}

/// What a U-Net predicts, and how its input is scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parameterisation {
    /// What it predicts.
    pub prediction: PredictionType,
    /// σ_data of EDM (Karras et al., table 1), for a network that is told ¼ ln σ in place of a timestep.
    pub sigma_data: Option<f64>,
}

impl From<PredictionType> for Parameterisation {
    fn from(prediction: PredictionType) -> Self {
        Parameterisation { prediction, sigma_data: None }
    }
}
