//! Attributes of descriptors: which there are, of which type, and how many elements they have.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use super::engine::{Graph, Pack, Plan};
use super::operation::{Operation, Settings};
use super::tensor::Tensor;
use super::{ATTRIBUTE_TYPE, BAD_PARAM, DESCRIPTOR_TYPE, NOT_FINALIZED, NULL_POINTER, SIZE_INSUFFICIENT};

/// Kinds of descriptors.
pub(super) mod kind {
    pub const POINTWISE: i32 = 0;
    pub const CONVOLUTION: i32 = 1;
    pub const ENGINE: i32 = 2;
    pub const CONFIG: i32 = 3;
    pub const HEURISTIC: i32 = 4;
    pub const PLAN: i32 = 5;
    pub const OP_CONVOLUTION: i32 = 10;
    pub const OP_CONVOLUTION_DATA: i32 = 12;
    pub const OP_POINTWISE: i32 = 13;
    pub const GRAPH: i32 = 15;
    pub const PACK: i32 = 16;
    pub const TENSOR: i32 = 17;
    pub const MATMUL: i32 = 18;
    pub const OP_MATMUL: i32 = 19;
    pub const REDUCTION: i32 = 21;
    pub const OP_REDUCTION: i32 = 22;
    pub const OP_RESHAPE: i32 = 31;
    pub const OP_SDPA: i32 = 41;
    pub const OP_SDPA_BACKWARD: i32 = 43;
    pub const OP_SOFTMAX: i32 = 45;
}

/// Types of attributes.
pub(super) mod typed {
    pub const HANDLE: i32 = 0;
    pub const DATA_TYPE: i32 = 1;
    pub const BOOLEAN: i32 = 2;
    pub const INT64: i32 = 3;
    pub const FLOAT: i32 = 4;
    pub const DOUBLE: i32 = 5;
    pub const POINTER: i32 = 6;
    pub const CONVOLUTION_MODE: i32 = 7;
    pub const HEURISTIC_MODE: i32 = 8;
    pub const NAN: i32 = 10;
    pub const POINTWISE_MODE: i32 = 14;
    pub const DESCRIPTOR: i32 = 15;
    pub const REDUCTION: i32 = 18;
    pub const REORDERING: i32 = 20;
    pub const INT32: i32 = 23;
    pub const RESHAPE_MODE: i32 = 31;
    pub const GRAPH_MODE: i32 = 32;
}

/// What a finalised descriptor is.
#[derive(Clone)]
pub(super) enum Final {
    Tensor(Arc<Tensor>),
    Settings(Arc<Settings>),
    Operation(Arc<Operation>),
    Graph(Arc<Graph>),
    Engine(Arc<Graph>),
    Config(Arc<Graph>),
    Heuristic(Arc<Graph>),
    Plan(Arc<Plan>),
    Pack(Arc<Pack>),
}

/// The value of an attribute.
#[derive(Clone)]
pub(super) enum Value {
    Numbers(Vec<i64>),
    Reals(Vec<f64>),
    Pointers(Vec<usize>),
    Descriptors(Vec<(i32, Final)>),
}

pub(super) struct Descriptor {
    pub(super) kind: i32,
    pub(super) values: BTreeMap<i32, Value>,
    pub(super) done: Option<Final>,
}

