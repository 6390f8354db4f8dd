//! The diffusion library of lsregen: models, samplers, inversion and the backward guidance framework.
//!
//! Knows tensors, pictures and checkpoints. Knows no graph, no YAML, no engine.
//!
//! [`schedule`], [`sampler`], [`inversion`], [`noise`] and [`guidance`] are the paper's mathematics; [`models`] are the
//! networks over [`weights`]; [`ops`] is what networks are made of; [`pipeline`] puts them together.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod denoiser;
pub mod draw;
pub mod error;
pub mod guidance;
pub mod image;
pub mod inversion;
pub mod latent;
pub mod layout;
pub mod models;
pub mod noise;
pub mod onnx;
pub mod ops;
pub mod pipeline;
mod reduce;
pub mod regions;
pub mod sampler;
mod sampling;
pub mod schedule;
pub mod tensors;
pub mod weights;

pub use candle_core;
pub use error::{Error, Result};
