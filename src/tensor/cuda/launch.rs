//! Our own kernels: the tensors that they read and write, and their launch.
//!
//! Kernels get addresses, and lengths that this module and its users have checked. All computation of a device is on one
//! stream, in the order of the calls; memory that is freed here is freed on the stream too, after the kernels that use it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Result, Shape, Storage, Tensor};
use half::{bf16, f16};

use crate::checked_elements;

mod ptx {
    #![allow(missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Module {
    Attention,
    Elementwise,
    GroupNorm,
    LayerNorm,
}

impl Module {
    fn ptx(self) -> &'static str {
        match self {
            Module::Attention => ptx::ATTENTION,
            Module::Elementwise => ptx::ELEMENTWISE,
            Module::GroupNorm => ptx::GROUP_NORM,
            Module::LayerNorm => ptx::LAYER_NORM,
        }
    }
}

/// A parameter of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg {
    Address(u64),
    Int(i32),
    Long(i64),
    Float(f32),
}

/// The value of `key`, made if there is none yet.
pub(super) fn kept<K: Eq + Hash, V, E>(
    map: &mut HashMap<K, V>,
    key: K,
    make: impl FnOnce(&K) -> std::result::Result<V, E>,
) -> std::result::Result<&mut V, E> {
    match map.entry(key) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let value = make(entry.key())?;
            Ok(entry.insert(value))
        }
    }
}

/// The address of the first element of a tensor on a CUDA device. Valid as long as the tensor.
pub(super) fn address(t: &Tensor) -> Result<u64> {
    let (storage, layout) = t.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { candle_core::bail!("a CUDA kernel needs tensors on the device") };
    let stream = storage.device.cuda_stream();
    // The guard of `device_ptr` records events, which are off.
    let start = match &storage.slice {
        CudaStorageSlice::F32(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::F16(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::BF16(s) => s.device_ptr(&stream).0,
        _ => candle_core::bail!("a CUDA kernel needs f32, f16 or bf16, but got {:?}", t.dtype()),
    };
    Ok(start + (layout.start_offset() * t.dtype().size_in_bytes()) as u64)
}

/// Whether our kernels know the dtype.
pub(crate) fn known(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// A new contiguous tensor on the device of `like`, which `fill` writes, given the device and the tensor's address.
pub(super) fn new_tensor(
    like: &Tensor,
    shape: impl Into<Shape>,
    dtype: DType,
    fill: impl Fn(&CudaDevice, u64) -> Result<()>,
) -> Result<Tensor> {
    let y = unwritten(like, shape, dtype)?;
    fill(like.device().as_cuda_device()?, address(&y)?)?;
    Ok(y)
}

/// A new contiguous tensor on the device of `like`, for a caller that writes all of it before anything reads it, or drops it.
pub(super) fn unwritten(like: &Tensor, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
    let (device, shape) = (like.device().as_cuda_device()?, shape.into());
    let bytes = checked_elements(shape.dims())? * dtype.size_in_bytes();
    // SAFETY: the caller writes all of it before anything reads it.
    tensor(device, shape, dtype, || Ok(unsafe { device.alloc::<u8>(bytes)? }.leak()))
}

/// A contiguous tensor in the memory that `allocate` returns, which has room for it. The memory is freed on the device's stream.
pub(super) fn tensor(
    device: &CudaDevice,
    shape: Shape,
    dtype: DType,
    allocate: impl FnOnce() -> Result<u64>,
) -> Result<Tensor> {
    let (n, stream) = (checked_elements(shape.dims())?, device.cuda_stream());
    macro_rules! storage {
        ($t:ty) => {{
            // SAFETY: the memory has room for so many numbers, and belongs to nobody else.
            let slice = unsafe { stream.upgrade_device_ptr::<$t>(allocate()?, n) };
            CudaStorage::wrap_cuda_slice(slice, device.clone())
        }};
    }
    let storage = match dtype {
        DType::F32 => storage!(f32),
        DType::F16 => storage!(f16),
        DType::BF16 => storage!(bf16),
        other => candle_core::bail!("no CUDA kernel computes {other:?}"),
    };
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
}

/// The functions by their names, which the driver is asked for once.
static FUNCTIONS: Mutex<Option<HashMap<(DeviceId, String), Function>>> = Mutex::new(None);

type Function = candle_core::cuda_backend::cudarc::driver::CudaFunction;

fn function(device: &CudaDevice, module: Module, name: &str) -> Result<Function> {
    let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let functions = functions.get_or_insert_default();
    let function = kept(functions, (device.id(), name.to_string()), |_| {
        let function = device.get_or_load_custom_func(name, &format!("lsregen {module:?}"), module.ptx())?;
        Ok::<_, candle_core::Error>(function.into_cuda_function())
    })?;
    Ok(function.clone())
}

/// The blocks and threads of a launch, and the bytes of shared memory of a block.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub blocks: (usize, usize),
    pub threads: usize,
    pub shared: usize,
}

/// Launches the kernel `name` on the device's stream.
///
/// The caller answers for the addresses: each kernel states what it reads and writes.
pub(super) fn launch(device: &CudaDevice, module: Module, name: &str, size: Size, args: &[Arg]) -> Result<()> {
    let (x, y) = size.blocks;
    if x == 0 || y == 0 {
        return Ok(());
    }
    if x > i32::MAX as usize || y > 65535 || size.threads > 1024 || size.shared > 48 << 10 {
        candle_core::bail!(
            "CUDA kernel {name}: {x}×{y} blocks of {} threads with {} bytes are more than a GPU takes; use a smaller image or batch",
            size.threads,
            size.shared
        );
    }
    let (stream, function) = (device.cuda_stream(), function(device, module, name)?);
    let mut builder = stream.launch_builder(&function);
    for arg in args {
        match arg {
            Arg::Address(a) => builder.arg(a),
            Arg::Int(i) => builder.arg(i),
            Arg::Long(i) => builder.arg(i),
            Arg::Float(f) => builder.arg(f),
        };
    }
    let config = LaunchConfig {
        grid_dim: (x as u32, y as u32, 1),
        block_dim: (size.threads as u32, 1, 1),
        shared_mem_bytes: size.shared as u32,
    };
    // SAFETY: the arguments are those of the kernel, as its callers here give them.
    unsafe { builder.launch(config) }?;
    Ok(())
}

/// The name of a kernel for a dtype: the form with vectors of 16 bytes if `rows` of these lengths (in numbers) at these
/// addresses allow it. Returns how many numbers a vector has too.
pub(super) fn form(name: &str, dtype: DType, lengths: &[usize], addresses: &[u64]) -> (String, usize) {
    let vector = 16 / dtype.size_in_bytes();
    let wide = lengths.iter().all(|n| n % vector == 0) && addresses.iter().all(|a| a % 16 == 0);
    let dtype = dtype.as_str();
    if wide { (format!("{name}_{dtype}_wide"), vector) } else { (format!("{name}_{dtype}"), 1) }
}

/// `n` as a kernel's `int`.
pub(super) fn int(n: usize) -> Result<Arg> {
    match i32::try_from(n) {
        Ok(n) => Ok(Arg::Int(n)),
        Err(_) => candle_core::bail!("{n} numbers are more than a CUDA kernel counts; use a smaller image or batch"),
    }
}

/// Threads for `n` of them: a whole number of warps, at most `most`.
pub(super) fn threads(n: usize, most: usize) -> usize {
    n.div_ceil(32).saturating_mul(32).clamp(32, most)
}
