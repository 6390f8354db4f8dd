//! The foundation of lsregen's numeric crates: differentiable operations, noise, images, tensors as bytes, the start of
//! CUDA.

#![warn(missing_docs)]

mod constants;
mod counts;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
pub mod image;
mod image_file;
mod nearest;
pub mod noise;
pub mod ops;
pub mod profile;
mod shape;
pub mod tensors;

pub use candle_core;
pub use constants::Constants;
pub use error::{Error, Result};
pub use nearest::nearest;
pub use shape::{checked_elements, elements};
