//! Linear maps by cuBLASLt, with the bias and the sum in the product's epilogue.
//!
//! cuBLASLt's matrices are column-major, so what lies row by row is its transpose: the product that it computes is
//! yᵀ (out, tokens) = W xᵀ. Descriptions of products and their algorithms are kept: choosing one takes longer than many of
//! the products.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublaslt::{result as lt, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Result, Tensor};

use super::descriptor::Descriptor;
use super::launch::{address, kept, new_tensor};

/// Bytes of the workspace: what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// A linear map of rows. `weight` is (out, in), or (in, out) if `transposed`. `x` is (tokens, in), `bias` (out), `add`
/// (tokens, out): all of one dtype.
pub struct Linear<'a> {
    /// The weights.
    pub weight: &'a Tensor,
    /// Whether the weights are (in, out).
    pub transposed: bool,
    /// Added to every row.
    pub bias: Option<&'a Tensor>,
}

impl Linear<'_> {
    /// `x Wᵀ + bias + add` (tokens, out).
    ///
    /// # Errors
    /// If shapes or dtypes do not match, or cuBLASLt fails.
    pub fn forward(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Tensor> {
        let (tokens, from) = x.dims2()?;
        let (rows, columns) = self.weight.dims2()?;
        let (to, width) = if self.transposed { (columns, rows) } else { (rows, columns) };
        let others = [Some(self.weight), self.bias, add].into_iter().flatten();
        if width != from
            || self.bias.is_some_and(|b| b.dims() != [to])
            || add.is_some_and(|a| a.dims() != [tokens, to])
            || others.into_iter().any(|t| t.dtype() != x.dtype())
        {
            candle_core::bail!("linear: {:?} does not fit weights {:?}", x.shape(), self.weight.shape());
        }
        let (x, weight) = (x.contiguous()?, self.weight.contiguous()?);
        let (bias, add) = (self.bias.map(Tensor::contiguous).transpose()?, add.map(Tensor::contiguous).transpose()?);
        if tokens == 0 || from == 0 || to == 0 {
            candle_core::bail!("linear: {:?} is empty", x.shape());
        }
        let (at_x, at_weight) = (address(&x)?, address(&weight)?);
        let (at_bias, at_add) = (bias.as_ref().map(address).transpose()?, add.as_ref().map(address).transpose()?);
        new_tensor(&x, (tokens, to), x.dtype(), |device, y| {
            let addresses = [Some(at_x), Some(at_weight), at_bias, at_add, Some(y)];
            let key = Key {
                sizes: (to, tokens, from),
                dtype: x.dtype(),
                transposed: self.transposed,
                bias: bias.is_some(),
                aligned: addresses.into_iter().flatten().all(|a| a % 16 == 0),
            };
            multiply(device, &key, (at_weight, at_x, at_bias, at_add, y))
        })
    }
}

/// What a description of a product depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    /// out, tokens, in
    sizes: (usize, usize, usize),
    dtype: DType,
    transposed: bool,
    bias: bool,
    /// Whether every address is a multiple of 16.
    aligned: bool,
}

/// cuBLASLt on one device.
struct Handle {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    plans: HashMap<Key, Plan>,
}

// SAFETY: cuBLASLt's handle may be used by any thread, and the mutex gives the rest to one at a time.
unsafe impl Send for Handle {}

type Product = Descriptor<sys::cublasLtMatmulDesc_t, lt::CublasError>;
type Layout = Descriptor<sys::cublasLtMatrixLayout_t, lt::CublasError>;

struct Plan {
    product: Product,
    a: Layout,
    b: Layout,
    c: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// One handle for each device, to the end of the program: CUDA's libraries may be gone before statics are dropped.
static HANDLES: Mutex<Option<HashMap<DeviceId, Handle>>> = Mutex::new(None);

/// The weights, x, the bias, what is added, and the result.
type Addresses = (u64, u64, Option<u64>, Option<u64>, u64);

fn multiply(device: &CudaDevice, key: &Key, (a, b, bias, add, y): Addresses) -> Result<()> {
    let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    let handle = kept(handles.get_or_insert_default(), device.id(), |_| {
        // SAFETY: cuBLASLt writes the workspace before it reads it.
        let workspace = unsafe { device.alloc::<u8>(WORKSPACE)? };
        let handle = lt::create_handle().map_err(candle_core::Error::wrap)?;
        Ok::<_, candle_core::Error>(Handle { handle, workspace, plans: HashMap::new() })
    })?;
    let plan =
        kept(&mut handle.plans, key.clone(), |key| Plan::new(handle.handle, key)).map_err(candle_core::Error::wrap)?;
    let stream = device.cuda_stream();
    let workspace = handle.workspace.device_ptr(&stream).0;
    let (alpha, beta) = (1f32, if add.is_some() { 1f32 } else { 0f32 });
    let run = || {
        if let Some(bias) = bias {
            set(&plan.product, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        // SAFETY: the layouts are those of the tensors at these addresses, which `forward` has checked.
        unsafe {
            lt::matmul(
                handle.handle,
                plan.product.raw(),
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                a as *const _,
                plan.a.raw(),
                b as *const _,
                plan.b.raw(),
                add.unwrap_or(y) as *const _,
                plan.c.raw(),
                y as *mut _,
                plan.c.raw(),
                &raw const plan.algorithm,
                workspace as *mut _,
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        }
    };
    run().map_err(candle_core::Error::wrap)
}

use sys::cublasLtMatmulDescAttributes_t as Attribute;

fn set<T>(product: &Product, attribute: Attribute, value: &T) -> std::result::Result<(), lt::CublasError> {
    // SAFETY: the description exists, and the attribute has the type of `value`.
    unsafe { lt::set_matmul_desc_attribute(product.raw(), attribute, std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, key: &Key) -> std::result::Result<Plan, lt::CublasError> {
        let (m, n, k) = key.sizes;
        let dtype = match key.dtype {
            DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
            DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
            _ => sys::cudaDataType_t::CUDA_R_32F,
        };
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let created = lt::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F);
        let product = Descriptor::new(created, lt::destroy_matmul_desc)?;
        // W (out, in) in rows is (in, out) in columns.
        set(&product, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(!key.transposed))?;
        if key.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            set(&product, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        }
        let layout = |rows: usize, columns: usize| {
            let created = lt::create_matrix_layout(dtype, rows as u64, columns as u64, rows as i64);
            Layout::new(created, lt::destroy_matrix_layout)
        };
        let a = if key.transposed { layout(m, k)? } else { layout(k, m)? };
        let (b, c) = (layout(k, n)?, layout(m, n)?);
        let preference = Descriptor::new(lt::create_matmul_pref(), lt::destroy_matmul_pref)?;
        let workspace = WORKSPACE as u64;
        let alignment: u32 = if key.aligned { 16 } else { key.dtype.size_in_bytes() as u32 };
        // SAFETY: the objects exist, and each attribute has the type of its value.
        let heuristic = unsafe {
            use sys::cublasLtMatmulPreferenceAttributes_t as P;
            let set = |attribute, value: *const std::ffi::c_void, size| {
                lt::set_matmul_pref_attribute(preference.raw(), attribute, value, size)
            };
            set(P::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), 8)?;
            for side in [
                P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ] {
                set(side, (&raw const alignment).cast(), 4)?;
            }
            let [of_a, of_b, of_c] = [&a, &b, &c].map(Descriptor::raw);
            lt::get_matmul_algo_heuristic(handle, product.raw(), of_a, of_b, of_c, of_c, preference.raw())?
        };
        Ok(Plan { product, a, b, c, algorithm: heuristic.algo })
    }
}
