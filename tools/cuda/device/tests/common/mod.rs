//! A small host program's view of the device.

#![allow(dead_code)] // each test file uses a part

use std::ffi::{CString, c_void};

use cuda_device::driver::{context, device, launch, memory, module, stream};
use cuda_device::stream::StreamHandle;

/// Fails if a function of CUDA does.
pub fn ok(code: i32) {
    assert_eq!(code, 0, "CUDA error {code}");
}

/// Prepares the device for this thread.
pub fn start() {
    unsafe {
        ok(context::cuInit(0));
        let mut primary = std::ptr::null_mut();
        ok(context::cuDevicePrimaryCtxRetain(&mut primary, 0));
        ok(context::cuCtxSetCurrent(primary));
    }
}

pub fn new_stream() -> StreamHandle {
    let mut stream = StreamHandle::DEFAULT;
    unsafe { ok(stream::cuStreamCreate(&mut stream, 1)) };
    stream
}

pub fn allocate(bytes: usize) -> u64 {
    let mut address = 0;
    unsafe { ok(memory::cuMemAlloc_v2(&mut address, bytes)) };
    address
}

pub fn allocate_on(stream: StreamHandle, bytes: usize) -> u64 {
    let mut address = 0;
    unsafe { ok(memory::cuMemAllocAsync(&mut address, bytes, stream)) };
    address
}

pub fn free_on(stream: StreamHandle, address: u64) {
    unsafe { ok(memory::cuMemFreeAsync(address, stream)) };
}

pub fn free(address: u64) {
    unsafe { ok(memory::cuMemFree_v2(address)) };
}

pub fn write_on<T: Copy>(stream: StreamHandle, address: u64, values: &[T]) {
    let bytes = size_of_val(values);
    unsafe { ok(memory::cuMemcpyHtoDAsync_v2(address, values.as_ptr().cast(), bytes, stream)) };
}

/// Allocates memory with values.
pub fn upload<T: Copy>(values: &[T]) -> u64 {
    let address = allocate(size_of_val(values));
    unsafe { ok(memory::cuMemcpyHtoD_v2(address, values.as_ptr().cast(), size_of_val(values))) };
    address
}

pub fn download<T: Copy + Default>(address: u64, count: usize) -> Vec<T> {
    download_on(StreamHandle::DEFAULT, address, count)
}

pub fn download_on<T: Copy + Default>(stream: StreamHandle, address: u64, count: usize) -> Vec<T> {
    let mut values = vec![T::default(); count];
    let bytes = size_of_val(values.as_slice());
    unsafe { ok(memory::cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), address, bytes, stream)) };
    values
}

pub fn synchronise() {
    unsafe { ok(context::cuCtxSynchronize()) };
}

pub fn load(ptx: &str) -> usize {
    let text = CString::new(ptx).unwrap();
    let mut handle = 0;
    unsafe { ok(module::cuModuleLoadData(&mut handle, text.as_ptr().cast())) };
    handle
}

pub fn function(module: usize, name: &str) -> *const module::Function {
    let name = CString::new(name).unwrap();
    let mut function = std::ptr::null();
    unsafe { ok(module::cuModuleGetFunction(&mut function, module, name.as_ptr())) };
    function
}

/// Returns a kernel of `planted.cu`.
pub fn planted(name: &str) -> *const module::Function {
    function(load(include_str!("../kernels/planted.ptx")), name)
}

/// A parameter of a kernel.
#[derive(Clone, Copy)]
pub enum Arg {
    Address(u64),
    Int(i32),
}

/// Launches a kernel, and returns the code.
pub fn try_launch(
    function: *const module::Function,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: StreamHandle,
    args: &[Arg],
) -> i32 {
    let mut values: Vec<u64> = args
        .iter()
        .map(|arg| match *arg {
            Arg::Address(address) => address,
            Arg::Int(number) => number as u32 as u64,
        })
        .collect();
    let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| (v as *mut u64).cast()).collect();
    let [gx, gy, gz] = grid;
    let [bx, by, bz] = block;
    let params = pointers.as_mut_ptr();
    unsafe { launch::cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, params, std::ptr::null_mut()) }
}

/// Launches a kernel with one row of blocks.
pub fn run_on(stream: StreamHandle, function: *const module::Function, blocks: u32, threads: u32, args: &[Arg]) {
    ok(try_launch(function, [blocks, 1, 1], [threads, 1, 1], 0, stream, args));
}

pub fn run(function: *const module::Function, blocks: u32, threads: u32, args: &[Arg]) {
    run_on(StreamHandle::DEFAULT, function, blocks, threads, args);
}

/// Runs a case of this test program in another process. Returns whether it succeeded, and what it printed to stderr.
pub fn child(case: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads", "1"]).env("CUDA_DEVICE_TEST_CASE", case);
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Returns the case that this process is to run, if it is a child.
pub fn case() -> Option<String> {
    std::env::var("CUDA_DEVICE_TEST_CASE").ok()
}

/// Uses functions that only some test files need, so that the linker keeps all.
pub fn device_name() -> String {
    let mut text = [0u8; 64];
    unsafe { ok(device::cuDeviceGetName(text.as_mut_ptr().cast(), 64, 0)) };
    std::ffi::CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap().to_owned()
}
