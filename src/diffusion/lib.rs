//! The diffusion library of lsregen: models, samplers, inversion and the backward guidance framework.
//!
//! Knows tensors, pictures and checkpoints. Knows no graph, no YAML, no engine.

pub mod ops;
