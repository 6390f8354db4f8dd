//! Runs graphs in f32, operation by operation.
//!
//! Attention runs one head of one sample at a time, so that the scores of one head are what is in memory. Numbers are
//! rounded where a tensor of the graph has a shorter type.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::super::super::number::{Number, round_to_tf32, tf32_allowed};
use super::super::super::product::{Matrix, product};
use super::super::super::{gemm::gelu, view::View};
use super::engine::{Engine, Graph};
use super::operation::{Attention, MAX, Operation, mode};
use super::tensor::Tensor;
use crate::memory::{Access, check};

/// Where the tensors are that are not virtual.
#[derive(Clone)]
pub(super) struct Bound {
    pub(super) graph: Arc<Graph>,
    pub(super) addresses: BTreeMap<i64, u64>,
    /// Numbers that were given by value.
    pub(super) values: BTreeMap<i64, f32>,
    pub(super) workspace: u64,
    pub(super) workspace_bytes: usize,
}

impl Bound {
    pub(super) fn run(&self) {
        if self.workspace_bytes > 0 {
            check("the workspace of a graph", self.workspace, self.workspace_bytes, Access::Write);
        }
        match &self.graph.engine {
            Ok(Engine::Attention(a)) => {
                let (b, h) = (a.rows[0].dims[0], a.rows[0].dims[1]);
                (0..b * h).into_par_iter().for_each(|i| Run::new(self, Some((i / h, i % h))).run());
            }
            _ => Run::new(self, None).run(),
        }
    }
}

/// One run of the operations, for all of a graph or for one head of one sample.
struct Run<'a> {
    bound: &'a Bound,
    head: Option<(usize, usize)>,
    /// Results that later operations read, in the logical order.
    made: BTreeMap<i64, Vec<f32>>,
}

impl<'a> Run<'a> {
    fn new(bound: &'a Bound, head: Option<(usize, usize)>) -> Self {
        Self { bound, head, made: BTreeMap::new() }
    }

    /// The dimensions of what this run sees of a tensor.
    fn dims(&self, t: &Tensor) -> Vec<usize> {
        let mut dims = t.dims.clone();
        if self.head.is_some() {
            dims[..2].fill(1);
        }
        dims
    }

    fn view(&self, what: &str, t: &Tensor) -> View {
        let address = self.bound.addresses.get(&t.id).copied().unwrap_or_default();
        let mut view = t.view(what, address);
        if let Some((sample, head)) = self.head {
            let at = |i: usize, j: usize| if t.dims[i] == 1 { 0 } else { j * t.strides[i] };
            view.address += ((at(0, sample) + at(1, head)) * t.number.bytes()) as u64;
            view.dims = self.dims(t);
        }
        view
    }

    fn read(&self, t: &Tensor) -> Vec<f32> {
        if let Some(numbers) = self.made.get(&t.id) {
            return numbers.clone();
        }
        match self.bound.values.get(&t.id) {
            Some(&x) => vec![x],
            None => self.view("an input", t).read(),
        }
    }

    fn write(&mut self, t: &Tensor, mut numbers: Vec<f32>) {
        numbers.iter_mut().for_each(|x| *x = t.number.round(*x));
        if !t.is_virtual {
            self.view("a result", t).write(&numbers);
        }
        self.made.insert(t.id, numbers);
    }

    fn run(mut self) {
        let operations = &self.bound.graph.operations;
        for (at, operation) in operations.iter().enumerate() {
            self.one(operation);
            let later = &operations[at + 1..];
            self.made.retain(|id, _| later.iter().any(|o| o.inputs().iter().any(|t| t.id == *id)));
        }
    }

