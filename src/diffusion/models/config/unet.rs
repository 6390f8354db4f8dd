//! The configuration of a U-Net, `unet/config.json`.

use serde::Deserialize;

use super::{between, eps5, four, heads_divide, levels, positive, thirty_two, yes};
use crate::models::Family;
use crate::weights::{Json, ModelFiles};
use crate::{Error, Result};

/// A value for each level, or one for all.
#[derive(Clone, Debug, Deserialize)]
struct PerLevel<T>(Vec<T>);

impl<T: Clone> PerLevel<T> {
    fn each(&self, levels: usize, file: &str, key: &str) -> Result<Vec<T>> {
        match self.0.as_slice() {
            [x] => Ok(vec![x.clone(); levels]),
            v if v.len() == levels => Ok(v.to_vec()),
            v => Err(Error::Config(format!("{file}: `{key}` has {} entries for {levels} blocks", v.len()))),
        }
    }
}

/// Width of the text states of Stable Diffusion 1.x, from OpenAI's CLIP ViT-L.
pub(super) const SD1_WIDTH: usize = 768;

/// Width of the text states of Stable Diffusion 2.x, from OpenCLIP's ViT-H.
pub(super) const SD2_WIDTH: usize = 1024;

/// The sizes that SDXL is conditioned on: original height and width, crop's top and left, target height and width.
const TIME_IDS: usize = 6;

/// Those of its refiner: original height and width, crop's top and left, aesthetic score.
const REFINER_TIME_IDS: usize = 5;

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

/// The block at the lowest resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MidBlock {
    /// None: the way up starts where the way down ends.
    Absent,
    /// One residual block (diffusers' `UNetMidBlock2D`), as in SSD-1B and Segmind Vega.
    Residual,
    /// Two residual blocks with a transformer of so many blocks between them.
    Transformer(usize),
}

/// What a U-Net takes besides the noisy latent, by the number of its input channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UNetInput {
    /// Nothing else.
    Latent,
    /// A mask and the latent of the masked image: C + 1 more channels, 9 in all.
    Inpainting,
    /// The latent of the image to edit (InstructPix2Pix): C more channels, 8 in all.
    Edit,
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
    /// Blocks of each transformer of each level, going down: one number for each residual block, or none if the level has no
    /// transformers.
    pub transformer_layers: Vec<Vec<usize>>,
    /// The same, going up.
    pub up_transformer_layers: Vec<Vec<usize>>,
    /// The block between them.
    pub mid: MidBlock,
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
    /// Whether attention is computed in f32 where the network computes in half precision.
    pub upcast_attention: bool,
    /// Width of the embedding of LCM's guidance scale, which is added to the timestep's.
    pub time_cond_proj_dim: Option<usize>,
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
    #[serde(default = "two")]
    layers_per_block: usize,
    #[serde(default = "one")]
    transformer_layers_per_block: PerLevel<Vec<usize>>,
    #[serde(default)]
    reverse_transformer_layers_per_block: Option<PerLevel<Vec<usize>>>,
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
    #[serde(default)]
    upcast_attention: bool,
    #[serde(default)]
    time_cond_proj_dim: Option<usize>,
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

