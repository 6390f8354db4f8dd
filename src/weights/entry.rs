//! The place of a tensor in a weights file of any format.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

/// One tensor of a file. Its numbers are little-endian, in the range `bytes` of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// The dtype of its numbers in the file.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Distance between neighbours along each dimension, in elements; `None` if the numbers lie in the order of the shape.
    pub strides: Option<Vec<usize>>,
    /// A range that lies in the file. With strides, from the first element to the end of the last one in memory.
    pub bytes: Range<usize>,
}

/// The tensors of a file by name.
pub type Directory = BTreeMap<String, TensorEntry>;
