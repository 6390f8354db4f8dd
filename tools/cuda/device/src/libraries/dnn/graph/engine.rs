//! Graphs of operations, and which of them an engine runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::super::number::Number;
use super::attribute::{Descriptor, Final};
use super::operation::Operation;
use super::pattern::{self, Attended};
use super::tensor::Tensor;
use super::{
    ARCHITECTURE, BAD_PARAM, DATA_TYPE, DESCRIPTOR_TYPE, DUPLICATED_ENTRIES, LAYOUT, NULL_POINTER, PATTERN, SHAPE,
};

#[derive(Debug)]
pub(super) struct Graph {
    /// In the order in which they run.
    pub(super) operations: Vec<Arc<Operation>>,
    /// All tensors by their ids.
    pub(super) tensors: BTreeMap<i64, Arc<Tensor>>,
    pub(super) engine: Result<Engine, i32>,
}

/// What runs a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// Attention, forwards or backwards.
    Attention(Attended),
    /// A convolution or a matrix product, and pointwise operations on its result.
    Fusion,
}

impl Engine {
    /// The bytes of workspace. Attention asks for some even where real engines need none, so that nobody forgets to ask.
    pub(super) fn workspace(&self) -> usize {
        match self {
            Self::Attention(_) => 4096,
            Self::Fusion => 64 << 10,
        }
    }
}

pub(super) struct Plan {
    pub(super) graph: Arc<Graph>,
    pub(super) workspace: usize,
}

/// Addresses for a run.
pub(super) struct Pack {
    pub(super) addresses: BTreeMap<i64, u64>,
    pub(super) workspace: u64,
}

impl Pack {
    pub(super) fn new(d: &Descriptor) -> Result<Self, i32> {
        let ids = d.numbers(1000).ok_or(BAD_PARAM)?;
        let pointers = d.pointers(1001);
        if ids.len() != pointers.len() {
            return Err(BAD_PARAM);
        }
        let addresses: BTreeMap<_, _> = ids.iter().copied().zip(pointers.iter().map(|&p| p as u64)).collect();
        if addresses.len() != ids.len() {
            return Err(DUPLICATED_ENTRIES);
        }
        Ok(Self { addresses, workspace: d.pointers(1003).first().map_or(0, |&p| p as u64) })
    }
}

impl Graph {
    pub(super) fn new(d: &Descriptor) -> Result<Self, i32> {
        let mut operations = Vec::new();
        for (_, child) in d.children(801) {
            match child {
                Final::Operation(operation) if !matches!(operation.as_ref(), Operation::Softmax { .. }) => {
                    operations.push(operation.clone());
                }
                _ => return Err(DESCRIPTOR_TYPE),
            }
        }
        if operations.is_empty() {
            return Err(BAD_PARAM);
        }
        if d.pointers(800).first() == Some(&0) {
            return Err(NULL_POINTER);
        }
        let mut tensors = BTreeMap::new();
        for tensor in operations.iter().flat_map(|o| [o.inputs(), o.outputs()].concat()) {
            let known = tensors.entry(tensor.id).or_insert_with(|| tensor.clone());
            // One id is one tensor.
            if known != tensor {
                return Err(DUPLICATED_ENTRIES);
            }
        }
        let operations = sorted(operations)?;
        let engine = support(&operations);
        Ok(Self { operations, tensors, engine })
    }

    /// A name for counts: the operations, and the shapes of what goes in.
    pub(super) fn name(&self) -> String {
        let shape = |t: &Arc<Tensor>| format!("{:?}", t.dims);
        let first = &self.operations[0];
        let shapes: Vec<_> = first.inputs().into_iter().take(3).map(shape).collect();
        let number = first.inputs().first().map(|t| t.number);
        let what = match &self.engine {
            Ok(Engine::Attention(a)) => a.name().to_owned(),
            _ => format!("graph of {}", self.operations.len()),
        };
        format!("{what} {} {}", number.map(|n| format!("{n:?}")).unwrap_or_default(), shapes.join(" "))
    }
}

/// Sorts operations so that each runs after those whose results it reads.
fn sorted(mut left: Vec<Arc<Operation>>) -> Result<Vec<Arc<Operation>>, i32> {
    let mut made = BTreeSet::new();
    for output in left.iter().flat_map(|o| o.outputs()) {
        if !made.insert(output.id) || output.by_value {
            return Err(BAD_PARAM); // two operations write one tensor
        }
    }
    // A virtual tensor is the result of an operation, and another one reads it.
    let read: BTreeSet<_> = left.iter().flat_map(|o| o.inputs()).map(|t| t.id).collect();
    let lost = |t: &&Arc<Tensor>| t.is_virtual && !(made.contains(&t.id) && read.contains(&t.id));
    if left.iter().any(|o| [o.inputs(), o.outputs()].concat().iter().any(lost)) {
        return Err(BAD_PARAM);
    }
    let (mut order, mut known) = (Vec::new(), BTreeSet::new());
    while !left.is_empty() {
        let ready = |o: &Arc<Operation>| o.inputs().iter().all(|t| !made.contains(&t.id) || known.contains(&t.id));
        let next = left.iter().position(ready).ok_or(BAD_PARAM)?;
        let operation = left.remove(next);
        known.extend(operation.outputs().iter().map(|t| t.id));
        order.push(operation);
    }
    Ok(order)
}

