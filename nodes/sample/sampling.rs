//! Sampling under guidance, as a node does it.

use std::sync::Arc;

use lsregen_diffusion::guidance::GuidanceSpec;
use lsregen_diffusion::pipeline::{self, SamplingSettings};
use lsregen_engine::Context;

use crate::host::bridge::{Cancellable, raise};
use crate::host::preview::on_step_with_previews;
use crate::values::{Guidance, Latent, Model, seeds};

/// Samples `count` latents under any number of guidances.
pub(crate) fn sample(
    model: &Model,
    settings: &SamplingSettings,
    count: usize,
    guidance: &[Arc<Guidance>],
    cx: &Context,
) -> anyhow::Result<Latent> {
    cx.cancel().check()?;
    let on_step = on_step_with_previews(cx, model, count);
    let z = pipeline::sample_batch(&model.0, settings, count, &specs(guidance, cx), &on_step);
    Ok(Latent { z: z.map_err(raise)?, family: Some(model.0.info.family), seeds: seeds(settings.seed, count) })
}

/// Returns the specs of guidances, each made to stop when the run is cancelled.
pub(crate) fn specs(guidance: &[Arc<Guidance>], cx: &Context) -> Vec<Arc<dyn GuidanceSpec>> {
    let spec = |g: &Arc<Guidance>| -> Arc<dyn GuidanceSpec> {
        Arc::new(Cancellable { spec: g.spec.clone(), cancel: cx.cancel().clone() })
    };
    guidance.iter().map(spec).collect()
}
