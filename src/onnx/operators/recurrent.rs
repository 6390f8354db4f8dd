//! Recurrent layers: LSTM, GRU and RNN.
//!
//! The gradient goes back through time step by step, and computes each step again, so that memory holds the states alone
//! and no chain of operations is as long as the sequence.

use std::sync::Arc;

use candle_core::{D, Tensor};
use lsregen_tensor::ops;

use super::activation::sigmoid_of;
use super::arithmetic::product;
use super::{Inputs, Run};
use crate::attributes::Attributes;
use crate::dims::{checked_count, checked_size};
use crate::{Error, Result};

#[derive(Clone, Copy, PartialEq)]
pub enum Cell {
    Rnn,
    Gru { reset_after: bool },
    Lstm,
}

#[derive(Clone, Copy)]
enum Function {
    Sigmoid,
    Tanh,
    Relu,
}

impl Function {
    fn of(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Function::Sigmoid => Ok(sigmoid_of(x)?),
            Function::Tanh => x.tanh(),
            Function::Relu => x.relu(),
        }
    }
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm => 4,
        }
    }

    fn functions(self) -> &'static [Function] {
        match self {
            Cell::Rnn => &[Function::Tanh],
            Cell::Gru { .. } => &[Function::Sigmoid, Function::Tanh],
            Cell::Lstm => &[Function::Sigmoid, Function::Tanh, Function::Tanh],
        }
    }
}

/// The weights of a direction, and its functions.
struct Direction {
    cell: Cell,
    functions: Vec<Function>,
    hidden: usize,
    /// (H, gates · H)
    recurrent: Tensor,
    /// (gates · H)
    bias: Tensor,
    /// (3 · H), of the cell's state on the input, output and forget gate.
    peephole: Option<Tensor>,
}

impl Direction {
    /// The next state, from what the input adds to the gates (B, gates · H) and the state (B, H), or (B, 2 · H) with the
    /// cell's state.
    fn step(&self, x: &Tensor, state: &Tensor) -> candle_core::Result<Tensor> {
        let n = self.hidden;
        let h = state.narrow(1, 0, n)?.contiguous()?;
        let part = |t: &Tensor, i: usize| t.narrow(1, i * n, n)?.contiguous();
        let inner = |t: &Tensor| t.matmul(&self.recurrent)?.broadcast_add(&self.bias);
        let f = &self.functions;
        match self.cell {
            Cell::Rnn => f[0].of(&(x + inner(&h)?)?),
            Cell::Gru { reset_after } => {
                let own = inner(&h)?;
                let update = f[0].of(&(part(x, 0)? + part(&own, 0)?)?)?;
                let reset = f[0].of(&(part(x, 1)? + part(&own, 1)?)?)?;
                let own = if reset_after { (&reset * part(&own, 2)?)? } else { part(&inner(&(&reset * &h)?)?, 2)? };
                let new = f[1].of(&(part(x, 2)? + own)?)?;
                &new + (update * (h - &new)?)?
            }
            Cell::Lstm => {
                let (gates, c) = ((x + inner(&h)?)?, state.narrow(1, n, n)?.contiguous()?);
                let seen = |gate: Tensor, i: usize, c: &Tensor| match &self.peephole {
                    Some(p) => gate + c.broadcast_mul(&p.narrow(0, i * n, n)?)?,
                    None => Ok(gate),
                };
                let input = f[0].of(&seen(part(&gates, 0)?, 0, &c)?)?;
                let forget = f[0].of(&seen(part(&gates, 2)?, 2, &c)?)?;
                let c = ((forget * &c)? + (input * f[1].of(&part(&gates, 3)?)?)?)?;
                let output = f[0].of(&seen(part(&gates, 1)?, 1, &c)?)?;
                Tensor::cat(&[&(output * f[2].of(&c)?)?, &c], 1)
            }
        }
    }

