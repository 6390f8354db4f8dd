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
pub mod stream;
pub mod libraries;