fn one() -> PerLevel<Vec<usize>> {
    PerLevel(vec![vec![1]])
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
        let added = self.addition_time_embed_dim.map(|width| ("addition_time_embed_dim", width));
        for (key, width) in added.into_iter().chain([("block_out_channels", self.block_out_channels[0])]) {
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

    /// The blocks of every transformer, going down and going up.
    #[allow(clippy::type_complexity)]
    fn transformer_layers(&self, levels: usize, file: &str) -> Result<(Vec<Vec<usize>>, Vec<Vec<usize>>)> {
        let key = "transformer_layers_per_block";
        let given = self.transformer_layers_per_block.each(levels, file, key)?;
        let layers = self.layers_per_block;
        let down = each_layer(given.clone(), layers, file, key)?;
        let key = "reverse_transformer_layers_per_block";
        let up = match &self.reverse_transformer_layers_per_block {
            Some(up) => up.each(levels, file, key)?,
            None if given.iter().all(|level| level.len() == 1) => given.into_iter().rev().collect(),
            // diffusers requires it too: the way up has one more layer.
            None => {
                return Err(Error::Config(format!(
                    "{file}: `transformer_layers_per_block` has a list for a level, which needs `{key}` too"
                )));
            }
        };
        Ok((down, each_layer(up, layers + 1, file, key)?))
    }

    /// The blocks of the middle transformer: those of the first one at the lowest resolution.
    fn mid_layers(&self) -> usize {
        self.transformer_layers_per_block.0.last().and_then(|level| level.first().copied()).unwrap_or(1)
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

/// The most layers of a level, and the most blocks of a transformer. Public models have up to 3, and up to 10.
const MOST_LAYERS: usize = 256;

/// One number for each of `layers` layers of each level.
fn each_layer(levels: Vec<Vec<usize>>, layers: usize, file: &str, key: &str) -> Result<Vec<Vec<usize>>> {
    let each = |level: Vec<usize>| match level.as_slice() {
        _ if level.iter().any(|blocks| *blocks > MOST_LAYERS) => Err(Error::Config(format!(
            "{file}: `{key}` is {level:?}, but a transformer has at most {MOST_LAYERS} blocks"
        ))),
        [one] => Ok(vec![*one; layers]),
        _ if level.len() == layers => Ok(level),
        _ => Err(Error::Config(format!(
            "{file}: `{key}` has {} entries for the {layers} layers of a level",
            level.len()
        ))),
    };
    levels.into_iter().map(each).collect()
}

/// Empties the levels without transformers.
fn attending(levels: Vec<Vec<usize>>, attention: &[bool]) -> Vec<Vec<usize>> {
    levels.into_iter().zip(attention).map(|(level, has)| if *has { level } else { vec![] }).collect()
}

/// The middle block. diffusers builds none where `mid_block_type` is `null`, which is not its absence.
fn mid(config: &Json, depth: usize) -> Result<MidBlock> {
    const WITH: &str = "UNetMidBlock2DCrossAttn";
    const WITHOUT: &str = "UNetMidBlock2D";
    let Some(found) = config.get("mid_block_type") else {
        return Ok(if config.has("mid_block_type") { MidBlock::Absent } else { MidBlock::Transformer(depth) });
    };
    match found.as_str() {
        Some(WITH) => Ok(MidBlock::Transformer(depth)),
        Some(WITHOUT) => Ok(MidBlock::Residual),
        _ => Err(Error::Config(format!(
            "{}: `mid_block_type` is {found:.60}, but only {WITH}, {WITHOUT} or null is supported",
            config.label()
        ))),
    }
}

/// What a U-Net of so many channels takes besides the latent.
pub(super) fn input(in_channels: usize, out_channels: usize) -> Option<UNetInput> {
    match in_channels.checked_sub(out_channels)? {
        0 => Some(UNetInput::Latent),
        extra if extra == out_channels => Some(UNetInput::Edit),
        extra if extra == out_channels + 1 => Some(UNetInput::Inpainting),
        _ => None,
    }
}

/// Checks keys of which only one form is supported.
fn refuse_others(config: &Json) -> Result<()> {
    use serde_json::json;
    config.only(&[
        ("act_fn", &[json!("silu"), json!("swish")]),
        ("center_input_sample", &[json!(false)]),
        ("class_embed_type", &[json!(null)]),
        ("class_embeddings_concat", &[json!(false)]),
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
        ("time_embedding_act_fn", &[json!(null)]),
        ("time_embedding_dim", &[json!(null)]),
        ("time_embedding_type", &[json!("positional")]),
        ("timestep_post_act", &[json!(null)]),
    ])
}

impl UNetConfig {
    /// The family of models with such a U-Net.
    ///
    /// The one text encoder of SDXL's refiner gives both its text states and its pooled text, and besides there are five
    /// sizes. Stable Diffusion 2.x has text states of width 1024 and projects linearly in its transformers, 1.x has 768 and
    /// projects by convolutions; for other widths the projection decides.
    pub fn family(&self) -> Family {
        let refines = |(each, width): (usize, usize)| width == self.cross_attention_dim + REFINER_TIME_IDS * each;
        match (self.text_time, self.attention_type) {
            (Some(added), _) if refines(added) => Family::SdxlRefiner,
            (Some(_), _) => Family::Sdxl,
            (None, AttentionType::Default) => match self.cross_attention_dim {
                SD1_WIDTH => Family::Sd1,
                SD2_WIDTH => Family::Sd2,
                _ if self.use_linear_projection => Family::Sd2,
                _ => Family::Sd1,
            },
            (None, _) => Family::Gligen,
        }
    }

    /// What it takes besides the noisy latent.
    pub fn input(&self) -> UNetInput {
        input(self.in_channels, self.out_channels).unwrap_or(UNetInput::Latent)
    }

    /// The number of sizes that it is conditioned on: SDXL's six, or its refiner's five.
    pub fn time_ids(&self) -> usize {
        if self.family() == Family::SdxlRefiner { REFINER_TIME_IDS } else { TIME_IDS }
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
        input(raw.in_channels, raw.out_channels).ok_or_else(|| {
            Error::Config(format!(
                "{file}: `in_channels` is {} and `out_channels` {}, which is not supported; besides the latent, a U-Net may \
                 take a mask and a masked image (inpainting), or an image to edit",
                raw.in_channels, raw.out_channels
            ))
        })?;
        positive("norm_eps", raw.norm_eps, file)?;
        let most = MOST_LAYERS as f64;
        between("layers_per_block", raw.layers_per_block as f64, 0.0..=most, file)?;
        let (transformer_layers, up_transformer_layers) = raw.transformer_layers(levels, file)?;
        let mid = mid(&config, raw.mid_layers())?;
        let transformer_layers = attending(transformer_layers, &raw.down_attention(file)?);
        let up_transformer_layers = attending(up_transformer_layers, &raw.up_attention(file)?);
        // diffusers' `attention_head_dim` is the number of heads wherever `num_attention_heads` is not given.
        let heads = raw.num_attention_heads.as_ref().unwrap_or(&raw.attention_head_dim);
        let heads = heads.each(levels, file, "attention_head_dim")?;
        for (channels, heads) in raw.block_out_channels.iter().zip(&heads) {
            heads_divide(*channels, *heads, file)?;
        }
        raw.embeds(file)?;
        if let Some(width) = raw.time_cond_proj_dim.filter(|width| *width < 4 || width % 2 != 0) {
            return Err(Error::Config(format!(
                "{file}: `time_cond_proj_dim` is {width}, but must be even and at least 4: half sines, half cosines"
            )));
        }
        Ok(UNetConfig {
            sample_size: raw.sample_size.as_ref().and_then(|size| size.0.first().copied()).unwrap_or(64),
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            transformer_layers,
            up_transformer_layers,
            mid,
            heads,
            layers_per_block: raw.layers_per_block,
            cross_attention_dim: raw.cross_attention_dim,
            norm_num_groups: raw.norm_num_groups,
            norm_eps: raw.norm_eps,
            use_linear_projection: raw.use_linear_projection,
            upcast_attention: raw.upcast_attention,
            time_cond_proj_dim: raw.time_cond_proj_dim,
            flip_sin_to_cos: raw.flip_sin_to_cos,
            freq_shift: raw.freq_shift,
            attention_type: raw.attention_type(file)?,
            text_time: raw.text_time(file)?,
            block_out_channels: raw.block_out_channels,
        })
    }
}
