//! Tensors from files to a device, through pinned memory: a part of the file is read while the part before is copied.
//!
//! Pinned memory is what a GPU reads by itself. Copies from other memory go through a pinned buffer of the driver's, and the
//! call waits for them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{DriverError, result, sys};
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Device, Tensor};

use super::launch::{address, kept, known};
use crate::{Error, Result, checked_elements};

/// Bytes of a part. There are two for each device.
const PART: usize = 16 << 20;

/// Pinned memory, and the end of the last copy from it.
struct Part {
    memory: *mut u8,
    copied: sys::CUevent,
}

/// The two parts of a device, and which comes next.
struct Parts {
    parts: [Part; 2],
    next: usize,
}

// SAFETY: memory and events belong to the process, and the mutex gives them to one thread at a time.
unsafe impl Send for Parts {}

/// To the end of the program: CUDA's libraries may be gone before statics are dropped.
static PARTS: Mutex<Option<HashMap<DeviceId, Parts>>> = Mutex::new(None);

/// Makes a tensor of `dtype` (f32, f16 or bf16) whose little-endian numbers `read` writes: it gets the offset of a part in
/// bytes, and the part.
///
/// # Errors
/// If `read` fails, or there is no memory on the device.
pub fn upload(
    device: &Device,
    dtype: DType,
    shape: &[usize],
    mut read: impl FnMut(usize, &mut [u8]) -> Result<()>,
) -> Result<Tensor> {
    let cuda = device.as_cuda_device()?;
    let bytes = checked_elements(shape)? * dtype.size_in_bytes();
    if !known(dtype) {
        return Err(Error::input(format!("no tensor in {dtype:?} is made on a CUDA device")));
    }
    // SAFETY: every byte is copied below, or the tensor is dropped.
    let tensor = unsafe { Tensor::empty(shape, dtype, device)? };
    if bytes == 0 {
        return Ok(tensor);
    }
    let to = address(&tensor)?;
    let mut parts = PARTS.lock().unwrap_or_else(PoisonError::into_inner);
    let parts =
        kept(parts.get_or_insert_default(), cuda.id(), |_| Parts::new(cuda)).map_err(candle_core::Error::wrap)?;
    for start in (0..bytes).step_by(PART) {
        let length = PART.min(bytes - start);
        let memory = parts.wait(length).map_err(candle_core::Error::wrap)?;
        read(start, memory)?;
        parts.copy(cuda, to + start as u64, length).map_err(candle_core::Error::wrap)?;
    }
    Ok(tensor)
}

impl Parts {
    fn new(device: &CudaDevice) -> std::result::Result<Parts, DriverError> {
        device.cuda_stream().context().bind_to_thread()?;
        let part = || {
            // SAFETY: `wait` gives it out to be written before it is copied.
            let memory = unsafe { result::malloc_host(PART, 0)? };
            Ok(Part {
                memory: memory.cast(),
                copied: result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?,
            })
        };
        Ok(Parts { parts: [part()?, part()?], next: 0 })
    }

    /// The memory of the next part, after the last copy from it.
    fn wait(&mut self, length: usize) -> std::result::Result<&mut [u8], DriverError> {
        let part = &self.parts[self.next];
        // SAFETY: the event exists; before its first record the call returns at once. The memory has `PART` bytes, which
        // nobody else uses while the mutex is held.
        unsafe {
            result::event::synchronize(part.copied)?;
            Ok(std::slice::from_raw_parts_mut(part.memory, length))
        }
    }

    /// Copies the next part to an address on the device.
    fn copy(&mut self, device: &CudaDevice, to: u64, length: usize) -> std::result::Result<(), DriverError> {
        let (part, stream) = (&self.parts[self.next], device.cuda_stream());
        // SAFETY: the memory stays as it is until `wait` sees that the copy is done, and the tensor has room at the address.
        unsafe {
            let memory: &[u8] = std::slice::from_raw_parts(part.memory, length);
            result::memcpy_htod_async(to, memory, stream.cu_stream())?;
            result::event::record(part.copied, stream.cu_stream())?;
        }
        self.next = 1 - self.next;
        Ok(())
    }
}
