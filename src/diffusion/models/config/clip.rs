//! The configurations of a text encoder and of a whole CLIP.

use serde::Deserialize;

use super::{eps5, heads_divide, positive, side, thirty_two, three};
use crate::weights::{Json, ModelFiles, TensorMap};
use crate::{Error, Result};

/// The configuration of a text encoder.
#[derive(Clone, Debug, Deserialize)]
pub struct ClipTextConfig {
    /// Size of the vocabulary.
    #[serde(default = "clip_vocab")]
    pub vocab_size: usize,
    /// Width.
    #[serde(default = "clip_width")]
    pub hidden_size: usize,
    /// Width inside the feed-forward nets.
    #[serde(default = "clip_inner")]
    pub intermediate_size: usize,
    /// Width after the projection, if there is one.
    #[serde(default = "clip_width")]
    pub projection_dim: usize,
    /// Layers.
    #[serde(default = "twelve")]
    pub num_hidden_layers: usize,
    /// Heads.
    #[serde(default = "heads8")]
    pub num_attention_heads: usize,
    /// Maximum number of tokens of a text.
    #[serde(default = "clip_length")]
    pub max_position_embeddings: usize,
    /// Activation.
    #[serde(default)]
    pub hidden_act: ClipActivation,
    /// ε of layer norms.
    #[serde(default = "eps5")]
    pub layer_norm_eps: f64,
    /// The end-of-text token, whose state is the pooled text; 2 means the greatest id, as in early configurations.
    #[serde(default = "clip_eos")]
    pub eos_token_id: u32,
    /// Whether the model projects its pooled text. Its part in a model decides: the second encoder of SDXL does, and that of
    /// a whole CLIP.
    #[serde(skip)]
    pub projects: bool,
}

/// The text encoders of checkpoints in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipTextKind {
    /// OpenAI's, of SD1 and the first of SDXL.
    OpenAi,
    /// OpenCLIP's ViT-H of SD2, with the exact GELU.
    OpenClipH,
    /// OpenCLIP's ViT-bigG, the second of SDXL and that of its refiner, which projects its pooled text.
    OpenClipBigG,
}

/// Activation of CLIP's encoders.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ClipActivation {
    /// x σ(1.702 x).
    #[default]
    QuickGelu,
    /// The exact GELU.
    Gelu,
}

fn clip_vocab() -> usize {
    49408
}
fn clip_width() -> usize {
    512
}
fn clip_inner() -> usize {
    2048
}
fn twelve() -> usize {
    12
}
fn heads8() -> usize {
    8
}
fn clip_length() -> usize {
    77
}
fn clip_eos() -> u32 {
    49407
}

impl ClipTextConfig {
    /// Reads `{folder}/config.json`. `projects` says whether its part in the model is to project its pooled text.
    ///
    /// # Errors
    /// If it is missing, malformed or not supported.
    pub fn read(files: &ModelFiles, folder: &str, projects: bool) -> Result<Self> {
        Self::of(&files.json(&format!("{folder}/config.json"))?, projects)
    }

    /// Parses the JSON text of a file, which messages call `file`: see [`ClipTextConfig::read`].
    ///
    /// # Errors
    /// If it is malformed or not supported.
    pub fn parse(json: &[u8], file: &str, projects: bool) -> Result<Self> {
        Self::of(&Json::parse(json, file)?, projects)
    }

    fn of(json: &Json, projects: bool) -> Result<Self> {
        let config = Self { projects, ..json.decode()? };
        heads_divide(config.hidden_size, config.num_attention_heads, json.label())?;
        positive("layer_norm_eps", config.layer_norm_eps, json.label())?;
        Ok(config)
    }

    /// The configuration of its layers.
    pub(crate) fn layer(&self) -> ClipLayerConfig {
        ClipLayerConfig {
            width: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
            causal: true,
        }
    }

