//! A model's configurations and the places of its tensors, before any weights are loaded.
//!
//! A model is a folder in diffusers' layout or a checkpoint in one file, optionally with another autoencoder or with
//! GLIGEN's fusers. A blueprint checks, from the headers of the files alone, that the tensors match the configurations.

mod file;
mod folder;
mod foreign;
mod member;
mod parts;
pub mod survey;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;

use crate::models::clip::{ClipTextModel, ClipTokenizer};
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::models::info::{LARGEST_SIDE, ModelInfo};
use crate::models::markers::Markers;
use crate::models::unet::UNet;
use crate::models::vae::AutoencoderKl;
use crate::schedule::{BetaSchedule, NoiseSchedule, PredictionType, SchedulerConfig, TimestepSpacing};
use crate::weights::{ModelFiles, Precision, TensorMap, Weights};
use crate::{Error, Result};

/// Where the parts of a model come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSource {
    /// The model.
    pub model: ModelLocation,
    /// An autoencoder that replaces the model's own.
    pub vae: Option<PathBuf>,
    /// GLIGEN's fusers and position net, for a Stable Diffusion 1.x model.
    pub gligen: Option<PathBuf>,
    /// What the U-Net predicts, if its files do not state it or state it incorrectly.
    pub prediction: Option<PredictionType>,
    /// What else its scheduler file does not state or states incorrectly.
    pub schedule: ScheduleOverride,
}

/// Settings of a noise schedule in place of those of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScheduleOverride {
    /// `timestep_spacing`.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// `rescale_betas_zero_snr`.
    pub zero_snr: Option<bool>,
    /// `beta_schedule`.
    pub beta_schedule: Option<BetaSchedule>,
}

impl ScheduleOverride {
    fn apply(&self, scheduler: &mut SchedulerConfig) {
        scheduler.timestep_spacing = self.timestep_spacing.or(scheduler.timestep_spacing);
        scheduler.beta_schedule = self.beta_schedule.or(scheduler.beta_schedule);
        scheduler.rescale_betas_zero_snr = self.zero_snr.unwrap_or(scheduler.rescale_betas_zero_snr);
    }
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelLocation {
    /// A folder in diffusers' layout, on disk or embedded in the program.
    Files(ModelFiles),
    /// A checkpoint in one file.
    File(PathBuf),
}

impl ModelLocation {
    /// The name of the model in messages.
    pub fn label(&self) -> String {
        match self {
            ModelLocation::Files(ModelFiles::Folder(path)) | ModelLocation::File(path) => path.display().to_string(),
            ModelLocation::Files(ModelFiles::Embedded { name, .. }) => format!("built-in {name}"),
        }
    }
}

/// A folder in diffusers' layout, or else a file.
impl From<PathBuf> for ModelLocation {
    fn from(path: PathBuf) -> Self {
        if path.is_dir() { ModelLocation::Files(ModelFiles::Folder(path)) } else { ModelLocation::File(path) }
    }
}

impl From<ModelFiles> for ModelSource {
    fn from(files: ModelFiles) -> Self {
        ModelSource {
            model: ModelLocation::Files(files),
            vae: None,
            gligen: None,
            prediction: None,
            schedule: ScheduleOverride::default(),
        }
    }
}

/// A problem of a model, and the part of its [`ModelSource`] that has it.
#[derive(Debug)]
pub struct Problem {
    /// `model`, `vae` or `gligen`.
    pub part: &'static str,
    /// The problem.
    pub error: Error,
}

/// A text encoder with its tokenizer.
#[derive(Clone)]
pub struct EncoderBlueprint {
    /// Its configuration.
    pub config: ClipTextConfig,
    /// Its tensors.
    pub tensors: TensorMap,
    tokenizer: TokenizerSource,
}

#[derive(Clone)]
enum TokenizerSource {
    /// That of a model's folder.
    Folder(Arc<ClipTokenizer>),
    /// CLIP's own tokenizer, which checkpoints in one file rely on, with this token for padding.
    Clip { pad: &'static str },
}

/// A model's configurations and the places of its tensors.
#[derive(Clone)]
pub struct Blueprint {
    /// Family and sizes.
    pub info: ModelInfo,
    /// The U-Net.
    pub unet: (UNetConfig, TensorMap),
    /// The autoencoder.
    pub vae: (VaeConfig, TensorMap),
    /// The text encoders: one, or two of SDXL.
    pub encoders: Vec<EncoderBlueprint>,
    /// Whether a missing negative prompt is zeros (SDXL) and not the empty text.
    pub force_zeros: bool,
    /// A description of the layout of its files.
    pub form: String,
    /// Names of tensors that belong to no network.
    pub unknown: Vec<String>,
    /// Remarks for the user.
    pub notes: Vec<String>,
    /// What a checkpoint in one file states about its sampling.
    pub markers: Markers,
    /// What shows which member of its family it is, and what its U-Net predicts: one clause each.
    pub told: Vec<String>,
    files: BTreeSet<PathBuf>,
}

/// The start of the clause that says what a U-Net predicts.
const PREDICTION: &str = "predicts ";

/// The name of a prediction in configurations and parameters: `epsilon`, `v_prediction`.
fn prediction_name(prediction: PredictionType) -> String {
    serde_json::to_value(prediction).ok().and_then(|name| name.as_str().map(String::from)).unwrap_or_default()
}

/// The clause that says what a U-Net predicts, and by what.
fn predicts(prediction: PredictionType, by: &str) -> String {
    format!("{PREDICTION}{}: {by}", prediction_name(prediction))
}

/// Collects problems, so that all are reported at once.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn keep<T>(&mut self, part: &'static str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(Problem { part, error })).ok()
    }
}

