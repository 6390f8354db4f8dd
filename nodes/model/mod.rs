//! Nodes that load models.

mod load_model;

pub use load_model::{LoadModel, LoadModelOutputs};
