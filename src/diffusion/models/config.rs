//! A network's `config.json`, with diffusers' and transformers' defaults, refused where it asks for what is not built.
//!
//! Knows the meaning of each key. Knows no tensor.

use serde::Deserialize;

use super::Family;
use crate::weights::{ModelFiles, TensorMap};
use crate::{Error, Result};

/// A number for all levels, or one a level.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum PerLevel<T> {
    All(T),
    Each(Vec<T>),
}

impl<T: Copy> PerLevel<T> {
    fn each(&self, levels: usize, file: &str, key: &str) -> Result<Vec<T>> {
        match self {
            PerLevel::All(x) => Ok(vec![*x; levels]),
            PerLevel::Each(v) if v.len() == levels => Ok(v.clone()),
            PerLevel::Each(v) => {
                Err(Error::Config(format!("{file}: `{key}` has {} entries for {levels} blocks", v.len())))
            }
        }
    }
}

/// How the layout enters a U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionType {
    /// No grounding.
    Default,
    /// GLIGEN: boxes with phrases.
    Gated,
    /// GLIGEN: boxes with phrases and pictures.
    GatedTextImage,
}

/// What `unet/config.json` says, resolved to one entry a level.
#[derive(Clone, Debug)]
pub struct UNetConfig {
    /// Side of the latent that the model was trained on, in latent pixels.
    pub sample_size: usize,
    /// Channels of the latent that goes in.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Whether each level, going down, has transformers.
    pub down_attention: Vec<bool>,
    /// Whether each level, going up, has transformers.
    pub up_attention: Vec<bool>,
    /// Transformer blocks in each transformer of a level, going down.
    pub transformer_layers: Vec<usize>,
    /// The same, going up.
    pub up_transformer_layers: Vec<usize>,
    /// Attention heads of each level, going down.
    pub heads: Vec<usize>,
    /// Residual blocks a level.
    pub layers_per_block: usize,
    /// Width of the text's hidden states.
    pub cross_attention_dim: usize,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// ε of the group norms of residual blocks.
    pub norm_eps: f64,
    /// Whether transformers project by a linear map rather than by a 1×1 convolution.
    pub use_linear_projection: bool,
    /// Cosines before sines in the timestep's embedding.
    pub flip_sin_to_cos: bool,
    /// Shift of the embedding's frequencies.
    pub freq_shift: f64,
    /// How the layout enters.
    pub attention_type: AttentionType,
    /// SDXL's added conditioning (`text_time`): width of a size's embedding and of pooled text and sizes together.
    pub text_time: Option<(usize, usize)>,
}

#[derive(Deserialize)]
struct RawUNet {
    sample_size: Option<PerLevel<usize>>,
    #[serde(default = "four")]
    in_channels: usize,
    #[serde(default = "four")]
    out_channels: usize,
    #[serde(default = "unet_channels")]
    block_out_channels: Vec<usize>,
    #[serde(default = "unet_down")]
    down_block_types: Vec<String>,
    #[serde(default = "unet_up")]
    up_block_types: Vec<String>,
    #[serde(default = "unet_mid")]
    mid_block_type: Option<String>,
    #[serde(default = "two")]
    layers_per_block: usize,
    #[serde(default = "one")]
    transformer_layers_per_block: PerLevel<usize>,
    #[serde(default)]
    reverse_transformer_layers_per_block: Option<Vec<usize>>,
    #[serde(default = "eight")]
    attention_head_dim: PerLevel<usize>,
    #[serde(default)]
    num_attention_heads: Option<PerLevel<usize>>,
    #[serde(default = "width")]
    cross_attention_dim: usize,
    #[serde(default = "thirty_two")]
    norm_num_groups: usize,
    #[serde(default = "eps5")]
    norm_eps: f64,
    #[serde(default)]
    use_linear_projection: bool,
    #[serde(default = "yes")]
    flip_sin_to_cos: bool,
    #[serde(default)]
    freq_shift: f64,
    #[serde(default)]
    attention_type: Option<String>,
    #[serde(default)]
    addition_embed_type: Option<String>,
    #[serde(default)]
    addition_time_embed_dim: Option<usize>,
    #[serde(default)]
    projection_class_embeddings_input_dim: Option<usize>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn one() -> PerLevel<usize> {
    PerLevel::All(1)
}
fn two() -> usize {
    2
}
fn four() -> usize {
    4
}
fn eight() -> PerLevel<usize> {
    PerLevel::All(8)
}
fn thirty_two() -> usize {
    32
}
fn width() -> usize {
    1280
}
fn eps5() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}
fn unet_channels() -> Vec<usize> {
    vec![320, 640, 1280, 1280]
}
fn unet_mid() -> Option<String> {
    Some("UNetMidBlock2DCrossAttn".into())
}
fn unet_down() -> Vec<String> {
    ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"].map(String::from).into()
}
fn unet_up() -> Vec<String> {
    ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"].map(String::from).into()
}

