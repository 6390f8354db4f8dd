//! The graphs of many operations that cuDNN's engines of attention recognise: those that cudnn-frontend builds.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::operation::{Attention, MAX, Operation, SUM, mode};
use super::tensor::Tensor;

/// The tensors of an attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attended {
    pub(super) backward: bool,
    pub(super) causal: bool,
    /// Tensors (B, heads, N, d): q, k, v, and in any order the others. Keys and values that the graph has transposed are
    /// turned back.
    pub(super) rows: Vec<Tensor>,
    /// Tensors in f32 that must be packed.
    pub(super) packed: Vec<Tensor>,
    /// Virtual tensors that are factors of products.
    pub(super) inner: Vec<Tensor>,
}

impl Attended {
    /// Of the operation that is a whole attention.
    pub(super) fn single(a: &Attention) -> Self {
        Self {
            backward: false,
            causal: false,
            rows: [&a.q, &a.k, &a.v, &a.o].map(|t| t.as_ref().clone()).to_vec(),
            packed: a.stats.iter().map(|t| t.as_ref().clone()).collect(),
            inner: vec![],
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match (self.backward, self.causal) {
            (false, false) => "attention",
            (false, true) => "causal attention",
            (true, false) => "attention backward",
            (true, true) => "causal attention backward",
        }
    }
}

type Result<T> = std::result::Result<T, ()>;

/// Takes operations out of a graph, one after the other.
struct Taker<'a> {
    operations: &'a [Arc<Operation>],
    taken: BTreeSet<usize>,
}

impl<'a> Taker<'a> {
    fn take(&mut self, fits: impl Fn(&Operation) -> bool) -> Result<&'a Operation> {
        let at = (0..self.operations.len()).find(|i| !self.taken.contains(i) && fits(&self.operations[*i]));
        self.taken.insert(at.ok_or(())?);
        Ok(&self.operations[at.ok_or(())?])
    }

    /// A pointwise operation on these tensors. Returns all its inputs and its result.
    fn pointwise(&mut self, mode: i64, on: &[&Tensor]) -> Result<(&'a [Arc<Tensor>], &'a Tensor)> {
        let fits = |o: &Operation| {
            matches!(o, Operation::Pointwise { mode: m, inputs, alphas: [1.0, _], .. } if *m == mode
                && inputs.iter().zip(on).all(|(input, on)| input.id == on.id))
        };
        match self.take(fits)? {
            Operation::Pointwise { inputs, y, .. } => Ok((inputs, y)),
            _ => Err(()),
        }
    }

    /// A product of which one factor is given.
    fn matmul(&mut self, left: Option<&Tensor>, right: Option<&Tensor>) -> Result<[&'a Tensor; 3]> {
        let is = |t: &Tensor, given: Option<&Tensor>| given.is_none_or(|g| g.id == t.id);
        match self.take(|o| matches!(o, Operation::Matmul { a, b, .. } if is(a, left) && is(b, right)))? {
            Operation::Matmul { a, b, c, .. } => Ok([a, b, c]),
            _ => Err(()),
        }
    }

    fn reduce(&mut self, operator: i64, of: &Tensor) -> Result<&'a Tensor> {
        match self
            .take(|o| matches!(o, Operation::Reduction { operator: p, x, .. } if *p == operator && x.id == of.id))?
        {
            Operation::Reduction { y, .. } => Ok(y),
            _ => Err(()),
        }
    }

    fn reshape(&mut self, of: &Tensor) -> Result<&'a Tensor> {
        match self.take(|o| matches!(o, Operation::Reshape { x, .. } if x.id == of.id))? {
            Operation::Reshape { y, .. } => Ok(y),
            _ => Err(()),
        }
    }

    /// The scores times a factor, if the graph has one.
    fn scaled(&mut self, scores: &'a Tensor) -> &'a Tensor {
        self.pointwise(mode::MUL, &[scores]).map_or(scores, |(_, y)| y)
    }

    /// The scores with those above the diagonal replaced, if the graph does so.
    fn masked(&mut self, scores: &'a Tensor) -> Result<(&'a Tensor, bool)> {
        if !self.operations.iter().any(|o| matches!(o.as_ref(), Operation::Pointwise { mode: mode::INDEX, .. })) {
            return Ok((scores, false));
        }
        let (_, one) = self.pointwise(mode::INDEX, &[scores])?;
        let (_, other) = self.pointwise(mode::INDEX, &[scores])?;
        let pair =
            self.pointwise(mode::AT_LEAST, &[one, other]).or_else(|()| self.pointwise(mode::AT_LEAST, &[other, one]));
        let (inputs, seen) = pair?;
        // Rows are at least columns.
        let axis = |id: i64| {
            self.operations.iter().find_map(|o| match o.as_ref() {
                Operation::Pointwise { axis, y, .. } if y.id == id => Some(*axis),
                _ => None,
            })
        };
        if (axis(inputs[0].id), axis(inputs[1].id)) != (Some(2), Some(3)) {
            return Err(());
        }
        let (inputs, masked) = self.pointwise(mode::SELECT, &[scores])?;
        if inputs[2].id != seen.id || !inputs[1].by_value { Err(()) } else { Ok((masked, true)) }
    }

    fn done(&self) -> Result<()> {
        if self.taken.len() == self.operations.len() { Ok(()) } else { Err(()) }
    }
}