    /// Infers the configuration of a text encoder from the shapes of its tensors and its kind.
    ///
    /// # Errors
    /// If a tensor is missing.
    pub fn infer(tensors: &TensorMap, kind: ClipTextKind) -> Result<Self> {
        let label = tensors.label();
        let side = |name: &str, i: usize| side(tensors, name, i);
        let embeddings = "text_model.embeddings.token_embedding.weight";
        let (vocab_size, hidden_size) = (side(embeddings, 0)?, side(embeddings, 1)?);
        let projects = kind == ClipTextKind::OpenClipBigG;
        if hidden_size == 0 || !hidden_size.is_multiple_of(64) {
            return Err(Error::Weights(format!("{label}: a text encoder {hidden_size} wide is of no known kind")));
        }
        Ok(ClipTextConfig {
            vocab_size,
            hidden_size,
            intermediate_size: side("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
            projection_dim: if projects { side("text_projection.weight", 0)? } else { hidden_size },
            num_hidden_layers: tensors.count("text_model.encoder.layers."),
            num_attention_heads: hidden_size / 64,
            max_position_embeddings: side("text_model.embeddings.position_embedding.weight", 0)?,
            hidden_act: if kind == ClipTextKind::OpenAi { ClipActivation::QuickGelu } else { ClipActivation::Gelu },
            layer_norm_eps: eps5(),
            eos_token_id: clip_eos(),
            projects,
        })
    }
}

/// The configuration of a layer, which is the same in both encoders except for the mask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClipLayerConfig {
    pub width: usize,
    pub inner: usize,
    pub heads: usize,
    pub activation: ClipActivation,
    pub eps: f64,
    /// Whether a token attends only to earlier ones, as in the text encoder.
    pub causal: bool,
}

/// The configuration of an image encoder.
#[derive(Clone, Debug, Deserialize)]
pub struct ClipVisionConfig {
    /// Width.
    #[serde(default = "vision_width")]
    pub hidden_size: usize,
    /// Width inside the feed-forward nets.
    #[serde(default = "vision_inner")]
    pub intermediate_size: usize,
    /// Layers.
    #[serde(default = "twelve")]
    pub num_hidden_layers: usize,
    /// Heads.
    #[serde(default = "twelve")]
    pub num_attention_heads: usize,
    /// Side in pixels of its square images.
    #[serde(default = "vision_side")]
    pub image_size: usize,
    /// Side of a patch.
    #[serde(default = "thirty_two")]
    pub patch_size: usize,
    /// Channels of the image: 3.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Activation.
    #[serde(default)]
    pub hidden_act: ClipActivation,
    /// ε of layer norms.
    #[serde(default = "eps5")]
    pub layer_norm_eps: f64,
}

fn vision_width() -> usize {
    768
}
fn vision_inner() -> usize {
    3072
}
fn vision_side() -> usize {
    224
}

impl ClipVisionConfig {
    fn verify(&self, file: &str) -> Result<()> {
        heads_divide(self.hidden_size, self.num_attention_heads, file)?;
        positive("layer_norm_eps", self.layer_norm_eps, file)?;
        let patches = 1..=self.image_size;
        if self.num_channels != 3 || !patches.contains(&self.patch_size) || self.image_size > 1 << 16 {
            return Err(Error::Config(format!(
                "{file}: images of {} channels and {} pixels along a side in patches of {} are not supported; supported \
                 are 3 channels, and patches that are not larger than the image",
                self.num_channels, self.image_size, self.patch_size
            )));
        }
        Ok(())
    }

    /// Patches along a side of the image.
    pub fn patches(&self) -> usize {
        self.image_size / self.patch_size
    }

    pub(crate) fn layer(&self) -> ClipLayerConfig {
        ClipLayerConfig {
            width: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
            causal: false,
        }
    }
}

/// The configuration of a whole CLIP.
#[derive(Clone, Debug)]
pub struct ClipConfig {
    /// The text encoder, with its projection.
    pub text: ClipTextConfig,
    /// The image encoder.
    pub vision: ClipVisionConfig,
    /// Width of the embeddings of both.
    pub projection_dim: usize,
}

#[derive(Deserialize)]
struct RawClip {
    #[serde(default = "clip_width")]
    projection_dim: usize,
}

impl ClipConfig {
    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed, or not that of a `CLIPModel`.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        let json = Json::parse(json, file)?;
        let RawClip { projection_dim } = json.decode()?;
        // `…_dict` is the name in the oldest files, which takes precedence.
        let part = |key: &str| -> Result<Option<Json>> {
            let over = json.object(&format!("{key}_dict"))?;
            Ok(json.object(key)?.map(|part| match over {
                Some(over) => part.overridden_by(over),
                None => part,
            }))
        };
        let (Some(text), Some(vision)) = (part("text_config")?, part("vision_config")?) else {
            return Err(Error::Config(format!(
                "{file}: no configuration of a CLIP with both encoders: `text_config` and `vision_config` are missing"
            )));
        };
        let text = ClipTextConfig { projection_dim, ..ClipTextConfig::of(&text, true)? };
        let vision: ClipVisionConfig = vision.decode()?;
        vision.verify(file)?;
        Ok(ClipConfig { text, vision, projection_dim })
    }
}
