//! The configuration of a U-Net, `unet/config.json`.

use serde::Deserialize;

use super::{GROUPS, eps5, four, heads_divide, levels, positive, side, thirty_two, yes};
use crate::models::Family;
use crate::weights::{Json, ModelFiles, TensorMap};
use crate::{Error, Result};

/// A value for each level, or one for all.
#[derive(Clone, Debug, Deserialize)]
struct PerLevel<T>(Vec<T>);

impl<T: Copy> PerLevel<T> {
    fn each(&self, levels: usize, file: &str, key: &str) -> Result<Vec<T>> {
        match self.0.as_slice() {
            [x] => Ok(vec![*x; levels]),
            v if v.len() == levels => Ok(v.to_vec()),
            v => Err(Error::Config(format!("{file}: `{key}` has {} entries for {levels} blocks", v.len()))),
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
    /// GLIGEN: boxes with phrases and images.
    GatedTextImage,
}

/// `unet/config.json`, resolved to one entry for each level.
#[derive(Clone, Debug)]
pub struct UNetConfig {
    /// Side of the latent that the model was trained on, in latent pixels.
    pub sample_size: usize,
    /// Channels of the input latent.
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
    /// Residual blocks of each level.
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
    mid_block_type: String,
    #[serde(default = "two")]
    layers_per_block: usize,
    #[serde(default = "one")]
    transformer_layers_per_block: PerLevel<usize>,
    #[serde(default)]
    reverse_transformer_layers_per_block: Option<PerLevel<usize>>,
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
}

fn one() -> PerLevel<usize> {
    PerLevel(vec![1])
}
fn two() -> usize {
    2
}
fn eight() -> PerLevel<usize> {
    PerLevel(vec![8])
}
fn width() -> usize {
    1280
}
fn unet_channels() -> Vec<usize> {
    vec![320, 640, 1280, 1280]
}
fn unet_mid() -> String {
    "UNetMidBlock2DCrossAttn".into()
}
fn unet_down() -> Vec<String> {
    ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"].map(String::from).into()
}
fn unet_up() -> Vec<String> {
    ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"].map(String::from).into()
}

impl RawUNet {
    fn down_attention(&self, file: &str) -> Result<Vec<bool>> {
        self.attention(&self.down_block_types, "down_block_types", ["CrossAttnDownBlock2D", "DownBlock2D"], file)
    }

    fn up_attention(&self, file: &str) -> Result<Vec<bool>> {
        self.attention(&self.up_block_types, "up_block_types", ["CrossAttnUpBlock2D", "UpBlock2D"], file)
    }

    /// Whether each block of these types has transformers.
    fn attention(&self, types: &[String], key: &str, [with, without]: [&str; 2], file: &str) -> Result<Vec<bool>> {
        let levels = self.block_out_channels.len();
        if types.len() != levels {
            return Err(Error::Config(format!("{file}: `{key}` has {} entries for {levels} blocks", types.len())));
        }
        let has_attention = |t: &String| match t.as_str() {
            t if t == with => Ok(true),
            t if t == without => Ok(false),
            t => Err(Error::Config(format!("{file}: `{key}`: {t:.60} is not supported ({with}, {without})"))),
        };
        types.iter().map(has_attention).collect()
    }

    /// Checks the widths of the embeddings of timesteps and sizes: half cosines, half sines.
    fn embeds(&self, file: &str) -> Result<()> {
        let widths = [
            ("block_out_channels", self.block_out_channels[0]),
            ("addition_time_embed_dim", self.addition_time_embed_dim.unwrap_or(2)),
        ];
        for (key, width) in widths {
            let half = width as f64 / 2.0;
            if width == 0 || width % 2 != 0 || self.freq_shift < 0.0 || self.freq_shift >= half {
                return Err(Error::Config(format!(
                    "{file}: an embedding of {width} numbers (`{key}`) with `freq_shift` {} is not supported; it must be \
                     even, and `freq_shift` from 0 to less than its half",
                    self.freq_shift
                )));
            }
        }
        Ok(())
    }

    fn text_time(&self, file: &str) -> Result<Option<(usize, usize)>> {
        match self.addition_embed_type.as_deref() {
            None => Ok(None),
            Some("text_time") => match (self.addition_time_embed_dim, self.projection_class_embeddings_input_dim) {
                (Some(a), Some(b)) => Ok(Some((a, b))),
                _ => Err(Error::Config(format!(
                    "{file}: `text_time` conditioning needs `addition_time_embed_dim` and \
                     `projection_class_embeddings_input_dim`"
                ))),
            },
            Some(t) => {
                Err(Error::Config(format!("{file}: `addition_embed_type` {t:.60} is not supported (text_time)")))
            }
        }
    }

    fn attention_type(&self, file: &str) -> Result<AttentionType> {
        match self.attention_type.as_deref() {
            None | Some("default") => Ok(AttentionType::Default),
            Some("gated") => Ok(AttentionType::Gated),
            Some("gated-text-image") => Ok(AttentionType::GatedTextImage),
            Some(t) => Err(Error::Config(format!(
                "{file}: `attention_type` {t:.60} is not supported (default, gated, gated-text-image)"
            ))),
        }
    }
}

/// Checks keys of which only one form is supported.
fn refuse_others(config: &Json) -> Result<()> {
    use serde_json::json;
    config.only(&[
        ("act_fn", &[json!("silu"), json!("swish")]),
        ("center_input_sample", &[json!(false)]),
        ("class_embed_type", &[json!(null)]),
        ("num_class_embeds", &[json!(null)]),
        ("conv_in_kernel", &[json!(3)]),
        ("conv_out_kernel", &[json!(3)]),
        ("cross_attention_norm", &[json!(null)]),
        ("downsample_padding", &[json!(1)]),
        ("dual_cross_attention", &[json!(false)]),
        ("encoder_hid_dim", &[json!(null)]),
        ("encoder_hid_dim_type", &[json!(null)]),
        ("mid_block_only_cross_attention", &[json!(false)]),
        ("mid_block_scale_factor", &[json!(1)]),
        ("only_cross_attention", &[json!(false)]),
        ("resnet_out_scale_factor", &[json!(1)]),
        ("resnet_skip_time_act", &[json!(false)]),
        ("resnet_time_scale_shift", &[json!("default")]),
        ("time_cond_proj_dim", &[json!(null)]),
        ("time_embedding_act_fn", &[json!(null)]),
        ("time_embedding_dim", &[json!(null)]),
        ("time_embedding_type", &[json!("positional")]),
        ("timestep_post_act", &[json!(null)]),
    ])
}

impl UNetConfig {
    /// The family of models with such a U-Net.
    pub fn family(&self) -> Family {
        match (self.text_time, self.attention_type) {
            (Some(_), _) => Family::Sdxl,
            (None, AttentionType::Default) => Family::Sd1,
            (None, _) => Family::Gligen,
        }
    }

    /// Reads `unet/config.json`.
    ///
    /// # Errors
    /// If it is missing, malformed or not supported.
    pub fn read(files: &ModelFiles) -> Result<Self> {
        Self::parse(&files.read("unet/config.json")?, &files.label("unet/config.json"))
    }

    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed or not supported.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        let config = Json::parse(json, file)?;
        refuse_others(&config)?;
        let raw: RawUNet = config.decode()?;
        let levels = levels(&raw.block_out_channels, raw.norm_num_groups, file)?;
        if raw.mid_block_type != unet_mid() {
            return Err(Error::Config(format!(
                "{file}: `mid_block_type` is {:.60}, but only {} is supported",
                raw.mid_block_type,
                unet_mid()
            )));
        }
        if raw.in_channels != raw.out_channels {
            return Err(Error::Config(format!(
                "{file}: `in_channels` is {} and `out_channels` {}, but both must be equal; a U-Net that also predicts a \
                 variance, or that takes a mask, is not supported",
                raw.in_channels, raw.out_channels
            )));
        }
        positive("norm_eps", raw.norm_eps, file)?;
        let transformer_layers = raw.transformer_layers_per_block.each(levels, file, "transformer_layers_per_block")?;
        let up_transformer_layers = match &raw.reverse_transformer_layers_per_block {
            Some(layers) => layers.each(levels, file, "reverse_transformer_layers_per_block")?,
            None => transformer_layers.iter().rev().copied().collect(),
        };
        // diffusers' `attention_head_dim` is the number of heads wherever `num_attention_heads` is not given.
        let heads = raw.num_attention_heads.as_ref().unwrap_or(&raw.attention_head_dim);
        let heads = heads.each(levels, file, "attention_head_dim")?;
        for (channels, heads) in raw.block_out_channels.iter().zip(&heads) {
            heads_divide(*channels, *heads, file)?;
        }
        raw.embeds(file)?;
        Ok(UNetConfig {
            sample_size: raw.sample_size.as_ref().and_then(|size| size.0.first().copied()).unwrap_or(64),
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            down_attention: raw.down_attention(file)?,
            up_attention: raw.up_attention(file)?,
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
            attention_type: raw.attention_type(file)?,
            text_time: raw.text_time(file)?,
            block_out_channels: raw.block_out_channels,
        })
    }

    /// Infers the configuration of a Stable Diffusion 1.x, GLIGEN or SDXL U-Net from its tensors, for files without one.
    ///
    /// # Errors
    /// If it is another kind of model, which the message names if it is a known one.
    pub fn infer(tensors: &TensorMap) -> Result<Self> {
        let label = tensors.label();
        let side = |name: &str, i: usize| side(tensors, name, i);
        let levels = tensors.count("down_blocks.");
        let depth = |block: &str| tensors.count(&format!("{block}.attentions.0.transformer_blocks."));
        let down: Vec<usize> = (0..levels).map(|i| depth(&format!("down_blocks.{i}"))).collect();
        let up: Vec<usize> = (0..levels).map(|i| depth(&format!("up_blocks.{i}"))).collect();
        let middle = depth("mid_block");
        let block_out_channels = (0..levels)
            .map(|i| side(&format!("down_blocks.{i}.resnets.0.conv1.weight"), 0))
            .collect::<Result<Vec<_>>>()?;
        super::levels(&block_out_channels, GROUPS, label)?;
        let context = tensors.names().find(|name| name.ends_with("attn2.to_k.weight"));
        let context = context.map(|name| side(name, 1)).transpose()?;
        let added = tensors.shape("add_embedding.linear_1.weight").and_then(|shape| shape.get(1).copied());
        let sdxl = match (context, added) {
            (Some(768), None) => false,
            (Some(2048), Some(_)) => true,
            (Some(1024), None) => return Err(other(label, "Stable Diffusion 2.x")),
            (Some(1280), Some(_)) => return Err(other(label, "SDXL's refiner")),
            (context, _) => {
                let what = context.map_or("no cross-attention".into(), |c| format!("text states of width {c}"));
                return Err(other(label, &format!("an unknown kind ({what})")));
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
            norm_num_groups: GROUPS,
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

    /// Infers how the layout enters from the tensors of GLIGEN.
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
