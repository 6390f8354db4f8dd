//! Checkpoints: finding a model's files, and loading their tensors by diffusers' names.
//!
//! [`Checkpoint`] opens a file of any format. [`SortedTensors`] sorts its tensors into networks and translates the names of
//! other layouts to diffusers' names. [`Weights`] loads the tensors that a network requests, and [`Weights::finish`] reports
//! those that it did not.
//!
//! ```
//! use candle_core::{DType, Device};
//! use lsregen_weights::{BUILTIN, Precision, Weights};
//!
//! # fn main() -> lsregen_weights::Result<()> {
//! let precision = Precision::new(DType::F32, &Device::Cpu);
//! // `ModelFiles::Folder(path)` is a model on disk in diffusers' layout.
//! let files = &BUILTIN[0];
//! let weights = Weights::open(files, &files.weights("unet", "diffusion_pytorch_model")?, &precision)?;
//! let bias = weights.at("conv_out").get(4, "bias")?;
//! assert_eq!(bias.dims(), [4]);
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod builtin;
mod checkpoint;
mod content;
mod entry;
mod file_cache;
mod files;
mod foreign;
mod header;
pub mod hub;
mod json;
mod names;
mod pickle;
pub mod search;
mod tensors;

pub use builtin::{BUILTIN, BUILTIN_CLIP};
pub use checkpoint::Checkpoint;
pub use entry::{Directory, TensorEntry};
pub use file_cache::FileCache;
pub use files::ModelFiles;
pub use json::Json;
pub use lsregen_tensor::{Error, Result, elements};
pub use names::NetworkKind;
pub use tensors::{Precision, SortedTensors, TensorMap, Weights};
