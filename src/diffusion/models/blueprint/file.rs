//! Opens a model in one file, in the original layout of Stable Diffusion 1.x and SDXL.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::parts::{add_fusers, replacement_vae, shown};
use super::{Blueprint, EncoderBlueprint, ModelSource, Problems, TokenizerSource};
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::models::{Family, ModelInfo};
use crate::schedule::{PredictionType, SchedulerConfig};
use crate::weights::{Checkpoint, NetworkKind, SortedTensors, TensorMap};
use crate::{Error, Result};

/// The text encoders of a family: which network, how messages name it, the token that pads its texts.
fn text_encoders(family: Family) -> &'static [(NetworkKind, &'static str, &'static str)] {
    match family {
        Family::Sdxl => &[
            (NetworkKind::TextEncoder, "first text encoder", "<|endoftext|>"),
            (NetworkKind::TextEncoder2, "second text encoder", "!"),
        ],
        _ => &[(NetworkKind::TextEncoder, "text encoder", "<|endoftext|>")],
    }
}

impl Blueprint {
    pub(super) fn of_file(path: &Path, source: &ModelSource, problems: &mut Problems) -> Option<Blueprint> {
        let checkpoint = Arc::new(problems.keep("model", Checkpoint::open(path))?);
        let mut sorted = SortedTensors::of(&checkpoint);
        let label = path.display();
        let missing = |what: &str| Error::Weights(format!("{label}: holds no {what}"));

        let mut unet = problems.keep("model", take_unet(path, &mut sorted))?;
        let mut config = problems.keep("model", UNetConfig::infer(&unet))?;
        if let Some(path) = &source.gligen {
            problems.keep("gligen", add_fusers(path, &mut config, &mut unet));
        }
        let family = config.family();
        let mut files = BTreeSet::new();
        let vae = match &source.vae {
            Some(path) => problems.keep("vae", replacement_vae(path, Some(family), &mut files)),
            None => {
                let tensors = sorted.networks.remove(&NetworkKind::Vae);
                let tensors = tensors.ok_or_else(|| missing("autoencoder; give one as `vae`"));
                let config = |tensors: TensorMap| Ok((VaeConfig::infer(&tensors, family)?, tensors));
                problems.keep("model", tensors.and_then(config))
            }
        };
        let mut encoders = Vec::new();
        for (network, what, pad) in text_encoders(family) {
            let tensors = sorted.networks.remove(network).ok_or_else(|| missing(what));
            let encoder = tensors.and_then(|tensors| {
                let config = ClipTextConfig::infer(&tensors, *network)?;
                Ok(EncoderBlueprint::new(config, tensors, TokenizerSource::Clip { pad }, &mut sorted.unknown))
            });
            encoders.extend(problems.keep("model", encoder));
        }
        let scheduler = SchedulerConfig::stable_diffusion(match sorted.predicts_v {
            true => PredictionType::VPrediction,
            false => PredictionType::Epsilon,
        });
        let vae = vae?;
        Some(Blueprint {
            info: ModelInfo::of(&config, &vae.0, &scheduler),
            unet: (config, unet),
            vae,
            encoders,
            force_zeros: family == Family::Sdxl,
            form: format!("one file in the original layout ({})", checkpoint.format()),
            notes: notes(&checkpoint, &sorted),
            unknown: sorted.unknown,
            files,
        })
    }
}

/// Takes the U-Net out of a checkpoint's tensors. The error names what the file holds instead.
fn take_unet(path: &Path, sorted: &mut SortedTensors) -> Result<TensorMap> {
    let label = path.display();
    match sorted.networks.remove(&NetworkKind::UNet) {
        Some(unet) if unet.has("conv_in.weight") => Ok(unet),
        Some(unet) if unet.names().any(|name| name.contains(".fuser.")) => Err(Error::Weights(format!(
            "{label}: holds only GLIGEN's fusers; give a Stable Diffusion 1.x checkpoint as `model`, and this file as `gligen`"
        ))),
        _ if sorted.networks.contains_key(&NetworkKind::Vae) => Err(Error::Weights(format!(
            "{label}: contains an autoencoder and no U-Net; give it as `vae`, together with a model"
        ))),
        _ => Err(Error::Weights(format!("{label}: holds no U-Net of a known kind ({})", shown(&sorted.unknown)))),
    }
}

/// Returns remarks for the user on what a checkpoint states about itself.
fn notes(checkpoint: &Checkpoint, sorted: &SortedTensors) -> Vec<String> {
    let mut notes = Vec::new();
    if sorted.predicts_v {
        notes.push("its tensor names say that it predicts v".into());
    }
    if let Some(title) = checkpoint.texts().get("modelspec.title") {
        notes.push(format!("its title is “{title}”"));
        if title.contains("0.9") && title.to_lowercase().contains("vae") {
            notes.push("its autoencoder is that of SDXL 0.9".into());
        }
    }
    notes
}