/// Keys whose only built value is the one given (or absence): anything else changes the network.
fn refuse_others(
    rest: &serde_json::Map<String, serde_json::Value>,
    file: &str,
    built: &[(&str, serde_json::Value)],
) -> Result<()> {
    use serde_json::Value;
    for (key, value) in built {
        match rest.get(*key) {
            None | Some(Value::Null) => {}
            Some(v) if v == value || v.as_f64().is_some_and(|v| Some(v) == value.as_f64()) => {}
            Some(v) => {
                return Err(Error::Config(format!(
                    "{file}: `{key}` is {v}, and only {value} is supported; this checkpoint is of another kind"
                )));
            }
        }
    }
    Ok(())
}

impl UNetConfig {
    /// Reads `unet/config.json`.
    pub fn read(files: &ModelFiles) -> Result<Self> {
        Self::parse(&files.read("unet/config.json")?, &files.label("unet/config.json"))
    }

    /// Decodes the JSON text of a file that messages call `file`.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        use serde_json::json;
        let raw: RawUNet = serde_json::from_slice(json).map_err(|e| Error::Config(format!("{file}: {e}")))?;
        refuse_others(
            &raw.rest,
            file,
            &[
                ("act_fn", json!("silu")),
                ("center_input_sample", json!(false)),
                ("class_embed_type", json!(null)),
                ("num_class_embeds", json!(null)),
                ("conv_in_kernel", json!(3)),
                ("conv_out_kernel", json!(3)),
                ("cross_attention_norm", json!(null)),
                ("downsample_padding", json!(1)),
                ("dual_cross_attention", json!(false)),
                ("encoder_hid_dim", json!(null)),
                ("encoder_hid_dim_type", json!(null)),
                ("mid_block_only_cross_attention", json!(false)),
                ("mid_block_scale_factor", json!(1)),
                ("only_cross_attention", json!(false)),
                ("resnet_out_scale_factor", json!(1)),
                ("resnet_skip_time_act", json!(false)),
                ("resnet_time_scale_shift", json!("default")),
                ("time_cond_proj_dim", json!(null)),
                ("time_embedding_act_fn", json!(null)),
                ("time_embedding_dim", json!(null)),
                ("time_embedding_type", json!("positional")),
                ("timestep_post_act", json!(null)),
            ],
        )?;
        let levels = raw.block_out_channels.len();
        let attention = |types: &[String], key: &str, with: &str, without: &str| -> Result<Vec<bool>> {
            if types.len() != levels {
                return Err(Error::Config(format!("{file}: `{key}` has {} entries for {levels} blocks", types.len())));
            }
            types
                .iter()
                .map(|t| match t.as_str() {
                    t if t == with => Ok(true),
                    t if t == without => Ok(false),
                    t => Err(Error::Config(format!("{file}: `{key}`: a {t} is not supported ({with}, {without})"))),
                })
                .collect()
        };
        if raw.mid_block_type.as_deref() != Some("UNetMidBlock2DCrossAttn") {
            return Err(Error::Config(format!("{file}: `mid_block_type` must be UNetMidBlock2DCrossAttn")));
        }
        if levels == 0 {
            return Err(Error::Config(format!("{file}: `block_out_channels` is empty")));
        }
        let transformer_layers = raw.transformer_layers_per_block.each(levels, file, "transformer_layers_per_block")?;
        let up_transformer_layers = match raw.reverse_transformer_layers_per_block {
            Some(v) => PerLevel::Each(v).each(levels, file, "reverse_transformer_layers_per_block")?,
            None => transformer_layers.iter().rev().copied().collect(),
        };
        // diffusers' `attention_head_dim` is the number of heads wherever `num_attention_heads` is not given.
        let heads =
            raw.num_attention_heads.unwrap_or(raw.attention_head_dim).each(levels, file, "attention_head_dim")?;
        for (channels, heads) in raw.block_out_channels.iter().zip(&heads) {
            if *heads == 0 || channels % heads != 0 || raw.norm_num_groups == 0 || channels % raw.norm_num_groups != 0 {
                return Err(Error::Config(format!(
                    "{file}: {channels} channels do not divide into {heads} heads and {} groups",
                    raw.norm_num_groups
                )));
            }
        }
        let text_time = match raw.addition_embed_type.as_deref() {
            None => None,
            Some("text_time") => match (raw.addition_time_embed_dim, raw.projection_class_embeddings_input_dim) {
                (Some(a), Some(b)) => Some((a, b)),
                _ => {
                    return Err(Error::Config(format!(
                        "{file}: `text_time` conditioning needs `addition_time_embed_dim` and \
                         `projection_class_embeddings_input_dim`"
                    )));
                }
            },
            Some(t) => {
                return Err(Error::Config(format!("{file}: `addition_embed_type` {t} is not supported (text_time)")));
            }
        };
        Ok(UNetConfig {
            sample_size: match &raw.sample_size {
                Some(PerLevel::All(s)) => *s,
                Some(PerLevel::Each(v)) if !v.is_empty() => v[0],
                _ => 64,
            },
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            down_attention: attention(
                &raw.down_block_types,
                "down_block_types",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            )?,
            up_attention: attention(&raw.up_block_types, "up_block_types", "CrossAttnUpBlock2D", "UpBlock2D")?,
            transformer_layers,
            up_transformer_layers,
            heads,
            layers_per_block: raw.layers_per_block,
            cross_attention_dim: raw.cross_attention_dim,
            norm_num_groups: raw.norm_num_groups,
            norm_eps: raw.norm_eps,
            use_linear_projection: raw.use_linear_projection,
            flip_sin_to_cos: raw.flip_sin_to_cos,
            freq_shift: raw.freq_shift,
            attention_type: match raw.attention_type.as_deref() {
                None | Some("default") => AttentionType::Default,
                Some("gated") => AttentionType::Gated,
                Some("gated-text-image") => AttentionType::GatedTextImage,
                Some(t) => {
                    return Err(Error::Config(format!(
                        "{file}: `attention_type` {t} is not supported (default, gated, gated-text-image)"
                    )));
                }
            },
            text_time,
            block_out_channels: raw.block_out_channels,
        })
    }
}

