//! Devices and what they can do.

use std::ffi::{c_char, c_int};

use super::give;
use crate::code::{Code, Outcome};
use crate::launch::shared_limit;
use crate::mode::settings;

/// Fails if there is no such device.
pub(crate) fn exists(device: c_int) -> Outcome {
    if (0..settings().devices).contains(&device) { Ok(()) } else { Err(Code::INVALID_DEVICE) }
}

/// How many multiprocessors the device has: those of an H100.
pub const PROCESSORS: c_int = 132;

/// Returns an attribute, by its number in CUdevice_attribute.
fn attribute(number: c_int) -> Option<c_int> {
    let capability = settings().capability;
    Some(match number {
        1..=3 => [1024, 1024, 1024][number as usize - 1],
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => 65535,
        8 => 48 << 10,
        9 => 64 << 10,
        10 => 32,
        11 => c_int::MAX,
        12 | 82 => 65536,
        13 => 1_980_000,
        14 => 512,
        15 => 1,
        16 => PROCESSORS,
        19 | 31 | 32 | 41 => 1,
        33 => 1,
        36 => 2_619_000,
        37 => 5120,
        38 => 50 << 20,
        39 => 2048,
        40 => 3,
        75 => capability / 10,
        76 => capability % 10,
        78 => 1,
        79 | 80 => 1,
        81 => shared_limit() as c_int + 1024,
        // Managed memory, peers, cooperative launches, memory of the host without copies: not here.
        83 | 84 | 85 | 86 | 88 | 89 | 91..=96 | 100..=105 | 107..=110 | 112..=114 | 116..=119 => 0,
        87 => 2,
        90 => 1,
        97 => shared_limit() as c_int,
        99 => 1,
        106 => 32,
        111 => 1024,
        115 => 1,
        _ if (17..=150).contains(&number) => 0,
        _ => return None,
    })
}

driver! {
    fn cuDeviceGetCount(count: *mut c_int) {
        unsafe { give(count, settings().devices) }
    }
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        exists(ordinal)?;
        unsafe { give(device, ordinal) }
    }
    fn cuDeviceGetAttribute(value: *mut c_int, attribute_: c_int, device: c_int) {
        exists(device)?;
        unsafe { give(value, attribute(attribute_).ok_or(Code::INVALID_VALUE)?) }
    }
    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        exists(device)?;
        if name.is_null() || length < 1 {
            return Err(Code::INVALID_VALUE);
        }
        let text = b"Software CUDA device";
        let count = text.len().min(length as usize - 1);
        // SAFETY: the caller has room for `length` characters.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, count);
            *name.add(count) = 0;
        }
        Ok(())
    }
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        exists(device)?;
        unsafe { give(bytes, settings().memory as usize) }
    }
    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) {
        exists(device)?;
        let mut id = *b"software device0";
        id[15] += device as u8;
        unsafe { give(uuid, id) }
    }
    fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) {
        exists(device)?;
        let mut id = *b"software device0";
        id[15] += device as u8;
        unsafe { give(uuid, id) }
    }
    fn cuDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int) {
        exists(device)?;
        exists(peer)?;
        unsafe { give(can, 0) }
    }
}