    fn one(&mut self, operation: &Operation) {
        match operation {
            Operation::Matmul { a, b, c, .. } => self.matmul(a, b, c),
            Operation::Pointwise { .. } => self.pointwise(operation),
            Operation::Reduction { operator, x, y, .. } => self.reduce(*operator, x, y),
            Operation::Reshape { x, y } => self.reshape(x, y),
            Operation::Attention(a) => self.attention(a),
            Operation::Convolution { convolution, x, w, y, sizes, factors, backward, .. } => {
                let read = |t: &Tensor| {
                    let mut numbers = self.read(t);
                    if t.number == Number::F32 && tf32_allowed() {
                        round_to_tf32(&mut numbers);
                    }
                    numbers
                };
                let (result, to) = if *backward {
                    (convolution.backward_data(*sizes, &read(y), &read(w)), x)
                } else {
                    (convolution.forward(*sizes, &read(x), &read(w)), y)
                };
                let old = (factors[1] != 0.0).then(|| self.view("an old result", to).read());
                let blend =
                    |(i, r): (usize, &f32)| factors[0] * r + old.as_ref().map_or(0.0, |old| factors[1] * old[i]);
                let result = result.iter().enumerate().map(blend).collect();
                self.write(to, result);
            }
            Operation::AttentionBackward(_) | Operation::Softmax { .. } => {}
        }
    }

    fn matmul(&mut self, a: &Tensor, b: &Tensor, c: &Tensor) {
        let (left, right) = (self.read(a), self.read(b));
        let dims = self.dims(c);
        let rank = dims.len();
        let (m, n, k) = (dims[rank - 2], dims[rank - 1], a.dims[rank - 1]);
        let mut result = vec![0.0; dims.iter().product()];
        let (a_dims, b_dims) = (self.dims(a), self.dims(b));
        for (i, to) in result.chunks_exact_mut(m * n).enumerate() {
            let left = Matrix { data: &left[batch(i, &dims, &a_dims) * m * k..][..m * k], row: k, column: 1 };
            let right = Matrix { data: &right[batch(i, &dims, &b_dims) * k * n..][..k * n], row: n, column: 1 };
            product((m, n, k), left, right, to, (n, 1), false);
        }
        self.write(c, result);
    }

    fn pointwise(&mut self, operation: &Operation) {
        let Operation::Pointwise { mode, axis, beta, alphas, inputs, y, .. } = operation else { return };
        let dims = self.dims(y);
        let inputs: Vec<_> = inputs.iter().map(|t| spread(&self.read(t), &self.dims(t), &dims)).collect();
        let (inner, of_axis): (usize, _) = (dims[*axis + 1..].iter().product(), dims[*axis]);
        let result = (0..dims.iter().product()).map(|i: usize| {
            let x = alphas[0] * inputs[0][i];
            let second = || alphas[1] * inputs[1][i];
            match *mode {
                mode::INDEX => (i / inner % of_axis) as f32,
                mode::SELECT => {
                    if inputs[2][i] != 0.0 {
                        x
                    } else {
                        inputs[1][i]
                    }
                }
                mode::ADD => x + second(),
                mode::MUL => x * second(),
                mode::SUB => x - second(),
                mode::DIV => x / second(),
                2 => x.min(second()),
                3 => x.max(second()),
                mode::GREATER => f32::from(x > second()),
                mode::AT_LEAST => f32::from(x >= second()),
                304 => f32::from(x < second()),
                305 => f32::from(x <= second()),
                other => unary(other, x, *beta as f32),
            }
        });
        let result = result.collect();
        self.write(y, result);
    }

    fn reduce(&mut self, operator: i64, x: &Tensor, y: &Tensor) {
        let (from, to) = (self.dims(x), self.dims(y));
        let start = if operator == MAX { f32::NEG_INFINITY } else { 0.0 };
        let mut result = vec![start; to.iter().product()];
        for (i, number) in self.read(x).into_iter().enumerate() {
            let result = &mut result[batch_of(i, &from, &to)];
            *result = if operator == MAX { result.max(number) } else { *result + number };
        }
        self.write(y, result);
    }

    /// The same elements by other dimensions: a transposition, or rows that are cut anew.
    fn reshape(&mut self, x: &Tensor, y: &Tensor) {
        let numbers = self.read(x);
        let (from, to) = (self.dims(x), self.dims(y));
        // The dimension of x that each dimension of y is.
        let mut free: Vec<_> = (0..from.len()).collect();
        let mut order = Vec::new();
        for (dim, stride) in y.dims.iter().zip(&y.strides) {
            let fits = |i: &usize| x.dims[*i] == *dim && (x.strides[*i] == *stride || *dim == 1);
            match free.iter().position(fits) {
                Some(at) => order.push(free.remove(at)),
                None => return self.write(y, numbers),
            }
        }
        let steps = row_major(&from);
        let step: Vec<_> = order.iter().map(|&i| steps[i]).collect();
        let result = (0..numbers.len()).map(|i| numbers[offset(i, &to, &step)]).collect();
        self.write(y, result);
    }