impl UNetConfig {
    /// The configuration of a Stable Diffusion 1.x, GLIGEN or SDXL U-Net, read off its tensors: for files that carry
    /// none.
    ///
    /// Errors if it is of another kind, which is named where it is known.
    pub fn infer(tensors: &TensorMap) -> Result<Self> {
        let label = tensors.label();
        let shape = |name: &str| {
            tensors
                .shape(name)
                .filter(|shape| !shape.is_empty())
                .ok_or_else(|| Error::Weights(format!("{label}: tensor `{name}` is missing or has no dimensions")))
        };
        let side = |name: &str, i: usize| {
            let found = shape(name)?;
            found.get(i).copied().ok_or_else(|| Error::Weights(format!("{label}: tensor `{name}` has shape {found:?}")))
        };
        let levels = tensors.count("down_blocks.");
        let depth = |block: &str| tensors.count(&format!("{block}.attentions.0.transformer_blocks."));
        let down: Vec<usize> = (0..levels).map(|i| depth(&format!("down_blocks.{i}"))).collect();
        let up: Vec<usize> = (0..levels).map(|i| depth(&format!("up_blocks.{i}"))).collect();
        let middle = depth("mid_block");
        let block_out_channels = (0..levels)
            .map(|i| side(&format!("down_blocks.{i}.resnets.0.conv1.weight"), 0))
            .collect::<Result<Vec<_>>>()?;
        let context = tensors.names().find(|name| name.ends_with("attn2.to_k.weight"));
        let context = context.map(|name| side(name, 1)).transpose()?;
        let added = tensors.shape("add_embedding.linear_1.weight").and_then(|shape| shape.get(1).copied());
        let sdxl = match (context, added) {
            (Some(768), None) => false,
            (Some(2048), Some(_)) => true,
            (Some(1024), None) => return Err(other(label, "Stable Diffusion 2.x")),
            (Some(1280), Some(_)) => return Err(other(label, "SDXL's refiner")),
            (context, _) => {
                let what = context.map_or("no cross-attention".into(), |c| format!("texts {c} wide"));
                return Err(other(label, &format!("a kind that is not known ({what})")));
            }
        };
        let transformer_layers: Vec<usize> =
            (0..levels).map(|i| if i + 1 == levels { middle } else { down[i] }).collect();
        Ok(UNetConfig {
            sample_size: if sdxl { 128 } else { 64 },
            in_channels: side("conv_in.weight", 1)?,
            out_channels: side("conv_out.weight", 0)?,
            down_attention: down.iter().map(|depth| *depth > 0).collect(),
            up_attention: up.iter().map(|depth| *depth > 0).collect(),
            heads: block_out_channels.iter().map(|c| if sdxl { (c / 64).max(1) } else { 8 }).collect(),
            layers_per_block: tensors.count("down_blocks.0.resnets."),
            cross_attention_dim: context.unwrap_or(768),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            use_linear_projection: sdxl,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            attention_type: Self::attention_type_of(tensors),
            text_time: added.map(|width| (256, width)),
            up_transformer_layers: up,
            transformer_layers,
            block_out_channels,
        })
    }