    /// The states (T, B, S) of a sequence (T, B, gates · H), from the first state (B, S) on.
    fn unroll(self: &Arc<Self>, x: &Tensor, first: &Tensor) -> Result<Tensor> {
        let (x, first) = (x.contiguous()?, first.contiguous()?);
        let steps = x.dim(0)?;
        let mut states = Vec::with_capacity(steps);
        let mut state = first.detach();
        for t in 0..steps {
            state = self.step(&x.detach().get(t)?, &state)?.detach();
            states.push(state.clone());
        }
        let this = self.clone();
        let vjp = move |inputs: &[Tensor], _: &[bool], y: &Tensor, g: &Tensor| {
            let mut gradients = vec![];
            let mut carried = inputs[1].zeros_like()?;
            for t in (0..steps).rev() {
                let before = if t == 0 { inputs[1].clone() } else { y.get(t - 1)? };
                let whole = (carried + g.get(t)?)?;
                let own = [inputs[0].get(t)?, before];
                let found = ops::vjp(|own| this.step(&own[0], &own[1]), &own, &[true; 2], |_| Ok(whole))?;
                let [Some(dx), Some(ds)] = &found[..] else { candle_core::bail!("a step passes no gradient") };
                gradients.push(dx.clone());
                carried = ds.clone();
            }
            gradients.reverse();
            Ok(vec![Some(Tensor::stack(&gradients, 0)?), Some(carried)])
        };
        Ok(ops::custom_vjp(&[&x, &first], Tensor::stack(&states, 0)?, Box::new(vjp))?)
    }
}

/// The attributes of a node.
struct Settings {
    cell: Cell,
    hidden: Option<usize>,
    /// For each direction, whether it starts at the end.
    backwards: Vec<bool>,
    functions: Vec<Function>,
    batch_first: bool,
}

pub fn recurrent(cell: Cell, a: &Attributes) -> Result<Run> {
    let cell = match cell {
        Cell::Gru { .. } => Cell::Gru { reset_after: a.flag("linear_before_reset", false)? },
        cell => cell,
    };
    if cell == Cell::Lstm {
        a.only("input_forget", 0)?;
    }
    let hidden = a.optional_int("hidden_size")?.map(|n| checked_size(n, "hidden_size")).transpose()?;
    let backwards = match a.text("direction", "forward")?.as_str() {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => return Err(Error::input(format!("direction {other:?} is not supported"))),
    };
    let functions = match a.texts("activations")? {
        None => cell.functions().repeat(backwards.len()),
        Some(names) if names.len() == cell.functions().len() * backwards.len() => {
            let function = |name: &String| match name.to_lowercase().as_str() {
                "sigmoid" => Ok(Function::Sigmoid),
                "tanh" => Ok(Function::Tanh),
                "relu" => Ok(Function::Relu),
                other => Err(Error::input(format!("activation {other:?} is not supported"))),
            };
            names.iter().map(function).collect::<Result<_>>()?
        }
        Some(names) => return Err(Error::input(format!("{} activations do not fit its gates", names.len()))),
    };
    let settings = Settings { cell, hidden, backwards, functions, batch_first: a.flag("layout", false)? };
    Ok(Box::new(move |inputs| settings.run(inputs)))
}

impl Settings {
    /// Argument `i` of direction `d`, a constant.
    fn weight(&self, inputs: &Inputs, i: usize, d: usize) -> Result<Option<Tensor>> {
        let Some(t) = inputs.optional_real(i)? else { return Ok(None) };
        if t.dims().first() != Some(&self.backwards.len()) {
            return Err(Error::input(format!("{:?} does not fit {} directions", t.dims(), self.backwards.len())));
        }
        if t.track_op() {
            return Err(Error::input("its weights depend on the network's input"));
        }
        Ok(Some(t.get(d)?.contiguous()?))
    }

