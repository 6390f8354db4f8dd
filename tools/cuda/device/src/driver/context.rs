//! Contexts. There is one per device, and each thread names the one that it uses.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_void};

use super::{give, initialise, offer, waits};
use crate::code::{self, Code, Outcome};
use crate::mode::settings;
use crate::stream::synchronise_all;

thread_local!(static CURRENT: Cell<usize> = const { Cell::new(0) });

const PRIMARY: usize = 0x0c00_0010;

/// Fails if the thread has no context.
pub(crate) fn current() -> Outcome {
    if CURRENT.get() == 0 { Err(Code::INVALID_CONTEXT) } else { Ok(()) }
}

/// Returns the device of a context.
fn device_of(context: usize) -> i32 {
    ((context - PRIMARY) / 16) as i32
}

fn valid(context: usize) -> bool {
    context >= PRIMARY && context.is_multiple_of(16) && device_of(context) < settings().devices
}

driver! {
    fn cuInit(flags: c_uint) {
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        if settings().devices == 0 {
            return Err(Code::NO_DEVICE);
        }
        initialise();
        Ok(())
    }
    fn cuDriverGetVersion(version: *mut c_int) {
        unsafe { give(version, settings().version) }
    }
    fn cuGetErrorName(error: c_int, name: *mut *const c_char) {
        unsafe { code::give(name, Code::name(error)) }
    }
    fn cuGetErrorString(error: c_int, text: *mut *const c_char) {
        unsafe { code::give(text, code::text(error)) }
    }
    fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) {
        super::device::exists(device)?;
        unsafe { give(context, (PRIMARY + 16 * device as usize) as *mut c_void) }
    }
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        super::device::exists(device)
    }
    fn cuDevicePrimaryCtxGetState(device: c_int, flags: *mut c_uint, active: *mut c_int) {
        super::device::exists(device)?;
        unsafe {
            offer(flags, 0);
            give(active, 1)
        }
    }
    fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, _flags: c_uint) {
        super::device::exists(device)
    }
    fn cuCtxSetCurrent(context: *mut c_void) {
        if !context.is_null() && !valid(context as usize) {
            return Err(Code::INVALID_CONTEXT);
        }
        CURRENT.set(context as usize);
        Ok(())
    }
    fn cuCtxGetCurrent(context: *mut *mut c_void) {
        unsafe { give(context, CURRENT.get() as *mut c_void) }
    }
    fn cuCtxGetDevice(device: *mut c_int) {
        current()?;
        unsafe { give(device, device_of(CURRENT.get())) }
    }
    fn cuCtxSynchronize() {
        current()?;
        waits("cuCtxSynchronize");
        synchronise_all()
    }
    fn cuCtxSetFlags(_flags: c_uint) {
        current()
    }
    fn cuCtxGetFlags(flags: *mut c_uint) {
        current()?;
        unsafe { give(flags, 0) }
    }
    fn cuCtxGetApiVersion(_context: *mut c_void, version: *mut c_uint) {
        unsafe { give(version, 3020) }
    }
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        current()?;
        unsafe {
            offer(least, 0);
            offer(greatest, -5);
        }
        Ok(())
    }
    fn cuCtxSetLimit(_limit: c_int, _value: usize) {
        current()
    }
    fn cuCtxGetLimit(value: *mut usize, _limit: c_int) {
        current()?;
        unsafe { give(value, 1024) }
    }
    fn cuCtxSetCacheConfig(_config: c_int) {
        current()
    }
    fn cuCtxGetCacheConfig(config: *mut c_int) {
        current()?;
        unsafe { give(config, 0) }
    }
    fn cuProfilerStart() {
        current()
    }
    fn cuProfilerStop() {
        current()
    }
}