    /// How the layout enters, by what there is of GLIGEN.
    pub fn attention_type_of(tensors: &TensorMap) -> AttentionType {
        if tensors.has("position_net.linears_text.0.weight") {
            AttentionType::GatedTextImage
        } else if tensors.has("position_net.linears.0.weight") {
            AttentionType::Gated
        } else {
            AttentionType::Default
        }
    }
}

fn other(label: &str, kind: &str) -> Error {
    Error::Weights(format!("{label}: a model of {kind}; supported are Stable Diffusion 1.x, GLIGEN and SDXL"))
}

/// What `vae/config.json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct VaeConfig {
    /// Channels of the picture.
    #[serde(default = "three")]
    pub in_channels: usize,
    /// Channels of the decoded picture.
    #[serde(default = "three")]
    pub out_channels: usize,
    /// Channels of each level.
    #[serde(default = "vae_channels")]
    pub block_out_channels: Vec<usize>,
    /// Residual blocks a level of the encoder (the decoder has one more).
    #[serde(default = "single")]
    pub layers_per_block: usize,
    /// Channels of the latent.
    #[serde(default = "four")]
    pub latent_channels: usize,
    /// Groups of every group norm.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    /// What a latent is multiplied by after encoding.
    #[serde(default = "sd_scale")]
    pub scaling_factor: f64,
    /// What is taken off a latent before scaling.
    #[serde(default)]
    pub shift_factor: Option<f64>,
    /// Whether a 1×1 convolution follows the encoder.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    /// Whether the middle has self-attention.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    /// Whether f16 is not enough for it: SDXL's own overflows.
    #[serde(default = "yes")]
    pub force_upcast: bool,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn single() -> usize {
    1
}
fn three() -> usize {
    3
}
fn vae_channels() -> Vec<usize> {
    vec![64]
}
fn sd_scale() -> f64 {
    0.18215
}

