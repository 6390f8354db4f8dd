//! Device memory for tests of the libraries.

use std::ffi::c_void;
use std::ptr::null_mut;

use super::number::Number;

unsafe extern "C" {
    fn cuInit(flags: u32) -> i32;
    fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: i32) -> i32;
    fn cuCtxSetCurrent(context: *mut c_void) -> i32;
    fn cuMemAlloc_v2(to: *mut u64, bytes: usize) -> i32;
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> i32;
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> i32;
    fn cuMemFree_v2(address: u64) -> i32;
}

/// Numbers on the device.
pub(super) struct Buffer {
    pub(super) address: u64,
    number: Number,
    len: usize,
}

impl Buffer {
    /// Memory that nothing has written.
    pub(super) fn new(number: Number, len: usize) -> Self {
        let (mut context, mut address) = (null_mut(), 0);
        // SAFETY: the driver of this crate, and the addresses of variables.
        unsafe {
            assert_eq!((cuInit(0), cuDevicePrimaryCtxRetain(&mut context, 0), cuCtxSetCurrent(context)), (0, 0, 0));
            assert_eq!(cuMemAlloc_v2(&mut address, len * number.bytes()), 0);
        }
        Self { address, number, len }
    }

    pub(super) fn of(number: Number, numbers: &[f32]) -> Self {
        let buffer = Self::new(number, numbers.len());
        let mut bytes = vec![0u8; numbers.len() * number.bytes()];
        // SAFETY: as many bytes as the numbers have.
        unsafe {
            number.write(bytes.as_mut_ptr() as u64, 1, numbers);
            assert_eq!(cuMemcpyHtoD_v2(buffer.address, bytes.as_ptr().cast(), bytes.len()), 0);
        }
        buffer
    }

    pub(super) fn read(&self) -> Vec<f32> {
        let mut bytes = vec![0u8; self.len * self.number.bytes()];
        let mut numbers = vec![0.0; self.len];
        // SAFETY: as many bytes as the numbers have.
        unsafe {
            assert_eq!(cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), self.address, bytes.len()), 0);
            self.number.read(bytes.as_ptr() as u64, 1, &mut numbers);
        }
        numbers
    }

    pub(super) fn pointer(&self) -> *mut c_void {
        self.address as *mut c_void
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated above.
        unsafe { cuMemFree_v2(self.address) };
    }
}

/// Numbers between −1 and 1 that `number` holds exactly.
pub(super) fn noise(number: Number, len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761);
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number.round((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// Runs a test in a process of its own, which must end with a fault whose report has `text`.
pub(super) fn faults(test: &str, text: &str, body: impl FnOnce()) {
    if std::env::var("CUDA_DEVICE_FAULTY_TEST").as_deref() == Ok(test) {
        return body();
    }
    let program = std::env::current_exe().unwrap();
    let run = std::process::Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env("CUDA_DEVICE_FAULTY_TEST", test)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && report.contains(text), "no report with `{text}`: {report}");
}
