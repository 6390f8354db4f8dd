//! A network's `config.json`, with diffusers' and transformers' defaults, refused where it asks for what is not built.
//!
//! Knows the meaning of each key. Knows no tensor.

mod clip;
mod unet;
mod vae;

pub(crate) use clip::ClipLayerConfig;
pub use clip::{ClipActivation, ClipConfig, ClipTextConfig, ClipVisionConfig};
pub use unet::{AttentionType, UNetConfig};
pub use vae::VaeConfig;

use crate::weights::TensorMap;
use crate::{Error, Result};

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

/// How large a tensor is in its dimension `i`.
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
