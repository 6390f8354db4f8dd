//! What all numeric crates of lsregen stand on: differentiable operations, noise, images, tensors as bytes, CUDA's start.
//!
//! Knows tensors. Knows no model and no file of weights.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
pub mod image;
mod nearest;
pub mod noise;
pub mod ops;
pub mod tensors;

pub use candle_core;
pub use error::{Error, Result};
pub use nearest::nearest;
