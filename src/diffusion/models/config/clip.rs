//! The configurations of a text encoder and of a whole CLIP.

use serde::Deserialize;

use super::{eps5, side, thirty_two, three};
use crate::weights::{ModelFiles, TensorMap};
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
    /// `CLIPTextModelWithProjection` if the model projects its pooled text.
    #[serde(default)]
    pub architectures: Vec<String>,
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

const PROJECTED: &str = "CLIPTextModelWithProjection";

impl ClipTextConfig {
    /// Reads `{folder}/config.json`.
    ///
    /// # Errors
    /// If it is missing, malformed or not supported.
    pub fn read(files: &ModelFiles, folder: &str) -> Result<Self> {
        let path = format!("{folder}/config.json");
        Self::parse(&files.read(&path)?, &files.label(&path))
    }

    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed or not supported.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        let config: Self = serde_json::from_slice(json).map_err(|e| Error::Config(format!("{file}: {e}")))?;
        heads_divide(config.hidden_size, config.num_attention_heads, file)?;
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

    /// Infers the configuration of a text encoder of SD1 or SDXL from its tensors.
    ///
    /// # Errors
    /// If a tensor is missing.
    pub fn infer(tensors: &TensorMap) -> Result<Self> {
        let label = tensors.label();
        let side = |name: &str, i: usize| side(tensors, name, i);
        let embeddings = "text_model.embeddings.token_embedding.weight";
        let (vocab_size, hidden_size) = (side(embeddings, 0)?, side(embeddings, 1)?);
        let projection = tensors.has("text_projection.weight");
        if hidden_size == 0 || !hidden_size.is_multiple_of(64) {
            return Err(Error::Weights(format!("{label}: a text encoder {hidden_size} wide is of no known kind")));
        }
        Ok(ClipTextConfig {
            vocab_size,
            hidden_size,
            intermediate_size: side("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
            projection_dim: if projection { side("text_projection.weight", 0)? } else { hidden_size },
            num_hidden_layers: tensors.count("text_model.encoder.layers."),
            num_attention_heads: hidden_size / 64,
            max_position_embeddings: side("text_model.embeddings.position_embedding.weight", 0)?,
            // OpenCLIP's encoder, the only one with a projection here, uses the exact GELU.
            hidden_act: if projection { ClipActivation::Gelu } else { ClipActivation::QuickGelu },
            layer_norm_eps: eps5(),
            eos_token_id: clip_eos(),
            architectures: if projection { vec![PROJECTED.into()] } else { vec![] },
        })
    }

    /// Whether the model has a text projection.
    pub fn has_projection(&self) -> bool {
        self.architectures.iter().any(|a| a == PROJECTED)
    }
}

fn heads_divide(width: usize, heads: usize, file: &str) -> Result<()> {
    if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
        return Err(Error::Config(format!("{file}: width {width} does not divide into {heads} heads")));
    }
    Ok(())
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
    #[serde(default)]
    text_config: Option<Object>,
    #[serde(default)]
    vision_config: Option<Object>,
    /// The name in the oldest files, which takes precedence.
    #[serde(default)]
    text_config_dict: Option<Object>,
    #[serde(default)]
    vision_config_dict: Option<Object>,
    #[serde(default = "clip_width")]
    projection_dim: usize,
}

type Object = serde_json::Map<String, serde_json::Value>;

impl ClipConfig {
    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed, or not that of a `CLIPModel`.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        let broken = |e: serde_json::Error| Error::Config(format!("{file}: {e}"));
        let raw: RawClip = serde_json::from_slice(json).map_err(broken)?;
        let (Some(text), Some(vision)) = (raw.text_config, raw.vision_config) else {
            return Err(Error::Config(format!(
                "{file}: no configuration of a CLIP with both encoders: `text_config` and `vision_config` are missing"
            )));
        };
        let joined = |mut object: Object, over: Option<Object>| {
            object.extend(over.into_iter().flatten().filter(|(_, value)| !value.is_null()));
            serde_json::Value::Object(object)
        };
        let mut text: ClipTextConfig = serde_json::from_value(joined(text, raw.text_config_dict)).map_err(broken)?;
        heads_divide(text.hidden_size, text.num_attention_heads, file)?;
        text.projection_dim = raw.projection_dim;
        text.architectures = vec![PROJECTED.into()];
        let vision = serde_json::from_value(joined(vision, raw.vision_config_dict)).map_err(broken)?;
        ClipVisionConfig::verify(&vision, file)?;
        Ok(ClipConfig { text, vision, projection_dim: raw.projection_dim })
    }
}