impl VaeConfig {
    /// Reads `vae/config.json`.
    pub fn read(files: &ModelFiles) -> Result<Self> {
        Self::parse(&files.read("vae/config.json")?, &files.label("vae/config.json"))
    }

    /// Decodes the JSON text of a file that messages call `file`.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        use serde_json::json;
        let config: Self = serde_json::from_slice(json).map_err(|e| Error::Config(format!("{file}: {e}")))?;
        let levels = config.block_out_channels.len();
        refuse_others(
            &config.rest,
            file,
            &[
                ("act_fn", json!("silu")),
                ("down_block_types", json!(vec!["DownEncoderBlock2D"; levels])),
                ("up_block_types", json!(vec!["UpDecoderBlock2D"; levels])),
                ("latents_mean", json!(null)),
                ("latents_std", json!(null)),
            ],
        )?;
        if levels == 0 || config.norm_num_groups == 0 {
            return Err(Error::Config(format!("{file}: `block_out_channels` and `norm_num_groups` must not be empty")));
        }
        if let Some(c) = config.block_out_channels.iter().find(|c| *c % config.norm_num_groups != 0) {
            return Err(Error::Config(format!(
                "{file}: {c} channels do not divide into {} groups",
                config.norm_num_groups
            )));
        }
        Ok(config)
    }

    /// The configuration of an autoencoder of that family, read off its tensors.
    pub fn infer(tensors: &TensorMap, family: Family) -> Result<Self> {
        let label = tensors.label();
        let side = |name: &str, i: usize| {
            let shape = tensors.shape(name).and_then(|shape| shape.get(i).copied());
            shape.ok_or_else(|| Error::Weights(format!("{label}: tensor `{name}` is missing or has another shape")))
        };
        let levels = tensors.count("encoder.down_blocks.");
        let channels = (0..levels).map(|i| side(&format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0));
        Ok(VaeConfig {
            in_channels: side("encoder.conv_in.weight", 1)?,
            out_channels: side("decoder.conv_out.weight", 0)?,
            block_out_channels: channels.collect::<Result<_>>()?,
            layers_per_block: tensors.count("encoder.down_blocks.0.resnets."),
            latent_channels: side("decoder.conv_in.weight", 1)?,
            norm_num_groups: 32,
            scaling_factor: if family == Family::Sdxl { 0.13025 } else { sd_scale() },
            shift_factor: None,
            use_quant_conv: tensors.has("quant_conv.weight"),
            use_post_quant_conv: tensors.has("post_quant_conv.weight"),
            mid_block_add_attention: tensors.has("decoder.mid_block.attentions.0.to_q.weight"),
            force_upcast: family == Family::Sdxl,
            rest: serde_json::Map::new(),
        })
    }

    /// Whether it says that it is an autoencoder's.
    pub fn is_autoencoder(&self) -> bool {
        self.rest.get("_class_name").and_then(|name| name.as_str()) == Some("AutoencoderKL")
    }

    /// Pixels of the picture to one pixel of the latent, along a side.
    pub fn downscale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// What a text encoder's `config.json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct ClipTextConfig {
    /// Tokens known.
    #[serde(default = "clip_vocab")]
    pub vocab_size: usize,
    /// Width.
    #[serde(default = "clip_width")]
    pub hidden_size: usize,
    /// Width inside the feed-forward nets.
    #[serde(default = "clip_inner")]
    pub intermediate_size: usize,
    /// Width after the projection, where there is one.
    #[serde(default = "clip_width")]
    pub projection_dim: usize,
    /// Layers.
    #[serde(default = "twelve")]
    pub num_hidden_layers: usize,
    /// Heads.
    #[serde(default = "heads8")]
    pub num_attention_heads: usize,
    /// Longest text in tokens.
    #[serde(default = "clip_length")]
    pub max_position_embeddings: usize,
    /// Activation.
    #[serde(default)]
    pub hidden_act: ClipActivation,
    /// ε of layer norms.
    #[serde(default = "eps5")]
    pub layer_norm_eps: f64,
    /// Token whose place gives the pooled text; 2 stands for "the greatest id", as in early configurations.
    #[serde(default = "clip_eos")]
    pub eos_token_id: u32,
    /// `CLIPTextModelWithProjection` where the model projects its pooled text.
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
    pub fn read(files: &ModelFiles, folder: &str) -> Result<Self> {
        let path = format!("{folder}/config.json");
        Self::parse(&files.read(&path)?, &files.label(&path))
    }

    /// Decodes the JSON text of a file that messages call `file`.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        let config: Self = serde_json::from_slice(json).map_err(|e| Error::Config(format!("{file}: {e}")))?;
        heads_divide(config.hidden_size, config.num_attention_heads, file)?;
        Ok(config)
    }

    /// What its layers are told.
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

    /// The configuration of SD1's text encoder or of one of SDXL's, read off its tensors.
    pub fn infer(tensors: &TensorMap) -> Result<Self> {
        let label = tensors.label();
        let side = |name: &str, i: usize| {
            let shape = tensors.shape(name).and_then(|shape| shape.get(i).copied());
            shape.ok_or_else(|| Error::Weights(format!("{label}: tensor `{name}` is missing or has another shape")))
        };
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
            // OpenCLIP's, which alone has a projection here, uses the exact GELU.
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

/// A layer of one of CLIP's encoders, which are alike but for the mask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClipLayerConfig {
    pub width: usize,
    pub inner: usize,
    pub heads: usize,
    pub activation: ClipActivation,
    pub eps: f64,
    /// Whether a token sees only those before it: of a text, not of a picture.
    pub causal: bool,
}

