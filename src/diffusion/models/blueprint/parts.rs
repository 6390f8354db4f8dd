//! Parts of a model that come from files of their own: one network, GLIGEN's fusers, another autoencoder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsregen_files::Kind;

use crate::models::Family;
use crate::models::config::{AttentionType, UNetConfig, VaeConfig};
use crate::weights::{Checkpoint, ModelFiles, NetworkKind, SortedTensors, TensorMap};
use crate::{Error, Result};

/// The first names of a list: `it has a, b, c and 7 more`.
pub(super) fn shown(names: &[String]) -> String {
    let first: Vec<_> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "no tensors".into(),
        n if n > 3 => format!("it has {} and {} more", first.join(", "), n - 3),
        _ => format!("it has {}", first.join(", ")),
    }
}

/// The tensors of a file that holds one network.
pub(super) fn one_network(checkpoint: &Arc<Checkpoint>) -> Result<TensorMap> {
    let sorted = SortedTensors::of(checkpoint);
    if let Some(name) = sorted.unknown.first() {
        return Err(Error::Weights(format!("{}: tensor `{name}` belongs to no known network", checkpoint.label())));
    }
    let mut networks = sorted.networks.into_values();
    match (networks.next(), networks.next()) {
        (Some(map), None) => Ok(map),
        (None, _) => Err(Error::Weights(format!("{}: holds no tensors", checkpoint.label()))),
        _ => Err(Error::Weights(format!("{}: holds several networks, but must hold one", checkpoint.label()))),
    }
}

/// The tensors of the text encoder in a file. Files of a whole CLIP have others too, whose names go to `unused`.
pub(super) fn text_encoder(checkpoint: &Arc<Checkpoint>, unused: &mut Vec<String>) -> Result<TensorMap> {
    let mut sorted = SortedTensors::of(checkpoint);
    let encoder = sorted.networks.remove(&NetworkKind::TextEncoder);
    let encoder = encoder.ok_or_else(|| {
        Error::Weights(format!("{}: holds no text encoder ({})", checkpoint.label(), shown(&sorted.unknown)))
    })?;
    unused.append(&mut sorted.unknown);
    unused.extend(sorted.networks.values().flat_map(|map| map.names().map(String::from)));
    Ok(encoder)
}

/// Checks that a U-Net has the fusers that its configuration names. Some published repositories lack them.
pub(super) fn check_fusers(config: &UNetConfig, unet: &TensorMap) -> Result<()> {
    let gated = config.attention_type != AttentionType::Default;
    if !gated || unet.names().next().is_none() || unet.names().any(|name| name.contains(".fuser.")) {
        return Ok(());
    }
    Err(Error::Weights(format!(
        "{}: its config.json names GLIGEN's fusers, but the file has none, a known mistake of some published repositories; \
         use another file of the repository (the .bin in full precision has them), or a Stable Diffusion 1.4 model with a \
         GLIGEN file as `gligen`",
        unet.label()
    )))
}

/// Adds GLIGEN's fusers and position net to a Stable Diffusion 1.x U-Net.
pub(super) fn add_fusers(path: &Path, config: &mut UNetConfig, unet: &mut TensorMap) -> Result<()> {
    if config.family() != Family::Sd1 {
        return Err(Error::input(format!(
            "{}: GLIGEN's fusers need a Stable Diffusion 1.x model, but this one is of the family {}",
            path.display(),
            config.family().name()
        )));
    }
    let sorted = SortedTensors::of(&Arc::new(Checkpoint::open(path)?));
    let fusers = sorted.networks.into_iter().find(|(part, _)| *part == NetworkKind::UNet).map(|(_, map)| map);
    let fusers = fusers.filter(|map| map.names().any(|name| name.contains(".fuser.")));
    let fusers = fusers.ok_or_else(|| {
        Error::Weights(format!(
            "{}: holds no GLIGEN fusers; a GLIGEN file has tensors such as \
             `input_blocks.1.1.transformer_blocks.0.fuser.linear.weight`",
            path.display()
        ))
    })?;
    unet.extend(fusers);
    config.attention_type = UNetConfig::attention_type_of(unet);
    Ok(())
}

/// Opens an autoencoder: a file, its folder (with `config.json`), or a model's folder (with `vae`).
pub(super) fn replacement_vae(
    path: &Path,
    family: Option<Family>,
    used: &mut BTreeSet<PathBuf>,
) -> Result<(VaeConfig, TensorMap)> {
    let read = |config: &Path| -> Result<VaeConfig> {
        let text = lsregen_files::read(config, Kind::CONFIG).map_err(Error::io(config))?;
        VaeConfig::parse(&text, &config.display().to_string())
    };
    if path.is_dir() {
        let folder = if path.join("config.json").is_file() { path.to_path_buf() } else { path.join("vae") };
        let files = ModelFiles::Folder(folder.clone());
        let weights = files.weights("", "diffusion_pytorch_model")?;
        let config = folder.join("config.json");
        used.insert(config.clone());
        return Ok((read(&config)?, one_network(&Arc::new(Checkpoint::open(&folder.join(weights))?))?));
    }
    let mut sorted = SortedTensors::of(&Arc::new(Checkpoint::open(path)?));
    let tensors = sorted.networks.remove(&NetworkKind::Vae).ok_or_else(|| {
        Error::Weights(format!("{}: holds no autoencoder ({})", path.display(), shown(&sorted.unknown)))
    })?;
    // The configuration of its repository may lie beside the file.
    let beside = path.with_file_name("config.json");
    let config = match read(&beside) {
        Ok(config) if beside.is_file() && config.is_autoencoder() => {
            used.insert(beside);
            config
        }
        _ => VaeConfig::infer(&tensors, family.unwrap_or(Family::Sd1))?,
    };
    Ok((config, tensors))
}
