//! The `config.json` of each network, with diffusers' and transformers' defaults. A value that is not supported is an
//! error.

mod clip;
mod unet;
mod vae;

pub(crate) use clip::ClipLayerConfig;
pub use clip::{ClipActivation, ClipConfig, ClipTextConfig, ClipVisionConfig};
pub use unet::{AttentionType, UNetConfig};
pub use vae::VaeConfig;

use crate::weights::TensorMap;
use crate::{Error, Result};

/// Checks keys of which only one value is supported, or absence: any other value would change the network.
fn refuse_others(
    rest: &serde_json::Map<String, serde_json::Value>,
    file: &str,
    supported: &[(&str, serde_json::Value)],
) -> Result<()> {
    use serde_json::Value;
    for (key, value) in supported {
        match rest.get(*key) {
            None | Some(Value::Null) => {}
            Some(v) if v == value || v.as_f64().is_some_and(|v| Some(v) == value.as_f64()) => {}
            Some(v) => {
                return Err(Error::Config(format!("{file}: `{key}` is {v}, but only {value} is supported")));
            }
        }
    }
    Ok(())
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
