//! Convolutions by cuDNN with channels last, and their VJPs. Descriptors and algorithms are kept for each shape, and what cuDNN
//! refuses too.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cudnn::{CudnnError, result as dnn, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Result, Tensor};

use super::channels_last::{channels_second, pixels_first};
use super::descriptor::Descriptor;
use super::launch::{address, kept, unwritten};

/// A convolution's geometry. Weights are (O, C, k, k) with channels last: (O, k, k, C) in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Rows or columns between two windows.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
}

/// Cross-correlation, plus `bias` (O), plus `add` (B, O, H', W'). `None` if this cuDNN has no kernel for it.
///
/// # Errors
/// If shapes or dtypes do not match, or cuDNN fails.
pub fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    add: Option<&Tensor>,
    geometry: Geometry,
) -> Result<Option<Tensor>> {
    let ((b, c, h, w), (o, from, k, _)) = (x.dims4()?, weight.dims4()?);
    let Geometry { stride, padding } = geometry;
    if c != from || h + 2 * padding < k || w + 2 * padding < k {
        candle_core::bail!("convolution: {:?} does not fit weights {:?}", x.shape(), weight.shape());
    }
    let size = |n: usize| (n + 2 * padding - k) / stride + 1;
    let result = (b, size(h), size(w), o);
    if bias.is_some_and(|b| b.dims() != [o]) || add.is_some_and(|a| a.dims() != [b, o, result.1, result.2]) {
        candle_core::bail!("convolution: cannot add to {result:?}");
    }
    let shapes = Shapes { x: (b, h, w, c), y: result, k, geometry };
    let (x, weight) = (pixels_first(x)?, pixels_first(weight)?);
    let (bias, add) = (bias.map(Tensor::contiguous).transpose()?, add.map(pixels_first).transpose()?);
    let [at_x, at_weight] = [address(&x)?, address(&weight)?];
    let (at_bias, at_add) = (bias.as_ref().map(address).transpose()?, add.as_ref().map(address).transpose()?);
    let kind = if at_bias.is_some() || at_add.is_some() { Kind::Fused } else { Kind::Forward };
    // The convolution writes all of it.
    let y = unwritten(&x, result, x.dtype())?;
    let at_y = address(&y)?;
    let (bias, add) = (at_bias.unwrap_or(0), at_add.unwrap_or(at_y));
    let addresses = Addresses { x: at_x, weight: at_weight, y: at_y, bias, add, sum: at_add.is_some() };
    let ran = run(x.device().as_cuda_device()?, (kind, x.dtype(), shapes), &addresses)?;
    ran.then(|| channels_second(&y)).transpose()
}

/// The VJP with respect to an input of (height, width). `None` if this cuDNN has no kernel for it.
///
/// # Errors
/// If shapes or dtypes do not match, or cuDNN fails.
pub fn input_vjp(dy: &Tensor, weight: &Tensor, (h, w): (usize, usize), geometry: Geometry) -> Result<Option<Tensor>> {
    let ((b, channels, oh, ow), (o, c, k, _)) = (dy.dims4()?, weight.dims4()?);
    let size = |n: usize| (n + 2 * geometry.padding).checked_sub(k).map(|n| n / geometry.stride + 1);
    if channels != o || size(h) != Some(oh) || size(w) != Some(ow) {
        candle_core::bail!("convolution: a gradient {:?} does not fit weights {:?}", dy.shape(), weight.shape());
    }
    let shapes = Shapes { x: (b, h, w, c), y: (b, oh, ow, o), k, geometry };
    let (dy, weight) = (pixels_first(dy)?, pixels_first(weight)?);
    let [at_dy, at_weight] = [address(&dy)?, address(&weight)?];
    // The convolution writes all of it.
    let dx = unwritten(&dy, (b, h, w, c), dy.dtype())?;
    let addresses = Addresses { x: address(&dx)?, weight: at_weight, y: at_dy, bias: 0, add: 0, sum: false };
    let ran = run(dy.device().as_cuda_device()?, (Kind::Backward, dy.dtype(), shapes), &addresses)?;
    ran.then(|| channels_second(&dx)).transpose()
}

/// (B, H, W, C)
type Dims = (usize, usize, usize, usize);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Shapes {
    x: Dims,
    y: Dims,
    k: usize,
    geometry: Geometry,
}

/// cuDNN's functions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Forward,
    /// With bias and sum.
    Fused,
    Backward,
}

struct Addresses {
    x: u64,
    weight: u64,
    y: u64,
    bias: u64,
    add: u64,
    sum: bool,
}

type Key = (Kind, DType, Shapes);

/// cuDNN on one device.
struct Handle {
    handle: sys::cudnnHandle_t,
    /// Workspaces, each larger than the one before. The last one is used; the others stay, because recordings
    /// ([`super::replay`]) write them at their addresses.
    workspaces: Vec<CudaSlice<u8>>,
    /// `None` for what cuDNN refuses.
    plans: HashMap<Key, Option<Plan>>,
    /// Zeros in place of a bias that is absent, each more than before, kept for the same reason.
    zeros: Vec<CudaSlice<u8>>,
}

