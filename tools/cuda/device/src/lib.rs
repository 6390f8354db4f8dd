//! A software CUDA device.
//!
//! One shared object stands in place of CUDA's driver and libraries. Programs built for CUDA run on it without a GPU.
//! Work of a stream is deferred, memory is checked byte by byte, and kernels are translated from PTX to machine code.

#![allow(non_snake_case)] // the functions of CUDA keep their names
#![allow(clippy::missing_safety_doc)] // CUDA's documentation has them

pub mod code;
pub mod mode;
pub mod fault;
pub mod count;
pub mod memory;
mod signal;
pub mod stream;
mod capture;
pub mod ptx;
pub mod translate;
pub mod kernel;
pub mod compile;
pub mod block;
mod warp;
mod launch;
mod bytes;
pub mod driver;
pub mod runtime;
pub mod check;
pub mod libraries;
