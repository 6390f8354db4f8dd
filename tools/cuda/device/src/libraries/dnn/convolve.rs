//! Convolutions of cuDNN's old interface.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::convolution::Sizes;
use super::super::number::{Number, round_to_tf32, tf32_allowed};
use super::super::view::View;
use super::descriptor::{Activation, Described, Tensor, activation, convolution, filter, tensor};
use super::{BAD_PARAM, EXECUTION_FAILED, NOT_SUPPORTED, NULL_POINTER, SUBLIBRARY_LOADING_FAILED, SUCCESS, stream};
use crate::count::Counted;
use crate::fault::{Fault, fault};
use crate::memory::{Access, check};
use crate::mode::{Failure, settings};
use crate::stream::{StreamHandle, Work, enqueue};

/// `cudnnConvolutionFwdAlgoPerf_t` and its twin of the backward pass.
#[repr(C)]
pub struct Performance {
    algorithm: i32,
    status: i32,
    time: f32,
    memory: usize,
    determinism: i32,
    math: i32,
    reserved: [i32; 3],
}

/// The algorithms that answer: implicit GEMM with precomputed indices forwards, algorithm 1 backwards.
const ALGORITHM: i32 = 1;

/// The workspace of the algorithm.
const WORKSPACE: usize = 64 << 10;

/// A convolution whose descriptors fit together.
struct Fitting {
    described: Described,
    sizes: Sizes,
    x: Tensor,
    w: Tensor,
    y: Tensor,
}

/// Fits descriptors together as cuDNN does.
fn fit(x: *const c_void, w: *const c_void, c: *const c_void, y: *const c_void) -> Result<Fitting, i32> {
    let (x, w, y) = (tensor(x).ok_or(BAD_PARAM)?, filter(w).ok_or(BAD_PARAM)?, tensor(y).ok_or(BAD_PARAM)?);
    let described = convolution(c).ok_or(BAD_PARAM)?;
    if described.convolution.result(x.dims, w.dims) != Some(y.dims) {
        return Err(BAD_PARAM);
    }
    if x.number != w.number || x.number != y.number {
        return Err(BAD_PARAM);
    }
    let fits = match x.number {
        Number::F32 | Number::Bf16 => described.compute == Number::F32,
        Number::F16 => matches!(described.compute, Number::F32 | Number::F16),
        _ => false,
    };
    if !fits {
        return Err(NOT_SUPPORTED);
    }
    Ok(Fitting { sizes: Sizes { x: x.dims, w: w.dims, y: y.dims }, described, x, w, y })
}

impl Fitting {
    fn work(&self, what: &str, bytes: u64) -> Work {
        let (Sizes { x, w, .. }, c) = (self.sizes, &self.described.convolution);
        let name = format!("{what} {:?} x{x:?} w{w:?} stride {:?} groups {}", self.x.number, c.stride, c.groups);
        Work { group: Counted::Convolution, name, bytes, flops: c.flops(self.sizes) }
    }

    /// Reads an operand, rounded to TF32 if cuDNN may use it.
    fn operand(&self, view: &View) -> Vec<f32> {
        let mut numbers = view.read();
        if self.x.number == Number::F32 && self.described.tf32 && tf32_allowed() {
            round_to_tf32(&mut numbers);
        }
        numbers
    }
}

unsafe fn factor(from: *const c_void) -> Result<f32, i32> {
    // SAFETY: the caller of the library gives an f32, as the types of the tensors demand.
    if from.is_null() { Err(NULL_POINTER) } else { Ok(unsafe { *from.cast::<f32>() }) }
}

/// Writes `alpha · result + beta · what is there`. With a beta of 0 nothing is read.
fn blend(to: &View, mut result: Vec<f32>, alpha: f32, beta: f32) {
    if beta == 0.0 {
        result.iter_mut().for_each(|r| *r *= alpha);
    } else {
        result.iter_mut().zip(to.read()).for_each(|(r, old)| *r = alpha * *r + beta * old);
    }
    to.write(&result);
}

fn submit(stream: StreamHandle, work: Work, run: impl Fn() + Send + Sync + 'static) -> i32 {
    if enqueue(stream, work, run).is_ok() { SUCCESS } else { EXECUTION_FAILED }
}

fn code(result: Result<i32, i32>) -> i32 {
    result.unwrap_or_else(|code| code)
}

