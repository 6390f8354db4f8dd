//! The user's own network as an ONNX file, evaluated on candle's tensors and differentiated through.
//!
//! Why not candle-onnx: its build needs `protoc` on the machine, and a Rust toolchain alone has to be enough; it lacks
//! what common feature extractors are exported to (LayerNormalization, InstanceNormalization, GlobalAveragePool,
//! ConvTranspose, padded MaxPool); its MaxPool falsifies gradients and its Softmax may lose them without an error. So the
//! few messages of the format are structs of `prost`, and each operator of an allow-list is a composition that keeps
//! gradients right, in `operators`. What is not on the list is refused by name before anything runs.
//!
//! Weights and features are f32 whatever the file's precision; whole numbers and truth values (the arithmetic of shapes)
//! are i64 and u8 on the CPU, worked out at each run from the concrete shape of the input. Knows no picture, no guidance.

mod attributes;
mod axes;
mod load;
mod network;
mod operators;
mod picture;
mod proto;
mod self_test;
mod tape;

pub use network::{Dim, OnnxInfo, OnnxNetwork, ValueInfo};
pub use picture::{Normalisation, PictureInput};

use candle_core::{DType, Tensor};

pub use lsregen_tensor::{Error, Result};

/// Numbers that one tensor may have: what a damaged shape asks for has to end before memory does.
const MOST: usize = 1 << 28;

/// The number of elements of `dims`, or an error where no tensor should be that large.
fn room(dims: &[usize]) -> Result<usize> {
    let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match count {
        Some(n) if n <= MOST => Ok(n),
        _ => Err(Error::input(format!("a tensor {dims:?} is larger than the {MOST} numbers that one may have"))),
    }
}

/// A size: not negative, and not absurd.
fn size(n: i64, what: &str) -> Result<usize> {
    match usize::try_from(n) {
        Ok(n) if n <= MOST => Ok(n),
        _ => Err(Error::input(format!("{what} {n} is no size"))),
    }
}

/// An axis, which may be counted from the end (−1 is the last of `rank`).
fn axis(n: i64, rank: usize) -> Result<usize> {
    let from_start = if n < 0 { n.checked_add(rank as i64) } else { Some(n) };
    match from_start {
        Some(n) if n >= 0 && n < rank as i64 => Ok(n as usize),
        _ => Err(Error::input(format!("axis {n} of a tensor with {rank} dimensions"))),
    }
}

/// The shape of two that are broadcast against each other.
fn common(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| if i + dims.len() < rank { 1 } else { dims[i + dims.len() - rank] };
    let dims: Option<Vec<_>> = (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (m, n) if m == n => Some(m),
            (1, n) | (n, 1) => Some(n),
            _ => None,
        })
        .collect();
    let dims = dims.ok_or_else(|| Error::input(format!("shapes {a:?} and {b:?} do not go together")))?;
    room(&dims)?;
    Ok(dims)
}

/// What a tensor holds, in ONNX's terms.
fn kind(t: &Tensor) -> &'static str {
    match t.dtype() {
        DType::F32 => "float",
        DType::I64 => "int64",
        DType::U8 => "bool",
        other => other.as_str(),
    }
}
