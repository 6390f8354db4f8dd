//! cuBLAS: handles and the products of matrices that candle and cudarc call. Codes are those of cublas_api.h.

use std::ffi::c_void;

use super::gemm::{Activation, Compute, Gemm, Operand, Scalar};
use super::number::{Number, tf32_allowed};
use super::object::{create, destroy, with};
use crate::stream::StreamHandle;

pub(super) const SUCCESS: i32 = 0;
const NOT_INITIALIZED: i32 = 1;
pub(super) const INVALID_VALUE: i32 = 7;
pub(super) const EXECUTION_FAILED: i32 = 13;
pub(super) const NOT_SUPPORTED: i32 = 15;

const HANDLE: &str = "cuBLAS handle";

#[derive(Default)]
struct Handle {
    stream: usize,
    device_scalars: bool,
    tf32: bool,
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasCreate_v2(to: *mut *mut c_void) -> i32 {
    if create(to, HANDLE, Handle::default()) { SUCCESS } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasDestroy_v2(handle: *mut c_void) -> i32 {
    destroy(handle, HANDLE);
    SUCCESS
}

fn on(handle: *mut c_void, set: impl FnOnce(&mut Handle)) -> i32 {
    if handle.is_null() {
        return NOT_INITIALIZED;
    }
    with(handle, HANDLE, set);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetStream_v2(handle: *mut c_void, stream: *mut c_void) -> i32 {
    on(handle, |h| h.stream = stream as usize)
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasGetStream_v2(handle: *mut c_void, stream: *mut *mut c_void) -> i32 {
    // SAFETY: the caller gives the address of a stream.
    on(handle, |h| unsafe { *stream = h.stream as *mut c_void })
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetWorkspace_v2(handle: *mut c_void, workspace: *mut c_void, _bytes: usize) -> i32 {
    // cuBLAS asks for 256 bytes of alignment.
    if !(workspace as usize).is_multiple_of(256) { INVALID_VALUE } else { on(handle, |_| ()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetPointerMode_v2(handle: *mut c_void, mode: i32) -> i32 {
    on(handle, |h| h.device_scalars = mode == 1)
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasGetPointerMode_v2(handle: *mut c_void, mode: *mut i32) -> i32 {
    // SAFETY: the caller gives the address of a mode.
    on(handle, |h| unsafe { *mode = i32::from(h.device_scalars) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetMathMode(handle: *mut c_void, mode: i32) -> i32 {
    // CUBLAS_TF32_TENSOR_OP_MATH.
    on(handle, |h| h.tf32 = mode & 3 == 3)
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasGetVersion_v2(_handle: *mut c_void, version: *mut i32) -> i32 {
    // SAFETY: the caller gives the address of a number.
    unsafe { *version = 130_000 };
    SUCCESS
}

/// The arithmetic of a `cublasComputeType_t`, and the type of its scalars.
pub(super) fn compute(code: i32, tf32: bool) -> Option<(Compute, Number)> {
    Some(match code {
        64 | 65 => (Compute::F16, Number::F16),
        68 if tf32 && tf32_allowed() => (Compute::Tf32, Number::F32),
        77 if tf32_allowed() => (Compute::Tf32, Number::F32),
        68 | 69 | 74 | 75 | 77 => (Compute::F32, Number::F32),
        70 | 71 => (Compute::F64, Number::F64),
        _ => return None,
    })
}

/// Whether cuBLAS computes with these types (the table of cublasGemmEx).
pub(super) fn supported(compute: Compute, a: Number, b: Number, c: Number) -> bool {
    a == b
        && match compute {
            Compute::F16 => (a, c) == (Number::F16, Number::F16),
            Compute::F64 => (a, c) == (Number::F64, Number::F64),
            Compute::F32 | Compute::Tf32 => match a {
                Number::F32 => c == Number::F32,
                Number::F16 | Number::Bf16 => c == a || c == Number::F32,
                _ => false,
            },
        }
}

/// A matrix as the calls give it: address, type, leading dimension, stride of the batch.
type Given = (*const c_void, i32, i32, i64);

struct Call {
    handle: *mut c_void,
    ops: [i32; 2],
    sizes: [i32; 3],
    scalars: [*const c_void; 2],
    a: Given,
    b: Given,
    c: Given,
    batch: i32,
    compute: i32,
}

impl Call {
    fn run(self) -> i32 {
        if self.handle.is_null() {
            return NOT_INITIALIZED;
        }
        let (stream, device_scalars, tf32) =
            with(self.handle, HANDLE, |h: &mut Handle| (h.stream, h.device_scalars, h.tf32));
        let [m, n, k] = self.sizes;
        let [ta, tb] = self.ops.map(|op| op != 0);
        if m < 0 || n < 0 || k < 0 || self.batch < 0 || self.ops.iter().any(|op| !(0..=2).contains(op)) {
            return INVALID_VALUE;
        }
        let rows = [if ta { k } else { m }, if tb { n } else { k }, m];
        let strides = [self.a.3, self.b.3, self.c.3];
        if [self.a.2, self.b.2, self.c.2].iter().zip(rows).any(|(&ld, rows)| ld < rows.max(1))
            || (self.batch > 1 && strides.iter().any(|&s| s < 0))
        {
            return INVALID_VALUE;
        }
        let Some((compute, scalar)) = compute(self.compute, tf32) else { return NOT_SUPPORTED };
        let numbers = [self.a.1, self.b.1, self.c.1].map(Number::of_cuda);
        let [Some(an), Some(bn), Some(cn)] = numbers else { return NOT_SUPPORTED };
        if !supported(compute, an, bn, cn) {
            return NOT_SUPPORTED;
        }
        if self.scalars.iter().any(|s| s.is_null()) || m * n > 0 && self.c.0.is_null() {
            return INVALID_VALUE;
        }
        let operand = |x: Given, number, transposed| Operand {
            address: x.0 as u64,
            number,
            ld: x.2 as usize,
            stride: x.3 as usize,
            transposed,
        };
        let c = operand(self.c, cn, false);
        // SAFETY: the caller gives scalars of the type that the table of cublasGemmEx asks for.
        let [alpha, beta] = self.scalars.map(|s| unsafe { Scalar::new(s, scalar, device_scalars) });
        let gemm = Gemm {
            m: m as usize,
            n: n as usize,
            k: k as usize,
            batch: self.batch as usize,
            compute,
            alpha,
            beta,
            a: operand(self.a, an, ta),
            b: operand(self.b, bn, tb),
            c,
            d: c,
            bias: None,
            activation: Activation::None,
            workspace: (0, 0),
        };
        if gemm.launch(StreamHandle(stream as *mut c_void)) { SUCCESS } else { EXECUTION_FAILED }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasGemmStridedBatchedEx(
    handle: *mut c_void,
    ta: i32,
    tb: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    a: *const c_void,
    at: i32,
    lda: i32,
    sa: i64,
    b: *const c_void,
    bt: i32,
    ldb: i32,
    sb: i64,
    beta: *const c_void,
    c: *mut c_void,
    ct: i32,
    ldc: i32,
    sc: i64,
    batch: i32,
    compute: i32,
    _algorithm: i32,
) -> i32 {
    let scalars = [alpha, beta];
    let (a, b, c) = ((a, at, lda, sa), (b, bt, ldb, sb), (c.cast_const(), ct, ldc, sc));
    Call { handle, ops: [ta, tb], sizes: [m, n, k], scalars, a, b, c, batch, compute }.run()
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasGemmEx(
    handle: *mut c_void,
    ta: i32,
    tb: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    a: *const c_void,
    at: i32,
    lda: i32,
    b: *const c_void,
    bt: i32,
    ldb: i32,
    beta: *const c_void,
    c: *mut c_void,
    ct: i32,
    ldc: i32,
    compute: i32,
    algorithm: i32,
) -> i32 {
    cublasGemmStridedBatchedEx(
        handle, ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta, c, ct, ldc, 0, 1, compute, algorithm,
    )
}

macro_rules! typed {
    ($strided:ident, $single:ident, $scalar:ty, $type:literal, $compute:literal) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $strided(
            handle: *mut c_void,
            ta: i32,
            tb: i32,
            m: i32,
            n: i32,
            k: i32,
            alpha: *const $scalar,
            a: *const c_void,
            lda: i32,
            sa: i64,
            b: *const c_void,
            ldb: i32,
            sb: i64,
            beta: *const $scalar,
            c: *mut c_void,
            ldc: i32,
            sc: i64,
            batch: i32,
        ) -> i32 {
            cublasGemmStridedBatchedEx(
                handle,
                ta,
                tb,
                m,
                n,
                k,
                alpha.cast(),
                a,
                $type,
                lda,
                sa,
                b,
                $type,
                ldb,
                sb,
                beta.cast(),
                c,
                $type,
                ldc,
                sc,
                batch,
                $compute,
                -1,
            )
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn $single(
            handle: *mut c_void,
            ta: i32,
            tb: i32,
            m: i32,
            n: i32,
            k: i32,
            alpha: *const $scalar,
            a: *const c_void,
            lda: i32,
            b: *const c_void,
            ldb: i32,
            beta: *const $scalar,
            c: *mut c_void,
            ldc: i32,
        ) -> i32 {
            $strided(handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1)
        }
    };
}

typed!(cublasSgemmStridedBatched, cublasSgemm_v2, f32, 0, 68);
typed!(cublasDgemmStridedBatched, cublasDgemm_v2, f64, 1, 70);
typed!(cublasHgemmStridedBatched, cublasHgemm, half::f16, 2, 64);
