//! The member of a family that a model is, and what shows it.

use super::Blueprint;
use crate::models::Family;
use crate::models::config::{AttentionType, MidBlock, UNetConfig, UNetInput};
use crate::schedule::PredictionType;

impl Blueprint {
    /// Names the member of its family in words: `Segmind Vega`, `Stable Diffusion 2.x, v-prediction, inpainting`.
    pub fn member(&self) -> String {
        let unet = &self.unet.0;
        let mut words = vec![network(unet, self.info.family).to_string()];
        let v = self.info.scheduler.prediction_type == PredictionType::VPrediction;
        words.extend(match (self.info.family, &self.markers) {
            (_, markers) if markers.edm_vpred.is_some() => Some("v-prediction on EDM's schedule (as CosXL)".into()),
            (_, markers) if markers.ztsnr && v => Some("v-prediction with zero terminal SNR".into()),
            (Family::Sd2, _) if !v => Some("ε-prediction (as 2-base)".into()),
            (Family::Sd2, _) => Some("v-prediction (as 768-v)".into()),
            _ => v.then(|| "v-prediction".to_string()),
        });
        words.extend(unet.time_cond_proj_dim.map(|_| "LCM with an embedded guidance scale".into()));
        words.extend(match unet.input() {
            UNetInput::Latent => None,
            UNetInput::Inpainting => Some("inpainting".into()),
            UNetInput::Edit => Some("InstructPix2Pix".into()),
        });
        words.join(", ")
    }

    /// What shows the member, one clause for each property; `file` says whether it is a checkpoint in one file.
    pub(super) fn evidence(unet: &UNetConfig, file: bool) -> Vec<String> {
        let name = |tensor: &'static str, key: &'static str| match file {
            true => format!("the shape of `{tensor}`"),
            false => format!("`{key}` of unet/config.json"),
        };
        let mut told = vec![format!(
            "text states of width {}: {}",
            unet.cross_attention_dim,
            name("attn2.to_k.weight", "cross_attention_dim")
        )];
        if unet.attention_type != AttentionType::Default {
            told.push(format!("grounding: {}", name("position_net.linears", "attention_type")));
        }
        told.extend(unet.text_time.map(|(_, width)| {
            let by = name("add_embedding.linear_1.weight", "projection_class_embeddings_input_dim");
            format!("{width} added numbers, of pooled text and {} sizes: {by}", unet.time_ids())
        }));
        if !matches!(unet.mid, MidBlock::Transformer(_)) || is_uneven(unet) {
            let by = if file {
                "the numbers of `transformer_blocks`".into()
            } else {
                "`transformer_layers_per_block`, `reverse_transformer_layers_per_block` and `mid_block_type` of \
                 unet/config.json"
                    .to_string()
            };
            told.push(format!(
                "transformers of {:?} blocks on the way down and {:?} on the way up, middle {:?}: {by}",
                attending(&unet.transformer_layers),
                attending(&unet.up_transformer_layers),
                unet.mid
            ));
        }
        if unet.input() != UNetInput::Latent {
            told.push(format!("{} input channels: {}", unet.in_channels, name("conv_in.weight", "in_channels")));
        }
        told.extend(unet.time_cond_proj_dim.map(|width| {
            format!(
                "a guidance scale in {width} numbers: {}",
                name("time_embedding.cond_proj.weight", "time_cond_proj_dim")
            )
        }));
        told
    }
}

/// Whether the transformers of a level differ.
fn is_uneven(unet: &UNetConfig) -> bool {
    let levels = unet.transformer_layers.iter().chain(&unet.up_transformer_layers);
    levels.into_iter().any(|level| level.iter().any(|depth| *depth != level[0]))
}

/// The depths of the levels that have transformers.
fn attending(levels: &[Vec<usize>]) -> Vec<&[usize]> {
    levels.iter().map(Vec::as_slice).filter(|level| !level.is_empty()).collect()
}

/// The name of a network of this family by its depths.
fn network(unet: &UNetConfig, family: Family) -> &'static str {
    let down = attending(&unet.transformer_layers);
    let up = attending(&unet.up_transformer_layers);
    match family {
        Family::Sd1 => "Stable Diffusion 1.x",
        Family::Sd2 => "Stable Diffusion 2.x",
        Family::Gligen => "GLIGEN on Stable Diffusion 1.x",
        Family::SdxlRefiner => "SDXL's refiner",
        Family::Playground => "SDXL on normalised latents (as Playground v2.5)",
        Family::Sdxl => match (unet.mid, &down[..], &up[..]) {
            (MidBlock::Residual, [[2, 2], [4, 4]], [[4, 4, 10], [2, 1, 1]]) => "SSD-1B",
            (MidBlock::Residual, [[1, 1], [2, 2]], [[2, 2, 2], [1, 1, 1]]) => "Segmind Vega",
            (MidBlock::Transformer(_), ..) => "SDXL",
            _ => "SDXL with fewer blocks",
        },
    }
}
