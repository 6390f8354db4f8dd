//! A strided tensor in device memory. It is read and written run by run, so that only its own elements are touched: what
//! lies between its rows need not exist.

use super::number::Number;
use crate::fault::{Fault, fault};
use crate::memory::{Access, check, mark_written};

#[derive(Clone, Debug)]
pub(super) struct View {
    /// Names the tensor in faults.
    pub(super) what: String,
    pub(super) address: u64,
    pub(super) number: Number,
    pub(super) dims: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
}

/// The contiguous pieces of a view.
struct Runs {
    /// Offset of each piece in memory, in elements, in the logical order.
    offsets: Vec<usize>,
    /// Elements of a piece.
    length: usize,
    /// Distance of the elements of a piece, 1 if it is contiguous.
    step: usize,
}

impl View {
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.len() * self.number.bytes()) as u64
    }

    fn runs(&self) -> Runs {
        let (mut length, mut step, mut outer) = (1, 1, self.dims.len());
        for (i, (&dim, &stride)) in self.dims.iter().zip(&self.strides).enumerate().rev() {
            if dim != 1 {
                if length == 1 {
                    step = stride;
                } else if stride != step * length {
                    break;
                }
                length *= dim;
            }
            outer = i;
        }
        let mut offsets = vec![0];
        for (&dim, &stride) in self.dims[..outer].iter().zip(&self.strides) {
            offsets = offsets.iter().flat_map(|&at| (0..dim).map(move |i| at + i * stride)).collect();
        }
        Runs { offsets, length, step }
    }

    /// Checks that every element lies in an allocation and, to be read, was written.
    fn check(&self, runs: &Runs, access: Access) {
        let size = self.number.bytes();
        if !self.address.is_multiple_of(size as u64) {
            let text = format!("{}: the address {:#x} is not aligned to its type", self.what, self.address);
            fault(Fault::Misaligned, text);
        }
        self.pieces(runs, |at, bytes| check(&self.what, at, bytes, access), size);
    }

    /// Calls `f` with the address and the bytes of each contiguous piece.
    fn pieces(&self, runs: &Runs, mut f: impl FnMut(u64, usize), size: usize) {
        for &offset in &runs.offsets {
            let at = self.address + (offset * size) as u64;
            match runs.step {
                0 => f(at, size),
                1 => f(at, runs.length * size),
                step => (0..runs.length).for_each(|i| f(at + (i * step * size) as u64, size)),
            }
        }
    }

    /// Reads the tensor in its logical order.
    pub(super) fn read(&self) -> Vec<f32> {
        let mut to = vec![0.0; self.len()];
        if !to.is_empty() {
            let runs = self.runs();
            self.check(&runs, Access::Read);
            for (&offset, to) in runs.offsets.iter().zip(to.chunks_exact_mut(runs.length)) {
                // SAFETY: checked above.
                unsafe { self.number.read(self.address + (offset * self.number.bytes()) as u64, runs.step, to) };
            }
        }
        to
    }

    /// Writes the tensor from numbers in its logical order.
    pub(super) fn write(&self, from: &[f32]) {
        assert_eq!(from.len(), self.len(), "{}", self.what);
        if from.is_empty() {
            return;
        }
        let (runs, size) = (self.runs(), self.number.bytes());
        self.check(&runs, Access::Write);
        for (&offset, from) in runs.offsets.iter().zip(from.chunks_exact(runs.length)) {
            // SAFETY: checked above.
            unsafe { self.number.write(self.address + (offset * size) as u64, runs.step, from) };
        }
        self.pieces(&runs, mark_written, size);
    }

    /// Whether two elements share a place, so that the tensor may not be written.
    pub(super) fn overlaps(&self) -> bool {
        let mut order: Vec<_> = self.dims.iter().zip(&self.strides).filter(|(d, _)| **d > 1).collect();
        order.sort_by_key(|(_, stride)| **stride);
        let mut extent = 1;
        for (&dim, &stride) in order {
            if stride < extent {
                return true;
            }
            extent += stride * (dim - 1);
        }
        false
    }
}
