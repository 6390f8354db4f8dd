//! The functions of CUDA that a profile measures: each wrapper has the signature of its function, which it calls.
//!
//! Addresses, handles and streams are numbers here. Enumerations of C are `i32`.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Instant;

use candle_core::cuda_backend::cudarc::driver::sys;

use super::descriptors::{DESCRIPTOR, Descriptors, Matrix, cuda_dtype, dnn_dtype, sizes};
use super::state::{STATE, State};
use super::timeline::TIMELINE;
use super::{lock, own_task};
use crate::counts::{Group, Tally};
use crate::cuda::lazy;

/// An address, handle, stream or descriptor.
type At = usize;

/// Defines wrappers, and `of`, which finds them. Each gets its arguments and, as `call`, the function with them.
macro_rules! wrappers {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) |$call:ident| $body:block)*) => {
        #[allow(non_upper_case_globals)]
        mod function {
            use super::{AtomicPtr, c_void};
            $(pub static $name: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());)*
        }

        $(#[allow(non_snake_case, unused_variables)]
        unsafe extern "C" fn $name($($arg: $type),*) -> i32 {
            let $call = || {
                // SAFETY: `of` has put the function of this name there before it returned this wrapper, and the
                // arguments are those of the caller.
                unsafe {
                    let address = function::$name.load(Ordering::Acquire);
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> i32>(address)($($arg),*)
                }
            };
            $body
        })*

        /// The wrapper of the function `name`, which is at `address`.
        pub(super) fn of(name: &str, address: *mut c_void) -> Option<*mut c_void> {
            $(if name == stringify!($name) {
                function::$name.store(address, Ordering::Release);
                return Some($name as unsafe extern "C" fn($($type),*) -> i32 as *mut c_void);
            })*
            None
        }
    };
}

/// Calls a function that runs something on a stream, between two events.
fn timed(
    stream: At,
    bytes: u64,
    name: impl FnOnce(&mut State) -> (Group, Arc<str>),
    call: impl FnOnce() -> i32,
) -> i32 {
    let (group, name) = {
        let mut state = lock(&STATE);
        let (group, name) = name(&mut state);
        if state.is_captured(stream) {
            drop(state);
            let code = call();
            if code == 0 {
                lock(&STATE).captured(stream, group, &name, bytes);
            }
            return code;
        }
        (group, name)
    };
    // Calls of other threads do not come between the events.
    let mut timeline = lock(&TIMELINE);
    let first = timeline.event(stream);
    let code = call();
    if code != 0 {
        timeline.unused(first);
        return code;
    }
    let last = timeline.event(stream);
    let scope = {
        let mut state = lock(&STATE);
        let scope = state.scope(own_task());
        state.count(scope, group, &name, Tally { count: 1, bytes, microseconds: 0.0 });
        scope
    };
    timeline.add((group, name), scope, stream, [first, last]);
    code
}

/// Calls a function that the host waits for.
fn waited(group: Group, name: &str, bytes: u64, call: impl FnOnce() -> i32) -> i32 {
    let start = Instant::now();
    let code = call();
    let microseconds = start.elapsed().as_secs_f64() * 1e6;
    if code == 0 {
        let mut state = lock(&STATE);
        let (scope, name) = (state.scope(own_task()), state.name(name));
        state.count(scope, group, &name, Tally { count: 1, bytes, microseconds });
    }
    code
}

fn named(group: Group, name: &str) -> impl FnOnce(&mut State) -> (Group, Arc<str>) {
    move |state| (group, state.name(name))
}

/// Calls a function that allocates, on a stream if it has one, and keeps how much. What a graph allocates is counted when the
/// graph is launched, and is no memory in use: it is free again at the end of the launch.
///
/// # Safety
/// `to` is where the function writes the address.
unsafe fn allocates(name: &str, to: *const u64, bytes: usize, stream: Option<At>, call: impl FnOnce() -> i32) -> i32 {
    let code = call();
    if code == 0 {
        // SAFETY: the function has succeeded.
        let address = unsafe { *to };
        let mut state = lock(&STATE);
        match stream.filter(|stream| state.is_captured(*stream)) {
            Some(stream) => {
                let name = state.name(name);
                state.captured(stream, Group::Allocations, &name, bytes as u64);
            }
            None => {
                let scope = state.scope(own_task());
                state.allocated(scope, name, address, bytes as u64);
            }
        }
    }
    code
}

