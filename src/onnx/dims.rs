//! Sizes, axes and shapes from a file, checked before anything is allocated.

use crate::{Error, Result};

/// The most numbers of one tensor. A corrupt shape has to be an error before it exhausts the memory.
pub const MOST: usize = 1 << 28;

/// The number of elements of `dims`.
///
/// # Errors
/// If they are more than [`MOST`].
pub fn checked_count(dims: &[usize]) -> Result<usize> {
    let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match count {
        Some(n) if n <= MOST => Ok(n),
        _ => Err(Error::input(format!("a tensor {dims:?} is larger than the limit of {MOST} numbers"))),
    }
}

/// `n` as a size.
///
/// # Errors
/// If it is negative or greater than [`MOST`].
pub fn checked_size(n: i64, what: &str) -> Result<usize> {
    match usize::try_from(n) {
        Ok(n) if n <= MOST => Ok(n),
        _ => Err(Error::input(format!("{what} {n} is not a valid size"))),
    }
}

/// `n` as an axis of `rank` dimensions; negative ones count from the end, −1 is the last.
///
/// # Errors
/// If there is no such axis.
pub fn checked_axis(n: i64, rank: usize) -> Result<usize> {
    let from_start = if n < 0 { n.checked_add(rank as i64) } else { Some(n) };
    match from_start {
        Some(n) if n >= 0 && n < rank as i64 => Ok(n as usize),
        _ => Err(Error::input(format!("there is no axis {n} in a tensor of {rank} dimensions"))),
    }
}

/// The shape of two tensors that are broadcast against each other.
///
/// # Errors
/// If they cannot be, or the result is too large.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| if i + dims.len() < rank { 1 } else { dims[i + dims.len() - rank] };
    let dims: Option<Vec<_>> = (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (m, n) if m == n => Some(m),
            (1, n) | (n, 1) => Some(n),
            _ => None,
        })
        .collect();
    let dims = dims.ok_or_else(|| Error::input(format!("shapes {a:?} and {b:?} cannot be broadcast")))?;
    checked_count(&dims)?;
    Ok(dims)
}
