//! Opens a model in diffusers' folder layout.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::parts::{add_fusers, check_fusers, one_network, replacement_vae, text_encoder};
use super::{Blueprint, EncoderBlueprint, ModelSource, Problems, TokenizerSource, foreign, predicts};
use crate::Result;
use crate::models::clip::{ClipTokenizer, tokenizer};
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::models::markers::Markers;
use crate::models::{Family, ModelInfo};
use crate::schedule::SchedulerConfig;
use crate::weights::{ModelFiles, TensorMap};

/// The folders of a text encoder and of its tokenizer, and whether the model needs its pooled, projected text.
struct EncoderFolders {
    tokenizer: &'static str,
    encoder: &'static str,
    projects: bool,
}

const FIRST: EncoderFolders = EncoderFolders { tokenizer: "tokenizer", encoder: "text_encoder", projects: false };

const SECOND: EncoderFolders = EncoderFolders { tokenizer: "tokenizer_2", encoder: "text_encoder_2", projects: true };

fn encoder_folders(family: Family) -> &'static [EncoderFolders] {
    match family {
        Family::Sdxl | Family::Playground => &[FIRST, SECOND],
        Family::SdxlRefiner => &[SECOND],
        _ => &[FIRST],
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

    /// The text encoder in the folder `encoder`, with its tokenizer. Adds the names of tensors that it does not need to
    /// `unused`.
    fn encoder(
        &mut self,
        at: &EncoderFolders,
        unused: &mut Vec<String>,
        problems: &mut Problems,
    ) -> Option<EncoderBlueprint> {
        let config = problems.keep("model", ClipTextConfig::read(self.files, at.encoder, at.projects));
        let longest = config.as_ref().map_or(usize::MAX, |config| config.max_position_embeddings);
        let tokenizer = problems.keep("model", ClipTokenizer::load(self.files, at.tokenizer, longest));
        let weights = self.files.weights(at.encoder, "model").and_then(|path| self.files.checkpoint(&path));
        let tensors = weights.and_then(|checkpoint| text_encoder(&Arc::new(checkpoint), unused));
        let tensors = problems.keep("model", tensors);
        self.note(&format!("{}/config.json", at.encoder));
        tokenizer::files_of(self.files, at.tokenizer).iter().for_each(|path| self.note(path));
        let ((config, tensors), tokenizer) = config.zip(tensors).zip(tokenizer)?;
        problems.keep("model", tokenizer.check_vocab_size(config.vocab_size, &self.files.label(at.tokenizer)))?;
        let tokenizer = TokenizerSource::Folder(Arc::new(tokenizer));
        Some(EncoderBlueprint::new(config, tensors, tokenizer, unused))
    }

    /// Whether a missing negative prompt is zero.
    fn force_zeros(&self, family: Family, problems: &mut Problems) -> bool {
        match family {
            family if !family.is_xl() => false,
            _ if self.files.has("model_index.json") => {
                let index = self.files.json("model_index.json").and_then(|index| index.decode::<ModelIndex>());
                let index = problems.keep("model", index);
                index.is_none_or(|index| index.force_zeros_for_empty_prompt)
            }
            family => family == Family::Sdxl,
        }
    }
}

impl Blueprint {
    pub(super) fn of_folder(files: &ModelFiles, source: &ModelSource, problems: &mut Problems) -> Option<Blueprint> {
        let mut folder = Folder { files, read: BTreeSet::new() };
        for path in ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"] {
            folder.note(path);
        }
        // One problem says it all: its other parts are of other kinds too.
        problems.keep("model", foreign::refuse_folder(files))?;
        let config = problems.keep("model", UNetConfig::read(files));
        let unet = problems.keep("model", folder.tensors("unet", "diffusion_pytorch_model"));
        let scheduler = problems.keep("model", SchedulerConfig::read(files));
        let vae = match &source.vae {
            Some(path) => {
                // An autoencoder without its model does not know how the model's latents are normalised.
                folder.note("vae/config.json");
                let own = files.has("vae/config.json").then(|| VaeConfig::read(files)).and_then(Result::ok);
                let family = config.as_ref().map(UNetConfig::family);
                let vae = problems.keep("vae", replacement_vae(path, family, &mut folder.read));
                vae.map(|(vae, tensors)| (vae.like(own.as_ref()), tensors))
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
        let mut unknown = vec![];
        let encoders = encoder_folders(family).iter();
        let encoders = encoders.filter_map(|at| folder.encoder(at, &mut unknown, problems)).collect();
        let force_zeros = folder.force_zeros(family, problems);
        let mut notes = Vec::new();
        if source.vae.is_none() && files.has("vae_1_0/config.json") {
            notes.push(
                "its `vae` folder is the autoencoder of SDXL 0.9, and `vae_1_0` that of SDXL 1.0; give \
                 `vae: …/vae_1_0` to use the latter"
                    .into(),
            );
        }
        let (vae, scheduler) = vae.zip(scheduler)?;
        if scheduler.clip_sample {
            notes.push(format!(
                "its scheduler clamps the predicted latent to ±{} (`clip_sample`), which suits few models of latents; remove \
                 the key from scheduler_config.json if images are flat",
                scheduler.clip_sample_range
            ));
        }
        let mut told = Blueprint::evidence(&config, false);
        told.push(predicts(scheduler.prediction_type, "scheduler/scheduler_config.json"));
        Some(Blueprint {
            info: ModelInfo::of(&config, &vae.0, &scheduler),
            unet: (config, unet),
            vae,
            encoders,
            force_zeros,
            form: "folder in diffusers' layout".into(),
            unknown,
            notes,
            markers: Markers::default(),
            told,
            files: folder.read,
        })
    }
}
