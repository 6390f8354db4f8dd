//! Loads CUDA's libraries on their first call, so that the program also starts without them.
//!
//! candle links CUDA's shared libraries, and the system does not start a program without its libraries. This module defines
//! every function that candle's crates import from them. Each jumps through a slot, which points to [`resolve`] first and
//! to the library's function afterwards. Since the linker finds all functions here, the program no longer needs CUDA's
//! libraries to start. The names are in `symbols.s`, made by
//! `tools/cuda/symbols.sh`.
//!
//! The functions of a missing library return an error code. [`super::devices`] is called before them.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(include_str!("x86_64.s"), include_str!("symbols.s"), resolve = sym resolve);
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(include_str!("aarch64.s"), include_str!("symbols.s"), resolve = sym resolve);

/// A shared library of CUDA.
pub(super) struct Library {
    /// Its file name.
    pub(super) file: &'static str,
    /// Whether this build requires it.
    pub(super) needed: bool,
    /// Returns the error code of its functions if it is missing.
    missing: extern "C" fn() -> isize,
}

/// The index of the driver in [`LIBRARIES`].
pub(super) const DRIVER: usize = 0;

macro_rules! of_toolkit {
    ($name:literal) => {
        match super::TOOLKIT / 1000 {
            11 => concat!("lib", $name, ".so.11"),
            12 => concat!("lib", $name, ".so.12"),
            _ => concat!("lib", $name, ".so.13"),
        }
    };
}

macro_rules! returning {
    ($code:literal) => {{
        extern "C" fn code() -> isize {
            $code
        }
        code
    }};
}

/// In the order of the numbers in `symbols.s`. Without the feature `cudnn` nothing calls cuDNN.
pub(super) const LIBRARIES: &[Library] = &[
    // CUDA_ERROR_STUB_LIBRARY, twice.
    Library { file: "libcuda.so.1", needed: true, missing: returning!(34) },
    Library { file: of_toolkit!("cudart"), needed: true, missing: returning!(34) },
    // CUBLAS_STATUS_NOT_INITIALIZED, twice.
    Library { file: of_toolkit!("cublas"), needed: true, missing: returning!(1) },
    Library { file: of_toolkit!("cublasLt"), needed: true, missing: returning!(1) },
    // CURAND_STATUS_INITIALIZATION_FAILED.
    Library { file: "libcurand.so.10", needed: true, missing: returning!(203) },
    // NVRTC_ERROR_INTERNAL_ERROR. It compiles kernels at run time, which lsregen does not need.
    Library { file: of_toolkit!("nvrtc"), needed: false, missing: returning!(11) },
    // CUDNN_STATUS_NOT_INITIALIZED.
    Library { file: "libcudnn.so.9", needed: cfg!(feature = "cudnn"), missing: returning!(1001) },
];

/// A function, as `lazy` in the assembly defines it.
#[repr(C)]
struct Entry {
    /// The target of the next call.
    slot: AtomicPtr<c_void>,
    name: *const c_char,
    library: usize,
}

/// Opens the library once. The error is the name of the missing file.
pub(super) fn find(library: usize) -> Result<*mut c_void, &'static str> {
    static HANDLES: [OnceLock<usize>; LIBRARIES.len()] = [const { OnceLock::new() }; LIBRARIES.len()];
    let (Some(l), Some(handle)) = (LIBRARIES.get(library), HANDLES.get(library)) else { return Err("") };
    let open = || {
        let file = CString::new(l.file).unwrap_or_default();
        // SAFETY: opening runs the library's own initialisers, which is what using CUDA means.
        unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) as usize }
    };
    match *handle.get_or_init(open) {
        0 => Err(l.file),
        handle => Ok(handle as *mut c_void),
    }
}

/// Returns the address of a function on its first call.
extern "C" fn resolve(entry: &Entry) -> *mut c_void {
    let address = find(entry.library).map_or(std::ptr::null_mut(), |library| {
        // SAFETY: an open library, and a name that ends with 0.
        unsafe { libc::dlsym(library, entry.name) }
    });
    let address = if address.is_null() { missing(entry) } else { address };
    entry.slot.store(address, Ordering::Release);
    address
}

/// Returns the stand-in for a missing function.
fn missing(entry: &Entry) -> *mut c_void {
    extern "C" fn text() -> *const c_char {
        c"CUDA's library is missing".as_ptr()
    }
    /// Functions that return a number and not an error code.
    const NUMBERS: [&[u8]; 6] = [
        b"cublasGetCudartVersion",
        b"cublasLtGetCudartVersion",
        b"cublasLtGetVersion",
        b"cudnnGetCudartVersion",
        b"cudnnGetMaxDeviceVersion",
        b"cudnnGetVersion",
    ];
    /// Functions that return a text. Those of the driver take a pointer to it, and return a code.
    const TEXTS: [&[u8]; 8] = [
        b"cublasGetStatusName",
        b"cublasGetStatusString",
        b"cublasLtGetStatusName",
        b"cublasLtGetStatusString",
        b"cudaGetErrorName",
        b"cudaGetErrorString",
        b"cudnnGetErrorString",
        b"nvrtcGetErrorString",
    ];
    // SAFETY: `symbols.s` has names that end with 0.
    let name = unsafe { CStr::from_ptr(entry.name) }.to_bytes();
    // Kernels register themselves when the program starts. Without the runtime, registration does nothing.
    let registers = name.starts_with(b"__cudaRegister") || name.starts_with(b"__cudaUnregister");
    if registers || NUMBERS.contains(&name) {
        return returning!(0) as extern "C" fn() -> isize as *mut c_void;
    }
    if TEXTS.contains(&name) {
        return text as extern "C" fn() -> *const c_char as *mut c_void;
    }
    LIBRARIES.get(entry.library).map_or(std::ptr::null_mut(), |l| l.missing as *mut c_void)
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        static lsregen_cuda_entries: Entry;
        static lsregen_cuda_entries_end: Entry;
    }

    /// Every symbol has a library, and a stand-in if that is missing.
    #[test]
    fn every_symbol_has_a_library() {
        let first = &raw const lsregen_cuda_entries;
        // SAFETY: both are ends of one array, which `symbols.s` makes.
        let count = unsafe { (&raw const lsregen_cuda_entries_end).offset_from(first) } as usize;
        assert!(count > 500, "{count} symbols");
        for i in 0..count {
            // SAFETY: there are `count` entries, each with a name that ends with 0.
            let entry = unsafe { &*first.add(i) };
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(entry.name) }.to_str().unwrap();
            assert!(!entry.slot.load(Ordering::Relaxed).is_null() && !missing(entry).is_null(), "{name}");
            let prefix = &LIBRARIES[entry.library].file[3..].split(".so").next().unwrap()[..4];
            let plain = name.trim_start_matches('_').to_lowercase();
            let driver = entry.library == DRIVER && plain.starts_with("cu");
            assert!(driver || plain.starts_with(prefix), "{name} in library {}", entry.library);
        }
    }
}
