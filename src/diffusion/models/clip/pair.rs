//! A whole CLIP: texts and images in one embedding space, where the cosine of two vectors says how well they match.
//!
//! It is a folder in transformers' layout: `config.json` of a `CLIPModel`, its weights, the files of the tokenizer,
//! `preprocessor_config.json`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{D, DType, Tensor};

use super::processor::{self, ClipProcessor};
use super::text::ClipTextModel;
use super::tokenizer::{self, ClipTokenizer};
use super::vision::ClipVisionModel;
use crate::image::Resizer;
use crate::models::config::ClipConfig;
use crate::weights::{ModelFiles, Precision, TensorMap, Weights};
use crate::{Error, Result};

/// The configurations of a CLIP and the places of its tensors, before any weights are loaded.
#[derive(Clone)]
pub struct ClipBlueprint {
    /// The configurations of both encoders.
    pub config: ClipConfig,
    /// The tensors of both encoders.
    pub tensors: TensorMap,
    processor: ClipProcessor,
    tokenizer: Arc<ClipTokenizer>,
    folder: ModelFiles,
}

impl ClipBlueprint {
    /// Reads the configurations and the header of the weights, and checks them against each other.
    ///
    /// # Errors
    /// Returns the first problem that keeps it from being loaded.
    pub fn open(folder: &ModelFiles) -> Result<Self> {
        let config = ClipConfig::parse(&folder.read("config.json")?, &folder.label("config.json"))?;
        let processor = ClipProcessor::read(folder, config.vision.image_size)?;
        let tokenizer = ClipTokenizer::load(folder, "", config.text.max_position_embeddings)?;
        tokenizer.check_vocab_size(config.text.vocab_size, &folder.label("config.json"))?;
        let checkpoint = Arc::new(folder.checkpoint(&folder.weights("", "model")?)?);
        // The temperature of training, and indices that are computed here.
        let spare = |name: &str| name == "logit_scale" || name.ends_with(".position_ids");
        let (tensors, tokenizer) = (TensorMap::of(&checkpoint, spare), Arc::new(tokenizer));
        let blueprint = ClipBlueprint { config, tensors, processor, tokenizer, folder: folder.clone() };
        let precision = Precision::new(DType::F32, &candle_core::Device::Cpu);
        blueprint.build(&Weights::new(blueprint.tensors.shapes_only(), &precision))?;
        Ok(blueprint)
    }

    fn build(&self, w: &Weights) -> Result<(ClipTextModel, ClipVisionModel)> {
        let encoders = (ClipTextModel::new(&self.config.text, w)?, ClipVisionModel::new(&self.config, w)?);
        w.finish()?;
        Ok(encoders)
    }

    /// All files that loading reads.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = self.tensors.paths();
        if let ModelFiles::Folder(root) = &self.folder {
            let settings = ["config.json"].into_iter().chain(processor::FILES).filter(|path| self.folder.has(path));
            files.extend(settings.map(|path| root.join(path)));
            files.extend(tokenizer::files_of(&self.folder, "").iter().map(|path| root.join(path)));
        }
        files
    }

    /// The bytes of memory that the weights take.
    pub fn bytes(&self, precision: &Precision) -> usize {
        self.tensors.bytes(precision)
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn load(&self, precision: &Precision) -> Result<Clip> {
        let (text, vision) = self.build(&Weights::new(self.tensors.clone(), precision))?;
        let tokenizer = self.tokenizer.clone();
        let (processor, precision, bytes) = (self.processor.clone(), precision.clone(), self.bytes(precision));
        let (label, resizer) = (self.folder.label(""), Resizer::default());
        Ok(Clip { label, tokenizer, text, vision, processor, resizer, precision, bytes })
    }
}

/// A loaded CLIP.
pub struct Clip {
    /// Its folder, for messages.
    label: String,
    tokenizer: Arc<ClipTokenizer>,
    text: ClipTextModel,
    vision: ClipVisionModel,
    processor: ClipProcessor,
    resizer: Resizer,
    precision: Precision,
    bytes: usize,
}

impl fmt::Debug for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clip({})", self.label)
    }
}

impl Clip {
    /// Opens and loads a folder in transformers' layout, on disk or embedded in the program.
    ///
    /// # Errors
    /// As [`ClipBlueprint::open`] and [`ClipBlueprint::load`].
    pub fn open(folder: &ModelFiles, precision: &Precision) -> Result<Self> {
        ClipBlueprint::open(folder)?.load(precision)
    }

    /// Computes the embedding of a text, (1, p), not normalised. Longer texts than the encoder accepts are truncated.
    ///
    /// # Errors
    /// If the text encoder has no projection.
    pub fn text_embeds(&self, text: &str) -> Result<Tensor> {
        let text = self.text.forward(&[self.tokenizer.encode(text)?])?;
        text.text_embeds.ok_or_else(|| Error::Config("CLIP: its text encoder has no projection".into()))
    }

    /// Computes the embeddings of images (B, 3, H, W) in [-1, 1], (B, p), not normalised. Differentiable.
    ///
    /// # Errors
    /// If the images do not have three channels.
    pub fn image_embeds(&self, picture: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(&self.prepare(picture)?)?.image_embeds)
    }

    /// Computes a hidden state of the image encoder for images (B, 3, H, W) in [-1, 1], see
    /// [`ClipVisionModel::hidden_state`].
    ///
    /// # Errors
    /// If the images do not have three channels, or there is no such layer.
    pub fn hidden_state(&self, picture: &Tensor, layer: usize) -> Result<Tensor> {
        self.vision.hidden_state(&self.prepare(picture)?, layer)
    }

    /// Prepares images (B, 3, H, W) in [-1, 1] for the encoder, see [`ClipProcessor::prepare`]; resizes in f32 or f64.
    ///
    /// # Errors
    /// If the images do not have three channels.
    pub fn prepare(&self, picture: &Tensor) -> Result<Tensor> {
        let compute = self.precision.compute;
        let wide = if compute == DType::F64 { DType::F64 } else { DType::F32 };
        let picture = picture.to_device(&self.precision.device)?.to_dtype(wide)?;
        Ok(self.processor.prepare_by(&picture, &self.resizer)?.to_dtype(compute)?)
    }

    /// The bytes of memory that the weights take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of layers of the image encoder.
    pub fn layers(&self) -> usize {
        self.vision.layers()
    }
}

/// Scales vectors (…, p) to length 1, in f32 or f64. Differentiable.
///
/// # Errors
/// If `x` is a scalar.
pub fn normalise(x: &Tensor) -> Result<Tensor> {
    let x = if x.dtype() == DType::F64 { x.clone() } else { x.to_dtype(DType::F32)? };
    // Zero vectors stay zero.
    let length = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
    Ok(x.broadcast_div(&length)?)
}
