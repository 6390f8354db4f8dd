//! The diffusion library of lsregen: models, samplers, inversion and the backward guidance framework.
//!
//! Knows tensors, pictures and checkpoints. Knows no graph, no YAML, no engine.
//!
//! [`schedule`], [`sampler`], [`inversion`], [`noise`] and [`guidance`] are the paper's mathematics; [`models`] are the
//! networks over [`weights`]; [`ops`] is what networks are made of; [`pipeline`] puts them together.

pub mod error;
pub mod models;
pub mod ops;
pub mod schedule;
pub mod weights;

pub use error::{Error, Result};
