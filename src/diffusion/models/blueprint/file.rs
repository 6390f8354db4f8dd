//! Opens a model in one file, in the original layout of Stable Diffusion and SDXL.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::parts::{add_fusers, replacement_vae, shown};
use super::{Blueprint, EncoderBlueprint, ModelSource, Problems, TokenizerSource, foreign, predicts};
use crate::models::config::{ClipTextConfig, ClipTextKind, UNetConfig, UNetInput, VaeConfig};
use crate::models::limits::ModelLimit;
use crate::models::markers::{EdmLatents, Markers};
use crate::models::{Family, ModelInfo};
use crate::schedule::PredictionType;
use crate::weights::{Checkpoint, NetworkKind, SortedTensors, TensorMap};
use crate::{Error, Result};

/// A text encoder: which network, what it is, how messages name it, the token that pads its texts.
type EncoderPart = (NetworkKind, ClipTextKind, &'static str, &'static str);

/// The text encoders of a family.
fn text_encoders(family: Family) -> &'static [EncoderPart] {
    use {ClipTextKind as Kind, NetworkKind as Network};
    const SECOND: EncoderPart = (Network::TextEncoder2, Kind::OpenClipBigG, "second text encoder", "!");
    match family {
        Family::Sdxl | Family::Playground => {
            &[(Network::TextEncoder, Kind::OpenAi, "first text encoder", "<|endoftext|>"), SECOND]
        }
        Family::SdxlRefiner => &[SECOND],
        Family::Sd2 => &[(Network::TextEncoder, Kind::OpenClipH, "text encoder", "!")],
        Family::Sd1 | Family::Gligen => &[(Network::TextEncoder, Kind::OpenAi, "text encoder", "<|endoftext|>")],
    }
}

/// The layers of OpenCLIP's ViT-H that Stable Diffusion 2.x uses, of 24: its text states are those of the last layer but
/// one, after the final norm. Folders hold no more.
const SD2_LAYERS: usize = 23;

/// Takes out what Stable Diffusion 2.x does not use of OpenCLIP's text encoder: the last layer and the projection.
fn trim_open_clip(tensors: &mut TensorMap) {
    let layers = tensors.count("text_model.encoder.layers.");
    // A file that was converted from a folder has neither. A small look-alike shows by its projection that it is whole.
    let whole = layers > SD2_LAYERS || layers < SD2_LAYERS && tensors.has("text_projection.weight");
    let last = format!("text_model.encoder.layers.{}.", layers.saturating_sub(1));
    tensors.take(|name| name.starts_with("text_projection.") || whole && name.starts_with(&last));
}

impl Blueprint {
    pub(super) fn of_file(path: &Path, source: &ModelSource, problems: &mut Problems) -> Option<Blueprint> {
        let checkpoint = Arc::new(problems.keep("model", Checkpoint::open(path))?);
        problems.keep("model", foreign::refuse_file(&checkpoint))?;
        let mut sorted = SortedTensors::of(&checkpoint);
        let markers = Markers::of(&checkpoint, &sorted);
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
        for (network, kind, what, pad) in text_encoders(family) {
            let tensors = sorted.networks.remove(network);
            // Some files of SD2 name their encoder as the refiner's.
            let alone =
                || (family == Family::Sd2).then(|| sorted.networks.remove(&NetworkKind::TextEncoder2)).flatten();
            let tensors = tensors.or_else(alone).ok_or_else(|| missing(what));
            let encoder = tensors.and_then(|mut tensors| {
                if *kind == ClipTextKind::OpenClipH {
                    trim_open_clip(&mut tensors);
                }
                let config = ClipTextConfig::infer(&tensors, *kind)?;
                Ok(EncoderBlueprint::new(config, tensors, TokenizerSource::Clip { pad }, &mut sorted.unknown))
            });
            encoders.extend(problems.keep("model", encoder));
        }
        let mut told = Blueprint::evidence(&config, true);
        let mut limits = vec![];
        let (prediction, by) = prediction(&markers, &mut config, &unet).unwrap_or_else(|stated| {
            if source.prediction.is_none() {
                limits.push(ModelLimit::unknown_prediction(stated));
            }
            (PredictionType::Epsilon, "nothing else is known".into())
        });
        told.push(predicts(prediction, &by));
        let (scheduler, by) = markers.scheduler(source.prediction.unwrap_or(prediction));
        told.extend(by);
        let vae = vae.and_then(|(vae, tensors)| match &markers.edm_latents {
            Some(EdmLatents { mean, std }) => {
                let normalised = problems.keep("model", vae.normalised(mean, std, checkpoint.label()));
                normalised.map(|vae| (vae, tensors))
            }
            None => Some((vae, tensors)),
        })?;
        if markers.ztsnr && scheduler.prediction_type != PredictionType::VPrediction {
            limits.push(ModelLimit::zero_snr_without_v());
        }
        let mut info = ModelInfo::of(&config, &vae.0, &scheduler);
        info.limits.append(&mut limits);
        Some(Blueprint {
            info,
            unet: (config, unet),
            vae,
            encoders,
            force_zeros: family == Family::Sdxl,
            form: format!("one file in the original layout ({})", checkpoint.format()),
            notes: notes(&checkpoint),
            markers,
            told,
            unknown: sorted.unknown,
            files,
        })
    }
}

/// The deviation of a norm's biases above which a U-Net of Stable Diffusion 2.x predicts v.
const V_DEVIATION: f64 = 0.09;

/// Decides what the U-Net of a checkpoint in one file predicts, and by what. A U-Net of Stable Diffusion 2.x that predicts v
/// gets the size of 768-v.
///
/// No file of Stable Diffusion 2.x has to state it. ComfyUI's rule tells the published ones apart: the biases of the last
/// transformer's first norm deviate by more than 0.09 in those that predict v. Its inpainting models predict ε.
///
/// # Errors
/// Returns what the metadata states if it is not known.
fn prediction<'m>(
    markers: &'m Markers,
    config: &mut UNetConfig,
    unet: &TensorMap,
) -> std::result::Result<(PredictionType, String), &'m str> {
    let sd2 = config.family() == Family::Sd2;
    let (prediction, by) = match markers.prediction()? {
        Some(stated) => stated,
        None if sd2 && config.input() == UNetInput::Latent => {
            let (level, layer) = (config.block_out_channels.len() - 1, config.layers_per_block);
            let name = format!("up_blocks.{level}.attentions.{layer}.transformer_blocks.0.norm1.bias");
            match unet.numbers(&name).map(|numbers| deviation(&numbers)) {
                Some(d) if d > V_DEVIATION => {
                    (PredictionType::VPrediction, format!("`{name}` deviates by {d:.3}, above {V_DEVIATION}"))
                }
                Some(d) => (PredictionType::Epsilon, format!("`{name}` deviates by {d:.3}, not above {V_DEVIATION}")),
                None => (PredictionType::Epsilon, "the file states nothing else".into()),
            }
        }
        None => (PredictionType::Epsilon, "the file states nothing else".into()),
    };
    if sd2 && prediction == PredictionType::VPrediction {
        config.sample_size = 96;
    }
    Ok((prediction, by))
}

/// The standard deviation of a whole population.
fn deviation(numbers: &[f32]) -> f64 {
    let n = numbers.len() as f64;
    let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    (numbers.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt()
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
fn notes(checkpoint: &Checkpoint) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(title) = checkpoint.texts().get("modelspec.title") {
        notes.push(format!("its title is “{title}”"));
        if title.contains("0.9") && title.to_lowercase().contains("vae") {
            notes.push("its autoencoder is that of SDXL 0.9".into());
        }
    }
    notes
}
