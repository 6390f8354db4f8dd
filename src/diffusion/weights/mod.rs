//! Checkpoints: where a model's files are, and the tensors in them, by diffusers' names.
//!
//! Knows files and safetensors. Knows no network: a network asks for the tensors that it needs, and [`Weights::finish`]
//! tells what it left over.

mod builtin;
mod entry;
mod files;
pub mod hub;
mod nearest;
pub mod search;
mod tensors;

pub use builtin::BUILTIN;
pub use entry::{Directory, Entry};
pub use files::ModelFiles;
pub use tensors::Weights;
