//! Products of dimensions. A file may state any dimensions, and a product that overflows must never pass for a small one.

use crate::{Error, Result};

/// The number of elements of a shape, or `None` if it overflows.
///
/// Dimensions of size 0 do not hide an overflow: `[0, 2^40, 2^40]` is `None` too, because its strides overflow.
pub fn elements(shape: &[usize]) -> Option<usize> {
    let of_others = shape.iter().filter(|n| **n != 0).try_fold(1usize, |all, n| all.checked_mul(*n))?;
    Some(if shape.contains(&0) { 0 } else { of_others })
}

/// [`elements`] of a tensor that is to be made.
///
/// # Errors
/// If there are more than the memory of any machine holds.
pub fn checked_elements(shape: &[usize]) -> Result<usize> {
    let fits = |n: &usize| *n <= isize::MAX as usize / size_of::<f32>();
    elements(shape).filter(fits).ok_or_else(|| Error::input(format!("a tensor of shape {shape:?} is too large")))
}
