//! Opens a model in diffusers' folder layout.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::parts::{add_fusers, check_fusers, one_network, replacement_vae};
use super::{Blueprint, EncoderBlueprint, ModelSource, Problems, TokenizerSource};
use crate::models::clip::tokenizer;
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::models::{Family, ModelInfo};
use crate::schedule::SchedulerConfig;
use crate::weights::{ModelFiles, TensorMap};
use crate::{Error, Result};

/// Folders of the tokenizers and their text encoders.
fn encoder_folders(family: Family) -> &'static [(&'static str, &'static str)] {
    match family {
        Family::Sdxl => &[("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")],
        _ => &[("tokenizer", "text_encoder")],
    }
}

#[derive(Deserialize)]
struct ModelIndex {
    #[serde(default = "yes")]
    force_zeros_for_empty_prompt: bool,
}

fn yes() -> bool {
    true
}

/// A model's folder, and the small files of it that have been read.
struct Folder<'f> {
    files: &'f ModelFiles,
    read: BTreeSet<PathBuf>,
}

impl Folder<'_> {
    /// Adds a file to those that were read, if it exists on disk.
    fn note(&mut self, path: &str) {
        if let ModelFiles::Folder(root) = self.files
            && self.files.has(path)
        {
            self.read.insert(root.join(path));
        }
    }

    /// The tensors of a component.
    fn tensors(&self, component: &str, stem: &str) -> Result<TensorMap> {
        let path = self.files.weights(component, stem)?;
        one_network(&Arc::new(self.files.checkpoint(&path)?))
    }

    /// The text encoder in the folder `encoder`, with its tokenizer.
    fn encoder(&mut self, tokenizer: &'static str, encoder: &str, problems: &mut Problems) -> Option<EncoderBlueprint> {
        let config = problems.keep("model", ClipTextConfig::read(self.files, encoder));
        for name in tokenizer::NEEDED {
            let path = format!("{tokenizer}/{name}");
            if !self.files.has(&path) {
                let error = Error::Config(format!("{}: no such file", self.files.label(&path)));
                problems.keep::<()>("model", Err(error));
            }
        }
        let tensors = problems.keep("model", self.tensors(encoder, "model"));
        self.note(&format!("{encoder}/config.json"));
        tokenizer::FILES.iter().for_each(|name| self.note(&format!("{tokenizer}/{name}")));
        let (config, tensors) = config.zip(tensors)?;
        Some(EncoderBlueprint { config, tensors, tokenizer: TokenizerSource::Folder(self.files.clone(), tokenizer) })
    }

    /// Whether a missing negative prompt is zero.
    fn force_zeros(&self, family: Family, problems: &mut Problems) -> bool {
        match family {
            Family::Sdxl if self.files.has("model_index.json") => {
                let index = problems.keep("model", self.files.json::<ModelIndex>("model_index.json"));
                index.is_none_or(|index| index.force_zeros_for_empty_prompt)
            }
            Family::Sdxl => true,
            _ => false,
        }
    }
}

impl Blueprint {
    pub(super) fn of_folder(files: &ModelFiles, source: &ModelSource, problems: &mut Problems) -> Option<Blueprint> {
        let mut folder = Folder { files, read: BTreeSet::new() };
        for path in ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"] {
            folder.note(path);
        }
        let config = problems.keep("model", UNetConfig::read(files));
        let unet = problems.keep("model", folder.tensors("unet", "diffusion_pytorch_model"));
        let scheduler: Result<SchedulerConfig> = files.json("scheduler/scheduler_config.json");
        let scheduler = problems.keep("model", scheduler);
        let vae = match &source.vae {
            Some(path) => {
                let family = config.as_ref().map(UNetConfig::family);
                problems.keep("vae", replacement_vae(path, family, &mut folder.read))
            }
            None => {
                folder.note("vae/config.json");
                let config = problems.keep("model", VaeConfig::read(files));
                config.zip(problems.keep("model", folder.tensors("vae", "diffusion_pytorch_model")))
            }
        };
        let mut config = config?;
        let mut unet = unet.unwrap_or_default();
        problems.keep("model", check_fusers(&config, &unet));
        if let Some(path) = &source.gligen {
            problems.keep("gligen", add_fusers(path, &mut config, &mut unet));
        }
        let family = config.family();
        let encoders = encoder_folders(family).iter();
        let encoders =
            encoders.filter_map(|(tokenizer, encoder)| folder.encoder(tokenizer, encoder, problems)).collect();
        let force_zeros = folder.force_zeros(family, problems);
        let mut notes = Vec::new();
        if source.vae.is_none() && files.has("vae_1_0/config.json") {
            notes.push(
                "its `vae` folder is the autoencoder of SDXL 0.9, and `vae_1_0` that of SDXL 1.0; give \
                 `vae: …/vae_1_0` to use the latter"
                    .into(),
            );
        }
        let vae = vae?;
        Some(Blueprint {
            info: ModelInfo::of(&config, &vae.0),
            unet: (config, unet),
            vae,
            encoders,
            scheduler: scheduler?,
            force_zeros,
            form: "folder in diffusers' layout".into(),
            unknown: vec![],
            notes,
            files: folder.read,
        })
    }
}
