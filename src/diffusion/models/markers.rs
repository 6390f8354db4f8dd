//! What a checkpoint in one file states about how it is sampled: keys that name no weights, and metadata.

use std::collections::BTreeMap;

use crate::schedule::{PredictionType, SchedulerConfig, TimestepSpacing};
use crate::weights::{Checkpoint, SortedTensors};

/// The statements of a checkpoint in one file about its sampling. All are absent from a folder, whose
/// `scheduler_config.json` states it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Markers {
    /// The key `v_pred`: the U-Net predicts v.
    pub v_pred: bool,
    /// The key `ztsnr`: it was trained on a schedule whose last ᾱ is 0 (zero terminal SNR).
    pub ztsnr: bool,
    /// The keys `edm_vpred.sigma_max` and `edm_vpred.sigma_min`: a continuous schedule between these σ (Karras et al.) with
    /// v-prediction and σ_data = 1, as in CosXL.
    pub edm_vpred: Option<EdmRange>,
    /// The keys `edm_mean` and `edm_std`: latents have this mean and deviation, one number for each channel, and the U-Net
    /// predicts as in EDM with σ_data = 0.5, as in Playground v2.5.
    pub edm_latents: Option<EdmLatents>,
    /// The metadata of Stability's specification, without `modelspec.`: `architecture`, `prediction_type`, `title`, ….
    pub modelspec: BTreeMap<String, String>,
}

/// The bounds of a continuous schedule. A number that is absent, or that is no positive number, is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdmRange {
    /// The least σ.
    pub sigma_min: Option<f64>,
    /// The greatest σ.
    pub sigma_max: Option<f64>,
}

/// Mean and deviation of latents, for each channel. Either is empty if its key is absent or holds no numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct EdmLatents {
    /// The mean.
    pub mean: Vec<f32>,
    /// The standard deviation.
    pub std: Vec<f32>,
}

impl Markers {
    /// Collects what the names and the metadata of a checkpoint state.
    pub(crate) fn of(checkpoint: &Checkpoint, sorted: &SortedTensors) -> Markers {
        let has = |key: &str| sorted.markers.contains_key(key);
        let numbers = |key: &str| sorted.markers.get(key).cloned().unwrap_or_default();
        let sigma = |key: &str| match numbers(key)[..] {
            [sigma] if sigma > 0.0 && sigma.is_finite() => Some(f64::from(sigma)),
            _ => None,
        };
        let [least, most] = ["edm_vpred.sigma_min", "edm_vpred.sigma_max"];
        let texts = checkpoint.texts().iter();
        Markers {
            v_pred: has("v_pred"),
            ztsnr: has("ztsnr"),
            edm_vpred: (has(least) || has(most)).then(|| EdmRange { sigma_min: sigma(least), sigma_max: sigma(most) }),
            edm_latents: (has("edm_mean") || has("edm_std"))
                .then(|| EdmLatents { mean: numbers("edm_mean"), std: numbers("edm_std") }),
            modelspec: texts
                .filter_map(|(key, text)| Some((key.strip_prefix("modelspec.")?.to_string(), text.clone())))
                .collect(),
        }
    }

    /// The scheduler file that these statements stand for, for a U-Net with this prediction, and the marker that says it.
    ///
    /// CosXL's and Playground's numbers are those of their `scheduler_config.json`.
    pub(crate) fn scheduler(&self, prediction: PredictionType) -> (SchedulerConfig, Option<String>) {
        let standard = SchedulerConfig::stable_diffusion(prediction);
        if let Some(EdmRange { sigma_min, sigma_max }) = self.edm_vpred {
            let edm = SchedulerConfig {
                class_name: Some("EDMEulerScheduler".into()),
                sigma_min: sigma_min.or(Some(0.002)),
                sigma_max: sigma_max.or(Some(120.0)),
                sigma_data: Some(1.0),
                ..standard
            };
            return (edm, Some("EDM's schedule (the key `edm_vpred.sigma_max`)".into()));
        }
        if self.edm_latents.is_some() {
            let edm = SchedulerConfig { class_name: Some("EDMDPMSolverMultistepScheduler".into()), ..standard };
            return (edm, Some("EDM's schedule (the keys `edm_mean` and `edm_std`)".into()));
        }
        if self.ztsnr && prediction == PredictionType::VPrediction {
            // Only with the last timestep does the sampling start without signal (Lin et al., section 3.3).
            let spacing = Some(TimestepSpacing::Trailing);
            let zero = SchedulerConfig { rescale_betas_zero_snr: true, timestep_spacing: spacing, ..standard };
            return (zero, Some("zero terminal SNR, with `trailing` timesteps (the key `ztsnr`)".into()));
        }
        (standard, None)
    }

    /// What the markers say that the U-Net predicts, and the marker that says it.
    ///
    /// Keys precede the metadata: tools that merge models copy the keys, and keep the metadata of one of them.
    ///
    /// # Errors
    /// Returns the stated value if it is not known.
    pub(crate) fn prediction(&self) -> Result<Option<(PredictionType, String)>, &str> {
        if self.v_pred {
            return Ok(Some((PredictionType::VPrediction, "the key `v_pred`".into())));
        }
        if self.edm_vpred.is_some() {
            return Ok(Some((PredictionType::VPrediction, "the key `edm_vpred.sigma_max`".into())));
        }
        // The identifiers of Stability's specification for the two models of Stable Diffusion 2.
        let architecture = self.modelspec.get("architecture").map_or("", String::as_str);
        let by_architecture = [("768-v", PredictionType::VPrediction), ("512", PredictionType::Epsilon)]
            .into_iter()
            .find(|(end, _)| architecture.strip_prefix("stable-diffusion-v2-") == Some(*end))
            .map(|(_, prediction)| (prediction, format!("the metadata `modelspec.architecture: {architecture}`")));
        // The specification's name, and that which ComfyUI writes.
        let mut stated = ["prediction_type", "predict_key"]
            .into_iter()
            .filter_map(|key| self.modelspec.get(key).filter(|text| !text.is_empty()).map(|text| (key, text)));
        let Some((key, stated)) = stated.next() else { return Ok(by_architecture) };
        let told = || format!("the metadata `modelspec.{key}: {stated}`");
        match stated.as_str() {
            "epsilon" | "eps" => Ok(Some((PredictionType::Epsilon, told()))),
            "v" | "v_prediction" | "v-prediction" => Ok(Some((PredictionType::VPrediction, told()))),
            other => Err(other),
        }
    }
}
