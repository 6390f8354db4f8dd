//! The diffusion library of lsregen: models, samplers, inversion and the backward guidance framework.
//!
//! Knows tensors, pictures and checkpoints. Knows no graph, no YAML, no engine.
//!
//! [`schedule`], [`sampler`], [`inversion`] and [`guidance`] are the paper's mathematics; [`models`] are the networks
//! over [`lsregen_weights`], made of [`lsregen_tensor::ops`]; [`pipeline`] puts them together.

pub mod denoiser;
pub mod draw;
pub mod guidance;
pub mod inversion;
pub mod latent;
pub mod layout;
pub mod models;
pub mod pipeline;
mod reduce;
pub mod regions;
pub mod sampler;
mod sampling;
pub mod schedule;

#[cfg(feature = "cuda")]
pub use lsregen_tensor::cuda;
pub use lsregen_tensor::{Error, Result, candle_core, image, noise, ops, tensors};
pub use {lsregen_onnx as onnx, lsregen_weights as weights};
