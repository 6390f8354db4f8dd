//! What is in a checkpoint, for a person: networks, sizes, dtypes, what is missing and what is not used.
//!
//! Tells of whole models and of files that are part of one. Reads headers only.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::blueprint::{Blueprint, ModelSource, Place};
use crate::schedule::PredictionType;
use crate::weights::{Checkpoint, ModelFiles, Part, Sorted, TensorMap};

/// What is in a checkpoint.
#[derive(Debug, Serialize)]
pub struct Survey {
    /// `sd1`, `gligen` or `sdxl`; none where it is no whole model.
    pub family: Option<&'static str>,
    /// What it is, in words.
    pub form: String,
    pub networks: Vec<NetworkSurvey>,
    /// What the U-Net predicts: `epsilon` or `v_prediction`.
    pub prediction: Option<&'static str>,
    /// What keeps it from being loaded as a model.
    pub problems: Vec<String>,
    /// Tensors for which no network has a place.
    pub unused: Vec<String>,
    pub notes: Vec<String>,
}

/// One network of a checkpoint.
#[derive(Debug, Serialize)]
pub struct NetworkSurvey {
    pub name: &'static str,
    pub tensors: usize,
    pub parameters: usize,
    /// The dtype of most of its numbers, as the file has them.
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
    /// Looks at a folder or file.
    pub fn of(path: &Path) -> Survey {
        let model = match path.is_dir() {
            true => Place::Files(ModelFiles::Folder(path.into())),
            false => Place::File(path.into()),
        };
        let source = ModelSource { model, vae: None, gligen: None, prediction: None };
        match Blueprint::open(&source) {
            Ok(blueprint) => Self::of_model(&blueprint),
            Err(problems) => {
                let problems: Vec<String> = problems.into_iter().map(|p| p.error.to_string()).collect();
                Self::of_parts(path, problems)
            }
        }
    }

    /// A whole model.
    pub fn of_model(blueprint: &Blueprint) -> Survey {
        let names = ["text encoder", "second text encoder"];
        let encoders = blueprint.encoders.iter().zip(names);
        let networks = [("U-Net", &blueprint.unet.1), ("autoencoder", &blueprint.vae.1)].into_iter();
        let networks = networks.chain(encoders.map(|(encoder, name)| (name, &encoder.tensors)));
        Survey {
            family: Some(blueprint.info.family.name()),
            form: blueprint.form.clone(),
            networks: networks.map(|(name, map)| NetworkSurvey::of(name, map)).collect(),
            prediction: Some(match blueprint.scheduler.prediction_type {
                PredictionType::Epsilon => "epsilon",
                PredictionType::VPrediction => "v_prediction",
            }),
            problems: vec![],
            unused: blueprint.unknown.clone(),
            notes: blueprint.notes.clone(),
        }
    }

    /// What can be said of something that is no whole model.
    fn of_parts(path: &Path, problems: Vec<String>) -> Survey {
        let mut survey = Survey {
            family: None,
            form: if path.is_dir() { "a folder, but no whole model" } else { "no weights" }.into(),
            networks: vec![],
            prediction: None,
            problems,
            unused: vec![],
            notes: vec![],
        };
        // The folder of one component, or a file.
        let file = if path.is_dir() {
            let files = ModelFiles::Folder(path.into());
            let found = ["diffusion_pytorch_model", "model"].iter().find_map(|stem| files.weights("", stem).ok());
            found.map(|file| path.join(file))
        } else {
            Some(path.into())
        };
        let Some(checkpoint) = file.and_then(|file| Checkpoint::open(&file).ok()) else { return survey };
        let checkpoint = Arc::new(checkpoint);
        let sorted = Sorted::of(&checkpoint);
        let mut fusers = false;
        for (part, map) in &sorted.parts {
            let alone = *part == Part::UNet && !map.has("conv_in.weight");
            fusers |= alone && map.names().any(|name| name.contains(".fuser."));
            let name = match part {
                Part::UNet if fusers => "GLIGEN's fusers",
                Part::UNet => "U-Net",
                Part::Vae => "autoencoder",
                Part::TextEncoder => "text encoder",
                Part::TextEncoder2 => "second text encoder",
            };
            survey.networks.push(NetworkSurvey::of(name, map));
        }
        let kinds: Vec<Part> = sorted.parts.keys().copied().collect();
        let what = match kinds.as_slice() {
            [Part::UNet] if fusers => Some("to be given as `gligen` beside a Stable Diffusion 1.x model"),
            [Part::Vae] => Some("to be given as `vae` beside a model"),
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
