//! A run whose gradient can be computed, in memory and stack that do not depend on how long the chain of nodes is.
//!
//! candle follows and drops the graph of a result by recursion, so that a chain of thousands of nodes would overflow the
//! stack. Here a run is cut into segments. Each segment has a graph of its own, whose leaves are the values that it reads of
//! earlier segments. The backward pass goes through the segments in a loop.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Tensor, Var};
use lsregen_tensor::ops;

use crate::Result;
use crate::route::Route;

/// The steps of a segment. At its ends values are copied, so that few steps would cost memory and time.
const STEPS: usize = 32;

/// The segments of a run, in order.
pub struct Tape {
    input: String,
    output: String,
    segments: Vec<Segment>,
    /// The first step whose result is piecewise constant, so that it passes no gradient.
    pub piecewise_constant: Option<String>,
}

/// A part of a run, with its graph.
struct Segment {
    /// Values from before.
    leaves: Vec<(String, Tensor)>,
    /// Values for later.
    results: Vec<(String, Tensor)>,
}

impl Tape {
    /// Computes the value at the end of `route` for `x`. It depends on `x` if the tape has a gradient.
    pub fn record(route: &Route, x: &Tensor) -> Result<(Tensor, Tape)> {
        let float = x.dtype();
        let mut values: HashMap<&str, Tensor> = HashMap::from([(route.input, x.detach())]);
        let mut depend: HashSet<&str> = HashSet::from([route.input]);
        let mut tape =
            Tape { input: route.input.into(), output: route.output.into(), segments: vec![], piecewise_constant: None };
        for (part, steps) in route.steps.chunks(STEPS).enumerate() {
            let mut leaves: HashMap<&str, Tensor> = HashMap::new();
            let mut own: HashMap<&str, Tensor> = HashMap::new();
            let end = part * STEPS + steps.len() - 1;
            for step in steps {
                for name in step.inputs.iter().map(String::as_str).filter(|name| depend.contains(name)) {
                    if let (Some(value), None) = (values.get(name), leaves.get(name)) {
                        leaves.insert(name, Var::from_tensor(value)?.into_inner());
                    }
                }
                let value =
                    |name: &str| own.get(name).or_else(|| leaves.get(name)).or_else(|| values.get(name)).cloned();
                let results = route.run_step(step, float, value)?;
                let tracked = step.inputs.iter().any(|name| value(name).is_some_and(|t| t.track_op()));
                let no_gradient = results.iter().all(|t| !t.track_op() && t.dtype() != DType::U8);
                if tape.piecewise_constant.is_none() && step.piecewise_constant && tracked && no_gradient {
                    tape.piecewise_constant = Some(step.label.clone());
                }
                own.extend(step.outputs.iter().map(String::as_str).zip(results));
            }
            values.retain(|name, _| route.is_read_after(name, end));
            let mut results = vec![];
            for (name, value) in own.into_iter().filter(|(name, _)| route.is_read_after(name, end)) {
                values.insert(name, value.detach());
                if value.track_op() {
                    depend.insert(name);
                    results.push((name.to_string(), value));
                }
            }
            let leaves = leaves.into_iter().map(|(name, leaf)| (name.to_string(), leaf)).collect();
            tape.segments.push(Segment { leaves, results });
        }
        Ok((route.result(&values, float)?, tape))
    }

    /// Whether the value depends on the input by a gradient.
    pub fn has_gradient(&self) -> bool {
        let ends = self.segments.iter().rev().flat_map(|segment| &segment.results);
        self.input == self.output || ends.into_iter().any(|(name, _)| *name == self.output)
    }

    /// The gradient of the input, if that of the value is `g`; `None` if it is zero throughout.
    pub fn vjp(&self, g: &Tensor) -> Result<Option<Tensor>> {
        let mut gradients: HashMap<&str, Tensor> = HashMap::from([(self.output.as_str(), g.clone())]);
        for segment in self.segments.iter().rev() {
            // A scalar whose gradients by the results are the given ones.
            let mut scalar: Option<Tensor> = None;
            for (name, y) in &segment.results {
                let Some(g) = gradients.remove(name.as_str()) else { continue };
                let zero = Tensor::zeros((), y.dtype(), y.device())?;
                let term = ops::custom_vjp(&[y], zero, Box::new(move |_, _, _, _| Ok(vec![Some(g.clone())])))?;
                scalar = Some(match scalar {
                    Some(scalar) => (scalar + term)?,
                    None => term,
                });
            }
            let Some(scalar) = scalar else { continue };
            let mut found = scalar.backward()?;
            for (name, leaf) in &segment.leaves {
                let Some(g) = found.remove(leaf) else { continue };
                let sum = match gradients.remove(name.as_str()) {
                    Some(other) => (other + g)?,
                    None => g,
                };
                gradients.insert(name, sum.detach());
            }
        }
        Ok(gradients.remove(self.input.as_str()))
    }
}
