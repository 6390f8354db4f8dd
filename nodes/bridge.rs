//! What the two crates say differently: progress, cancellation, errors.

use lsregen_diffusion::Error;
use lsregen_diffusion::sampler::Step;
use lsregen_engine::{Cancelled, Context};

/// Steps of a sampling as steps of the node.
pub(crate) fn on_step(cx: &Context) -> impl Fn(Step) -> lsregen_diffusion::Result<()> + '_ {
    |step| cx.step(step.done, step.of).map_err(|Cancelled| Error::Cancelled)
}

/// The engine's error: a cancelled sampling is a cancelled node.
pub(crate) fn raise(error: Error) -> anyhow::Error {
    match error {
        Error::Cancelled => Cancelled.into(),
        other => other.into(),
    }
}
