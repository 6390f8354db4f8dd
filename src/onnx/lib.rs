//! The user's own network as an ONNX file, evaluated and differentiated on candle's tensors.
//!
//! Why not candle-onnx: its build requires `protoc`, while a Rust toolchain alone must be enough here. It lacks operators
//! that common feature extractors use (LayerNormalization, InstanceNormalization, GlobalAveragePool, ConvTranspose, padded
//! MaxPool). Its MaxPool returns wrong gradients, and its Softmax may lose them without an error. So the messages of the
//! format are `prost` structs, and each supported operator is a composition with correct gradients. A file with any other
//! operator is refused, with the operator's name, before it runs.
//!
//! Weights and features are f32 whatever the precision of the file. Integers and truth values, which describe shapes, are
//! i64 and u8 on the CPU and are computed on each run from the input's shape.

#![warn(missing_docs)]

mod attributes;
mod axes;
mod dims;
mod file;
mod image_input;
mod info;
mod load;
mod network;
mod operators;
mod proto;
mod program;
mod route;
mod self_test;
mod step;
mod tape;
mod vjp;

pub use image_input::{ImageInput, Normalisation};
pub use info::{Dim, OnnxInfo, ValueInfo};
pub use lsregen_tensor::{Error, Result};
pub use network::OnnxNetwork;