/// What a question about a convolution gets: a refusal if one is planned and channels are last. Such a question again is a
/// fault: a program that does not remember the answer would ask in every step.
fn asked(handle: *mut c_void, what: &str, fitting: Result<Fitting, i32>) -> Result<Fitting, i32> {
    static QUESTIONS: AtomicU64 = AtomicU64::new(0);
    static REFUSED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let fitting = fitting?;
    let Some(Failure::Refusal(first)) = settings().fail else { return Ok(fitting) };
    let last = fitting.x.strides[1] == 1;
    if !last || QUESTIONS.fetch_add(1, Ordering::Relaxed) + 1 < first {
        return Ok(fitting);
    }
    let Fitting { described, sizes, x, .. } = &fitting;
    let question = format!("{what} of {handle:?} for {sizes:?} in {:?}, {:?}", x.number, described.convolution);
    if !REFUSED.lock().unwrap_or_else(|broken| broken.into_inner()).insert(question.clone()) {
        fault(Fault::InvalidCall, format!("cuDNN is asked again for what it refused before: {question}"));
    }
    Err(NOT_SUPPORTED)
}

unsafe fn algorithms(fitting: Result<Fitting, i32>, room: i32, count: *mut i32, to: *mut Performance) -> i32 {
    if let Err(code) = fitting {
        return code;
    }
    if room < 1 || count.is_null() || to.is_null() {
        return BAD_PARAM;
    }
    let best = Performance {
        algorithm: ALGORITHM,
        status: 0,
        time: -1.0,
        memory: WORKSPACE,
        determinism: 1,
        math: 0,
        reserved: [0; 3],
    };
    // SAFETY: the caller gives room for the results.
    unsafe {
        *count = 1;
        to.write(best);
    }
    SUCCESS
}

unsafe fn workspace(fitting: Result<Fitting, i32>, algorithm: i32, to: *mut usize) -> i32 {
    if let Err(code) = fitting {
        return code;
    }
    if to.is_null() {
        return NULL_POINTER;
    }
    // SAFETY: the caller gives the address of a size.
    unsafe { *to = if algorithm == ALGORITHM { WORKSPACE } else { 0 } };
    if (0..=7).contains(&algorithm) { SUCCESS } else { BAD_PARAM }
}

/// Checks the workspace of a call, and whether the call fails as planned.
fn given(algorithm: i32, workspace: *mut c_void, bytes: usize) -> Result<(), i32> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(Failure::Library(first)) = settings().fail
        && call >= first
    {
        return Err(SUBLIBRARY_LOADING_FAILED);
    }
    match algorithm {
        ALGORITHM if workspace.is_null() || bytes < WORKSPACE => Err(BAD_PARAM),
        0..=7 => Ok(()),
        _ => Err(BAD_PARAM),
    }
}

/// Checks the addresses of a convolution. cuDNN's release notes say that "the Tensor pointers and the filter pointers require
/// at a minimum 4-byte alignment, including for FP16 or INT8 data", but not what happens otherwise.
fn check_alignment<const N: usize>(views: [&View; N]) {
    if let Some(view) = views.into_iter().find(|view| !view.address.is_multiple_of(4)) {
        let text = format!("{}: {:#x} is no multiple of 4 bytes, which cuDNN needs", view.what, view.address);
        fault(Fault::Misaligned, text);
    }
}

