//! How a sampling changes its U-Net: FreeU and perturbed-attention guidance.

use lsregen_diffusion::models::ModelInfo;
use lsregen_diffusion::models::unet::FreeU;
use lsregen_diffusion::perturbed_attention::{LayerName, PerturbedAttention};
use lsregen_engine::{Links, NodeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a sampling changes its U-Net. What is not given is not serialised, so that it is no part of a memo key.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct UNetParams {
    /// FreeU (`enable_freeu` in diffusers): amplifies what the U-Net computes at its two lowest resolutions on the way up, and
    /// weakens the coarse part of the skip connections there. Takes no more time. By default off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = null))]
    pub freeu: Option<FreeUParams>,
    /// Perturbed-attention guidance (`pag_scale`, `pag_adaptive_scale` and `pag_applied_layers` in diffusers): away from a
    /// prediction without self-attention, with or without classifier-free guidance. Each step takes a third pass of the U-Net,
    /// or a second one if `cfg` is at most 1. By default off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = null))]
    pub pag: Option<PagParams>,
}

/// The factors of FreeU.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct FreeUParams {
    /// Factor of half of the channels in the first block on the way up. 1 changes nothing. Its authors use 1.5 for Stable
    /// Diffusion 1, 1.4 for 2, 1.3 for SDXL.
    #[schemars(range(max = 10.0), extend("exclusiveMinimum" = 0.0))]
    pub b1: f64,
    /// The same in the second block. Its authors use 1.6 for Stable Diffusion 1 and 2, 1.4 for SDXL.
    #[schemars(range(max = 10.0), extend("exclusiveMinimum" = 0.0))]
    pub b2: f64,
    /// Factor of the lowest frequencies of the skip connections of the first block. 1 changes nothing. Its authors use 0.9.
    #[schemars(range(max = 10.0), extend("exclusiveMinimum" = 0.0))]
    pub s1: f64,
    /// The same in the second block. Its authors use 0.2.
    #[schemars(range(max = 10.0), extend("exclusiveMinimum" = 0.0))]
    pub s2: f64,
}

/// Perturbed-attention guidance.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct PagParams {
    /// Scale of the guidance; 0 is off. diffusers uses 3.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub scale: f64,
    /// By how much the scale falls for each timestep below 1000, to 0 at the least: with the scale 3, 0.005 ends the guidance
    /// at the timestep 400.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub adaptive_scale: f64,
    /// The layers without self-attention: `mid`, `down`, `up`, or a part of them, such as `down_blocks.1` or
    /// `up_blocks.0.attentions.1` (also `up.block_0.attentions_1`).
    #[serde(default = "mid")]
    #[schemars(length(min = 1))]
    pub layers: Vec<String>,
}

fn mid() -> Vec<String> {
    vec!["mid".into()]
}

impl UNetParams {
    /// Reports parameters without effect, and names that no model has.
    pub(crate) fn errors(&self) -> Vec<NodeError> {
        let freeu = self.freeu.filter(|f| [f.b1, f.b2, f.s1, f.s2] == [1.0; 4]).map(|_| {
            NodeError::new("freeu", "`freeu` has no effect: all its factors are 1")
                .help("leave it out, or write the factors of the model's family, such as b1: 1.3, b2: 1.4, s1: 0.9, s2: 0.2")
                .as_warning("no-effect")
        });
        freeu.into_iter().chain(self.pag.iter().flat_map(PagParams::errors)).collect()
    }

    /// Reports layers that the model at the socket `model` does not have, and a scale that falls by timesteps that it does not
    /// have.
    pub(crate) fn link_errors(&self, links: &Links) -> Vec<NodeError> {
        let (Some(pag), Some(info)) = (&self.pag, links.declaration::<ModelInfo>("model")) else { return vec![] };
        let mut errors = pag.absent_layers(info);
        if pag.adaptive_scale > 0.0 && info.scheduler.parameterisation().sigma_data.is_some() {
            let message =
                "`pag.adaptive_scale` counts timesteps from 1000 down, but this model has noise levels instead";
            errors.push(NodeError::new("pag/adaptive_scale", message).help("leave it out"));
        }
        errors
    }

    /// Returns FreeU's factors for the library.
    pub(crate) fn freeu(&self) -> Option<FreeU> {
        self.freeu.map(|FreeUParams { b1, b2, s1, s2 }| FreeU { b1, b2, s1, s2 })
    }

    /// Returns the perturbed-attention guidance for the library, if its scale is above 0.
    ///
    /// # Errors
    /// If a name of layers is invalid.
    pub(crate) fn pag(&self) -> anyhow::Result<Option<PerturbedAttention>> {
        let Some(pag) = self.pag.as_ref().filter(|pag| pag.scale > 0.0) else { return Ok(None) };
        let layers = pag.layers.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        Ok(Some(PerturbedAttention { scale: pag.scale, adaptive_scale: pag.adaptive_scale, layers }))
    }
}

impl PagParams {
    fn errors(&self) -> Vec<NodeError> {
        let unused = if self.scale == 0.0 {
            Some((
                "pag/scale",
                "`pag` has no effect: its scale is 0".to_string(),
                "leave `pag` out, or write a scale near 3",
            ))
        } else if self.adaptive_scale >= self.scale {
            let message = format!("`pag` has no effect: its scale, {}, falls to 0 at the first timestep", self.scale);
            Some(("pag/adaptive_scale", message, "write a thousandth of the scale or a little more"))
        } else {
            None
        };
        let unused =
            unused.map(|(path, message, help)| NodeError::new(path, message).help(help).as_warning("no-effect"));
        let invalid = self.layers.iter().enumerate().filter_map(|(i, name)| {
            let error = name.parse::<LayerName>().err()?;
            let help =
                "write `mid`, `down` or `up`, or a part of them, such as `down_blocks.1` or `up_blocks.0.attentions.1`";
            Some(NodeError::new(format!("pag/layers/{i}"), error.to_string()).help(help))
        });
        unused.into_iter().chain(invalid).collect()
    }

    /// Reports names of layers that a model does not have.
    fn absent_layers(&self, info: &ModelInfo) -> Vec<NodeError> {
        let absent = |(i, name): (usize, &String)| {
            let is_absent = name.parse::<LayerName>().is_ok_and(|name| !name.is_in(&info.attention_layers));
            let path = format!("pag/layers/{i}");
            is_absent.then(|| {
                NodeError::new(path, format!("this model has no self-attention in `{name}`"))
                    .help(format!("choose among its layers in `layers`: {}", LayerName::list(&info.attention_layers)))
            })
        };
        self.layers.iter().enumerate().filter_map(absent).collect()
    }
}