/// What a CLIP's `config.json` says of its picture encoder.
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
    /// Side in pixels of the square picture that it takes.
    #[serde(default = "vision_side")]
    pub image_size: usize,
    /// Side of a patch.
    #[serde(default = "thirty_two")]
    pub patch_size: usize,
    /// Channels of the picture: 3.
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
                "{file}: pictures of {} channels and {} pixels a side in patches of {}; supported are 3 channels and \
                 patches of at most the picture's side",
                self.num_channels, self.image_size, self.patch_size
            )));
        }
        Ok(())
    }

    /// Patches along a side of the picture.
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

/// What the `config.json` of a whole CLIP says: both encoders, and the width in which they meet.
#[derive(Clone, Debug)]
pub struct ClipConfig {
    /// The text encoder, with its projection.
    pub text: ClipTextConfig,
    /// The picture encoder.
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
    /// The oldest files' name for the same; what stands here holds.
    #[serde(default)]
    text_config_dict: Option<Object>,
    #[serde(default)]
    vision_config_dict: Option<Object>,
    #[serde(default = "clip_width")]
    projection_dim: usize,
}

type Object = serde_json::Map<String, serde_json::Value>;

impl ClipConfig {
    /// Decodes the JSON text of a file that messages call `file`.
    ///
    /// Errors if it is not that of a `CLIPModel`.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        let broken = |e: serde_json::Error| Error::Config(format!("{file}: {e}"));
        let raw: RawClip = serde_json::from_slice(json).map_err(broken)?;
        let (Some(text), Some(vision)) = (raw.text_config, raw.vision_config) else {
            return Err(Error::Config(format!(
                "{file}: no configuration of a CLIP with both encoders: `text_config` and `vision_config` are not there"
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
