//! A description of a checkpoint for a person: networks, sizes, dtypes, missing and unused tensors.
//!
//! Describes whole models, and files that are part of one. Reads headers only.

use std::sync::Arc;

use serde::Serialize;

use super::{Blueprint, ModelLocation, ModelSource, prediction_name};
use crate::models::clip::ClipBlueprint;
use crate::weights::{Checkpoint, NetworkKind, SortedTensors, TensorMap};

/// A description of a checkpoint.
#[derive(Debug, Serialize)]
pub struct Survey {
    /// `sd1`, `sd2`, `gligen`, `sdxl`, `playground` or `sdxl-refiner`; `None` if it is not a whole model.
    pub family: Option<&'static str>,
    /// The member of the family, in words.
    pub member: Option<String>,
    /// What shows the member, and what the U-Net predicts.
    pub told: Vec<String>,
    /// What keeps it from being sampled.
    pub limits: Vec<String>,
    /// A description of the file or folder as a whole.
    pub form: String,
    /// Its networks.
    pub networks: Vec<NetworkSurvey>,
    /// What the U-Net predicts: `epsilon` or `v_prediction`.
    pub prediction: Option<String>,
    /// Problems that keep it from being loaded as a model.
    pub problems: Vec<String>,
    /// Names of tensors that belong to no network.
    pub unused: Vec<String>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

/// One network of a checkpoint.
#[derive(Debug, Serialize)]
pub struct NetworkSurvey {
    /// What it is.
    pub name: &'static str,
    /// Number of its tensors.
    pub tensors: usize,
    /// Number of its parameters.
    pub parameters: usize,
    /// The dtype of most of its parameters in the file.
    pub dtype: String,
    /// Bytes in the file.
    pub bytes: usize,
}

impl NetworkSurvey {
    fn of(name: &'static str, map: &TensorMap) -> NetworkSurvey {
        let dtype = map.dtype();
        NetworkSurvey {
            name,
            tensors: map.names().count(),
            parameters: map.elements(),
            dtype: dtype.map_or("none".into(), |dtype| format!("{dtype:?}").to_lowercase()),
            bytes: map.elements() * dtype.map_or(0, |dtype| dtype.bitsize()) / 8,
        }
    }
}

impl Survey {
    /// Describes the model at a location.
    pub fn of(model: ModelLocation) -> Survey {
        let source = ModelSource { model, vae: None, gligen: None, prediction: None, schedule: Default::default() };
        match Blueprint::open(&source) {
            Ok(blueprint) => Self::of_model(&blueprint),
            Err(problems) => Self::of_clip(&source.model).unwrap_or_else(|| {
                let problems: Vec<String> = problems.into_iter().map(|p| p.error.to_string()).collect();
                Self::of_parts(&source.model, problems)
            }),
        }
    }

    /// Describes a whole model.
    pub fn of_model(blueprint: &Blueprint) -> Survey {
        let names = ["text encoder", "second text encoder"];
        let encoders = blueprint.encoders.iter().zip(names);
        let networks = [("U-Net", &blueprint.unet.1), ("autoencoder", &blueprint.vae.1)].into_iter();
        let networks = networks.chain(encoders.map(|(encoder, name)| (name, &encoder.tensors)));
        Survey {
            family: Some(blueprint.info.family.name()),
            member: Some(blueprint.member()),
            told: blueprint.told.clone(),
            limits: blueprint.info.limits.iter().map(|limit| limit.reason.clone()).collect(),
            form: blueprint.form.clone(),
            networks: networks.map(|(name, map)| NetworkSurvey::of(name, map)).collect(),
            prediction: Some(prediction_name(blueprint.info.scheduler.prediction_type)),
            problems: vec![],
            unused: blueprint.unknown.clone(),
            notes: blueprint.notes.clone(),
        }
    }

    /// Describes a CLIP, with both of its encoders.
    fn of_clip(model: &ModelLocation) -> Option<Survey> {
        let ModelLocation::Files(files) = model else { return None };
        let blueprint = ClipBlueprint::open(files).ok()?;
        Some(Survey {
            form: "CLIP in transformers' layout, for `clip`".into(),
            networks: vec![NetworkSurvey::of("text and image encoder", &blueprint.tensors)],
            ..Survey::empty()
        })
    }

    fn empty() -> Survey {
        Survey {
            family: None,
            member: None,
            told: vec![],
            limits: vec![],
            form: String::new(),
            networks: vec![],
            prediction: None,
            problems: vec![],
            unused: vec![],
            notes: vec![],
        }
    }

    /// Describes what is not a whole model.
    fn of_parts(model: &ModelLocation, problems: Vec<String>) -> Survey {
        let form = match model {
            ModelLocation::Files(_) => "a folder, but not a whole model",
            ModelLocation::File(_) => "no weights",
        };
        let mut survey = Survey { form: form.into(), problems, ..Survey::empty() };
        // The folder of one component, or a file.
        let checkpoint = match model {
            ModelLocation::Files(files) => {
                let found = ["diffusion_pytorch_model", "model"].iter().find_map(|stem| files.weights("", stem).ok());
                found.and_then(|file| files.checkpoint(&file).ok())
            }
            ModelLocation::File(path) => Checkpoint::open(path).ok(),
        };
        let Some(checkpoint) = checkpoint else { return survey };
        let checkpoint = Arc::new(checkpoint);
        let sorted = SortedTensors::of(&checkpoint);
        let mut fusers = false;
        for (part, map) in &sorted.networks {
            let alone = *part == NetworkKind::UNet && !map.has("conv_in.weight");
            fusers |= alone && map.names().any(|name| name.contains(".fuser."));
            let name = match part {
                NetworkKind::UNet if fusers => "GLIGEN's fusers",
                NetworkKind::UNet => "U-Net",
                NetworkKind::Vae => "autoencoder",
                NetworkKind::TextEncoder => "text encoder",
                NetworkKind::TextEncoder2 => "second text encoder",
            };
            survey.networks.push(NetworkSurvey::of(name, map));
        }
        let kinds: Vec<NetworkKind> = sorted.networks.keys().copied().collect();
        let what = match kinds.as_slice() {
            [NetworkKind::UNet] if fusers => Some("for `gligen` beside a Stable Diffusion 1.x model"),
            [NetworkKind::Vae] => Some("for `vae` beside a model"),
            _ => None,
        };
        survey.form = format!("part of a model ({})", checkpoint.format());
        if let Some(what) = what {
            survey.form = format!("{}, {what}", survey.form);
            survey.problems.clear();
        }
        survey.unused = sorted.unknown;
        survey
    }
}
