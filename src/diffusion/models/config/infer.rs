//! The configuration of a U-Net by its tensors, for checkpoints in one file.

use super::unet::{MidBlock, SD1_WIDTH, SD2_WIDTH, input};
use super::{AttentionType, GROUPS, UNetConfig, side};
use crate::weights::TensorMap;
use crate::{Error, Result};

/// Width of the text states of SDXL's refiner, from OpenCLIP's ViT-bigG.
const REFINER_WIDTH: usize = 1280;

/// Width of the text states of SDXL: those of both encoders side by side.
const SDXL_WIDTH: usize = 2048;

impl UNetConfig {
    /// Infers the configuration of a Stable Diffusion, GLIGEN or SDXL U-Net from its tensors, for files without one.
    ///
    /// # Errors
    /// If it is another kind of model, which the message names if it is a known one.
    pub fn infer(tensors: &TensorMap) -> Result<Self> {
        let label = tensors.label();
        let side = |name: &str, i: usize| side(tensors, name, i);
        let levels = tensors.count("down_blocks.");
        let (down, up) = (depths(tensors, "down_blocks", levels), depths(tensors, "up_blocks", levels));
        let block_out_channels = (0..levels)
            .map(|i| side(&format!("down_blocks.{i}.resnets.0.conv1.weight"), 0))
            .collect::<Result<Vec<_>>>()?;
        super::levels(&block_out_channels, GROUPS, label)?;
        let context = tensors.names().find(|name| name.ends_with("attn2.to_k.weight"));
        let context = context.map(|name| side(name, 1)).transpose()?;
        let added = tensors.shape("add_embedding.linear_1.weight").and_then(|shape| shape.get(1).copied());
        let sd1 = match (context, added) {
            (Some(SD1_WIDTH), None) => true,
            (Some(SD2_WIDTH), None) | (Some(SDXL_WIDTH | REFINER_WIDTH), Some(_)) => false,
            (Some(SD2_WIDTH), Some(_)) => {
                return Err(other(
                    label,
                    "Stable Diffusion 2.x on images (unCLIP), whose U-Net takes an image's embedding",
                ));
            }
            (context, _) => {
                let what = context.map_or("no cross-attention".into(), |c| format!("text states of width {c}"));
                return Err(other(label, &format!("an unknown kind ({what})")));
            }
        };
        let (in_channels, out_channels) = (side("conv_in.weight", 1)?, side("conv_out.weight", 0)?);
        if input(in_channels, out_channels).is_none() {
            return Err(other(label, &format!("an unknown kind{}", takes(in_channels, out_channels))));
        }
        Ok(UNetConfig {
            sample_size: if added.is_some() { 128 } else { 64 },
            in_channels,
            out_channels,
            heads: block_out_channels.iter().map(|c| if sd1 { 8 } else { (c / 64).max(1) }).collect(),
            layers_per_block: tensors.count("down_blocks.0.resnets."),
            cross_attention_dim: context.unwrap_or(SD1_WIDTH),
            norm_num_groups: GROUPS,
            norm_eps: 1e-5,
            use_linear_projection: !sd1,
            upcast_attention: false,
            time_cond_proj_dim: tensors
                .has("time_embedding.cond_proj.weight")
                .then(|| side("time_embedding.cond_proj.weight", 1))
                .transpose()?,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            attention_type: Self::attention_type_of(tensors),
            text_time: added.map(|width| (256, width)),
            transformer_layers: down,
            up_transformer_layers: up,
            mid: mid(tensors),
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

/// The blocks of every transformer of each level; none for a level without transformers.
fn depths(tensors: &TensorMap, side: &str, levels: usize) -> Vec<Vec<usize>> {
    let level = |i| {
        let transformers = tensors.count(&format!("{side}.{i}.attentions."));
        let depth = |j| tensors.count(&format!("{side}.{i}.attentions.{j}.transformer_blocks."));
        (0..transformers).map(depth).collect()
    };
    (0..levels).map(level).collect()
}

fn mid(tensors: &TensorMap) -> MidBlock {
    if tensors.count("mid_block.attentions.") > 0 || tensors.count("mid_block.resnets.") > 1 {
        MidBlock::Transformer(tensors.count("mid_block.attentions.0.transformer_blocks."))
    } else if tensors.count("mid_block.resnets.") == 1 {
        MidBlock::Residual
    } else {
        MidBlock::Absent
    }
}

/// Says what is known of models that take so many channels.
fn takes(in_channels: usize, out_channels: usize) -> String {
    let what = match in_channels {
        5 => "; Stable Diffusion 2's depth model takes a depth map too",
        7 => "; Stable Diffusion's upscaler takes a small image too",
        _ => "",
    };
    format!(" (its U-Net takes {in_channels} channels and returns {out_channels}{what})")
}

fn other(label: &str, kind: &str) -> Error {
    Error::Weights(format!(
        "{label}: a model of {kind}; supported are Stable Diffusion 1.x and 2.x, GLIGEN, and SDXL with its refiner"
    ))
}