impl Blueprint {
    /// Reads configurations and headers, and checks them against each other.
    ///
    /// # Errors
    /// Returns all problems that keep the model from being loaded.
    pub fn open(source: &ModelSource) -> Result<Blueprint, Vec<Problem>> {
        let mut problems = Problems::default();
        let blueprint = match &source.model {
            ModelLocation::Files(files) => Self::of_folder(files, source, &mut problems),
            ModelLocation::File(path) => Self::of_file(path, source, &mut problems),
        };
        let Some(mut blueprint) = blueprint.filter(|_| problems.0.is_empty()) else { return Err(problems.0) };
        if let Some(prediction) = source.prediction {
            blueprint.info.scheduler.prediction_type = prediction;
            blueprint.told.retain(|told| !told.starts_with(PREDICTION));
            blueprint.told.push(predicts(prediction, "the parameter `prediction`"));
        }
        source.schedule.apply(&mut blueprint.info.scheduler);
        blueprint.info.text_layers =
            blueprint.encoders.iter().map(|encoder| encoder.config.num_hidden_layers).min().unwrap_or(0);
        let encoders = blueprint.encoders.iter().map(|encoder| &encoder.tensors);
        let maps = [&blueprint.unet.1, &blueprint.vae.1].into_iter().chain(encoders);
        blueprint.files.extend(maps.flat_map(TensorMap::paths));
        blueprint.verify(source, &mut problems);
        if problems.0.is_empty() { Ok(blueprint) } else { Err(problems.0) }
    }

    /// Checks every network by building it on names and shapes alone.
    fn verify(&self, source: &ModelSource, problems: &mut Problems) {
        let precision = Precision::new(DType::F32, &candle_core::Device::Cpu);
        let declared = |tensors: &TensorMap| Weights::new(tensors.shapes_only(), &precision);
        let (config, tensors) = &self.unet;
        let part = if source.gligen.is_some() { "gligen" } else { "model" };
        problems.keep(part, UNet::build(config.clone(), &declared(tensors)));
        let (vae, tensors) = &self.vae;
        let part = if source.vae.is_some() { "vae" } else { "model" };
        problems.keep(part, AutoencoderKl::build(vae.clone(), &declared(tensors)));
        if config.out_channels != vae.latent_channels {
            let error = Error::Config(format!(
                "{}: the U-Net predicts {} channels, but the autoencoder's latents have {}",
                self.unet.1.label(),
                config.out_channels,
                vae.latent_channels
            ));
            problems.keep::<()>("model", Err(error));
        }
        for encoder in &self.encoders {
            problems.keep("model", ClipTextModel::build(&encoder.config, &declared(&encoder.tensors)));
        }
        let width: usize = self.encoders.iter().map(|e| e.config.hidden_size).sum();
        if width != config.cross_attention_dim {
            let error = Error::Config(format!(
                "{}: the U-Net takes text states of width {}, but the text encoders return {width}; do they belong to another model?",
                self.unet.1.label(),
                config.cross_attention_dim
            ));
            problems.keep::<()>("model", Err(error));
        }
        problems.keep("model", self.added_numbers());
        problems.keep("model", self.lengths());
        problems.keep("model", NoiseSchedule::new(&self.info.scheduler));
        if self.info.picture_size > LARGEST_SIDE {
            let error = Error::Config(format!(
                "{}: `sample_size` {} is for images of {} pixels along a side, but {LARGEST_SIDE} is the limit",
                self.unet.1.label(),
                self.unet.0.sample_size,
                self.info.picture_size
            ));
            problems.keep::<()>("model", Err(error));
        }
    }

