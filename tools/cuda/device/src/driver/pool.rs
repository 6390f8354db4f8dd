//! Memory pools. There is one per device, which never holds back freed memory.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use super::give;
use crate::code::Code;
use crate::memory;

const DEFAULT: usize = 0x0b00_0010;

static THRESHOLD: AtomicU64 = AtomicU64::new(0);
static HIGH: AtomicU64 = AtomicU64::new(0);

fn valid(pool: *mut c_void) -> Result<(), Code> {
    if pool as usize == DEFAULT { Ok(()) } else { Err(Code::INVALID_VALUE) }
}

driver! {
    fn cuDeviceGetDefaultMemPool(pool: *mut *mut c_void, device: c_int) {
        super::device::exists(device)?;
        unsafe { give(pool, DEFAULT as *mut c_void) }
    }
    fn cuDeviceGetMemPool(pool: *mut *mut c_void, device: c_int) {
        super::device::exists(device)?;
        unsafe { give(pool, DEFAULT as *mut c_void) }
    }
    fn cuDeviceSetMemPool(device: c_int, pool: *mut c_void) {
        super::device::exists(device)?;
        valid(pool)
    }
    fn cuMemPoolCreate(pool: *mut *mut c_void, properties: *const c_void) {
        if properties.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        unsafe { give(pool, DEFAULT as *mut c_void) }
    }
    fn cuMemPoolDestroy(pool: *mut c_void) {
        valid(pool)
    }
    fn cuMemPoolTrimTo(pool: *mut c_void, _keep: usize) {
        valid(pool)
    }
    fn cuMemPoolSetAttribute(pool: *mut c_void, attribute: c_int, value: *mut c_void) {
        valid(pool)?;
        if value.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        match attribute {
            // Which streams share freed memory: none here.
            1..=3 => Ok(()),
            // SAFETY: this attribute is a u64.
            4 => {
                THRESHOLD.store(unsafe { *value.cast() }, Ordering::Relaxed);
                Ok(())
            }
            // High marks can be set to 0 only.
            6 | 8 if unsafe { *value.cast::<u64>() } == 0 => {
                HIGH.store(0, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Code::INVALID_VALUE),
        }
    }
    fn cuMemPoolGetAttribute(pool: *mut c_void, attribute: c_int, value: *mut c_void) {
        valid(pool)?;
        if value.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let (used, peak) = memory::used();
        // SAFETY: the first three attributes are int, the others u64.
        unsafe {
            match attribute {
                1..=3 => *value.cast::<c_int>() = 1,
                4 => *value.cast() = THRESHOLD.load(Ordering::Relaxed),
                5 | 7 => *value.cast() = used,
                6 | 8 => *value.cast() = peak,
                _ => return Err(Code::INVALID_VALUE),
            }
        }
        Ok(())
    }
}