/// The type of an attribute and the most elements that it has. `None` if the descriptor has no such attribute.
fn attribute(kind: i32, name: i32) -> Option<(i32, usize)> {
    use typed::*;
    Some(match (kind, name) {
        (kind::TENSOR, 900 | 904..=906) => (INT64, 1),
        (kind::TENSOR, 901) => (DATA_TYPE, 1),
        (kind::TENSOR, 902 | 903) => (INT64, 8),
        (kind::TENSOR, 907 | 908) => (BOOLEAN, 1),
        (kind::TENSOR, 909) => (REORDERING, 1),
        (kind::POINTWISE, 0) => (POINTWISE_MODE, 1),
        (kind::POINTWISE, 1) => (DATA_TYPE, 1),
        (kind::POINTWISE, 2) => (NAN, 1),
        (kind::POINTWISE, 3..=8) => (DOUBLE, 1),
        (kind::POINTWISE, 9) => (INT64, 1),
        (kind::CONVOLUTION, 100) => (DATA_TYPE, 1),
        (kind::CONVOLUTION, 101) => (CONVOLUTION_MODE, 1),
        (kind::CONVOLUTION, 102..=105) => (INT64, 3),
        (kind::CONVOLUTION, 106) => (INT64, 1),
        (kind::MATMUL, 1500) => (DATA_TYPE, 1),
        (kind::MATMUL, 1503) => (DOUBLE, 1),
        (kind::REDUCTION, 1600) => (REDUCTION, 1),
        (kind::REDUCTION, 1601) => (DATA_TYPE, 1),
        (kind::REDUCTION, 1602) => (BOOLEAN, 1),
        (kind::OP_CONVOLUTION, 700 | 701) | (kind::OP_CONVOLUTION_DATA, 706 | 707) => (FLOAT, 1),
        (kind::OP_CONVOLUTION, 702..=705) | (kind::OP_CONVOLUTION_DATA, 708..=711) => (DESCRIPTOR, 1),
        (kind::OP_POINTWISE, 750..=753 | 756..=758) => (DESCRIPTOR, 1),
        (kind::OP_POINTWISE, 754 | 755) => (FLOAT, 1),
        (kind::OP_MATMUL, 1520..=1523 | 1525..=1527) => (DESCRIPTOR, 1),
        (kind::OP_REDUCTION, 1610..=1612) => (DESCRIPTOR, 1),
        (kind::OP_RESHAPE, 2200 | 2201) => (DESCRIPTOR, 1),
        (kind::OP_RESHAPE, 2202) => (RESHAPE_MODE, 1),
        (kind::OP_SDPA, 2800..=2811 | 2814..=2817 | 2820..=2829) => (DESCRIPTOR, 1),
        (kind::OP_SDPA, 2812 | 2813) => (INT64, 1),
        (kind::OP_SDPA, 2818) => (FLOAT, 1),
        (kind::OP_SDPA, 2819) => (BOOLEAN, 1),
        (kind::OP_SDPA_BACKWARD, 2851..=2864 | 2867 | 2870..=2873 | 2875) => (DESCRIPTOR, 1),
        (kind::OP_SDPA_BACKWARD, 2865 | 2866 | 2868 | 2869) => (INT64, 1),
        (kind::OP_SDPA_BACKWARD, 2874) => (FLOAT, 1),
        (kind::OP_SOFTMAX, 3100..=3105) => (DESCRIPTOR, 1),
        (kind::OP_SOFTMAX, 3106) => (BOOLEAN, 1),
        (kind::GRAPH, 800) => (HANDLE, 1),
        (kind::GRAPH, 801) => (DESCRIPTOR, usize::MAX),
        (kind::GRAPH, 803..=805) => (BOOLEAN, 1),
        (kind::GRAPH, 806) => (GRAPH_MODE, 1),
        (kind::ENGINE, 1300) | (kind::HEURISTIC, 201) | (kind::CONFIG, 300) | (kind::PLAN, 401) => (DESCRIPTOR, 1),
        (kind::ENGINE, 1301) => (INT64, 1),
        (kind::HEURISTIC, 200) => (HEURISTIC_MODE, 1),
        (kind::HEURISTIC, 203) | (kind::ENGINE, 1306) => (INT32, 1),
        (kind::PLAN, 400) => (HANDLE, 1),
        (kind::PACK, 1000) => (INT64, usize::MAX),
        (kind::PACK, 1001) => (POINTER, usize::MAX),
        (kind::PACK, 1003) => (POINTER, 1),
        _ => return None,
    })
}

/// Whether an attribute of type `wanted` may be given as `given`: factors may have either precision.
fn accepts(wanted: i32, given: i32) -> bool {
    let real = |t| matches!(t, typed::FLOAT | typed::DOUBLE);
    wanted == given || real(wanted) && real(given)
}

