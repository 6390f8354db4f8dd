//! Opens a CUDA device, and what its memory pool keeps.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::CudaContext;
use candle_core::cuda_backend::cudarc::driver::result::{self, DriverError, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::{self, CUmemPool_attribute};
use candle_core::{CudaDevice, Device};

/// Opens the device of this number with one stream, on which all threads compute.
///
/// Call [`devices`](super::devices) before.
///
/// # Errors
/// If the driver does not open the device.
pub fn open(number: usize) -> candle_core::Result<Device> {
    let device = Device::new_cuda_with_stream(number)?;
    let cuda = device.as_cuda_device()?;
    // cudarc would otherwise record and await events for each tensor, even within one stream: two thirds of all driver calls.
    //
    // SAFETY: all computation on this device's tensors is submitted to one stream, which executes it in the order of submission:
    // allocations and frees (both asynchronous, on the same stream), copies, kernels, and the calls of cuBLAS, cuRAND and
    // cuDNN, whose handles have this stream. The default stream gets no work, and candle refuses an operation on tensors of two
    // devices (`Device::same_device`), so that no tensor is used on a second stream. The order of submission is right with
    // several threads too: a thread gets a tensor of another through a lock or a channel, after that thread has submitted the
    // work that writes it; and its memory is freed when the last owner drops it, after each of them has submitted its work.
    // The only other stream is that of `upload`, which makes this one wait for its copies before it returns a tensor.
    unsafe { cuda.disable_event_tracking() };
    keep_freed_memory(cuda).w()?;
    Ok(device)
}

/// Lets the device's memory pool keep what is freed, for the next allocation. By default it returns everything to the driver at
/// each synchronisation, and the next step maps it anew.
fn keep_freed_memory(cuda: &CudaDevice) -> Result<(), DriverError> {
    let context = cuda.cuda_stream().context().clone();
    // Without a pool, cudarc allocates and frees synchronously.
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    // SAFETY: the pool of a device that exists; the attribute is a 64-bit number.
    unsafe {
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        mem_pool::set_attribute(default_pool(&context)?, attribute, (&raw mut threshold).cast())
    }
}

fn default_pool(context: &CudaContext) -> Result<sys::CUmemoryPool, DriverError> {
    // SAFETY: the device of a context that exists.
    unsafe { result::device::get_default_mem_pool(result::device::get(context.ordinal() as i32)?) }
}

/// Returns freed memory that the pool of a CUDA device keeps to the driver, for other programs and for the libraries, which do
/// not allocate from the pool. Does nothing for other devices, or where the driver cannot.
pub fn release_freed_memory(device: &Device) {
    let Ok(cuda) = device.as_cuda_device() else { return };
    let stream = cuda.cuda_stream();
    let context = stream.context();
    // Frees take effect when the stream reaches them.
    if context.has_async_alloc() && stream.synchronize().is_ok() {
        // SAFETY: the pool of a device that exists.
        let _ = default_pool(context).and_then(|pool| unsafe { mem_pool::trim_to(pool, 0) });
    }
}
