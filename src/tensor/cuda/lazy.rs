//! Loads CUDA's libraries on their first call, so that the program also starts without them.
//!
//! candle links CUDA's shared libraries, and the system does not start a program without its libraries. This module defines
//! every function that candle's crates import from them. Each jumps through a slot, which points to [`resolve`] first and
//! to the library's function afterwards. Since the linker finds all functions here, the program no longer needs CUDA's
//! libraries to start. The names are in `symbols.s`, made by
//! `tools/cuda/symbols.sh`.
//!
//! While a [profile](super::profile) is recorded, the slots keep pointing to [`resolve`], which counts every call. While a
//! thread records a CUDA graph, they do too, so that other threads can be made to [wait](super::alone).
//!
//! The functions of a missing library return an error code. [`super::devices`] is called before them.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use super::alone;

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

unsafe extern "C" {
    static lsregen_cuda_entries: Entry;
    static lsregen_cuda_entries_end: Entry;
    /// Calls [`resolve`], and goes where it says.
    fn lsregen_cuda_first();
}

/// All functions.
fn entries() -> &'static [Entry] {
    let first = &raw const lsregen_cuda_entries;
    // SAFETY: the assembly has put all entries between these two.
    unsafe { std::slice::from_raw_parts(first, (&raw const lsregen_cuda_entries_end).offset_from(first) as usize) }
}

/// Returns the address of a function on its first call; while a profile or a CUDA graph is recorded, on every call.
extern "C" fn resolve(entry: &Entry) -> *mut c_void {
    // SAFETY: a name that ends with 0.
    alone::wait(unsafe { CStr::from_ptr(entry.name) }.to_bytes());
    if let Some((counter, counted)) = COUNTED.get() {
        return target(entry, counter, counted);
    }
    let address = address(entry);
    if !alone::is_recording() {
        entry.slot.store(address, Ordering::SeqCst);
        // It may have begun in between.
        if alone::is_recording() {
            entry.slot.store(lsregen_cuda_first as *mut c_void, Ordering::SeqCst);
        }
    }
    address
}

/// Runs `f`, which records a CUDA graph. What other threads would submit to the device waits for its end.
pub(super) fn alone<R>(f: impl FnOnce() -> candle_core::Result<R>) -> candle_core::Result<R> {
    alone::alone(|| {
        look_up_again();
        f()
    })
}

/// Lets the next call of every function pass through [`resolve`].
fn look_up_again() {
    entries().iter().for_each(|entry| entry.slot.store(lsregen_cuda_first as *mut c_void, Ordering::SeqCst));
}

/// The address of the library's function, or of its stand-in.
fn address(entry: &Entry) -> *mut c_void {
    // SAFETY: a name that ends with 0.
    function(entry.library, unsafe { CStr::from_ptr(entry.name) }).unwrap_or_else(|| missing(entry))
}

/// The address of a function of a library; `None` if one of them is missing.
pub(super) fn function(library: usize, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: an open library, and a name that ends with 0.
    let address = unsafe { libc::dlsym(find(library).ok()?, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// What is done with every call while calls are counted.
pub(super) struct Counter {
    /// Counts a call of the function with this name.
    pub(super) called: fn(&Arc<str>),
    /// The wrapper of the function with this name, which is at this address, if it has one.
    pub(super) wrapper: fn(&str, *mut c_void) -> Option<*mut c_void>,
}

/// A function whose calls are counted.
struct Counted {
    name: Arc<str>,
    /// Where its calls go. Null before the first.
    target: AtomicPtr<c_void>,
}

/// For each entry, from the moment on when calls are counted.
static COUNTED: OnceLock<(Counter, Box<[Counted]>)> = OnceLock::new();

/// Lets every call be counted from now on. No other thread must call CUDA meanwhile.
pub(super) fn count(counter: Counter) {
    COUNTED.get_or_init(|| {
        let counted = entries().iter().map(|entry| {
            // SAFETY: a name that ends with 0.
            let name = unsafe { CStr::from_ptr(entry.name) }.to_string_lossy().into();
            Counted { name, target: AtomicPtr::default() }
        });
        (counter, counted.collect())
    });
    look_up_again();
}

/// Counts a call, and returns where it goes.
fn target(entry: &Entry, counter: &Counter, counted: &[Counted]) -> *mut c_void {
    // SAFETY: both belong to the array of all entries.
    let index = unsafe { (&raw const *entry).offset_from(&raw const lsregen_cuda_entries) } as usize;
    let Some(counted) = counted.get(index) else { return address(entry) };
    (counter.called)(&counted.name);
    let known = counted.target.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    let address = address(entry);
    let target = (counter.wrapper)(&counted.name, address).unwrap_or(address);
    counted.target.store(target, Ordering::Release);
    target
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

    /// Every symbol has a library, and a stand-in if that is missing.
    #[test]
    fn every_symbol_has_a_library() {
        assert!(entries().len() > 500, "{} symbols", entries().len());
        for entry in entries() {
            // SAFETY: `symbols.s` has names that end with 0.
            let name = unsafe { CStr::from_ptr(entry.name) }.to_str().unwrap();
            assert!(!entry.slot.load(Ordering::Relaxed).is_null() && !missing(entry).is_null(), "{name}");
            let prefix = &LIBRARIES[entry.library].file[3..].split(".so").next().unwrap()[..4];
            let plain = name.trim_start_matches('_').to_lowercase();
            let driver = entry.library == DRIVER && plain.starts_with("cu");
            assert!(driver || plain.starts_with(prefix), "{name} in library {}", entry.library);
        }
    }
}
