//! Tests of convolutions: the alignment of their addresses, and planned refusals.

use std::ptr::null_mut;

use super::super::super::testing::{Buffer, faults, noise};
use super::super::descriptor::*;
use super::super::{cudnnCreate, cudnnDestroy};
use super::*;

/// A convolution of one image (1, 2, 3, 3) by filters (2, 2, 1, 1) in f16, with one address moved by some bytes.
fn convolve(moved: usize, bytes: usize) -> i32 {
    let number = Number::F16;
    let (x, w) = (Buffer::of(number, &noise(number, 20, 1)), Buffer::of(number, &noise(number, 6, 2)));
    let y = Buffer::new(number, 20);
    let mut addresses = [&x, &w, &y].map(|buffer| buffer.pointer());
    addresses[moved] = addresses[moved].wrapping_byte_add(bytes);
    let [x, w, y] = addresses;
    let space = Buffer::new(Number::Bool, WORKSPACE);
    let (mut handle, mut image, mut filter, mut settings) = (null_mut(), null_mut(), null_mut(), null_mut());
    assert_eq!(cudnnCreate(&mut handle), 0);
    assert_eq!(cudnnCreateTensorDescriptor(&mut image), 0);
    assert_eq!(cudnnCreateFilterDescriptor(&mut filter), 0);
    assert_eq!(cudnnCreateConvolutionDescriptor(&mut settings), 0);
    let (one, zero) = (1f32, 0f32);
    let [one, zero] = [&raw const one, &raw const zero].map(|number| number.cast());
    // CUDNN_DATA_HALF, CUDNN_TENSOR_NCHW, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT.
    assert_eq!(cudnnSetFilter4dDescriptor(filter, 2, 0, 2, 2, 1, 1), 0);
    assert_eq!(cudnnSetConvolution2dDescriptor(settings, 0, 0, 1, 1, 1, 1, 1, 0), 0);
    // SAFETY: living descriptors, and the addresses of as many numbers.
    let code = unsafe {
        assert_eq!(cudnnSetTensorNdDescriptorEx(image, 0, 2, 4, [1, 2, 3, 3].as_ptr()), 0);
        let (algorithm, space) = (ALGORITHM, space.pointer());
        cudnnConvolutionForward(handle, one, image, x, filter, w, settings, algorithm, space, WORKSPACE, zero, image, y)
    };
    // The work runs while its memory lives.
    Buffer::of(Number::F32, &[0.0]).read();
    cudnnDestroyTensorDescriptor(image);
    cudnnDestroyFilterDescriptor(filter);
    cudnnDestroyConvolutionDescriptor(settings);
    cudnnDestroy(handle);
    code
}

#[test]
fn four_bytes_are_enough() {
    (0..3).for_each(|moved| assert_eq!(convolve(moved, 4), 0));
}

#[test]
fn a_misaligned_image_is_a_fault() {
    let name = "libraries::dnn::convolve::tests::a_misaligned_image_is_a_fault";
    faults(name, "x of a convolution", || assert_ne!(convolve(0, 2), 0));
}

#[test]
fn misaligned_filters_are_a_fault() {
    let name = "libraries::dnn::convolve::tests::misaligned_filters_are_a_fault";
    faults(name, "no multiple of 4 bytes, which cuDNN needs", || assert_ne!(convolve(1, 2), 0));
}

#[test]
fn a_misaligned_result_is_a_fault() {
    let name = "libraries::dnn::convolve::tests::a_misaligned_result_is_a_fault";
    faults(name, "y of a convolution", || assert_ne!(convolve(2, 2), 0));
}

#[test]
fn what_was_refused_is_not_asked_again() {
    faults("libraries::dnn::convolve::tests::what_was_refused_is_not_asked_again", "what it refused before", || {
        // SAFETY: this process has no other test, and nothing has read the settings yet.
        unsafe { std::env::set_var("CUDA_DEVICE_FAIL", "refusal:2") };
        let (mut image, mut filter, mut settings, mut bytes) = (null_mut(), null_mut(), null_mut(), 0);
        cudnnCreateTensorDescriptor(&mut image);
        cudnnCreateFilterDescriptor(&mut filter);
        cudnnCreateConvolutionDescriptor(&mut settings);
        // CUDNN_TENSOR_NHWC, CUDNN_DATA_HALF, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT.
        assert_eq!(cudnnSetTensor4dDescriptor(image, 1, 2, 1, 2, 3, 3), 0);
        assert_eq!(cudnnSetFilter4dDescriptor(filter, 2, 1, 2, 2, 1, 1), 0);
        assert_eq!(cudnnSetConvolution2dDescriptor(settings, 0, 0, 1, 1, 1, 1, 1, 0), 0);
        let mut ask = |algorithm| {
            // SAFETY: living descriptors, and the address of a size.
            unsafe {
                cudnnGetConvolutionForwardWorkspaceSize(
                    null_mut(),
                    image,
                    filter,
                    settings,
                    image,
                    algorithm,
                    &mut bytes,
                )
            }
        };
        assert_eq!([0, 1].map(&mut ask), [SUCCESS, NOT_SUPPORTED]);
        ask(1);
    });
}
