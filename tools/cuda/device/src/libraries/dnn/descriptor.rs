//! Descriptors of cuDNN's old interface: tensors, filters, convolutions and activations.

use std::ffi::c_void;

use super::super::convolution::Convolution;
use super::super::number::Number;
use super::super::object::{create, destroy, with};
use super::super::view::View;
use super::{BAD_PARAM, NOT_SUPPORTED, NULL_POINTER, SUCCESS};

const TENSOR: &str = "cuDNN tensor descriptor";
const FILTER: &str = "cuDNN filter descriptor";
const CONVOLUTION: &str = "cuDNN convolution descriptor";
const ACTIVATION: &str = "cuDNN activation descriptor";

/// A tensor or a filter of four dimensions, in the order (N, C, H, W).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) number: Number,
    pub(super) dims: [usize; 4],
    pub(super) strides: [usize; 4],
}

impl Tensor {
    pub(super) fn view(&self, what: &str, address: *const c_void) -> View {
        View {
            what: what.into(),
            address: address as u64,
            number: self.number,
            dims: self.dims.to_vec(),
            strides: self.strides.to_vec(),
        }
    }
}

/// A convolution, and how it is computed.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) convolution: Convolution,
    pub(super) compute: Number,
    pub(super) tf32: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activation {
    Identity,
    Relu,
}

pub(super) fn tensor(handle: *const c_void) -> Option<Tensor> {
    (!handle.is_null()).then(|| with(handle, TENSOR, |t: &mut Option<Tensor>| *t)).flatten()
}

pub(super) fn filter(handle: *const c_void) -> Option<Tensor> {
    (!handle.is_null()).then(|| with(handle, FILTER, |t: &mut Option<Tensor>| *t)).flatten()
}

pub(super) fn convolution(handle: *const c_void) -> Option<Described> {
    (!handle.is_null()).then(|| with(handle, CONVOLUTION, |c: &mut Option<Described>| c.clone())).flatten()
}

pub(super) fn activation(handle: *const c_void) -> Option<Activation> {
    (!handle.is_null()).then(|| with(handle, ACTIVATION, |a: &mut Option<Activation>| *a)).flatten()
}

macro_rules! lives {
    ($create:ident, $destroy:ident, $kind:ident, $type:ty) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $create(to: *mut *mut c_void) -> i32 {
            if create(to, $kind, None::<$type>) { SUCCESS } else { NULL_POINTER }
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn $destroy(handle: *mut c_void) -> i32 {
            destroy(handle, $kind);
            SUCCESS
        }
    };
}

lives!(cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor, TENSOR, Tensor);
lives!(cudnnCreateFilterDescriptor, cudnnDestroyFilterDescriptor, FILTER, Tensor);
lives!(cudnnCreateConvolutionDescriptor, cudnnDestroyConvolutionDescriptor, CONVOLUTION, Described);
lives!(cudnnCreateActivationDescriptor, cudnnDestroyActivationDescriptor, ACTIVATION, Activation);

/// The strides of a format: `CUDNN_TENSOR_NCHW` or `CUDNN_TENSOR_NHWC`.
fn strides(format: i32, [_, c, h, w]: [i32; 4]) -> Option<[i32; 4]> {
    match format {
        0 => Some([c * h * w, h * w, w, 1]),
        1 => Some([c * h * w, 1, w * c, c]),
        _ => None,
    }
}

