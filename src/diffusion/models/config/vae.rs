//! The configuration of an autoencoder, `vae/config.json`.

use serde::Deserialize;

use super::{GROUPS, between, four, levels, positive, side, thirty_two, three, yes};
use crate::models::Family;
use crate::weights::{Json, ModelFiles, TensorMap};
use crate::{Error, Result};

/// The configuration of an autoencoder.
#[derive(Clone, Debug, Deserialize)]
pub struct VaeConfig {
    /// Channels of the image.
    #[serde(default = "three")]
    pub in_channels: usize,
    /// Channels of the decoded image.
    #[serde(default = "three")]
    pub out_channels: usize,
    /// Channels of each level.
    #[serde(default = "vae_channels")]
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level of the encoder (the decoder has one more).
    #[serde(default = "single")]
    pub layers_per_block: usize,
    /// Channels of the latent.
    #[serde(default = "four")]
    pub latent_channels: usize,
    /// Groups of every group norm.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    /// The factor of a latent after encoding.
    #[serde(default = "sd_scale")]
    pub scaling_factor: f64,
    /// The shift that is subtracted from a latent before scaling.
    #[serde(default)]
    pub shift_factor: Option<f64>,
    /// Mean of the latents, for each channel, which is subtracted before scaling, as in Playground v2.5.
    #[serde(default)]
    pub latents_mean: Option<Vec<f64>>,
    /// Standard deviation of the latents, for each channel, by which they are divided.
    #[serde(default)]
    pub latents_std: Option<Vec<f64>>,
    /// Whether a 1×1 convolution follows the encoder.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    /// Whether the middle block has self-attention.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    /// Whether it overflows in f16, as that of SDXL does.
    #[serde(default = "yes")]
    pub force_upcast: bool,
    /// The class that the file says it configures.
    #[serde(default, rename = "_class_name")]
    class_name: Option<String>,
}

/// Least and greatest scales of latents. Those of public models are between 0.1 and 2.
const SCALES: (f64, f64) = (1e-3, 1e3);

/// The scale of Playground v2.5's latents.
const PLAYGROUND_SCALE: f64 = 0.5;

fn single() -> usize {
    1
}
fn vae_channels() -> Vec<usize> {
    vec![64]
}
fn sd_scale() -> f64 {
    0.18215
}

impl VaeConfig {
    /// Reads `vae/config.json`.
    ///
    /// # Errors
    /// If it is missing, malformed or not supported.
    pub fn read(files: &ModelFiles) -> Result<Self> {
        Self::parse(&files.read("vae/config.json")?, &files.label("vae/config.json"))
    }

    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed or not supported.
    pub fn parse(json: &[u8], file: &str) -> Result<Self> {
        use serde_json::json;
        let json = Json::parse(json, file)?;
        let config: Self = json.decode()?;
        let levels = levels(&config.block_out_channels, config.norm_num_groups, file)?;
        json.only(&[
            ("act_fn", &[json!("silu"), json!("swish")]),
            ("down_block_types", &[json!(vec!["DownEncoderBlock2D"; levels])]),
            ("up_block_types", &[json!(vec!["UpDecoderBlock2D"; levels])]),
            ("in_channels", &[json!(3)]),
            ("out_channels", &[json!(3)]),
        ])?;
        config.statistics(file, ["latents_mean", "latents_std"])?;
        between("scaling_factor", config.scaling_factor, SCALES.0..=SCALES.1, file)?;
        between("shift_factor", config.shift_factor.unwrap_or(0.0), -SCALES.1..=SCALES.1, file)?;
        Ok(config)
    }

    /// Checks mean and deviation of the latents, which messages call by these keys: both or neither, one number a channel.
    fn statistics(&self, file: &str, keys: [&str; 2]) -> Result<()> {
        let (mean, std) = match (&self.latents_mean, &self.latents_std) {
            (None, None) => return Ok(()),
            (Some(mean), Some(std)) => (mean, std),
            (mean, _) => {
                let [given, absent] = if mean.is_some() { keys } else { [keys[1], keys[0]] };
                return Err(Error::Config(format!("{file}: `{given}` is given, and `{absent}` is missing")));
            }
        };
        for (key, numbers) in keys.into_iter().zip([mean, std]) {
            if numbers.len() != self.latent_channels {
                return Err(Error::Config(format!(
                    "{file}: `{key}` has {} entries for latents of {} channels",
                    numbers.len(),
                    self.latent_channels
                )));
            }
            numbers.iter().try_for_each(|number| between(key, *number, -SCALES.1..=SCALES.1, file))?;
        }
        std.iter().try_for_each(|number| positive(keys[1], *number, file))
    }

    /// Sets mean and deviation of the latents, which the keys `edm_mean` and `edm_std` of a checkpoint in one file state, and
    /// the scale of Playground v2.5 that goes with them. `file` is its name in messages.
    ///
    /// # Errors
    /// If either is not one number for each channel of the latents.
    pub(crate) fn normalised(self, mean: &[f32], std: &[f32], file: &str) -> Result<Self> {
        let wide = |numbers: &[f32]| Some(numbers.iter().map(|x| f64::from(*x)).collect());
        let config =
            VaeConfig { latents_mean: wide(mean), latents_std: wide(std), scaling_factor: PLAYGROUND_SCALE, ..self };
        config.statistics(file, ["edm_mean", "edm_std"])?;
        Ok(config)
    }

    /// The same with the scale, mean and deviation of latents of `own`, if those are normalised.
    pub(crate) fn like(self, own: Option<&VaeConfig>) -> Self {
        match own.filter(|own| own.is_normalised()) {
            Some(own) => VaeConfig {
                latents_mean: own.latents_mean.clone(),
                latents_std: own.latents_std.clone(),
                scaling_factor: own.scaling_factor,
                ..self
            },
            None => self,
        }
    }

    /// Whether latents have a mean and a deviation of their own.
    pub fn is_normalised(&self) -> bool {
        self.latents_mean.is_some()
    }

    /// Infers the configuration of an autoencoder of that family from its tensors.
    ///
    /// # Errors
    /// If a tensor is missing.
    pub fn infer(tensors: &TensorMap, family: Family) -> Result<Self> {
        let side = |name: &str, i: usize| side(tensors, name, i);
        let levels = tensors.count("encoder.down_blocks.");
        let channels = (0..levels).map(|i| side(&format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0));
        let channels = channels.collect::<Result<Vec<_>>>()?;
        super::levels(&channels, GROUPS, tensors.label())?;
        Ok(VaeConfig {
            in_channels: side("encoder.conv_in.weight", 1)?,
            out_channels: side("decoder.conv_out.weight", 0)?,
            block_out_channels: channels,
            layers_per_block: tensors.count("encoder.down_blocks.0.resnets."),
            latent_channels: side("decoder.conv_in.weight", 1)?,
            norm_num_groups: GROUPS,
            scaling_factor: if family.is_xl() { 0.13025 } else { sd_scale() },
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            use_quant_conv: tensors.has("quant_conv.weight"),
            use_post_quant_conv: tensors.has("post_quant_conv.weight"),
            mid_block_add_attention: tensors.has("decoder.mid_block.attentions.0.to_q.weight"),
            force_upcast: family.is_xl(),
            class_name: None,
        })
    }

    /// Whether the file declares that it configures an autoencoder.
    pub fn is_autoencoder(&self) -> bool {
        self.class_name.as_deref() == Some("AutoencoderKL")
    }

    /// The number of image pixels for each latent pixel, along a side.
    pub fn downscale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}