fn support(operations: &[Arc<Operation>]) -> Result<Engine, i32> {
    // Everything is computed in f32, comparisons and indices aside.
    let in_f32 = |o: &Arc<Operation>| match o.as_ref() {
        Operation::Pointwise { compute, .. } => matches!(compute, Number::F32 | Number::Bool | Number::I32),
        Operation::Matmul { compute, .. } | Operation::Reduction { compute, .. } => *compute == Number::F32,
        _ => true,
    };
    if !operations.iter().all(in_f32) {
        return Err(DATA_TYPE);
    }
    match operations {
        [one] if matches!(one.as_ref(), Operation::AttentionBackward(_)) => return Err(PATTERN),
        [one] if matches!(one.as_ref(), Operation::Attention(_)) => {
            let Operation::Attention(a) = one.as_ref() else { return Err(PATTERN) };
            if a.more {
                return Err(PATTERN);
            }
            let attended = Attended::single(a);
            check_attention(&attended)?;
            return Ok(Engine::Attention(attended));
        }
        _ => {}
    }
    if let Some(attended) = pattern::attention(operations) {
        check_attention(&attended)?;
        return Ok(Engine::Attention(attended));
    }
    fusion(operations)
}

/// What is wrong with the layout of an attention's tensors. cuDNN's heuristics name engines for such graphs (9.28 does, for
/// odd strides and for features that are not adjacent), which then read past rows, or compute nonsense.
pub(super) fn wrong_layout(a: &Attended) -> Option<String> {
    for t in &a.rows {
        // Rows are read 16 bytes at a time.
        let odd = |i: usize| t.dims[i] > 1 && !t.strides[i].is_multiple_of(8);
        if t.strides[3] != 1 || (0..3).any(odd) || t.alignment < 16 {
            return Some(format!(
                "tensor {} has the strides {:?}: rows of adjacent features must begin at multiples of 16 bytes",
                t.id, t.strides
            ));
        }
    }
    let gap = a.packed.iter().find(|t| !t.packed())?;
    Some(format!("tensor {} has the strides {:?}, but must be packed", gap.id, gap.strides))
}

/// Which attentions have an engine.
fn check_attention(a: &Attended) -> Result<(), i32> {
    let capability = crate::mode::settings().capability;
    if capability < 80 {
        return Err(ARCHITECTURE);
    }
    let (q, k, v) = (&a.rows[0], &a.rows[1], &a.rows[2]);
    if !q.number.is_half() || a.rows.iter().any(|t| t.number != q.number) {
        return Err(DATA_TYPE);
    }
    if a.packed.iter().any(|t| t.number != Number::F32) || a.inner.iter().any(|t| t.number != q.number) {
        return Err(DATA_TYPE);
    }
    // As the heuristics of 9.28 answer for an A100, an RTX 4090, an H100 and a B200.
    let most = match (a.backward, capability / 10) {
        (false, _) => 512,
        (true, 9) => 256,
        (true, _) => 128,
    };
    let (d, e) = (q.dims[3], v.dims[3]);
    if [d, e].iter().any(|d| !d.is_multiple_of(8) || *d > most) {
        return Err(SHAPE);
    }
    if a.backward && q.dims[2] == 1 && k.dims[2] == 1 {
        return Err(SHAPE);
    }
    Ok(())
}

/// A convolution or product, then pointwise operations, each on the result of the one before.
fn fusion(operations: &[Arc<Operation>]) -> Result<Engine, i32> {
    let (first, rest) = operations.split_first().ok_or(PATTERN)?;
    let alone = rest.is_empty();
    match first.as_ref() {
        Operation::Convolution { x, w, y, compute, .. } => {
            if *compute != Number::F32 {
                return Err(DATA_TYPE);
            }
            for t in [x, w, y] {
                let last = t.strides[1] == 1 || t.dims[1] == 1;
                let even = t.dims[1].is_multiple_of(16 / t.number.bytes());
                // The engines that fuse want channels last, and 16 bytes of them.
                if !(alone || last && even) {
                    return Err(LAYOUT);
                }
            }
        }
        Operation::Matmul { compute: Number::F32, .. } => {}
        _ => return Err(PATTERN),
    }
    let mut last = first.outputs()[0].id;
    for operation in rest {
        let Operation::Pointwise { inputs, y, .. } = operation.as_ref() else { return Err(PATTERN) };
        if !inputs.iter().any(|t| t.id == last) {
            return Err(PATTERN);
        }
        last = y.id;
    }
    Ok(Engine::Fusion)
}
