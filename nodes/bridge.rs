//! What the two crates say differently: progress, cancellation, errors.

use std::sync::atomic::{AtomicUsize, Ordering};

use lsregen_diffusion::Error;
use lsregen_diffusion::sampler::Step;
use lsregen_engine::{Cancelled, Context};

/// Steps of a sampling as steps of the node.
pub(crate) fn on_step(cx: &Context) -> impl Fn(Step) -> lsregen_diffusion::Result<()> + '_ {
    |step| cx.step(step.done, step.of).map_err(|Cancelled| Error::Cancelled)
}

/// Layers of a large picture's way through an autoencoder as steps of the node. Within a layer only cancellation counts.
pub(crate) fn on_layer(cx: &Context) -> impl Fn(usize, usize) -> lsregen_diffusion::Result<()> + '_ {
    let told = AtomicUsize::new(usize::MAX);
    move |done, of| {
        let is_told = told.swap(done, Ordering::Relaxed) == done;
        let step = if is_told { cx.cancel().check() } else { cx.step(done, of) };
        step.map_err(|Cancelled| Error::Cancelled)
    }
}

/// The same for a picture at the end of a node that has steps of its own.
pub(crate) fn unless_cancelled(cx: &Context) -> impl Fn(usize, usize) -> lsregen_diffusion::Result<()> + '_ {
    |_, _| cx.cancel().check().map_err(|Cancelled| Error::Cancelled)
}

/// The engine's error: a cancelled sampling is a cancelled node.
pub(crate) fn raise(error: Error) -> anyhow::Error {
    match error {
        Error::Cancelled => Cancelled.into(),
        other => other.into(),
    }
}
