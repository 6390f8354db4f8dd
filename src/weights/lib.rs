//! Checkpoints: where a model's files are, and the tensors in them, by diffusers' names.
//!
//! [`Checkpoint`] opens a file of any format, `names` carries other layouts over to diffusers' names, [`Weights`] gives
//! a network its tensors. Knows no network: a network asks for the tensors that it needs, and [`Weights::finish`] tells
//! what it left over.

mod builtin;
mod checkpoint;
mod entry;
mod file_cache;
mod files;
pub mod hub;
mod names;
mod pickle;
pub mod search;
mod tensors;

pub use builtin::{BUILTIN, BUILTIN_CLIP};
pub use checkpoint::Checkpoint;
pub use entry::{Directory, TensorEntry};
pub use file_cache::FileCache;
pub use files::ModelFiles;
pub use lsregen_tensor::{Error, Result};
pub use names::Part;
pub use tensors::{Numbers, Sorted, TensorMap, Weights};
