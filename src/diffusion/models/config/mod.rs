//! The `config.json` of each network, with diffusers' and transformers' defaults. A value that is not supported is an
//! error.

mod clip;
mod infer;
mod unet;
mod vae;

pub(crate) use clip::ClipLayerConfig;
pub use clip::{ClipActivation, ClipConfig, ClipTextConfig, ClipTextKind, ClipVisionConfig};
pub use unet::{AttentionType, MidBlock, UNetConfig, UNetInput};
pub use vae::VaeConfig;

use std::ops::RangeInclusive;

use crate::weights::TensorMap;
use crate::{Error, Result};

/// The most levels of a network. Each halves the image.
const MOST_LEVELS: usize = 16;

/// The groups of every group norm in models without a configuration.
const GROUPS: usize = 32;

/// Returns the number of levels with these channels, which must divide into groups.
fn levels(channels: &[usize], groups: usize, file: &str) -> Result<usize> {
    let levels = channels.len();
    if !(1..=MOST_LEVELS).contains(&levels) {
        return Err(Error::Config(format!(
            "{file}: `block_out_channels` must have 1 to {MOST_LEVELS} entries, but has {levels}"
        )));
    }
    match channels.iter().find(|channels| **channels == 0 || groups == 0 || *channels % groups != 0) {
        Some(channels) => Err(Error::Config(format!("{file}: {channels} channels do not divide into {groups} groups"))),
        None => Ok(levels),
    }
}

/// Checks that the width of an attention divides into heads.
fn heads_divide(width: usize, heads: usize, file: &str) -> Result<()> {
    if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
        return Err(Error::Config(format!("{file}: {width} channels do not divide into {heads} heads")));
    }
    Ok(())
}

/// Checks that a number is above 0.
fn positive(key: &str, value: f64, file: &str) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::Config(format!("{file}: `{key}` must be above 0, but is {value}")))
}

/// Checks that a number is in a range.
fn between(key: &str, value: f64, range: RangeInclusive<f64>, file: &str) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    Err(Error::Config(format!("{file}: `{key}` must be between {least} and {most}, but is {value}")))
}

/// The size of dimension `i` of a tensor.
fn side(tensors: &TensorMap, name: &str, i: usize) -> Result<usize> {
    let side = tensors.shape(name).and_then(|shape| shape.get(i).copied());
    let label = tensors.label();
    side.ok_or_else(|| Error::Weights(format!("{label}: tensor `{name}` is missing or has another shape")))
}

// Defaults of several networks.

fn three() -> usize {
    3
}
fn four() -> usize {
    4
}
fn thirty_two() -> usize {
    32
}
fn eps5() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}