    /// Checks that the U-Net of an SDXL model takes as many added numbers as there are: the pooled text and the sizes.
    fn added_numbers(&self) -> Result<()> {
        let (Some((each, width)), Some(encoder)) = (self.unet.0.text_time, self.encoders.last()) else { return Ok(()) };
        let (text, sizes) = (encoder.config.projection_dim, self.unet.0.time_ids());
        if width == text + sizes * each {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{}: the U-Net takes {width} added numbers, but a pooled text of {text} and {sizes} sizes of {each} numbers \
             are {}",
            self.unet.1.label(),
            text + sizes * each
        )))
    }

    /// Checks that all tokenizers make texts of the same length, which has room for a token.
    fn lengths(&self) -> Result<()> {
        let lengths: Vec<usize> = self.encoders.iter().map(EncoderBlueprint::length).collect();
        if lengths.iter().all(|length| *length == lengths[0] && *length >= ClipTokenizer::SHORTEST) {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{}: texts must have as many tokens for each text encoder, and at least {}, but have {lengths:?}; see \
             `model_max_length` of tokenizer_config.json",
            self.encoders[0].tensors.label(),
            ClipTokenizer::SHORTEST
        )))
    }

    /// All files that loading reads.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// The bytes of memory that the weights take.
    pub fn bytes(&self, precision: &Precision) -> usize {
        let encoders: usize = self.encoders.iter().map(|e| e.tensors.bytes(precision)).sum();
        self.unet.1.bytes(precision) + self.vae.1.bytes(&self.vae_precision(precision)) + encoders
    }

    /// The precision of the autoencoder: f32 in place of f16 where that would overflow, as its configuration says
    /// (diffusers' `force_upcast`).
    pub fn vae_precision(&self, precision: &Precision) -> Precision {
        match precision.compute {
            DType::F16 if self.vae.0.force_upcast => Precision::new(DType::F32, &precision.device),
            _ => precision.clone(),
        }
    }

    /// Loads the U-Net.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn load_unet(&self, precision: &Precision) -> Result<UNet> {
        UNet::build(self.unet.0.clone(), &Weights::new(self.unet.1.clone(), precision))
    }

    /// Loads the autoencoder.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn load_vae(&self, precision: &Precision) -> Result<AutoencoderKl> {
        AutoencoderKl::build(self.vae.0.clone(), &Weights::new(self.vae.1.clone(), &self.vae_precision(precision)))
    }
}

impl EncoderBlueprint {
    /// Makes the blueprint of the encoder that `config` describes. Adds the names of tensors that it does not need to
    /// `unused`; transformers ignores them too.
    fn new(
        config: ClipTextConfig,
        mut tensors: TensorMap,
        tokenizer: TokenizerSource,
        unused: &mut Vec<String>,
    ) -> EncoderBlueprint {
        unused.extend(tensors.take(|name| {
            !(name.starts_with("text_model.") || config.projects && name.starts_with("text_projection."))
        }));
        EncoderBlueprint { config, tensors, tokenizer }
    }

    /// Loads the text encoder.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn load(&self, precision: &Precision) -> Result<ClipTextModel> {
        ClipTextModel::build(&self.config, &Weights::new(self.tensors.clone(), precision))
    }

    /// The number of tokens of its texts.
    fn length(&self) -> usize {
        match &self.tokenizer {
            TokenizerSource::Folder(tokenizer) => tokenizer.max_length(),
            TokenizerSource::Clip { .. } => self.config.max_position_embeddings,
        }
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// If the text encoder has no room for tokens.
    pub fn tokenizer(&self) -> Result<Arc<ClipTokenizer>> {
        match &self.tokenizer {
            TokenizerSource::Folder(tokenizer) => Ok(tokenizer.clone()),
            TokenizerSource::Clip { pad } => {
                Ok(Arc::new(ClipTokenizer::clip(pad, self.config.max_position_embeddings)?))
            }
        }
    }
}