impl Descriptor {
    /// Sets an attribute.
    ///
    /// # Safety
    /// `from` has `count` elements of type `given`.
    pub(super) unsafe fn set(&mut self, name: i32, given: i32, count: i64, from: *const c_void) -> Result<(), i32> {
        let Some((wanted, most)) = attribute(self.kind, name) else { return Err(BAD_PARAM) };
        if self.done.is_some() {
            return Err(BAD_PARAM); // a finalised descriptor does not change
        }
        if !accepts(wanted, given) {
            return Err(ATTRIBUTE_TYPE);
        }
        let count = usize::try_from(count).map_err(|_| BAD_PARAM)?;
        if count == 0 || count > most {
            return Err(if count == 0 { BAD_PARAM } else { SIZE_INSUFFICIENT });
        }
        if from.is_null() {
            return Err(NULL_POINTER);
        }
        // SAFETY: guaranteed by the caller.
        let value = unsafe {
            match given {
                typed::BOOLEAN => Value::Numbers(each(from, count, |b: u8| i64::from(b != 0))),
                typed::INT64 => Value::Numbers(each(from, count, |n: i64| n)),
                typed::FLOAT => Value::Reals(each(from, count, |x: f32| f64::from(x))),
                typed::DOUBLE => Value::Reals(each(from, count, |x: f64| x)),
                typed::HANDLE | typed::POINTER => Value::Pointers(each(from, count, |p: usize| p)),
                typed::DESCRIPTOR => Value::Descriptors(descriptors(&each(from, count, |p: usize| p))?),
                _ => Value::Numbers(each(from, count, |n: i32| i64::from(n))),
            }
        };
        self.values.insert(name, value);
        Ok(())
    }

    pub(super) fn numbers(&self, name: i32) -> Option<&[i64]> {
        match self.values.get(&name) {
            Some(Value::Numbers(numbers)) => Some(numbers),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: i32) -> Option<i64> {
        self.numbers(name).and_then(|n| n.first().copied())
    }

    pub(super) fn sizes(&self, name: i32) -> Result<Vec<usize>, i32> {
        let numbers = self.numbers(name).ok_or(BAD_PARAM)?;
        numbers.iter().map(|&n| usize::try_from(n).map_err(|_| BAD_PARAM)).collect()
    }

    pub(super) fn real(&self, name: i32, default: f64) -> f64 {
        match self.values.get(&name) {
            Some(Value::Reals(reals)) => reals.first().copied().unwrap_or(default),
            _ => default,
        }
    }

    pub(super) fn pointers(&self, name: i32) -> &[usize] {
        match self.values.get(&name) {
            Some(Value::Pointers(pointers)) => pointers,
            _ => &[],
        }
    }

    pub(super) fn children(&self, name: i32) -> &[(i32, Final)] {
        match self.values.get(&name) {
            Some(Value::Descriptors(children)) => children,
            _ => &[],
        }
    }

    /// A tensor that may be absent.
    pub(super) fn optional(&self, name: i32) -> Result<Option<Arc<Tensor>>, i32> {
        match self.children(name).first() {
            None => Ok(None),
            Some((_, Final::Tensor(tensor))) => Ok(Some(tensor.clone())),
            Some(_) => Err(DESCRIPTOR_TYPE),
        }
    }

    /// A tensor that the operation needs.
    pub(super) fn tensor(&self, name: i32) -> Result<Arc<Tensor>, i32> {
        self.optional(name)?.ok_or(BAD_PARAM)
    }
}

unsafe fn each<T: Copy, R>(from: *const c_void, count: usize, f: impl Fn(T) -> R) -> Vec<R> {
    // SAFETY: guaranteed by the caller.
    (0..count).map(|i| f(unsafe { from.cast::<T>().add(i).read_unaligned() })).collect()
}

/// Descriptors that are given to another one are finalised.
fn descriptors(handles: &[usize]) -> Result<Vec<(i32, Final)>, i32> {
    let of = |&handle: &usize| {
        if handle == 0 {
            return Err(NULL_POINTER);
        }
        super::api::with(handle as *const c_void, |d| Ok((d.kind, d.done.clone().ok_or(NOT_FINALIZED)?)))
    };
    handles.iter().map(of).collect()
}
