//! Tensors from files to a device, through pinned memory: a part of the file is read while the part before is copied.
//!
//! Pinned memory is what a GPU reads by itself. Copies from other memory go through a pinned buffer of the driver's, and the
//! call waits for them.
//!
//! The copies have a stream of their own, so that they do not wait for what the device still computes: the weights of the next
//! network arrive while the last one works. The stream that computes waits for them by an event.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaStream, DriverError, result, sys};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{DType, Device, Tensor};

use super::launch::{address, kept, tensor};
use crate::{Result, checked_elements};

/// Bytes of a part. There are two for each device.
const PART: usize = 16 << 20;

/// Pinned memory, and the end of the last copy from it.
struct Part {
    memory: *mut u8,
    copied: sys::CUevent,
}

/// How a device is written to: the stream of the copies, the event by which another stream waits for them, and the two parts,
/// with the number of the next.
struct Copies {
    stream: Arc<CudaStream>,
    done: sys::CUevent,
    parts: [Part; 2],
    next: usize,
}

// SAFETY: memory and events belong to the process, and the mutex gives them to one thread at a time.
unsafe impl Send for Copies {}

/// Kept until the program ends: CUDA's libraries may be gone before statics are dropped.
static COPIES: Mutex<Option<HashMap<DeviceId, Copies>>> = Mutex::new(None);

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
    if bytes == 0 {
        return Ok(Tensor::zeros(shape, dtype, device)?);
    }
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    let copies = kept(copies.get_or_insert_default(), cuda.id(), |_| Copies::new(cuda)).w()?;
    let tensor = tensor(cuda, shape.into(), dtype, || copies.allocate(&cuda.cuda_stream(), bytes).w())?;
    let to = address(&tensor)?;
    // Dropped before the tensor, after an error or a panic of `read` too.
    let copies = Ordered { copies, device: cuda };
    for start in (0..bytes).step_by(PART) {
        let length = PART.min(bytes - start);
        read(start, copies.copies.wait(length).w()?)?;
        copies.copies.copy(to + start as u64, length).w()?;
    }
    drop(copies);
    Ok(tensor)
}

/// Orders the copies before what the device computes from then on, the free of the tensor included.
struct Ordered<'a> {
    copies: &'a mut Copies,
    device: &'a CudaDevice,
}

impl Drop for Ordered<'_> {
    fn drop(&mut self) {
        if self.copies.finish(self.device).is_err() {
            // The driver does not say why again; what comes next on this device reports it.
            let _ = self.copies.stream.synchronize();
        }
    }
}

impl Copies {
    fn new(device: &CudaDevice) -> std::result::Result<Copies, DriverError> {
        // Makes the device's context that of this thread.
        let stream = device.cuda_stream().context().new_stream()?;
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let (done, copied) = (event()?, [event()?, event()?]);
        // SAFETY: nobody else has the memory. `wait` gives it out as numbers, which must have been written.
        let memory = unsafe {
            let memory: *mut u8 = result::malloc_host(2 * PART, 0)?.cast();
            memory.write_bytes(0, 2 * PART);
            memory
        };
        // SAFETY: the second half of the memory.
        let second = unsafe { memory.add(PART) };
        let parts = [Part { memory, copied: copied[0] }, Part { memory: second, copied: copied[1] }];
        Ok(Copies { stream, done, parts, next: 0 })
    }

    /// Allocates on the stream of the copies, so that they need not wait for what is computed.
    fn allocate(&self, compute: &CudaStream, bytes: usize) -> std::result::Result<u64, DriverError> {
        let context = self.stream.context();
        context.bind_to_thread()?;
        // SAFETY: the stream exists.
        let allocate = || unsafe {
            match context.has_async_alloc() {
                true => result::malloc_async(self.stream.cu_stream(), bytes),
                false => result::malloc_sync(bytes),
            }
        };
        match allocate() {
            // CUDA has then made this stream wait for frees of the other where that helps. What else was freed is in use until
            // the device has computed what it was given.
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                compute.synchronize()?;
                allocate()
            }
            other => other,
        }
    }

    /// Lets the stream that computes wait for all copies.
    fn finish(&self, device: &CudaDevice) -> std::result::Result<(), DriverError> {
        // SAFETY: the event and both streams exist.
        unsafe {
            result::event::record(self.done, self.stream.cu_stream())?;
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            result::stream::wait_event(device.cuda_stream().cu_stream(), self.done, flags)
        }
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
    fn copy(&mut self, to: u64, length: usize) -> std::result::Result<(), DriverError> {
        let (part, stream) = (&self.parts[self.next], self.stream.cu_stream());
        // SAFETY: the memory stays as it is until `wait` sees that the copy is done, and the tensor has room at the address.
        unsafe {
            let memory: &[u8] = std::slice::from_raw_parts(part.memory, length);
            result::memcpy_htod_async(to, memory, stream)?;
            result::event::record(part.copied, stream)?;
        }
        self.next = 1 - self.next;
        Ok(())
    }
}