/// cuDNN writes into its workspace while it runs.
fn use_workspace(algorithm: i32, address: u64) {
    if algorithm == ALGORITHM {
        check("the workspace of a convolution", address, WORKSPACE, Access::Write);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnGetConvolutionForwardAlgorithm_v7(
    handle: *mut c_void,
    x: *const c_void,
    w: *const c_void,
    c: *const c_void,
    y: *const c_void,
    room: i32,
    count: *mut i32,
    to: *mut Performance,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { algorithms(asked(handle, "cudnnGetConvolutionForwardAlgorithm_v7", fit(x, w, c, y)), room, count, to) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnGetConvolutionForwardWorkspaceSize(
    handle: *mut c_void,
    x: *const c_void,
    w: *const c_void,
    c: *const c_void,
    y: *const c_void,
    algorithm: i32,
    to: *mut usize,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { workspace(asked(handle, "cudnnGetConvolutionForwardWorkspaceSize", fit(x, w, c, y)), algorithm, to) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnGetConvolution2dForwardOutputDim(
    c: *const c_void,
    x: *const c_void,
    w: *const c_void,
    n: *mut i32,
    k: *mut i32,
    h: *mut i32,
    q: *mut i32,
) -> i32 {
    let (Some(x), Some(w), Some(c)) = (tensor(x), filter(w), convolution(c)) else { return BAD_PARAM };
    let Some(y) = c.convolution.result(x.dims, w.dims) else { return BAD_PARAM };
    for (to, y) in [n, k, h, q].into_iter().zip(y) {
        // SAFETY: the caller gives the addresses of four numbers.
        unsafe { *to = y as i32 };
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnConvolutionForward(
    handle: *mut c_void,
    alpha: *const c_void,
    xd: *const c_void,
    x: *const c_void,
    wd: *const c_void,
    w: *const c_void,
    c: *const c_void,
    algorithm: i32,
    space: *mut c_void,
    bytes: usize,
    beta: *const c_void,
    yd: *const c_void,
    y: *mut c_void,
) -> i32 {
    let run = || {
        let stream = stream(handle).ok_or(NULL_POINTER)?;
        let fitting = fit(xd, wd, c, yd)?;
        given(algorithm, space, bytes)?;
        if x.is_null() || w.is_null() || y.is_null() {
            return Err(NULL_POINTER);
        }
        // SAFETY: guaranteed by the caller.
        let (alpha, beta) = unsafe { (factor(alpha)?, factor(beta)?) };
        let (x, w, y) = (
            fitting.x.view("x of a convolution", x),
            fitting.w.view("w of a convolution", w),
            fitting.y.view("y of a convolution", y),
        );
        check_alignment([&x, &w, &y]);
        if y.overlaps() {
            return Err(NOT_SUPPORTED);
        }
        let work = fitting.work("conv", x.bytes() + w.bytes() + y.bytes());
        let space = space as u64;
        Ok(submit(stream, work, move || {
            use_workspace(algorithm, space);
            let result =
                fitting.described.convolution.forward(fitting.sizes, &fitting.operand(&x), &fitting.operand(&w));
            blend(&y, result, alpha, beta);
        }))
    };
    code(run())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnConvolutionBiasActivationForward(
    handle: *mut c_void,
    alpha: *const c_void,
    xd: *const c_void,
    x: *const c_void,
    wd: *const c_void,
    w: *const c_void,
    c: *const c_void,
    algorithm: i32,
    space: *mut c_void,
    bytes: usize,
    beta: *const c_void,
    zd: *const c_void,
    z: *const c_void,
    bd: *const c_void,
    b: *const c_void,
    ad: *const c_void,
    yd: *const c_void,
    y: *mut c_void,
) -> i32 {
    let run = || {
        let stream = stream(handle).ok_or(NULL_POINTER)?;
        let fitting = fit(xd, wd, c, yd)?;
        given(algorithm, space, bytes)?;
        let (z, b) = (
            tensor(zd).ok_or(BAD_PARAM)?.view("z of a convolution", z),
            tensor(bd).ok_or(BAD_PARAM)?.view("the bias of a convolution", b),
        );
        let activation = activation(ad).ok_or(BAD_PARAM)?;
        // "The bias descriptor has one number for each channel"; only this algorithm knows the identity.
        if z.dims != fitting.y.dims || b.dims != [1, fitting.y.dims[1], 1, 1] {
            return Err(BAD_PARAM);
        }
        if algorithm != ALGORITHM && activation == Activation::Identity {
            return Err(NOT_SUPPORTED);
        }
        // SAFETY: guaranteed by the caller.
        let (alpha, beta) = unsafe { (factor(alpha)?, factor(beta)?) };
        let (x, w, y) = (
            fitting.x.view("x of a convolution", x),
            fitting.w.view("w of a convolution", w),
            fitting.y.view("y of a convolution", y),
        );
        check_alignment([&x, &w, &y, &b]);
        if beta != 0.0 {
            check_alignment([&z]);
        }
        let work = fitting.work("conv+bias", x.bytes() + w.bytes() + y.bytes());
        let space = space as u64;
        Ok(submit(stream, work, move || {
            use_workspace(algorithm, space);
            let mut result =
                fitting.described.convolution.forward(fitting.sizes, &fitting.operand(&x), &fitting.operand(&w));
            let (bias, plane) = (b.read(), fitting.y.dims[2] * fitting.y.dims[3]);
            let old = (beta != 0.0).then(|| z.read());
            for (i, r) in result.iter_mut().enumerate() {
                *r = alpha * *r + old.as_ref().map_or(0.0, |z| beta * z[i]) + bias[i / plane % bias.len()];
                if activation == Activation::Relu {
                    *r = r.max(0.0);
                }
            }
            y.write(&result);
        }))
    };
    code(run())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnGetConvolutionBackwardDataAlgorithm_v7(
    handle: *mut c_void,
    w: *const c_void,
    dy: *const c_void,
    c: *const c_void,
    dx: *const c_void,
    room: i32,
    count: *mut i32,
    to: *mut Performance,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        algorithms(asked(handle, "cudnnGetConvolutionBackwardDataAlgorithm_v7", fit(dx, w, c, dy)), room, count, to)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnGetConvolutionBackwardDataWorkspaceSize(
    handle: *mut c_void,
    w: *const c_void,
    dy: *const c_void,
    c: *const c_void,
    dx: *const c_void,
    algorithm: i32,
    to: *mut usize,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        workspace(asked(handle, "cudnnGetConvolutionBackwardDataWorkspaceSize", fit(dx, w, c, dy)), algorithm, to)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnConvolutionBackwardData(
    handle: *mut c_void,
    alpha: *const c_void,
    wd: *const c_void,
    w: *const c_void,
    dyd: *const c_void,
    dy: *const c_void,
    c: *const c_void,
    algorithm: i32,
    space: *mut c_void,
    bytes: usize,
    beta: *const c_void,
    dxd: *const c_void,
    dx: *mut c_void,
) -> i32 {
    let run = || {
        let stream = stream(handle).ok_or(NULL_POINTER)?;
        let fitting = fit(dxd, wd, c, dyd)?;
        given(algorithm, space, bytes)?;
        if dy.is_null() || w.is_null() || dx.is_null() {
            return Err(NULL_POINTER);
        }
        // SAFETY: guaranteed by the caller.
        let (alpha, beta) = unsafe { (factor(alpha)?, factor(beta)?) };
        let (dy, w, dx) = (
            fitting.y.view("dy of a convolution", dy),
            fitting.w.view("w of a convolution", w),
            fitting.x.view("dx of a convolution", dx),
        );
        check_alignment([&dy, &w, &dx]);
        if dx.overlaps() {
            return Err(NOT_SUPPORTED);
        }
        let work = fitting.work("conv backward", dy.bytes() + w.bytes() + dx.bytes());
        let space = space as u64;
        Ok(submit(stream, work, move || {
            use_workspace(algorithm, space);
            let c = &fitting.described.convolution;
            blend(&dx, c.backward_data(fitting.sizes, &fitting.operand(&dy), &fitting.operand(&w)), alpha, beta);
        }))
    };
    code(run())
}

/// `c = alpha · a + beta · c`, where dimensions of `a` may be 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnAddTensor(
    handle: *mut c_void,
    alpha: *const c_void,
    ad: *const c_void,
    a: *const c_void,
    beta: *const c_void,
    cd: *const c_void,
    c: *mut c_void,
) -> i32 {
    let run = || {
        let stream = stream(handle).ok_or(NULL_POINTER)?;
        let (a, c) = (
            tensor(ad).ok_or(BAD_PARAM)?.view("A of an addition", a),
            tensor(cd).ok_or(BAD_PARAM)?.view("C of an addition", c),
        );
        if a.dims.iter().zip(&c.dims).any(|(a, c)| *a != 1 && a != c) {
            return Err(BAD_PARAM);
        }
        // SAFETY: guaranteed by the caller.
        let (alpha, beta) = unsafe { (factor(alpha)?, factor(beta)?) };
        let wide = View {
            strides: a.dims.iter().zip(&a.strides).map(|(&dim, &stride)| if dim == 1 { 0 } else { stride }).collect(),
            dims: c.dims.clone(),
            ..a
        };
        let name = format!("add {:?} {:?}", c.number, c.dims);
        let work = Work { group: Counted::Kernel, name, bytes: wide.bytes() + 2 * c.bytes(), flops: c.len() as f64 };
        Ok(submit(stream, work, move || blend(&c, wide.read(), alpha, beta)))
    };
    code(run())
}

#[cfg(test)]
mod tests;