    /// The first state of direction `d`: argument `i`, or zeros.
    fn state(&self, inputs: &Inputs, i: usize, d: usize, zeros: &Tensor) -> Result<Tensor> {
        let Some(t) = inputs.optional_real(i)? else { return Ok(zeros.clone()) };
        let axis = usize::from(self.batch_first);
        let fits = t.rank() == 3 && t.dim(axis)? == self.backwards.len();
        let state = if fits { t.narrow(axis, d, 1)?.squeeze(axis)? } else { t.clone() };
        if state.dims() != zeros.dims() {
            return Err(Error::input(format!("a state {:?} does not fit {:?}", t.dims(), zeros.dims())));
        }
        Ok(state)
    }

    fn run(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let given = inputs.real(0)?;
        let x = if self.batch_first { given.transpose(0, 1)? } else { given.clone() }.contiguous()?;
        let (steps, batch, size) = x.dims3()?;
        if inputs.optional_ints(4)?.is_some_and(|lengths| lengths.iter().any(|n| *n != steps as i64)) {
            return Err(Error::input("sequences of different lengths are not supported"));
        }
        let (gates, cells) = (self.cell.gates(), if self.cell == Cell::Lstm { 2 } else { 1 });
        let (mut all, mut last, mut last_cells) = (vec![], vec![], vec![]);
        for (d, backwards) in self.backwards.iter().enumerate() {
            let missing = || Error::input("its weights are missing");
            let weight = self.weight(inputs, 1, d)?.ok_or_else(missing)?;
            let recurrent = self.weight(inputs, 2, d)?.ok_or_else(missing)?;
            let n = self.hidden.unwrap_or(recurrent.dim(D::Minus1)?);
            if weight.dims() != [gates * n, size] || recurrent.dims() != [gates * n, n] {
                let (a, b) = (weight.dims(), recurrent.dims());
                return Err(Error::input(format!("weights {a:?} and {b:?} do not fit {gates} gates of {n}")));
            }
            checked_count(&[steps, batch, gates * n])?;
            let zeros = Tensor::zeros((batch, n), x.dtype(), x.device())?;
            let bias = match self.weight(inputs, 3, d)? {
                None => Tensor::zeros(2 * gates * n, x.dtype(), x.device())?,
                Some(bias) if bias.dims() == [2 * gates * n] => bias,
                Some(bias) => {
                    return Err(Error::input(format!("bias {:?} does not fit {gates} gates of {n}", bias.dims())));
                }
            };
            let peephole = if self.cell == Cell::Lstm { self.weight(inputs, 7, d)? } else { None };
            if peephole.as_ref().is_some_and(|p| p.dims() != [3 * n]) {
                return Err(Error::input("peepholes do not fit its gates"));
            }
            let mut state = self.state(inputs, 5, d, &zeros)?;
            if cells == 2 {
                state = Tensor::cat(&[&state, &self.state(inputs, 6, d, &zeros)?], 1)?;
            }
            let count = self.cell.functions().len();
            let direction = Arc::new(Direction {
                cell: self.cell,
                functions: self.functions[d * count..(d + 1) * count].to_vec(),
                hidden: n,
                recurrent: recurrent.t()?.contiguous()?,
                bias: bias.narrow(0, gates * n, gates * n)?,
                peephole,
            });
            let sequence = if *backwards { x.flip(&[0])? } else { x.clone() };
            let gated =
                product(&sequence, &weight.t()?.contiguous()?)?.broadcast_add(&bias.narrow(0, 0, gates * n)?)?;
            let states = direction.unroll(&gated, &state)?;
            let end = states.narrow(0, steps - 1, 1)?.squeeze(0)?;
            last.push(end.narrow(1, 0, n)?);
            last_cells.push(end.narrow(1, (cells - 1) * n, n)?);
            let hidden = states.narrow(2, 0, n)?.contiguous()?;
            all.push(if *backwards { hidden.flip(&[0])? } else { hidden });
        }
        let axis = usize::from(self.batch_first);
        let y = Tensor::stack(&all, 1)?;
        let y = if self.batch_first { y.permute([2, 0, 1, 3])?.contiguous()? } else { y };
        let mut results = vec![y, Tensor::stack(&last, axis)?];
        if cells == 2 {
            results.push(Tensor::stack(&last_cells, axis)?);
        }
        Ok(results)
    }
}
