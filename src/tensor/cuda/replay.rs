//! CUDA graphs: a function of tensors is recorded once, and then replayed by one call of the driver.
//!
//! The first call computes as usual, so that kernels are loaded, algorithms are chosen and workspaces exist. The second
//! records. A recording has its own copies of the inputs and of the result, at addresses that stay; everything in between is
//! allocated and freed inside it. Nothing is recorded on systems where other threads cannot be made to [wait](super::alone).

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, sys};
use candle_core::{CudaDevice, Device, Result, Tensor};

use super::launch::{address, known, new_tensor};

/// A function's recording, for inputs of the same shapes and dtypes.
///
/// The function must depend on nothing but its inputs and tensors that live as long as this: the recording reads them at
/// their addresses.
#[derive(Default)]
pub struct Replay(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    New,
    /// Computed once.
    Warm,
    Recorded(Recording),
    /// It cannot be recorded.
    Refused,
}

struct Recording {
    graph: CudaGraph,
    inputs: Vec<Tensor>,
    result: Tensor,
}

// SAFETY: the driver's graph may change threads if one at a time uses it, which the mutex sees to.
unsafe impl Send for Recording {}

impl Replay {
    /// Computes `f(inputs)`, which autodiff must not track. All inputs are on one CUDA device.
    ///
    /// # Errors
    /// If `f` fails, or the driver does.
    pub fn run(&self, inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Tensor> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let direct = |inputs: &[&Tensor]| f(&inputs.iter().map(|t| (*t).clone()).collect::<Vec<_>>());
        if !inputs.iter().all(|t| known(t.dtype())) {
            return direct(inputs);
        }
        match &*state {
            State::Recorded(recording) if recording.fits(inputs) => return recording.replay(inputs),
            State::Warm => {}
            State::New => {
                *state = State::Warm;
                return direct(inputs);
            }
            State::Recorded(_) | State::Refused => return direct(inputs),
        }
        let y = direct(inputs)?;
        *state = match Recording::new(inputs, &y, &f) {
            Ok(recording) => State::Recorded(recording),
            Err(error) => {
                tracing::debug!(%error, "not recorded");
                State::Refused
            }
        };
        Ok(y)
    }
}

impl Recording {
    /// Records `f`, whose result is like `y`.
    ///
    /// # Errors
    /// If `f` fails, or does something that a recording cannot hold, such as a copy from the host.
    fn new(inputs: &[&Tensor], y: &Tensor, f: &impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Recording> {
        let device = y.device().as_cuda_device()?;
        let stream = device.cuda_stream();
        // The inputs and the result exist before the recording, so that they stay after it.
        let mut own = Vec::new();
        for input in inputs {
            own.push(input.force_contiguous()?);
        }
        let result = y.force_contiguous()?;
        let graph = super::lazy::alone(|| {
            // Other threads may use the driver for what is on no stream.
            stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
            // candle copies strides from memory that it frees at once, which the graph would read at each replay. While this
            // lives, it refuses such copies during a capture, and the recording fails.
            let _refusing = device.enable_cuda_graph_htod_cache();
            let recorded = f(&own).and_then(|y| copy(device, &y.contiguous()?, &result));
            // cudarc keeps the errors of what was freed during a recording that failed, and would return them from any later
            // call, the end of the recording included.
            let freed = stream.context().check_err();
            let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
            recorded?;
            freed?;
            Ok(graph?)
        })?;
        match graph {
            Some(graph) => Ok(Recording { graph, inputs: own, result }),
            None => candle_core::bail!("the driver made no graph"),
        }
    }

    fn fits(&self, inputs: &[&Tensor]) -> bool {
        let alike = |a: &Tensor, b: &Tensor| a.shape() == b.shape() && a.dtype() == b.dtype();
        self.inputs.len() == inputs.len() && self.inputs.iter().zip(inputs).all(|(a, b)| alike(a, b))
    }

    fn replay(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let Device::Cuda(device) = self.result.device() else { candle_core::bail!("a recording is on a CUDA device") };
        for (own, input) in self.inputs.iter().zip(inputs) {
            copy(device, &input.contiguous()?, own)?;
        }
        self.graph.launch()?;
        let from = address(&self.result)?;
        new_tensor(&self.result, self.result.shape(), self.result.dtype(), |device, to| {
            copy_bytes(device, from, to, bytes(&self.result))
        })
    }
}

fn bytes(t: &Tensor) -> usize {
    t.elem_count() * t.dtype().size_in_bytes()
}

/// Copies the numbers of one contiguous tensor to another.
fn copy(device: &CudaDevice, from: &Tensor, to: &Tensor) -> Result<()> {
    if from.shape() != to.shape() || from.dtype() != to.dtype() {
        candle_core::bail!("a recorded {:?} cannot take {:?}", to.shape(), from.shape());
    }
    copy_bytes(device, address(from)?, address(to)?, bytes(to))
}

fn copy_bytes(device: &CudaDevice, from: u64, to: u64, bytes: usize) -> Result<()> {
    use candle_core::cuda_backend::cudarc::driver::result::memcpy_dtod_async;
    // SAFETY: both addresses are those of tensors of so many bytes.
    unsafe { memcpy_dtod_async(to, from, bytes, device.cuda_stream().cu_stream()) }?;
    Ok(())
}
