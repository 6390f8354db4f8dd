//! The functions of CUDA's runtime, `libcudart`, that programs reach when they start.
//!
//! Kernels inside of a program register themselves. They cannot be launched here: only PTX can.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::code::{Code, text};
use crate::mode::settings;

#[unsafe(no_mangle)]
pub extern "C" fn __cudaRegisterFatBinary(_binary: *const c_void) -> *mut *mut c_void {
    // A pointer to a handle that nothing reads.
    Box::leak(Box::new(std::ptr::null_mut()))
}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaRegisterFatBinaryEnd(_handle: *mut *mut c_void) {}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaUnregisterFatBinary(_handle: *mut *mut c_void) {}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaRegisterFunction(_handle: *mut *mut c_void) {}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaRegisterVar(_handle: *mut *mut c_void) {}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaInitModule(_handle: *mut *mut c_void) -> c_char {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaPushCallConfiguration() -> c_uint {
    Code::NOT_SUPPORTED.0 as c_uint
}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaPopCallConfiguration() -> c_int {
    Code::NOT_SUPPORTED.0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaLaunchKernel() -> c_int {
    Code::NOT_SUPPORTED.0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaGetLastError() -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaPeekAtLastError() -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaRuntimeGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: the caller's number.
    unsafe { crate::driver::give(version, settings().version) }.map_or_else(|code| code.0, |()| 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaGetErrorString(error: c_int) -> *const c_char {
    text(error).unwrap_or(c"unrecognized error code").as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaGetErrorName(error: c_int) -> *const c_char {
    Code::name(error).unwrap_or(c"unrecognized error code").as_ptr()
}
