//! Where a tensor lies in a weights file, whatever the file's format.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

/// One tensor of a file: its numbers are little-endian, in `bytes` of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Distance between neighbours along each dimension, in elements; `None` where they lie in the order of the shape.
    pub strides: Option<Vec<usize>>,
    /// Inside the file, and checked to be so. With strides: from the first element to past the last that is reached.
    pub bytes: Range<usize>,
}

/// The tensors of a file by name.
pub type Directory = BTreeMap<String, TensorEntry>;

/// Elements of a shape; `None` where that is no number that a file can have.
///
/// A size of 0 hides no others: `[0, 2^40, 2^40]` is refused too, as its strides cannot be counted.
pub fn elements(shape: &[usize]) -> Option<usize> {
    let of_others = shape.iter().filter(|n| **n != 0).try_fold(1usize, |all, n| all.checked_mul(*n))?;
    Some(if shape.contains(&0) { 0 } else { of_others })
}
