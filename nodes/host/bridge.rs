//! Translates between the library and the engine: progress, cancellation, errors.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsregen_diffusion::guidance::{BoundGuidance, Extractor, GuidanceSpec, SamplingRun, StepContext};
use lsregen_diffusion::sampler::Step;
use lsregen_engine::{Cancel, Cancelled, Context};
use lsregen_tensor::Error;
use lsregen_tensor::candle_core::Tensor;

use super::device;

/// Reports the steps of a sampling as steps of the node.
pub(crate) fn on_step(cx: &Context) -> impl Fn(Step) -> lsregen_tensor::Result<()> + '_ {
    |step| cx.step(step.done, step.of).map_err(|Cancelled| Error::Cancelled)
}

/// Reports a step of the image with this number, from 0, of a batch of `count`.
pub(crate) fn on_image_step(
    cx: &Context,
    (image, count): (usize, usize),
    done: usize,
    of: usize,
) -> lsregen_tensor::Result<()> {
    let part = (count > 1).then_some((image + 1, count));
    cx.step_of_part(part, image * of + done, count * of).map_err(|Cancelled| Error::Cancelled)
}

/// Reports the layers of an autoencoder as steps of the node, for each of `count` images. Within a layer it only checks for
/// cancellation.
pub(crate) fn on_layer(
    cx: &Context,
    count: usize,
) -> impl Fn(usize, usize, usize) -> lsregen_tensor::Result<()> + Sync + '_ {
    let reported = AtomicUsize::new(usize::MAX);
    move |image, done, of| match reported.swap(image * of + done, Ordering::Relaxed) == image * of + done {
        true => cx.cancel().check().map_err(|Cancelled| Error::Cancelled),
        false => on_image_step(cx, (image, count), done, of),
    }
}

/// Checks for cancellation while an image is decoded at the end of a node that reports other steps.
pub(crate) fn unless_cancelled(cx: &Context) -> impl Fn(usize, usize, usize) -> lsregen_tensor::Result<()> + Sync + '_ {
    |_, _, _| cx.cancel().check().map_err(|Cancelled| Error::Cancelled)
}

/// A guidance spec whose guidances stop when the run is cancelled, also within a step: one step may have many updates
/// through a network.
pub(crate) struct Cancellable {
    pub spec: Arc<dyn GuidanceSpec>,
    pub cancel: Cancel,
}

impl fmt::Debug for Cancellable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

impl GuidanceSpec for Cancellable {
    fn bind(&self, run: &SamplingRun) -> lsregen_tensor::Result<Vec<BoundGuidance>> {
        let guidance = self.spec.bind(run)?.into_iter();
        let watched = guidance.map(|guidance| {
            let extractor = Arc::new(Watched { extractor: guidance.extractor.clone(), cancel: self.cancel.clone() });
            BoundGuidance { extractor, ..guidance }
        });
        Ok(watched.collect())
    }

    fn bytes(&self) -> usize {
        self.spec.bytes()
    }
}

struct Watched {
    extractor: Arc<dyn Extractor>,
    cancel: Cancel,
}

impl Extractor for Watched {
    fn name(&self) -> &str {
        self.extractor.name()
    }

    fn feat(&self, x: &Tensor, at: &StepContext) -> lsregen_tensor::Result<Tensor> {
        self.cancel.check().map_err(|Cancelled| Error::Cancelled)?;
        self.extractor.feat(x, at)
    }

    fn target(&self, at: &StepContext) -> lsregen_tensor::Result<Tensor> {
        self.extractor.target(at)
    }

    fn is_identity(&self) -> bool {
        self.extractor.is_identity()
    }
}

/// Converts a library error to an error for the engine. A cancelled sampling is a cancelled node, and CUDA's errors
/// come with advice. CUDA reports the failure of a kernel with a later call, so that the node may be one after it.
pub(crate) fn raise(error: Error) -> anyhow::Error {
    match error {
        Error::Cancelled => Cancelled.into(),
        Error::Tensor(_) => {
            tracing::debug!(?error, "a tensor operation failed");
            let text = error.to_string();
            if out_of_memory(&text) {
                return anyhow::anyhow!(no_memory(device::memory_after_failure()));
            }
            match device::advice(&text) {
                Some(advice) => anyhow::anyhow!("{text}; {advice}"),
                None => error.into(),
            }
        }
        other => other.into(),
    }
}

/// Whether an error of CUDA or one of its libraries means that the device's memory is full.
fn out_of_memory(error: &str) -> bool {
    ["CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation", "STATUS_ALLOC_FAILED"].iter().any(|e| error.contains(e))
}

/// Returns the error of a full device. `memory` is the free and the total memory in bytes, after the failed allocation.
fn no_memory(memory: Option<(usize, usize)>) -> String {
    let size = |n: usize| match n >> 30 {
        0 => format!("{} MiB", n >> 20),
        _ => format!("{:.1} GiB", n as f64 / (1u64 << 30) as f64),
    };
    let room = match memory {
        Some((free, all)) => {
            let (free, all) = (size(free), size(all));
            format!("; {free} of its {all} are free, which is too little, or in pieces")
        }
        None => String::new(),
    };
    format!(
        "the GPU's memory is full{room}. Reduce the need with `--dtype bf16`, `--offload` (unused networks leave the GPU), \
         `--gradient-memory 0` (for guidance through a network), a smaller image, or `cfg: 1` (half the batch); `nvidia-smi` \
         shows which other programs use memory"
    )
}

#[cfg(test)]
mod tests {
    use lsregen_tensor::candle_core;

    use super::*;

    fn raised(text: &str) -> String {
        raise(Error::Tensor(candle_core::Error::Cuda(text.into()))).to_string()
    }

    #[test]
    fn a_full_device_error_lists_ways_to_use_less_memory() {
        for text in [
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "CublasError(CUBLAS_STATUS_ALLOC_FAILED)",
            "CudnnError(CUDNN_STATUS_ALLOC_FAILED)",
        ] {
            let message = raised(text);
            for word in ["memory is full", "--dtype bf16", "--offload", "smaller image", "cfg: 1"] {
                assert!(message.contains(word), "{word}: {message}");
            }
        }
        let message = no_memory(Some((3 << 29, 80 << 30)));
        assert!(message.contains("1.5 GiB of its 80.0 GiB are free"), "{message}");
        let message = no_memory(Some((5 << 20, 1 << 26)));
        assert!(message.contains("5 MiB of its 64 MiB are free"), "{message}");
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        let message = raised("DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"…\")");
        assert!(message.contains("UNSUPPORTED_PTX_VERSION") && message.contains("update the driver"), "{message}");
        let message = raised("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"…\")");
        assert!(message.contains("ILLEGAL_ADDRESS") && !message.contains("memory is full"), "{message}");
        assert!(message.contains("run the command again"), "{message}");
        assert!(raise(Error::Cancelled).is::<Cancelled>());
    }
}
