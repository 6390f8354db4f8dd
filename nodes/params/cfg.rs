//! How classifier-free guidance acts.

use lsregen_diffusion::denoiser::guides;
use lsregen_diffusion::guidance::StepShare;
use lsregen_engine::NodeError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How classifier-free guidance acts in a sampling.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct CfgParams {
    /// How far the guided prediction is rescaled to the standard deviation of the conditional one (Lin et al., eq. 16;
    /// `guidance_rescale` in diffusers). About 0.7 for models with a zero terminal SNR, and against images that are too bright;
    /// 0 is off.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub cfg_rescale: f64,
    /// The steps with classifier-free guidance, as shares of all: `0.8` or `[0.1, 0.8]`. The others take half the time.
    /// Images vary more if the noisiest steps have no guidance. The second network call of a step (`heun`, `dpm_2` and others)
    /// counts by its own timestep. By default all; 0 is none, as `cfg: 1`.
    #[serde(default)]
    pub cfg_window: Option<StepShare>,
}

impl CfgParams {
    /// Reports parameters without effect under a guidance scale `cfg`, and a window without steps.
    pub(crate) fn errors(&self, cfg: f64) -> Vec<NodeError> {
        let mut errors = vec![];
        if !guides(cfg) {
            let unused = [("cfg_rescale", self.cfg_rescale != 0.0), ("cfg_window", self.cfg_window.is_some())];
            let unused = unused.into_iter().filter(|(_, given)| *given).map(|(param, _)| {
                NodeError::new(param, format!("`{param}` has no effect: with `cfg: {cfg}` there is no such guidance"))
                    .help("leave it out, or write a `cfg` above 1")
                    .as_warning("no-effect")
            });
            errors.extend(unused);
        }
        if let Some(StepShare::Between([from, to])) = self.cfg_window
            && to <= from
        {
            errors.push(
                NodeError::new("cfg_window", format!("the window [{from}, {to}] contains no step"))
                    .help("write [from, to] as shares of the steps, with from < to"),
            );
        }
        errors
    }
}

/// Warns of a `cfg` below 1, and of a negative prompt without classifier-free guidance.
pub(crate) fn cfg_warnings(cfg: f64, negative: Option<&'static str>) -> Vec<NodeError> {
    if guides(cfg) {
        return vec![];
    }
    let low = (cfg < 1.0).then(|| {
        NodeError::new("cfg", format!("`cfg` is {cfg}, which has the effect of 1: no classifier-free guidance"))
            .help("write 1, or more than 1 to follow the prompt closely")
    });
    let unused = negative.map(|name| {
        NodeError::new(name, format!("`{name}` has no effect while `cfg` is at most 1"))
            .help("raise `cfg`, or leave the negative prompt out")
    });
    low.into_iter().chain(unused).map(|warning| warning.as_warning("no-effect")).collect()
}
