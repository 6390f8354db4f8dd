//! What a model is made of before any of it is loaded: configurations, and where the tensors of each network are.
//!
//! A model is a folder in diffusers' layout or a checkpoint in one file, perhaps with another autoencoder, perhaps with
//! GLIGEN's fusers put on top. Whether the tensors are those that the configurations ask for is known here, from the
//! files' headers alone. Knows no sampler and reads no weights.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use serde::Deserialize;

use super::clip::ClipTextModel;
use super::config::{AttentionType, ClipTextConfig, UNetConfig, VaeConfig};
use super::tokenizer::{self, ClipTokenizer};
use super::unet::UNet;
use super::vae::AutoencoderKl;
use super::{Family, ModelInfo};
use crate::schedule::{NoiseSchedule, PredictionType, SchedulerConfig};
use crate::weights::{Checkpoint, ModelFiles, Numbers, Part, Sorted, TensorMap, Weights};
use crate::{Error, Result};

/// Where a model's parts come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSource {
    /// The model.
    pub model: Place,
    /// Another autoencoder than the model's own.
    pub vae: Option<PathBuf>,
    /// GLIGEN's fusers and position net, for a Stable Diffusion 1.x model.
    pub gligen: Option<PathBuf>,
    /// What the U-Net predicts, where its files do not say or say it wrong.
    pub prediction: Option<PredictionType>,
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A folder in diffusers' layout, or its like inside the program.
    Files(ModelFiles),
    /// A checkpoint in one file.
    File(PathBuf),
}

impl From<ModelFiles> for ModelSource {
    fn from(files: ModelFiles) -> Self {
        ModelSource { model: Place::Files(files), vae: None, gligen: None, prediction: None }
    }
}

/// What is wrong with a model, and with which part of its [`ModelSource`].
#[derive(Debug)]
pub struct Problem {
    /// `model`, `vae` or `gligen`.
    pub part: &'static str,
    pub error: Error,
}

/// A text encoder with its tokenizer.
#[derive(Clone)]
pub struct EncoderBlueprint {
    pub config: ClipTextConfig,
    pub tensors: TensorMap,
    tokenizer: Tokens,
}

#[derive(Clone)]
enum Tokens {
    Folder(ModelFiles, &'static str),
    /// CLIP's own, which every checkpoint in one file means; padded with this token.
    Clip {
        pad: &'static str,
    },
}

/// What a model is made of.
#[derive(Clone)]
pub struct Blueprint {
    pub info: ModelInfo,
    pub unet: (UNetConfig, TensorMap),
    pub vae: (VaeConfig, TensorMap),
    pub encoders: Vec<EncoderBlueprint>,
    pub scheduler: SchedulerConfig,
    /// Whether SDXL's missing negative prompt is zero.
    pub force_zeros: bool,
    /// The layout of its files in words.
    pub form: String,
    /// Tensors for which no network has a place.
    pub unknown: Vec<String>,
    /// What a user should know of it.
    pub notes: Vec<String>,
    files: BTreeSet<PathBuf>,
}

/// Folders of the tokenizers and their text encoders in diffusers' layout.
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

/// Collects what goes wrong, so that all of it is told at once.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn keep<T>(&mut self, part: &'static str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(Problem { part, error })).ok()
    }
}

impl Blueprint {
    /// Reads configurations and headers, and holds them against each other.
    ///
    /// Errors with all that keeps the model from being loaded.
    pub fn open(source: &ModelSource) -> Result<Blueprint, Vec<Problem>> {
        let mut problems = Problems::default();
        let blueprint = match &source.model {
            Place::Files(files) => Self::of_folder(files, source, &mut problems),
            Place::File(path) => Self::of_file(path, source, &mut problems),
        };
        let Some(mut blueprint) = blueprint.filter(|_| problems.0.is_empty()) else { return Err(problems.0) };
        if let Some(prediction) = source.prediction {
            blueprint.scheduler.prediction_type = prediction;
        }
        let encoders = blueprint.encoders.iter().map(|encoder| &encoder.tensors);
        let maps = [&blueprint.unet.1, &blueprint.vae.1].into_iter().chain(encoders);
        blueprint.files.extend(maps.flat_map(TensorMap::paths));
        blueprint.verify(source, &mut problems);
        if problems.0.is_empty() { Ok(blueprint) } else { Err(problems.0) }
    }

