//! What the libraries' descriptors stand for, so that a product or a convolution has its shape in its name.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::counts::Group;

/// By address. A descriptor that is created at the place of a former one replaces it.
#[derive(Default)]
pub(super) struct Descriptors {
    /// The names of kernels.
    pub functions: BTreeMap<usize, Arc<str>>,
    /// The streams of the libraries' handles.
    pub streams: BTreeMap<usize, usize>,
    /// The matrices of cuBLASLt.
    pub matrices: BTreeMap<usize, Matrix>,
    /// The tensors and filters of cuDNN's older interface, as text.
    pub shapes: BTreeMap<usize, String>,
    nodes: BTreeMap<usize, Node>,
    /// What execution plans of cuDNN compute.
    plans: BTreeMap<usize, (Group, Arc<str>)>,
}

#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub dtype: i32,
    pub rows: u64,
    pub columns: u64,
    pub batch: i32,
}

/// A descriptor of cuDNN's graphs.
#[derive(Default)]
struct Node {
    kind: i32,
    parts: Vec<usize>,
    dims: Vec<i64>,
}

/// Kinds of cuDNN's descriptors (`cudnnBackendDescriptorType_t`).
const EXECUTION_PLAN: i32 = 5;
const CONVOLUTIONS: std::ops::RangeInclusive<i32> = 10..=12;
const OPERATIONS: std::ops::RangeInclusive<i32> = 10..=64;
const OPERATION_GRAPH: i32 = 15;
const VARIANT_PACK: i32 = 16;
const TENSOR: i32 = 17;
const MATMUL: i32 = 19;
/// The whole of an attention, forwards and backwards.
const ATTENTIONS: std::ops::RangeInclusive<i32> = 41..=42;

/// `cudnnBackendAttributeType_t`: another descriptor, and numbers.
pub(super) const DESCRIPTOR: i32 = 15;
const INT64: i32 = 3;
/// `cudnnBackendAttributeName_t`: the size of a tensor.
const DIMENSIONS: i32 = 902;

/// The name of a type of CUDA's numbers (`cudaDataType`).
pub(super) fn cuda_dtype(n: i32) -> &'static str {
    match n {
        0 => "f32",
        1 => "f64",
        2 => "f16",
        14 => "bf16",
        _ => "other",
    }
}

/// The name of a type of cuDNN's numbers (`cudnnDataType_t`).
pub(super) fn dnn_dtype(n: i32) -> &'static str {
    match n {
        0 => "f32",
        1 => "f64",
        2 => "f16",
        9 => "bf16",
        _ => "other",
    }
}

/// `2×320×64×64`.
pub(super) fn sizes<T: std::fmt::Display>(dims: &[T]) -> String {
    dims.iter().enumerate().fold(String::new(), |mut text, (i, n)| {
        let _ = write!(text, "{}{n}", if i > 0 { "×" } else { "" });
        text
    })
}

impl Descriptors {
    /// Keeps the stream of a library's handle.
    pub fn runs_on(&mut self, handle: usize, stream: usize) {
        self.streams.insert(handle, stream);
    }

    /// Keeps a matrix of cuBLASLt.
    pub fn matrix(&mut self, layout: usize, matrix: Matrix) {
        self.matrices.insert(layout, matrix);
    }

    /// Keeps a descriptor of a graph of cuDNN.
    pub fn created(&mut self, address: usize, kind: i32) {
        self.nodes.insert(address, Node { kind, ..Node::default() });
        self.plans.remove(&address);
    }

    /// Keeps what a plan computes, once it is complete: its parts may be destroyed before it runs.
    pub fn finalised(&mut self, address: usize) {
        if self.nodes.get(&address).is_some_and(|node| node.kind == EXECUTION_PLAN) {
            let (group, name) = self.computed_by(address);
            self.plans.insert(address, (group, name.into()));
        }
    }

    /// The group and the name of what an execution plan of cuDNN computes.
    pub fn plan(&self, plan: usize) -> (Group, Arc<str>) {
        self.plans.get(&plan).cloned().unwrap_or_else(|| (Group::Operations, "operations".into()))
    }

    /// Keeps an attribute of a descriptor of cuDNN, which is a list of descriptors or of numbers.
    ///
    /// # Safety
    /// `values` are `count` values of that type, as cuDNN gets them.
    pub unsafe fn attribute(&mut self, address: usize, name: i32, dtype: i32, count: i64, values: *const c_void) {
        let Some(node) = self.nodes.get_mut(&address) else { return };
        if values.is_null() || !(1..=64).contains(&count) {
            return;
        }
        // SAFETY: as the caller says; both types have 8 bytes. They may be unaligned.
        let read = |i: i64| unsafe { values.cast::<i64>().offset(i as isize).read_unaligned() };
        match dtype {
            DESCRIPTOR => node.parts.extend((0..count).map(|i| read(i) as usize)),
            INT64 if name == DIMENSIONS => node.dims = (0..count).map(read).collect(),
            _ => {}
        }
    }

    /// Keeps the descriptors that cuDNN found for another: the engines of a heuristic.
    ///
    /// # Safety
    /// `values` are `count` descriptors.
    pub unsafe fn found(&mut self, of: usize, count: i64, values: *const c_void) {
        if values.is_null() || !(1..=256).contains(&count) {
            return;
        }
        for i in 0..count {
            // SAFETY: as the caller says.
            let address = unsafe { values.cast::<usize>().offset(i as isize).read_unaligned() };
            if let Some(node) = self.nodes.get_mut(&address) {
                node.parts = vec![of];
            }
        }
    }

    /// Finds the operations of a plan.
    fn computed_by(&self, plan: usize) -> (Group, String) {
        const MOST: usize = 256;
        let (mut kinds, mut shape) = (vec![], String::new());
        let mut ahead = vec![plan];
        let mut seen = std::collections::BTreeSet::new();
        while let Some(address) = ahead.pop() {
            let Some(node) = self.nodes.get(&address).filter(|_| seen.len() < MOST && seen.insert(address)) else {
                continue;
            };
            if OPERATIONS.contains(&node.kind) && ![OPERATION_GRAPH, VARIANT_PACK, TENSOR].contains(&node.kind) {
                kinds.push(node.kind);
                let is_main =
                    node.kind == MATMUL || CONVOLUTIONS.contains(&node.kind) || ATTENTIONS.contains(&node.kind);
                if shape.is_empty() && is_main {
                    let tensors = node.parts.iter().filter_map(|part| self.nodes.get(part));
                    // The inputs and the result come first.
                    let dims: Vec<_> = tensors.filter(|t| t.kind == TENSOR).take(3).map(|t| sizes(&t.dims)).collect();
                    shape = dims.join(" · ");
                }
            }
            // The first part is visited first.
            ahead.extend(node.parts.iter().rev());
        }
        let products = kinds.iter().filter(|kind| **kind == MATMUL).count();
        let is_attention = kinds.iter().any(|kind| ATTENTIONS.contains(kind));
        let group = match kinds.iter().any(|kind| CONVOLUTIONS.contains(kind)) {
            true => Group::Convolutions,
            false if products > 1 || is_attention => Group::Attentions,
            false => Group::Operations,
        };
        let what = match group {
            Group::Convolutions if kinds.contains(&12) => "convolution backward",
            Group::Convolutions => "convolution",
            // The backward pass has five products.
            Group::Attentions if products > 2 || kinds.contains(&42) => "attention backward",
            Group::Attentions => "attention",
            _ if products == 1 => "product",
            _ => "operations",
        };
        (group, format!("{what} {shape}").trim_end().to_string())
    }
}