    fn attention(&mut self, a: &Attention) {
        let (n, m, d, e) = (a.q.dims[2], a.k.dims[2], a.q.dims[3], a.v.dims[3]);
        let (q, k, v) = (self.read(&a.q), self.read(&a.k), self.read(&a.v));
        let scale = a.scale.as_ref().map_or(1.0, |s| self.read(s)[0]);
        let mut scores = vec![0.0; n * m];
        let (left, right) = (Matrix { data: &q, row: d, column: 1 }, Matrix { data: &k, row: 1, column: d });
        product((n, m, d), left, right, &mut scores, (m, 1), false);
        let (mut stats, mut shares) = (vec![0.0; n], vec![0.0; n]);
        for (row, (stats, share)) in scores.chunks_exact_mut(m).zip(stats.iter_mut().zip(&mut shares)) {
            let highest = row.iter().fold(f32::NEG_INFINITY, |h, s| h.max(s * scale));
            let mut total = 0.0;
            for s in row {
                let power = (*s * scale - highest).exp();
                total += power;
                // The weights are a factor of a product in the short type. They are divided by their sum afterwards.
                *s = a.q.number.round(power);
            }
            (*stats, *share) = (highest + total.ln(), 1.0 / total);
        }
        let mut o = vec![0.0; n * e];
        let (left, right) = (Matrix { data: &scores, row: m, column: 1 }, Matrix { data: &v, row: e, column: 1 });
        product((n, e, m), left, right, &mut o, (e, 1), false);
        o.chunks_exact_mut(e).zip(&shares).for_each(|(row, share)| row.iter_mut().for_each(|o| *o *= share));
        self.write(&a.o, o);
        if let Some(to) = &a.stats {
            self.write(to, stats);
        }
    }
}

fn unary(mode: i64, x: f32, beta: f32) -> f32 {
    match mode {
        mode::EXP => x.exp(),
        mode::LOG => x.ln(),
        mode::RELU => x.max(0.0),
        mode::TANH => x.tanh(),
        mode::SIGMOID => 1.0 / (1.0 + (-x).exp()),
        mode::SWISH => x / (1.0 + (-beta * x).exp()),
        mode::GELU | mode::GELU_TANH => gelu(x),
        4 => x.sqrt(),
        16 => -x,
        17 => 1.0 / x.sqrt(),
        22 => 1.0 / x,
        _ => x,
    }
}

fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        steps[i - 1] = steps[i] * dims[i];
    }
    steps
}

/// The sum of the coordinates of element `i` times `steps`.
fn offset(mut i: usize, dims: &[usize], steps: &[usize]) -> usize {
    let mut at = 0;
    for (dim, step) in dims.iter().zip(steps).rev() {
        at += i % dim * step;
        i /= dim;
    }
    at
}

/// The element of a tensor of dimensions `to`, some of which are 1, that belongs to element `i` of one of `from`.
fn batch_of(i: usize, from: &[usize], to: &[usize]) -> usize {
    let steps: Vec<_> = row_major(to).into_iter().zip(to).map(|(step, dim)| if *dim == 1 { 0 } else { step }).collect();
    offset(i, from, &steps)
}

/// The matrix of a factor that belongs to matrix `i` of the product.
fn batch(i: usize, result: &[usize], factor: &[usize]) -> usize {
    let outer = result.len() - 2;
    batch_of(i, &result[..outer], &factor[..outer])
}

/// Repeats numbers along dimensions that are 1.
fn spread(numbers: &[f32], from: &[usize], to: &[usize]) -> Vec<f32> {
    if from == to {
        return numbers.to_vec();
    }
    let steps: Vec<_> =
        row_major(from).into_iter().zip(from).map(|(step, dim)| if *dim == 1 { 0 } else { step }).collect();
    (0..to.iter().product()).map(|i| numbers[offset(i, to, &steps)]).collect()
}