    fn of_folder(folder: &ModelFiles, source: &ModelSource, problems: &mut Problems) -> Option<Blueprint> {
        let component = |name: &str, stem: &str| -> Result<TensorMap> {
            let path = folder.weights(name, stem)?;
            one_network(&Arc::new(folder.checkpoint(&path)?))
        };
        // The small files that are there and are read.
        let mut files = BTreeSet::new();
        let note = |files: &mut BTreeSet<PathBuf>, path: &str| {
            if let ModelFiles::Folder(root) = folder
                && folder.has(path)
            {
                files.insert(root.join(path));
            }
        };
        for path in ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"] {
            note(&mut files, path);
        }
        let config = problems.keep("model", UNetConfig::read(folder));
        let unet = problems.keep("model", component("unet", "diffusion_pytorch_model"));
        let scheduler: Result<SchedulerConfig> = folder.json("scheduler/scheduler_config.json");
        let scheduler = problems.keep("model", scheduler);
        let vae = match &source.vae {
            Some(path) => problems.keep("vae", replacement_vae(path, config.as_ref().map(Family::of), &mut files)),
            None => {
                note(&mut files, "vae/config.json");
                let config = problems.keep("model", VaeConfig::read(folder));
                config.zip(problems.keep("model", component("vae", "diffusion_pytorch_model")))
            }
        };
        let mut config = config?;
        let mut unet = unet.unwrap_or_default();
        problems.keep("model", has_fusers(&config, &unet));
        if let Some(path) = &source.gligen {
            problems.keep("gligen", add_fusers(path, &mut config, &mut unet));
        }
        let family = Family::of(&config);
        let mut encoders = Vec::new();
        for (tokenizer, encoder) in encoder_folders(family) {
            let config = problems.keep("model", ClipTextConfig::read(folder, encoder));
            for name in tokenizer::NEEDED {
                let path = format!("{tokenizer}/{name}");
                if !folder.has(&path) {
                    let error = Error::Config(format!("{}: no such file", folder.label(&path)));
                    problems.keep::<()>("model", Err(error));
                }
            }
            let tensors = problems.keep("model", component(encoder, "model"));
            note(&mut files, &format!("{encoder}/config.json"));
            tokenizer::FILES.iter().for_each(|name| note(&mut files, &format!("{tokenizer}/{name}")));
            encoders.extend(config.zip(tensors).map(|(config, tensors)| EncoderBlueprint {
                config,
                tensors,
                tokenizer: Tokens::Folder(folder.clone(), tokenizer),
            }));
        }
        let force_zeros = match family {
            Family::Sdxl if folder.has("model_index.json") => {
                let index = problems.keep("model", folder.json::<ModelIndex>("model_index.json"));
                index.is_none_or(|index| index.force_zeros_for_empty_prompt)
            }
            Family::Sdxl => true,
            _ => false,
        };
        let mut notes = Vec::new();
        if source.vae.is_none() && folder.has("vae_1_0/config.json") {
            notes.push(
                "its `vae` folder is the autoencoder of SDXL 0.9; the one of 1.0 is beside it: give `vae: …/vae_1_0` to \
                 use that"
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
            files,
        })
    }

    fn of_file(path: &Path, source: &ModelSource, problems: &mut Problems) -> Option<Blueprint> {
        let checkpoint = Arc::new(problems.keep("model", Checkpoint::open(path))?);
        let mut sorted = Sorted::of(&checkpoint);
        let label = path.display();
        let missing = |what: &str| Error::Weights(format!("{label}: holds no {what}"));

        let mut unet = match sorted.parts.remove(&Part::UNet) {
            Some(unet) if unet.has("conv_in.weight") => unet,
            Some(unet) if unet.names().any(|name| name.contains(".fuser.")) => {
                let error = Error::Weights(format!(
                    "{label}: holds GLIGEN's fusers alone: give a Stable Diffusion 1.x checkpoint as `model`, and this file \
                     as `gligen`"
                ));
                return problems.keep("model", Err(error));
            }
            _ => {
                let what = match sorted.parts.contains_key(&Part::Vae) {
                    true => "U-Net; it is an autoencoder, to be given as `vae` beside a model".to_string(),
                    false => format!("U-Net of a kind that is known ({})", shown(&sorted.unknown)),
                };
                return problems.keep("model", Err(missing(&what)));
            }
        };
        let mut config = problems.keep("model", UNetConfig::infer(&unet))?;
        if let Some(path) = &source.gligen {
            problems.keep("gligen", add_fusers(path, &mut config, &mut unet));
        }
        let family = Family::of(&config);
        let mut files = BTreeSet::new();
        let vae = match &source.vae {
            Some(path) => problems.keep("vae", replacement_vae(path, Some(family), &mut files)),
            None => {
                let tensors = sorted.parts.remove(&Part::Vae);
                let tensors = tensors.ok_or_else(|| missing("autoencoder: give one as `vae`"));
                let config = |tensors: TensorMap| Ok((VaeConfig::infer(&tensors, family)?, tensors));
                problems.keep("model", tensors.and_then(config))
            }
        };
        let parts: &[(Part, &str, &'static str)] = match family {
            Family::Sdxl => &[
                (Part::TextEncoder, "first text encoder", "<|endoftext|>"),
                (Part::TextEncoder2, "second text encoder", "!"),
            ],
            _ => &[(Part::TextEncoder, "text encoder", "<|endoftext|>")],
        };
        let mut encoders = Vec::new();
        for (part, what, pad) in parts {
            let tensors = sorted.parts.remove(part).ok_or_else(|| missing(what));
            let encoder = tensors.and_then(|tensors| {
                let config = ClipTextConfig::infer(&tensors)?;
                Ok(EncoderBlueprint { config, tensors, tokenizer: Tokens::Clip { pad } })
            });
            encoders.extend(problems.keep("model", encoder));
        }
        let scheduler = SchedulerConfig::stable_diffusion(match sorted.predicts_v {
            true => PredictionType::VPrediction,
            false => PredictionType::Epsilon,
        });
        let mut notes = Vec::new();
        if sorted.predicts_v {
            notes.push("it says that it predicts v".into());
        }
        if let Some(title) = checkpoint.texts().get("modelspec.title") {
            notes.push(format!("it calls itself “{title}”"));
            if title.contains("0.9") && title.to_lowercase().contains("vae") {
                notes.push("its autoencoder is that of SDXL 0.9".into());
            }
        }
        let vae = vae?;
        Some(Blueprint {
            info: ModelInfo::of(&config, &vae.0),
            unet: (config, unet),
            vae,
            encoders,
            scheduler,
            force_zeros: family == Family::Sdxl,
            form: format!("one file in the original layout ({})", checkpoint.format()),
            unknown: sorted.unknown,
            notes,
            files,
        })
    }

    /// Builds every network on names and shapes alone.
    fn verify(&self, source: &ModelSource, problems: &mut Problems) {
        let numbers = Numbers::new(DType::F32, &candle_core::Device::Cpu);
        let declared = |tensors: &TensorMap| Weights::new(tensors.shapes_only(), &numbers);
        let (config, tensors) = &self.unet;
        let part = if source.gligen.is_some() { "gligen" } else { "model" };
        problems.keep(part, UNet::build(config.clone(), &declared(tensors)));
        let (vae, tensors) = &self.vae;
        let part = if source.vae.is_some() { "vae" } else { "model" };
        problems.keep(part, AutoencoderKl::build(vae.clone(), &declared(tensors)));
        if config.in_channels != vae.latent_channels {
            let error = Error::Config(format!(
                "{}: the U-Net takes {} channels where the autoencoder's latents have {} (an inpainting model?)",
                self.unet.1.label(),
                config.in_channels,
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
                "{}: the U-Net takes texts {} wide where the text encoders give {width}; are they another model's?",
                self.unet.1.label(),
                config.cross_attention_dim
            ));
            problems.keep::<()>("model", Err(error));
        }
        if self.info.family == Family::Sdxl && !self.encoders.last().is_some_and(|e| e.config.has_projection()) {
            let error = "text_encoder_2: an SDXL model's second text encoder needs a projection";
            problems.keep::<()>("model", Err(Error::Config(error.into())));
        }
        problems.keep("model", NoiseSchedule::new(&self.scheduler));
    }

    /// Every file that loading reads.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Bytes of memory that the weights take.
    pub fn bytes(&self, numbers: &Numbers) -> usize {
        let encoders: usize = self.encoders.iter().map(|e| e.tensors.bytes(numbers)).sum();
        self.unet.1.bytes(numbers) + self.vae.1.bytes(&self.vae_numbers(numbers)) + encoders
    }

    /// The autoencoder is computed in f32 where f16 would overflow, as its configuration says (diffusers'
    /// `force_upcast`).
    pub fn vae_numbers(&self, numbers: &Numbers) -> Numbers {
        match numbers.compute {
            DType::F16 if self.vae.0.force_upcast => Numbers::new(DType::F32, &numbers.device),
            _ => numbers.clone(),
        }
    }

    /// Loads the U-Net.
    pub fn load_unet(&self, numbers: &Numbers) -> Result<UNet> {
        UNet::build(self.unet.0.clone(), &Weights::new(self.unet.1.clone(), numbers))
    }

    /// Loads the autoencoder.
    pub fn load_vae(&self, numbers: &Numbers) -> Result<AutoencoderKl> {
        AutoencoderKl::build(self.vae.0.clone(), &Weights::new(self.vae.1.clone(), &self.vae_numbers(numbers)))
    }
}

