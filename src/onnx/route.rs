//! The way from a network's input to one of its values: the steps that the value depends on, in order.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Tensor};

use crate::Result;
use crate::program::Program;
use crate::step::Step;

/// The steps that a value depends on.
pub struct Route<'n> {
    program: &'n Program,
    pub input: &'n str,
    pub output: &'n str,
    pub steps: Vec<&'n Step>,
    /// For each value that a step reads, the last one that reads it.
    last: HashMap<&'n str, usize>,
}

/// Receives a step, all values that it may read by their names, and its results.
pub type Observer<'a, 'n> = &'a mut dyn FnMut(&Step, &HashMap<&'n str, Tensor>, &[Tensor]) -> Result<()>;

impl<'n> Route<'n> {
    pub fn new(program: &'n Program, output: &'n str) -> Result<Self> {
        let input = &program.info.only_input()?.name;
        let mut needed = HashSet::from([output]);
        let mut steps = vec![];
        for step in program.steps.iter().rev() {
            if step.outputs.iter().any(|name| !name.is_empty() && needed.contains(name.as_str())) {
                needed.extend(step.inputs.iter().map(String::as_str));
                steps.push(step);
            }
        }
        steps.reverse();
        let mut last = HashMap::new();
        for (i, step) in steps.iter().enumerate() {
            last.extend(step.inputs.iter().map(|name| (name.as_str(), i)));
        }
        last.insert(output, usize::MAX);
        Ok(Route { program, input, output, steps, last })
    }

    /// Whether a step after step `i`, or the caller, reads a value.
    pub fn is_read_after(&self, name: &str, i: usize) -> bool {
        self.last.get(name).is_some_and(|last| *last > i)
    }

    /// Runs a step. `value` returns values by name; the others are constants.
    pub fn run_step(&self, step: &Step, float: DType, value: impl Fn(&str) -> Option<Tensor>) -> Result<Vec<Tensor>> {
        let argument = |name: &str| match value(name) {
            Some(value) => Ok(Some(value)),
            None => self.program.constant(name, float),
        };
        step.run(&self.program.info.label, &self.program.device, float, argument)
    }

    /// The value or constant `name`, at the end.
    pub fn result(&self, values: &HashMap<&str, Tensor>, float: DType) -> Result<Tensor> {
        let y = match values.get(self.output) {
            Some(y) => Some(y.clone()),
            None => self.program.constant(self.output, float)?,
        };
        y.ok_or_else(|| self.program.info.error(format!("`{}` was not computed", self.output)))
    }

    /// Computes the value for `x`, with floats of the type of `x`, and without a gradient. Drops values after their last
    /// reader.
    pub fn run(&self, x: &Tensor, observer: Observer<'_, 'n>) -> Result<Tensor> {
        let float = x.dtype();
        let mut values: HashMap<&'n str, Tensor> = HashMap::from([(self.input, x.detach())]);
        for (i, step) in self.steps.iter().enumerate() {
            let results = self.run_step(step, float, |name| values.get(name).cloned())?;
            observer(step, &values, &results)?;
            for name in step.inputs.iter().filter(|name| !self.is_read_after(name, i)) {
                values.remove(name.as_str());
            }
            let named = step.outputs.iter().map(String::as_str).zip(results);
            values.extend(named.filter(|(name, _)| self.is_read_after(name, i)));
        }
        self.result(&values, float)
    }
}