/// (…, d, M) → (…, M, d).
fn turned(t: &Tensor) -> Tensor {
    let mut t = t.clone();
    t.dims.swap(2, 3);
    t.strides.swap(2, 3);
    t
}

/// Recognises an attention.
pub(super) fn attention(operations: &[Arc<Operation>]) -> Option<Attended> {
    let four = operations.iter().all(|o| o.inputs().iter().all(|t| t.dims.len() == 4));
    let taker = || Taker { operations, taken: BTreeSet::new() };
    four.then(|| forward(taker()).or_else(|()| backward(taker())).ok()).flatten()
}

fn forward(mut g: Taker) -> Result<Attended> {
    // The first product is the one whose right factor is no virtual tensor and whose left one is none either.
    let Operation::Matmul { a: q, b: k, c: scores, .. } =
        g.take(|o| matches!(o, Operation::Matmul { a, b, c, .. } if !a.is_virtual && !b.is_virtual && c.is_virtual))?
    else {
        return Err(());
    };
    let scaled = g.scaled(scores);
    let (scores, causal) = g.masked(scaled)?;
    let highest = g.reduce(MAX, scores)?;
    let (_, less) = g.pointwise(mode::SUB, &[scores, highest])?;
    let (_, powers) = g.pointwise(mode::EXP, &[less])?;
    let total = g.reduce(SUM, powers)?;
    let mut packed = vec![];
    if let Ok((_, log)) = g.pointwise(mode::LOG, &[total]) {
        let (_, stats) = g.pointwise(mode::ADD, &[highest, log])?;
        packed.push(stats.clone());
    }
    let (_, weights) = g.pointwise(mode::DIV, &[powers, total])?;
    let [_, v, o] = g.matmul(Some(weights), None)?;
    g.done()?;
    let rows = vec![q.as_ref().clone(), turned(k), v.clone(), o.clone()];
    Ok(Attended { backward: false, causal, rows, packed, inner: vec![weights.clone()] })
}

fn backward(mut g: Taker) -> Result<Attended> {
    // The sum of do · o, by which the softmax's gradient is centred.
    let fits = |o: &Operation| {
        matches!(o, Operation::Pointwise { mode: mode::MUL, inputs, y, .. }
            if y.is_virtual && inputs.iter().all(|t| !t.is_virtual && !t.by_value))
    };
    let Operation::Pointwise { inputs, y: product, .. } = g.take(fits)? else { return Err(()) };
    let (dy, o) = (&inputs[0], &inputs[1]);
    let sum = g.reduce(SUM, product)?;
    let (_, sum) = g.pointwise(mode::MUL, &[sum])?;

    let others = |t: &Tensor| !t.is_virtual && t.id != dy.id;
    let first =
        |o: &Operation| matches!(o, Operation::Matmul { a, b, c, .. } if others(a) && !b.is_virtual && c.is_virtual);
    let Operation::Matmul { a: q, b: k, c: scores, .. } = g.take(first)? else { return Err(()) };
    let scaled = g.scaled(scores);
    let (inputs, less) = g.pointwise(mode::SUB, &[scaled])?;
    let stats = &inputs[1];
    let (less, causal) = g.masked(less)?;
    let (_, weights) = g.pointwise(mode::EXP, &[less])?;
    let turned_weights = g.reshape(weights)?;
    let [_, _, dv] = g.matmul(Some(turned_weights), Some(dy))?;

    let [_, v, dp] = g.matmul(Some(dy), None)?;
    let (_, centred) = g.pointwise(mode::SUB, &[dp, sum])?;
    let (_, ds) = g.pointwise(mode::MUL, &[centred, weights])?;
    let ds = g.scaled(ds);
    let turned_ds = g.reshape(ds)?;
    let [_, _, dk] = g.matmul(Some(turned_ds), Some(q))?;
    let keys = g.reshape(k)?;
    let [_, _, gathered] = g.matmul(Some(ds), Some(keys))?;
    let (_, dq) = g.pointwise(mode::IDENTITY, &[gathered])?;
    g.done()?;
    let owned = |t: &Arc<Tensor>| t.as_ref().clone();
    let rows = vec![owned(q), turned(k), turned(v), owned(o), owned(dy), dq.clone(), dk.clone(), dv.clone()];
    let packed = vec![owned(stats), sum.clone(), gathered.clone()];
    if packed.iter().any(|t| t.is_virtual) {
        return Err(()); // the engine keeps these in memory that the caller provides
    }
    let inner = vec![turned_weights.clone(), turned_ds.clone()];
    Ok(Attended { backward: true, causal, rows, packed, inner })
}