fn set(handle: *mut c_void, kind: &str, number: i32, dims: [i32; 4], strides: Option<[i32; 4]>) -> i32 {
    let Some(strides) = strides else { return NOT_SUPPORTED };
    if handle.is_null() {
        return NULL_POINTER;
    }
    if dims.iter().chain(&strides).any(|&n| n < 1) {
        return BAD_PARAM;
    }
    let Some(number) = Number::of_cudnn(number) else { return NOT_SUPPORTED };
    let tensor = Tensor { number, dims: dims.map(|n| n as usize), strides: strides.map(|n| n as usize) };
    with(handle, kind, |t: &mut Option<Tensor>| *t = Some(tensor));
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnSetTensor4dDescriptor(
    t: *mut c_void,
    format: i32,
    number: i32,
    n: i32,
    c: i32,
    h: i32,
    w: i32,
) -> i32 {
    let dims = [n, c, h, w];
    set(t, TENSOR, number, dims, strides(format, dims))
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnSetTensor4dDescriptorEx(
    t: *mut c_void,
    number: i32,
    n: i32,
    c: i32,
    h: i32,
    w: i32,
    sn: i32,
    sc: i32,
    sh: i32,
    sw: i32,
) -> i32 {
    set(t, TENSOR, number, [n, c, h, w], Some([sn, sc, sh, sw]))
}

/// Reads four numbers. `None` for other counts: this device has images only.
unsafe fn four(count: i32, from: *const i32) -> Option<[i32; 4]> {
    // SAFETY: the caller of the library gives `count` numbers.
    (count == 4 && !from.is_null()).then(|| unsafe { *from.cast::<[i32; 4]>() })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetTensorNdDescriptor(
    t: *mut c_void,
    number: i32,
    count: i32,
    dims: *const i32,
    strides: *const i32,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    let (dims, strides) = unsafe { (four(count, dims), four(count, strides)) };
    let Some(dims) = dims else { return NOT_SUPPORTED };
    set(t, TENSOR, number, dims, strides)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetTensorNdDescriptorEx(
    t: *mut c_void,
    format: i32,
    number: i32,
    count: i32,
    dims: *const i32,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    let Some(dims) = (unsafe { four(count, dims) }) else { return NOT_SUPPORTED };
    set(t, TENSOR, number, dims, strides(format, dims))
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnSetFilter4dDescriptor(
    f: *mut c_void,
    number: i32,
    format: i32,
    k: i32,
    c: i32,
    h: i32,
    w: i32,
) -> i32 {
    let dims = [k, c, h, w];
    set(f, FILTER, number, dims, strides(format, dims))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetFilterNdDescriptor(
    f: *mut c_void,
    number: i32,
    format: i32,
    count: i32,
    dims: *const i32,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    let Some(dims) = (unsafe { four(count, dims) }) else { return NOT_SUPPORTED };
    set(f, FILTER, number, dims, strides(format, dims))
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnSetConvolution2dDescriptor(
    c: *mut c_void,
    ph: i32,
    pw: i32,
    sh: i32,
    sw: i32,
    dh: i32,
    dw: i32,
    mode: i32,
    compute: i32,
) -> i32 {
    if c.is_null() {
        return NULL_POINTER;
    }
    if ph < 0 || pw < 0 || sh < 1 || sw < 1 || dh < 1 || dw < 1 || !(0..=1).contains(&mode) {
        return BAD_PARAM;
    }
    let Some(compute) = Number::of_cudnn(compute) else { return NOT_SUPPORTED };
    let pad = [ph as usize, pw as usize];
    let convolution = Convolution {
        before: pad,
        after: pad,
        stride: [sh as usize, sw as usize],
        dilation: [dh as usize, dw as usize],
        groups: 1,
        flipped: mode == 0,
    };
    let described = Described { convolution, compute, tf32: true };
    with(c, CONVOLUTION, |c: &mut Option<Described>| *c = Some(described));
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnSetConvolutionNdDescriptor(
    c: *mut c_void,
    count: i32,
    pads: *const i32,
    strides: *const i32,
    dilations: *const i32,
    mode: i32,
    compute: i32,
) -> i32 {
    if count != 2 {
        return NOT_SUPPORTED;
    }
    if pads.is_null() || strides.is_null() || dilations.is_null() {
        return NULL_POINTER;
    }
    // SAFETY: the caller gives two numbers each.
    let [[ph, pw], [sh, sw], [dh, dw]] = [pads, strides, dilations].map(|p| unsafe { *p.cast::<[i32; 2]>() });
    cudnnSetConvolution2dDescriptor(c, ph, pw, sh, sw, dh, dw, mode, compute)
}

fn change(c: *mut c_void, change: impl FnOnce(&mut Described)) -> i32 {
    if c.is_null() {
        return NULL_POINTER;
    }
    with(c, CONVOLUTION, |c: &mut Option<Described>| {
        c.as_mut().map_or(BAD_PARAM, |c| {
            change(c);
            SUCCESS
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnSetConvolutionMathType(c: *mut c_void, math: i32) -> i32 {
    // CUDNN_FMA_MATH forbids TF32, the default allows it.
    if !(0..=3).contains(&math) { BAD_PARAM } else { change(c, |c| c.tf32 = math != 3) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnSetConvolutionGroupCount(c: *mut c_void, groups: i32) -> i32 {
    if groups < 1 { BAD_PARAM } else { change(c, |c| c.convolution.groups = groups as usize) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnSetActivationDescriptor(a: *mut c_void, mode: i32, _nan: i32, _coefficient: f64) -> i32 {
    // CUDNN_ACTIVATION_RELU and CUDNN_ACTIVATION_IDENTITY.
    let activation = match mode {
        1 => Activation::Relu,
        5 => Activation::Identity,
        _ => return NOT_SUPPORTED,
    };
    with(a, ACTIVATION, |a: &mut Option<Activation>| *a = Some(activation));
    SUCCESS
}