fn frees(name: &str, address: u64, stream: Option<At>, call: impl FnOnce() -> i32) -> i32 {
    // Before the call: afterwards another thread may get the address.
    if address != 0 {
        let mut state = lock(&STATE);
        match stream.filter(|stream| state.is_captured(*stream)) {
            Some(stream) => {
                let name = state.name(name);
                state.captured(stream, Group::Frees, &name, 0);
            }
            None => {
                let scope = state.scope(own_task());
                state.freed(scope, name, address);
            }
        }
    }
    call()
}

/// Changes what is known of descriptors.
fn know(change: impl FnOnce(&mut Descriptors)) {
    change(lock(&STATE).descriptors.get_or_insert_default());
}

/// The stream of a library's handle.
fn stream_of(handle: At) -> At {
    lock(&STATE).descriptors.get_or_insert_default().streams.get(&handle).copied().unwrap_or(0)
}

/// The name of a kernel: as it was looked up, or else as the driver knows it.
fn kernel(state: &mut State, function: At) -> (Group, Arc<str>) {
    if let Some(name) = state.descriptors.get_or_insert_default().functions.get(&function) {
        return (Group::Kernels, name.clone());
    }
    let mut text: *const c_char = std::ptr::null();
    let get = lazy::function(lazy::DRIVER, c"cuFuncGetName").filter(|get| !get.is_null());
    let code = get.map_or(1, |get| {
        // SAFETY: the signature of this function of the driver.
        let get =
            unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut *const c_char, At) -> i32>(get) };
        // SAFETY: the function is one that the caller launches.
        unsafe { get(&raw mut text, function) }
    });
    let name = match code == 0 && !text.is_null() {
        // SAFETY: the driver's text, which lives as long as the function.
        true => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        false => "unnamed kernel".into(),
    };
    let name = state.name(&name);
    state.descriptors.get_or_insert_default().functions.insert(function, name.clone());
    (Group::Kernels, name)
}

/// A product by its sizes.
fn product(dtype: i32, [m, n, k]: [u64; 3], batch: i32) -> impl FnOnce(&mut State) -> (Group, Arc<str>) {
    move |state| {
        let batch = if batch > 1 { format!("{batch} of ") } else { String::new() };
        (Group::Gemms, state.name(&format!("{} {batch}{m}×{n}×{k}", cuda_dtype(dtype))))
    }
}

/// A product of cuBLASLt, by the layouts of a factor and the result.
fn product_of(a: At, result: At) -> impl FnOnce(&mut State) -> (Group, Arc<str>) {
    move |state| {
        let matrices = &state.descriptors.get_or_insert_default().matrices;
        match (matrices.get(&a).copied(), matrices.get(&result).copied()) {
            (Some(a), Some(d)) => {
                // The factor may be transposed: its other size is that of the sum.
                let k = (a.rows * a.columns).checked_div(d.rows).unwrap_or(0);
                product(d.dtype, [d.rows, d.columns, k], d.batch)(state)
            }
            _ => (Group::Gemms, state.name("cublasLtMatmul")),
        }
    }
}

/// A convolution of cuDNN's older interface.
fn convolution(what: &str, input: At, filter: At, algorithm: i32) -> impl FnOnce(&mut State) -> (Group, Arc<str>) {
    move |state| {
        let shapes = &state.descriptors.get_or_insert_default().shapes;
        let of = |address: At| shapes.get(&address).cloned().unwrap_or_default();
        let name = format!("{what} {} · {}, algorithm {algorithm}", of(input), of(filter));
        (Group::Convolutions, state.name(&name))
    }
}

/// What an execution plan computes.
fn plan(plan: At) -> impl FnOnce(&mut State) -> (Group, Arc<str>) {
    move |state| state.descriptors.get_or_insert_default().plan(plan)
}

const TO_DEVICE: &str = "host to device";
const TO_HOST: &str = "device to host";
const WITHIN: &str = "device to device";

fn tensor(descriptor: At, dtype: i32, dims: &[i32]) {
    know(|known| drop(known.shapes.insert(descriptor, format!("{} {}", dnn_dtype(dtype), sizes(dims)))));
}

/// # Safety
/// `dims` are `count` sizes.
unsafe fn tensor_of(descriptor: At, dtype: i32, count: i32, dims: *const i32) {
    // SAFETY: as the caller says, and the function has succeeded.
    let dims: Vec<i32> = (0..count.clamp(0, 8)).map(|i| unsafe { *dims.offset(i as isize) }).collect();
    tensor(descriptor, dtype, &dims);
}

