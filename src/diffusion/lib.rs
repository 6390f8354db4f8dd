//! The diffusion library of lsregen: models, samplers, inversion and the backward guidance framework.
//!
//! Deals with tensors, images and checkpoints. Does not depend on graphs, YAML or the engine.
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

pub use lsregen_tensor::{Error, Result};
// The crates that this crate builds on, by their names without the prefix.
use lsregen_tensor::{image, noise, ops};
use {lsregen_onnx as onnx, lsregen_weights as weights};