impl EncoderBlueprint {
    /// Loads the network.
    pub fn load(&self, numbers: &Numbers) -> Result<ClipTextModel> {
        ClipTextModel::build(&self.config, &Weights::new(self.tensors.clone(), numbers))
    }

    /// Loads its tokenizer.
    pub fn tokenizer(&self) -> Result<ClipTokenizer> {
        let longest = self.config.max_position_embeddings;
        match &self.tokenizer {
            Tokens::Folder(files, folder) => ClipTokenizer::load(files, folder, longest),
            Tokens::Clip { pad } => ClipTokenizer::clip(pad, longest),
        }
    }
}

/// `a, b and 7 more`.
fn shown(names: &[String]) -> String {
    let first: Vec<_> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "no tensors".into(),
        n if n > 3 => format!("it has {} and {} more", first.join(", "), n - 3),
        _ => format!("it has {}", first.join(", ")),
    }
}

/// The tensors of a file that holds one network.
fn one_network(checkpoint: &Arc<Checkpoint>) -> Result<TensorMap> {
    let sorted = Sorted::of(checkpoint);
    if let Some(name) = sorted.unknown.first() {
        return Err(Error::Weights(format!(
            "{}: tensor `{name}` belongs to no network that is known",
            checkpoint.label()
        )));
    }
    let mut parts = sorted.parts.into_values();
    match (parts.next(), parts.next()) {
        (Some(map), None) => Ok(map),
        (None, _) => Err(Error::Weights(format!("{}: holds no tensors", checkpoint.label()))),
        _ => Err(Error::Weights(format!("{}: holds several networks where one should be", checkpoint.label()))),
    }
}