wrappers! {
    // Kernels.
    fn cuModuleGetFunction(to: *mut At, module: At, name: *const c_char) |call| {
        let code = call();
        if code == 0 {
            // SAFETY: the function has succeeded: it has written the kernel, and the name ends with 0.
            let (function, name) = unsafe { (*to, CStr::from_ptr(name).to_string_lossy()) };
            let mut state = lock(&STATE);
            let name = state.name(&name);
            state.descriptors.get_or_insert_default().functions.insert(function, name);
        }
        code
    }
    fn cuLaunchKernel(f: At, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: At, params: At, extra: At) |call| {
        timed(stream, 0, |state| kernel(state, f), call)
    }
    fn cuLaunchKernelEx(config: *const sys::CUlaunchConfig, f: At, params: At, extra: At) |call| {
        // SAFETY: a launch has a configuration; the driver would read it too.
        let stream = if config.is_null() { 0 } else { unsafe { (*config).hStream as At } };
        timed(stream, 0, |state| kernel(state, f), call)
    }
    fn cuLaunchCooperativeKernel(f: At, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: At, params: At) |call| {
        timed(stream, 0, |state| kernel(state, f), call)
    }

    // Graphs.
    fn cuStreamBeginCapture_v2(stream: At, mode: i32) |call| {
        let code = call();
        if code == 0 {
            lock(&STATE).begin_capture(stream);
        }
        code
    }
    fn cuStreamEndCapture(stream: At, graph: *mut At) |call| {
        let code = call();
        // SAFETY: a capture that succeeded has written its graph.
        lock(&STATE).end_capture(stream, if code == 0 { unsafe { *graph } } else { 0 });
        code
    }
    fn cuGraphInstantiateWithFlags(to: *mut At, graph: At, flags: u64) |call| {
        let code = call();
        if code == 0 {
            // SAFETY: the function has succeeded.
            lock(&STATE).instantiated(graph, unsafe { *to });
        }
        code
    }
    fn cuGraphInstantiateWithParams(to: *mut At, graph: At, params: At) |call| {
        let code = call();
        if code == 0 {
            // SAFETY: the function has succeeded.
            lock(&STATE).instantiated(graph, unsafe { *to });
        }
        code
    }
    fn cuGraphLaunch(executable: At, stream: At) |call| {
        let code = timed(stream, 0, named(Group::Graphs, "graph"), call);
        if code == 0 {
            let mut state = lock(&STATE);
            let scope = state.scope(own_task());
            state.launched(scope, executable);
        }
        code
    }

    // Memory.
    fn cuMemAlloc_v2(to: *mut u64, bytes: usize) |call| {
        // SAFETY: the caller gives the place of the address.
        unsafe { allocates("cuMemAlloc_v2", to, bytes, None, call) }
    }
    fn cuMemAllocAsync(to: *mut u64, bytes: usize, stream: At) |call| {
        // SAFETY: the caller gives the place of the address.
        unsafe { allocates("cuMemAllocAsync", to, bytes, Some(stream), call) }
    }
    fn cuMemAllocFromPoolAsync(to: *mut u64, bytes: usize, pool: At, stream: At) |call| {
        // SAFETY: the caller gives the place of the address.
        unsafe { allocates("cuMemAllocFromPoolAsync", to, bytes, Some(stream), call) }
    }
    fn cuMemAllocManaged(to: *mut u64, bytes: usize, flags: u32) |call| {
        // SAFETY: the caller gives the place of the address.
        unsafe { allocates("cuMemAllocManaged", to, bytes, None, call) }
    }
    fn cuMemFree_v2(address: u64) |call| { frees("cuMemFree_v2", address, None, call) }
    fn cuMemFreeAsync(address: u64, stream: At) |call| { frees("cuMemFreeAsync", address, Some(stream), call) }

    // Copies and fills.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: At, bytes: usize, stream: At) |call| {
        timed(stream, bytes as u64, named(Group::Copies, TO_DEVICE), call)
    }
    fn cuMemcpyDtoHAsync_v2(to: At, from: u64, bytes: usize, stream: At) |call| {
        timed(stream, bytes as u64, named(Group::Copies, TO_HOST), call)
    }
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: At) |call| {
        timed(stream, bytes as u64, named(Group::Copies, WITHIN), call)
    }
    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: At) |call| {
        timed(stream, bytes as u64, named(Group::Copies, "unified"), call)
    }
    fn cuMemcpyPeerAsync(to: u64, to_context: At, from: u64, context: At, bytes: usize, stream: At) |call| {
        timed(stream, bytes as u64, named(Group::Copies, "between devices"), call)
    }
    fn cuMemcpyHtoD_v2(to: u64, from: At, bytes: usize) |call| { waited(Group::Copies, TO_DEVICE, bytes as u64, call) }
    fn cuMemcpyDtoH_v2(to: At, from: u64, bytes: usize) |call| { waited(Group::Copies, TO_HOST, bytes as u64, call) }
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) |call| { waited(Group::Copies, WITHIN, bytes as u64, call) }
    fn cuMemsetD8Async(to: u64, value: u8, n: usize, stream: At) |call| {
        timed(stream, n as u64, named(Group::Fills, "cuMemsetD8Async"), call)
    }
    fn cuMemsetD16Async(to: u64, value: u16, n: usize, stream: At) |call| {
        timed(stream, 2 * n as u64, named(Group::Fills, "cuMemsetD16Async"), call)
    }
    fn cuMemsetD32Async(to: u64, value: u32, n: usize, stream: At) |call| {
        timed(stream, 4 * n as u64, named(Group::Fills, "cuMemsetD32Async"), call)
    }
    fn cuMemsetD8_v2(to: u64, value: u8, n: usize) |call| { waited(Group::Fills, "cuMemsetD8_v2", n as u64, call) }

    // Waits.
    fn cuStreamSynchronize(stream: At) |call| { waited(Group::Synchronisations, "cuStreamSynchronize", 0, call) }
    fn cuEventSynchronize(event: At) |call| { waited(Group::Synchronisations, "cuEventSynchronize", 0, call) }
    fn cuCtxSynchronize() |call| { waited(Group::Synchronisations, "cuCtxSynchronize", 0, call) }
    fn cuCtxSynchronize_v2(context: At) |call| { waited(Group::Synchronisations, "cuCtxSynchronize_v2", 0, call) }

    // cuBLAS.
    fn cublasSetStream_v2(handle: At, stream: At) |call| {
        know(|known| known.runs_on(handle, stream));
        call()
    }
    fn cublasGemmEx(handle: At, ta: i32, tb: i32, m: i32, n: i32, k: i32, alpha: At, a: At, atype: i32, lda: i32, b: At, btype: i32, ldb: i32, beta: At, c: At, ctype: i32, ldc: i32, compute: i32, algorithm: i32) |call| {
        timed(stream_of(handle), 0, product(ctype, [m, n, k].map(|n| n as u64), 1), call)
    }
    fn cublasGemmStridedBatchedEx(handle: At, ta: i32, tb: i32, m: i32, n: i32, k: i32, alpha: At, a: At, atype: i32, lda: i32, astep: i64, b: At, btype: i32, ldb: i32, bstep: i64, beta: At, c: At, ctype: i32, ldc: i32, cstep: i64, batch: i32, compute: i32, algorithm: i32) |call| {
        timed(stream_of(handle), 0, product(ctype, [m, n, k].map(|n| n as u64), batch), call)
    }
    fn cublasSgemm_v2(handle: At, ta: i32, tb: i32, m: i32, n: i32, k: i32, alpha: At, a: At, lda: i32, b: At, ldb: i32, beta: At, c: At, ldc: i32) |call| {
        timed(stream_of(handle), 0, product(0, [m, n, k].map(|n| n as u64), 1), call)
    }
    fn cublasSgemmStridedBatched(handle: At, ta: i32, tb: i32, m: i32, n: i32, k: i32, alpha: At, a: At, lda: i32, astep: i64, b: At, ldb: i32, bstep: i64, beta: At, c: At, ldc: i32, cstep: i64, batch: i32) |call| {
        timed(stream_of(handle), 0, product(0, [m, n, k].map(|n| n as u64), batch), call)
    }
    fn cublasDgemmStridedBatched(handle: At, ta: i32, tb: i32, m: i32, n: i32, k: i32, alpha: At, a: At, lda: i32, astep: i64, b: At, ldb: i32, bstep: i64, beta: At, c: At, ldc: i32, cstep: i64, batch: i32) |call| {
        timed(stream_of(handle), 0, product(1, [m, n, k].map(|n| n as u64), batch), call)
    }

    // cuBLASLt.
    fn cublasLtMatrixLayoutCreate(to: *mut At, dtype: i32, rows: u64, columns: u64, stride: i64) |call| {
        let code = call();
        if code == 0 {
            // SAFETY: the function has succeeded.
            let layout = unsafe { *to };
            know(|known| known.matrix(layout, Matrix { dtype, rows, columns, batch: 1 }));
        }
        code
    }
    fn cublasLtMatrixLayoutSetAttribute(layout: At, attribute: i32, value: *const i32, bytes: usize) |call| {
        const BATCH: i32 = 5;
        if attribute == BATCH && bytes == 4 && !value.is_null() {
            // SAFETY: this attribute has 4 bytes, and the library reads them too.
            let batch = unsafe { value.read_unaligned() };
            know(|known| known.matrices.get_mut(&layout).into_iter().for_each(|matrix| matrix.batch = batch));
        }
        call()
    }
    fn cublasLtMatmul(handle: At, operation: At, alpha: At, a: At, alayout: At, b: At, blayout: At, beta: At, c: At, clayout: At, d: At, dlayout: At, algorithm: At, workspace: At, bytes: usize, stream: At) |call| {
        timed(stream, 0, product_of(alayout, dlayout), call)
    }

    // cuDNN.
    fn cudnnSetStream(handle: At, stream: At) |call| {
        know(|known| known.runs_on(handle, stream));
        call()
    }
    fn cudnnSetTensorNdDescriptor(of: At, dtype: i32, count: i32, dims: *const i32, strides: At) |call| {
        let code = call();
        if code == 0 {
            // SAFETY: the sizes that cuDNN has read.
            unsafe { tensor_of(of, dtype, count, dims) };
        }
        code
    }
    fn cudnnSetTensor4dDescriptor(of: At, format: i32, dtype: i32, n: i32, c: i32, h: i32, w: i32) |call| {
        tensor(of, dtype, &[n, c, h, w]);
        call()
    }
    fn cudnnSetTensor4dDescriptorEx(of: At, dtype: i32, n: i32, c: i32, h: i32, w: i32, ns: i32, cs: i32, hs: i32, ws: i32) |call| {
        tensor(of, dtype, &[n, c, h, w]);
        call()
    }
    fn cudnnSetFilterNdDescriptor(of: At, dtype: i32, format: i32, count: i32, dims: *const i32) |call| {
        let code = call();
        if code == 0 {
            // SAFETY: the sizes that cuDNN has read.
            unsafe { tensor_of(of, dtype, count, dims) };
        }
        code
    }
    fn cudnnSetFilter4dDescriptor(of: At, dtype: i32, format: i32, k: i32, c: i32, h: i32, w: i32) |call| {
        tensor(of, dtype, &[k, c, h, w]);
        call()
    }
    fn cudnnConvolutionForward(handle: At, alpha: At, xs: At, x: At, ws: At, w: At, convolution_: At, algorithm: i32, space: At, bytes: usize, beta: At, ys: At, y: At) |call| {
        timed(stream_of(handle), 0, convolution("convolution", xs, ws, algorithm), call)
    }
    fn cudnnConvolutionBiasActivationForward(handle: At, alpha: At, xs: At, x: At, ws: At, w: At, convolution_: At, algorithm: i32, space: At, bytes: usize, alpha2: At, zs: At, z: At, bs: At, b: At, activation: At, ys: At, y: At) |call| {
        timed(stream_of(handle), 0, convolution("convolution with bias", xs, ws, algorithm), call)
    }
    fn cudnnConvolutionBackwardData(handle: At, alpha: At, ws: At, w: At, ys: At, y: At, convolution_: At, algorithm: i32, space: At, bytes: usize, beta: At, xs: At, x: At) |call| {
        timed(stream_of(handle), 0, convolution("backward of input", ys, ws, algorithm), call)
    }
    fn cudnnConvolutionBackwardFilter(handle: At, alpha: At, xs: At, x: At, ys: At, y: At, convolution_: At, algorithm: i32, space: At, bytes: usize, beta: At, ws: At, w: At) |call| {
        timed(stream_of(handle), 0, convolution("backward of weights", xs, ws, algorithm), call)
    }
    fn cudnnBackendCreateDescriptor(kind: i32, to: *mut At) |call| {
        let code = call();
        if code == 0 {
            // SAFETY: the function has succeeded.
            let descriptor = unsafe { *to };
            know(|known| known.created(descriptor, kind));
        }
        code
    }
    fn cudnnBackendSetAttribute(of: At, name: i32, dtype: i32, count: i64, values: *const c_void) |call| {
        let code = call();
        if code == 0 {
            // SAFETY: the values that cuDNN has read.
            know(|known| unsafe { known.attribute(of, name, dtype, count, values) });
        }
        code
    }
    fn cudnnBackendGetAttribute(of: At, name: i32, dtype: i32, room: i64, count: *mut i64, values: *mut c_void) |call| {
        let code = call();
        if code == 0 && dtype == DESCRIPTOR && !count.is_null() {
            // SAFETY: cuDNN has written so many, if there was room.
            know(|known| unsafe { known.found(of, (*count).min(room), values) });
        }
        code
    }
    fn cudnnBackendFinalize(descriptor: At) |call| {
        let code = call();
        if code == 0 {
            know(|known| known.finalised(descriptor));
        }
        code
    }
    fn cudnnBackendExecute(handle: At, plan_: At, variants: At) |call| {
        timed(stream_of(handle), 0, plan(plan_), call)
    }
}
