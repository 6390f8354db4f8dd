//! cuDNN: handles, descriptors, the convolutions of its old interface, and its graphs. Codes are those of cudnn_graph.h.

use std::ffi::{c_char, c_void};

use super::object::{create, destroy, with};
use crate::stream::StreamHandle;

mod convolve;
mod descriptor;
pub mod graph;

pub(super) const SUCCESS: i32 = 0;
pub(super) const NOT_INITIALIZED: i32 = 1001;
pub(super) const BAD_PARAM: i32 = 2000;
pub(super) const NULL_POINTER: i32 = 2002;
pub(super) const NOT_SUPPORTED: i32 = 3000;
pub(super) const SUBLIBRARY_LOADING_FAILED: i32 = 1008;
pub(super) const EXECUTION_FAILED: i32 = 5000;

/// As the toolkit's cudnn_version.h counts: 10000 × major + 100 × minor + patch.
const VERSION: usize = 92_801;

const HANDLE: &str = "cuDNN handle";

#[derive(Default)]
struct Handle {
    stream: usize,
}

/// The stream of a handle, `None` if there is no handle.
pub(super) fn stream(handle: *const c_void) -> Option<StreamHandle> {
    let stream = |h: &mut Handle| StreamHandle(h.stream as *mut c_void);
    (!handle.is_null()).then(|| with(handle, HANDLE, stream))
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnCreate(to: *mut *mut c_void) -> i32 {
    if create(to, HANDLE, Handle::default()) { SUCCESS } else { NULL_POINTER }
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnDestroy(handle: *mut c_void) -> i32 {
    destroy(handle, HANDLE);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnSetStream(handle: *mut c_void, stream: *mut c_void) -> i32 {
    if handle.is_null() {
        return NULL_POINTER;
    }
    with(handle, HANDLE, |h: &mut Handle| h.stream = stream as usize);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnGetStream(handle: *mut c_void, to: *mut *mut c_void) -> i32 {
    if handle.is_null() || to.is_null() {
        return NULL_POINTER;
    }
    // SAFETY: not null, and the caller gives the address of a stream.
    with(handle, HANDLE, |h: &mut Handle| unsafe { *to = h.stream as *mut c_void });
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnGetVersion() -> usize {
    VERSION
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnGetCudartVersion() -> usize {
    13_000
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnGetErrorString(status: i32) -> *const c_char {
    let text = match status {
        SUCCESS => c"CUDNN_STATUS_SUCCESS",
        NOT_INITIALIZED => c"CUDNN_STATUS_NOT_INITIALIZED",
        2000..3000 => c"CUDNN_STATUS_BAD_PARAM",
        3000..4000 => c"CUDNN_STATUS_NOT_SUPPORTED",
        4000..5000 => c"CUDNN_STATUS_INTERNAL_ERROR",
        _ => c"CUDNN_STATUS_EXECUTION_FAILED",
    };
    text.as_ptr()
}