// SAFETY: cuDNN's handle may change threads if one at a time uses it, which the mutex sees to.
unsafe impl Send for Handle {}

struct Plan {
    descriptors: Descriptors,
    algorithm: Algorithm,
    workspace: usize,
}

type Asked<T> = std::result::Result<T, CudnnError>;

struct Descriptors {
    x: Descriptor<sys::cudnnTensorDescriptor_t, CudnnError>,
    y: Descriptor<sys::cudnnTensorDescriptor_t, CudnnError>,
    bias: Descriptor<sys::cudnnTensorDescriptor_t, CudnnError>,
    weight: Descriptor<sys::cudnnFilterDescriptor_t, CudnnError>,
    convolution: Descriptor<sys::cudnnConvolutionDescriptor_t, CudnnError>,
    identity: Descriptor<sys::cudnnActivationDescriptor_t, CudnnError>,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Backward(sys::cudnnConvolutionBwdDataAlgo_t),
}

/// One handle for each device, to the end of the program: CUDA's libraries may be gone before statics are dropped.
static HANDLES: Mutex<Option<HashMap<DeviceId, Handle>>> = Mutex::new(None);

/// Runs the plan of `key` on these addresses. Returns whether cuDNN has one.
fn run(device: &CudaDevice, key: Key, at: &Addresses) -> Result<bool> {
    let stream = device.cuda_stream();
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    let handle = kept(handles.get_or_insert_default(), device.id(), |_| {
        let handle = dnn::create_handle()?;
        // SAFETY: the handle and the stream exist.
        unsafe { dnn::set_stream(handle, stream.cu_stream().cast())? };
        Ok::<_, CudnnError>(Handle { handle, workspaces: vec![], plans: HashMap::new(), zeros: vec![] })
    })?;
    let needs_zeros = key.0 == Kind::Fused && at.bias == 0;
    let bias = if needs_zeros { handle.zeros(device, key.1, key.2.y.3)? } else { at.bias };
    let kept_plan = kept(&mut handle.plans, key, |key| supported(Plan::new(handle.handle, key)))?;
    let Some(plan) = &*kept_plan else { return Ok(false) };
    if plan.workspace > handle.workspaces.last().map_or(0, |w| w.len()) {
        // SAFETY: cuDNN writes the workspace before it reads it.
        handle.workspaces.push(unsafe { device.alloc::<u8>(plan.workspace)? });
    }
    let workspace = handle.workspaces.last().map_or(0, |w| w.device_ptr(&stream).0);
    let ran = supported(plan.run(handle.handle, at, bias, workspace))?.is_some();
    if !ran {
        *kept_plan = None;
    }
    Ok(ran)
}

/// `None` if cuDNN does not support what was asked of it.
fn supported<T>(answer: Asked<T>) -> Asked<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        // CUDNN_STATUS_NOT_SUPPORTED and its reasons are 3000 to 3999.
        Err(CudnnError(status)) if status as u32 / 1000 == 3 => Ok(None),
        Err(error) => Err(error),
    }
}

impl Handle {
    /// The address of so many zeros of a dtype, all of whose bits are 0.
    fn zeros(&mut self, device: &CudaDevice, dtype: DType, n: usize) -> Result<u64> {
        let needed = n * dtype.size_in_bytes();
        if needed > self.zeros.last().map_or(0, |zeros| zeros.len()) {
            self.zeros.push(device.alloc_zeros::<u8>(needed)?);
        }
        Ok(self.zeros.last().map_or(0, |zeros| zeros.device_ptr(&device.cuda_stream()).0))
    }
}

/// cudarc has no function for it.
unsafe fn destroy_activation(descriptor: sys::cudnnActivationDescriptor_t) -> Asked<()> {
    // SAFETY: guaranteed by the caller.
    unsafe { sys::cudnnDestroyActivationDescriptor(descriptor) }.result()
}

