//! The functions of CUDA's driver, `libcuda`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::code::{Code, Outcome};
use crate::count::{Counted, count};

/// Defines functions of the driver. Their bodies return an [`Outcome`]; the functions return its code. They count
/// their calls, and fail once the device is lost.
macro_rules! driver {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {
        $(
            $(#[$meta])*
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> i32 {
                $crate::driver::call(stringify!($name), || $body)
            }
        )*
    };
}

pub mod context;
pub mod device;
pub mod memory;
pub mod pool;
pub mod stream;
pub mod event;
pub mod graph;
pub mod module;
pub mod launch;

static READY: AtomicBool = AtomicBool::new(false);
static LOST: AtomicBool = AtomicBool::new(false);

/// Notes that the device is lost. From now on every call fails.
pub(crate) fn lose() {
    LOST.store(true, Ordering::Relaxed);
}

/// Calls a function of the driver, and returns its code.
pub(crate) fn call(name: &'static str, body: impl FnOnce() -> Outcome) -> i32 {
    count(Counted::Call, name, 0, 0.0);
    let always = ["cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString"];
    if !always.contains(&name) {
        if !READY.load(Ordering::Relaxed) {
            return Code::NOT_INITIALIZED.0;
        }
        if LOST.load(Ordering::Relaxed) {
            return Code::ILLEGAL_ADDRESS.0;
        }
    }
    body().map_or_else(|code| code.0, |()| 0)
}

/// Notes a wait of the host.
pub(crate) fn waits(name: &str) {
    count(Counted::Synchronisation, name, 0, 0.0);
}

/// Prepares the device. The counts are written when the process ends.
pub(crate) fn initialise() {
    extern "C" fn at_exit() {
        crate::count::write(None);
    }
    if !READY.swap(true, Ordering::Relaxed) {
        // SAFETY: a function without arguments.
        unsafe { libc::atexit(at_exit) };
    }
}

/// Writes a result to where the caller wants it.
///
/// # Safety
///
/// `out` is null or may be written.
pub(crate) unsafe fn give<T>(out: *mut T, value: T) -> Outcome {
    if out.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: see above.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a result if the caller wants it.
///
/// # Safety
///
/// `out` is null or may be written.
pub(crate) unsafe fn offer<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: see above.
        unsafe { out.write(value) };
    }
}
