//! A whole CLIP: texts and pictures in one space, so that how well they fit is the cosine of two vectors.
//!
//! A folder in transformers' layout: `config.json` of a `CLIPModel`, its weights, the tokenizer's files,
//! `preprocessor_config.json`. Knows no guidance and no diffusion model.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{D, DType, Tensor};

use super::clip::ClipTextModel;
use super::clip_picture::ClipProcessor;
use super::clip_vision::ClipVisionModel;
use super::config::ClipConfig;
use super::tokenizer::{self, ClipTokenizer};
use crate::weights::{ModelFiles, Numbers, TensorMap, Weights};
use crate::{Error, Result};

/// What a CLIP is made of, before any of it is loaded.
#[derive(Clone)]
pub struct ClipBlueprint {
    /// Both encoders.
    pub config: ClipConfig,
    /// Where their tensors are.
    pub tensors: TensorMap,
    processor: ClipProcessor,
    folder: ModelFiles,
}

impl ClipBlueprint {
    /// Reads configurations and the weights' header, and holds them against each other. Reads no weights.
    ///
    /// Errors with the first thing that keeps it from being loaded.
    pub fn open(folder: &ModelFiles) -> Result<Self> {
        let config = ClipConfig::parse(&folder.read("config.json")?, &folder.label("config.json"))?;
        let processor = ClipProcessor::read(folder, config.vision.image_size)?;
        if tokenizer::files_of(folder, "").is_empty() {
            return Err(Error::Config(format!(
                "{}: no such file; a CLIP has its tokenizer in vocab.json and merges.txt, or in tokenizer.json",
                folder.label("vocab.json")
            )));
        }
        let checkpoint = Arc::new(folder.checkpoint(&folder.weights("", "model")?)?);
        // A temperature for training, and what is counted anew.
        let spare = |name: &str| name == "logit_scale" || name.ends_with(".position_ids");
        let blueprint =
            ClipBlueprint { config, tensors: TensorMap::of(&checkpoint, spare), processor, folder: folder.clone() };
        let numbers = Numbers::new(DType::F32, &candle_core::Device::Cpu);
        blueprint.build(&Weights::new(blueprint.tensors.shapes_only(), &numbers))?;
        Ok(blueprint)
    }

    fn build(&self, w: &Weights) -> Result<(ClipTextModel, ClipVisionModel)> {
        let encoders = (ClipTextModel::new(&self.config.text, w)?, ClipVisionModel::new(&self.config, w)?);
        w.finish()?;
        Ok(encoders)
    }

    /// Every file that loading reads.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = self.tensors.paths();
        if let ModelFiles::Folder(root) = &self.folder {
            let settings = ["config.json", "preprocessor_config.json"].into_iter().filter(|path| self.folder.has(path));
            files.extend(settings.map(|path| root.join(path)));
            files.extend(tokenizer::files_of(&self.folder, "").iter().map(|path| root.join(path)));
        }
        files
    }

    /// Bytes of memory that the weights take.
    pub fn bytes(&self, numbers: &Numbers) -> usize {
        self.tensors.bytes(numbers)
    }

    /// Loads it.
    pub fn load(&self, numbers: &Numbers) -> Result<Clip> {
        let (text, vision) = self.build(&Weights::new(self.tensors.clone(), numbers))?;
        let tokenizer = ClipTokenizer::load(&self.folder, "", self.config.text.max_position_embeddings)?;
        if tokenizer.size() > self.config.text.vocab_size {
            return Err(Error::Config(format!(
                "{}: its tokenizer knows {} tokens where its text encoder knows {}; is it another model's?",
                self.folder.label("vocab.json"),
                tokenizer.size(),
                self.config.text.vocab_size
            )));
        }
        let (processor, numbers, bytes) = (self.processor.clone(), numbers.clone(), self.bytes(numbers));
        Ok(Clip { label: self.folder.label(""), tokenizer, text, vision, processor, numbers, bytes })
    }
}

/// A CLIP, loaded.
pub struct Clip {
    /// Its folder, for messages.
    label: String,
    tokenizer: ClipTokenizer,
    text: ClipTextModel,
    vision: ClipVisionModel,
    processor: ClipProcessor,
    numbers: Numbers,
    bytes: usize,
}

impl fmt::Debug for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clip({})", self.label)
    }
}

impl Clip {
    /// Opens and loads a folder in transformers' layout, or its like inside the program.
    pub fn open(folder: &ModelFiles, numbers: &Numbers) -> Result<Self> {
        ClipBlueprint::open(folder)?.load(numbers)
    }

    /// The embedding of a text, (1, p), not normalised. What is longer than the encoder takes is cut off.
    pub fn text_embeds(&self, text: &str) -> Result<Tensor> {
        let text = self.text.forward(&[self.tokenizer.encode(text)?])?;
        text.text_embeds.ok_or_else(|| Error::Config("CLIP: its text encoder has no projection".into()))
    }

    /// The embeddings of pictures (B, 3, H, W) in [-1, 1], (B, p), not normalised; differentiable in the pictures.
    pub fn image_embeds(&self, picture: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(&self.prepare(picture)?)?.image_embeds)
    }

    /// What a layer of the picture encoder gives for pictures (B, 3, H, W) in [-1, 1]: see
    /// [`ClipVisionModel::hidden_state`].
    pub fn hidden_state(&self, picture: &Tensor, layer: usize) -> Result<Tensor> {
        self.vision.hidden_state(&self.prepare(picture)?, layer)
    }

    /// Pictures (B, 3, H, W) in [-1, 1] as the encoder takes them, see [`ClipProcessor::prepare`].
    pub fn prepare(&self, picture: &Tensor) -> Result<Tensor> {
        let picture = picture.to_device(&self.numbers.device)?.to_dtype(self.numbers.compute)?;
        self.processor.prepare(&picture)
    }

    /// Memory of the weights.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Layers of the picture encoder.
    pub fn layers(&self) -> usize {
        self.vision.layers()
    }
}

/// Vectors (…, p) of length 1, in f32 at least; differentiable.
pub fn normalise(x: &Tensor) -> Result<Tensor> {
    let x = if x.dtype() == DType::F64 { x.clone() } else { x.to_dtype(DType::F32)? };
    // What is zero stays zero.
    let length = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
    Ok(x.broadcast_div(&length)?)
}