impl Descriptors {
    fn new(dtype: DType, s: &Shapes) -> Asked<Self> {
        let dtype = match dtype {
            DType::F16 => sys::cudnnDataType_t::CUDNN_DATA_HALF,
            DType::BF16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            _ => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        };
        let last = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let tensor = |(b, h, w, c): Dims| {
            let descriptor = Descriptor::new(dnn::create_tensor_descriptor(), dnn::destroy_tensor_descriptor)?;
            // SAFETY: the descriptor exists.
            unsafe { dnn::set_tensor4d_descriptor(descriptor.raw(), last, dtype, [b, c, h, w].map(|n| n as i32))? };
            Ok::<_, CudnnError>(descriptor)
        };
        let (x, y, bias) = (tensor(s.x)?, tensor(s.y)?, tensor((1, 1, 1, s.y.3))?);
        let weight = Descriptor::new(dnn::create_filter_descriptor(), dnn::destroy_filter_descriptor)?;
        let convolution = Descriptor::new(dnn::create_convolution_descriptor(), dnn::destroy_convolution_descriptor)?;
        let identity = Descriptor::new(dnn::create_activation_descriptor(), destroy_activation)?;
        let Geometry { stride, padding } = s.geometry;
        let both = |n: usize| [n as i32; 2];
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        // Sums are in f32, whatever the dtype of the numbers.
        let compute = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let ([ph, pw], [sh, sw]) = (both(padding), both(stride));
        let math = match dtype {
            sys::cudnnDataType_t::CUDNN_DATA_FLOAT => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            _ => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        let none = sys::cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY;
        let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
        // SAFETY: the descriptors exist.
        unsafe {
            dnn::set_filter4d_descriptor(weight.raw(), dtype, last, [s.y.3, s.x.3, s.k, s.k].map(|n| n as i32))?;
            dnn::set_convolution2d_descriptor(convolution.raw(), ph, pw, sh, sw, 1, 1, mode, compute)?;
            dnn::set_convolution_math_type(convolution.raw(), math)?;
            dnn::set_activation_descriptor(identity.raw(), none, nan, 0.0)?;
        }
        Ok(Self { x, y, bias, weight, convolution, identity })
    }

    /// The algorithm, and the bytes of its workspace.
    fn algorithm(&self, handle: sys::cudnnHandle_t, kind: Kind) -> Asked<(Algorithm, usize)> {
        let (x, y, w, convolution) = (self.x.raw(), self.y.raw(), self.weight.raw(), self.convolution.raw());
        // SAFETY: handle and descriptors exist, and `fastest` has room for one answer.
        unsafe {
            if kind == Kind::Backward {
                let found = fastest(|count, found| {
                    dnn::get_convolution_backward_data_algorithm(handle, w, y, convolution, x, 1, count, found)
                })?;
                let algorithm = found.algo;
                let bytes = dnn::get_convolution_backward_data_workspace_size(handle, w, y, convolution, x, algorithm)?;
                return Ok((Algorithm::Backward(algorithm), bytes));
            }
            let algorithm = match kind {
                // The only algorithm with the identity as its activation (cuDNN's documentation of the function).
                Kind::Fused => sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                _ => {
                    let found = fastest(|count, found| {
                        dnn::get_convolution_forward_algorithm(handle, x, w, convolution, y, 1, count, found)
                    })?;
                    found.algo
                }
            };
            let bytes = dnn::get_convolution_forward_workspace_size(handle, x, w, convolution, y, algorithm)?;
            Ok((Algorithm::Forward(algorithm), bytes))
        }
    }
}

impl Plan {
    fn new(handle: sys::cudnnHandle_t, (kind, dtype, shapes): &Key) -> Asked<Plan> {
        let descriptors = Descriptors::new(*dtype, shapes)?;
        let (algorithm, workspace) = descriptors.algorithm(handle, *kind)?;
        Ok(Plan { descriptors, algorithm, workspace })
    }

    fn run(&self, handle: sys::cudnnHandle_t, at: &Addresses, bias: u64, workspace: u64) -> Asked<()> {
        let of = &self.descriptors;
        let (one, zero) = (1f32, 0f32);
        let (one, zero): (*const f32, *const f32) = (&raw const one, &raw const zero);
        let workspace = (workspace as *mut _, self.workspace);
        // SAFETY: the descriptors are those of the tensors at these addresses, which the callers have checked.
        unsafe {
            match self.algorithm {
                Algorithm::Backward(algorithm) => dnn::convolution_backward_data(
                    handle,
                    one.cast(),
                    of.weight.raw(),
                    at.weight as *const _,
                    of.y.raw(),
                    at.y as *const _,
                    of.convolution.raw(),
                    algorithm,
                    workspace.0,
                    workspace.1,
                    zero.cast(),
                    of.x.raw(),
                    at.x as *mut _,
                ),
                Algorithm::Forward(algorithm) if bias == 0 => dnn::convolution_forward(
                    handle,
                    one.cast(),
                    of.x.raw(),
                    at.x as *const _,
                    of.weight.raw(),
                    at.weight as *const _,
                    of.convolution.raw(),
                    algorithm,
                    workspace.0,
                    workspace.1,
                    zero.cast(),
                    of.y.raw(),
                    at.y as *mut _,
                ),
                Algorithm::Forward(algorithm) => dnn::convolution_bias_activation_forward(
                    handle,
                    one.cast(),
                    of.x.raw(),
                    at.x as *const _,
                    of.weight.raw(),
                    at.weight as *const _,
                    of.convolution.raw(),
                    algorithm,
                    workspace.0,
                    workspace.1,
                    if at.sum { one } else { zero }.cast(),
                    of.y.raw(),
                    at.add as *const _,
                    of.bias.raw(),
                    bias as *const _,
                    of.identity.raw(),
                    of.y.raw(),
                    at.y as *mut _,
                ),
            }
        }
    }
}

/// What cuDNN's own judgement, which `ask` calls for one answer, finds fastest.
fn fastest<P>(ask: impl FnOnce(&mut i32, *mut P) -> Asked<()>) -> Asked<P> {
    let (mut count, mut found) = (0, std::mem::MaybeUninit::uninit());
    ask(&mut count, found.as_mut_ptr())?;
    if count == 0 {
        return Err(CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED));
    }
    // SAFETY: cuDNN has written one answer.
    Ok(unsafe { found.assume_init() })
}