/// Whether a U-Net has the fusers that its configuration promises: some published repositories lack them.
fn has_fusers(config: &UNetConfig, unet: &TensorMap) -> Result<()> {
    let gated = config.attention_type != AttentionType::Default;
    if !gated || unet.names().next().is_none() || unet.names().any(|name| name.contains(".fuser.")) {
        return Ok(());
    }
    Err(Error::Weights(format!(
        "{}: its config.json promises GLIGEN's fusers, and the file has none: a known fault of some published \
         repositories. Take another file of it (its .bin in full precision has them), or a Stable Diffusion 1.4 model with \
         a GLIGEN file as `gligen`",
        unet.label()
    )))
}

/// Puts GLIGEN's fusers and position net on a Stable Diffusion 1.x U-Net.
fn add_fusers(path: &Path, config: &mut UNetConfig, unet: &mut TensorMap) -> Result<()> {
    if Family::of(config) != Family::Sd1 {
        return Err(Error::input(format!(
            "{}: GLIGEN's fusers belong on a Stable Diffusion 1.x model, and this one is of the family {}",
            path.display(),
            Family::of(config).name()
        )));
    }
    let sorted = Sorted::of(&Arc::new(Checkpoint::open(path)?));
    let fusers = sorted.parts.into_iter().find(|(part, _)| *part == Part::UNet).map(|(_, map)| map);
    let fusers = fusers.filter(|map| map.names().any(|name| name.contains(".fuser.")));
    let fusers = fusers.ok_or_else(|| {
        Error::Weights(format!(
            "{}: holds no GLIGEN fusers; a GLIGEN file has tensors such as \
             `input_blocks.1.1.transformer_blocks.0.fuser.linear.weight`",
            path.display()
        ))
    })?;
    unet.extend(fusers);
    config.attention_type = UNetConfig::attention_type_of(unet);
    Ok(())
}

/// An autoencoder from a file, from its folder (with `config.json`) or from a model's folder (its `vae`).
fn replacement_vae(
    path: &Path,
    family: Option<Family>,
    used: &mut BTreeSet<PathBuf>,
) -> Result<(VaeConfig, TensorMap)> {
    let read = |config: &Path| -> Result<VaeConfig> {
        VaeConfig::parse(&std::fs::read(config).map_err(Error::io(config))?, &config.display().to_string())
    };
    if path.is_dir() {
        let folder = if path.join("config.json").is_file() { path.to_path_buf() } else { path.join("vae") };
        let files = ModelFiles::Folder(folder.clone());
        let weights = files.weights("", "diffusion_pytorch_model")?;
        let config = folder.join("config.json");
        used.insert(config.clone());
        return Ok((read(&config)?, one_network(&Arc::new(Checkpoint::open(&folder.join(weights))?))?));
    }
    let mut sorted = Sorted::of(&Arc::new(Checkpoint::open(path)?));
    let tensors = sorted.parts.remove(&Part::Vae).ok_or_else(|| {
        Error::Weights(format!("{}: holds no autoencoder ({})", path.display(), shown(&sorted.unknown)))
    })?;
    // Beside the file may stand the configuration of the repository that it comes from.
    let beside = path.with_file_name("config.json");
    let config = match read(&beside) {
        Ok(config) if beside.is_file() && config.is_autoencoder() => {
            used.insert(beside);
            config
        }
        _ => VaeConfig::infer(&tensors, family.unwrap_or(Family::Sd1))?,
    };
    Ok((config, tensors))
}
