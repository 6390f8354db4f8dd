//! The libraries beside the driver: cuBLAS, cuBLASLt, cuRAND and cuDNN.
//!
//! Their functions check what the real ones check and return their codes; reading and writing is checked element by
//! element when the work runs. They compute in f32 (f64 products aside) and round where the real ones round.

#![allow(non_snake_case, clippy::too_many_arguments, clippy::missing_safety_doc, clippy::not_unsafe_ptr_arg_deref)]

pub mod blas;
pub mod blas_lt;
mod convolution;
pub mod dnn;
mod gemm;
#[cfg(test)]
mod gemm_tests;
mod number;
pub mod object;
mod product;
pub mod rand;
#[cfg(test)]
mod testing;
mod view;
