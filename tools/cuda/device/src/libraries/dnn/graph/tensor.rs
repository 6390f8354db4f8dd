//! Tensors of a graph.

use super::super::super::number::Number;
use super::super::super::view::View;
use super::attribute::Descriptor;
use super::{BAD_PARAM, DATA_TYPE, NOT_SUPPORTED};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) id: i64,
    pub(super) number: Number,
    pub(super) dims: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// The alignment that its address will have, in bytes.
    pub(super) alignment: usize,
    /// Lives within the graph only.
    pub(super) is_virtual: bool,
    /// A number in the host's memory.
    pub(super) by_value: bool,
}

impl Tensor {
    pub(super) fn new(d: &Descriptor) -> Result<Self, i32> {
        let (dims, strides) = (d.sizes(902)?, d.sizes(903)?);
        let alignment = d.number(900).ok_or(BAD_PARAM)?;
        let id = d.number(906).ok_or(BAD_PARAM)?;
        let number = Number::of_cudnn(d.number(901).ok_or(BAD_PARAM)? as i32).ok_or(DATA_TYPE)?;
        // "Any of the tensor dimensions or strides is not positive."
        if dims.len() != strides.len() || dims.iter().chain(&strides).any(|&n| n == 0) {
            return Err(BAD_PARAM);
        }
        if alignment < 1 || !(alignment as usize).is_multiple_of(number.bytes()) {
            return Err(BAD_PARAM);
        }
        if d.number(904).unwrap_or(1) != 1 || d.number(909).unwrap_or(0) != 0 {
            return Err(NOT_SUPPORTED);
        }
        let flag = |name| d.number(name).unwrap_or(0) != 0;
        let (is_virtual, by_value) = (flag(907), flag(908));
        if is_virtual && by_value {
            return Err(BAD_PARAM);
        }
        Ok(Self { id, number, dims, strides, alignment: alignment as usize, is_virtual, by_value })
    }

    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.len() * self.number.bytes()) as u64
    }

    /// Row-major without gaps. The strides of dimensions of size 1 do not matter.
    pub(super) fn packed(&self) -> bool {
        let mut expected = 1;
        self.dims.iter().zip(&self.strides).rev().all(|(&dim, &stride)| {
            let fits = dim == 1 || stride == expected;
            expected *= dim;
            fits
        })
    }

    pub(super) fn view(&self, what: &str, address: u64) -> View {
        View {
            what: format!("{what} of a graph (tensor {})", self.id),
            address,
            number: self.number,
            dims: self.dims.clone(),
            strides: self.strides.clone(),
        }
    }
}
