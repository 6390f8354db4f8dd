//! A network: its nodes in order, with constants folded, run on one tensor.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::file::{CheckedFile, describe};
use crate::info::{Dim, OnnxInfo, ValueInfo};
use crate::operators::{Inputs, Run, dtype_name};
use crate::{Error, Result};

/// An ONNX network, differentiable with respect to its input.
pub struct OnnxNetwork {
    info: OnnxInfo,
    device: Device,
    constants: HashMap<String, Tensor>,
    pub(crate) steps: Vec<Step>,
}

/// A node that runs on every call.
pub(crate) struct Step {
    /// How messages name the node.
    pub(crate) label: String,
    run: Run,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
}

/// Receives a node, all values so far by their names, and the node's results.
type Observer<'a, 'n> = &'a mut dyn FnMut(&Step, &HashMap<&'n str, Tensor>, &[Tensor]) -> Result<()>;

impl OnnxNetwork {
    /// Reads a network, and the external data in its folder. Weights become f32 on `device`. Nodes that do not depend on
    /// the input are computed here.
    ///
    /// # Errors
    /// Lists all problems at once: operators, attributes and element types that are not supported, with their nodes;
    /// names that no node computes; missing weights; corrupt data.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let CheckedFile { folder, graph, weights, runs, info } = CheckedFile::read(path)?;
        let label = &info.label;
        let mut constants = HashMap::new();
        for (t, declared) in graph.initializers.iter().zip(&weights) {
            let tensor = declared.read(t, &folder, device);
            let tensor = tensor.map_err(|e| Error::input(format!("{label}: weight `{}`: {e}", t.name)))?;
            constants.insert(t.name.clone(), tensor);
        }
        let mut steps = Vec::new();
        for (node, run) in graph.nodes.iter().zip(runs) {
            let constant = node.inputs.iter().all(|name| name.is_empty() || constants.contains_key(name));
            let label = describe(node, info.opset);
            let step = Step { label, run, inputs: node.inputs.clone(), outputs: node.outputs.clone() };
            if !constant {
                steps.push(step);
                continue;
            }
            let results = step.run(&info.label, device, |name| constants.get(name))?;
            constants.extend(step.outputs.iter().cloned().zip(results));
        }
        // Drops the constants that only other constants were computed from.
        let read: HashSet<&String> =
            steps.iter().flat_map(|s| &s.inputs).chain(info.outputs.iter().map(|o| &o.name)).collect();
        constants.retain(|name, _| read.contains(name));
        Ok(OnnxNetwork { info, device: device.clone(), constants, steps })
    }

    /// Checks a file as [`OnnxNetwork::open`] does, without reading the numbers of its weights.
    ///
    /// # Errors
    /// As [`OnnxNetwork::open`].
    pub fn inspect(path: &Path) -> Result<OnnxInfo> {
        Ok(CheckedFile::read(path)?.info)
    }

    /// What the file says about the network.
    pub fn info(&self) -> &OnnxInfo {
        &self.info
    }

    /// Inputs that have to be given.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.info.inputs
    }

    /// Values that are declared as outputs. [`OnnxNetwork::forward`] returns any other named value too.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.info.outputs
    }

    /// Bytes of memory that the weights take.
    pub fn bytes(&self) -> usize {
        self.constants.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum()
    }

    /// The device of weights and features.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Computes the value `output` for `x`, in f32: an output or an inner value, by default the only output.
    ///
    /// Gradients flow to `x`, whatever its dtype. Weights are constants. Only the nodes that `output` depends on run.
    ///
    /// # Errors
    /// If the network has no such value, `x` does not fit its input, a node fails, or the value is not of floats.
    pub fn forward(&self, x: &Tensor, output: Option<&str>) -> Result<Tensor> {
        let output = self.info.output(output)?;
        let y = self.evaluate(x, Some(output))?;
        if y.dtype() != DType::F32 {
            let dtype = dtype_name(&y);
            return Err(self.info.error(format!("`{output}` is {dtype}, through which no gradient flows")));
        }
        Ok(y)
    }

    /// Computes the value `output`, of floats, integers (i64) or truth values (u8).
    ///
    /// # Errors
    /// As [`OnnxNetwork::forward`], but for values of other types.
    pub fn evaluate(&self, x: &Tensor, output: Option<&str>) -> Result<Tensor> {
        let output = self.info.output(output)?;
        let mut ignore = |_: &Step, _: &HashMap<&str, Tensor>, _: &[Tensor]| Ok(());
        self.walk(x, output, false, &mut ignore)
    }

    /// Runs the nodes that `output` depends on. `observer` receives each node's arguments and results. Values that no
    /// later node reads are dropped, unless `keep`.
    pub(crate) fn walk<'n>(
        &'n self,
        x: &Tensor,
        output: &str,
        keep: bool,
        observer: Observer<'_, 'n>,
    ) -> Result<Tensor> {
        let input = self.info.only_input()?;
        self.check_input(x, input)?;
        let mut last: HashMap<&str, usize> = HashMap::from([(output, usize::MAX)]);
        let mut needed = vec![false; self.steps.len()];
        for (i, step) in self.steps.iter().enumerate().rev() {
            if step.outputs.iter().any(|name| !name.is_empty() && last.contains_key(name.as_str())) {
                needed[i] = true;
                for name in &step.inputs {
                    last.entry(name).or_insert(i);
                }
            }
        }
        let mut values: HashMap<&str, Tensor> = HashMap::new();
        values.insert(&input.name, x.to_dtype(DType::F32)?.to_device(&self.device)?);
        for (i, step) in self.steps.iter().enumerate().filter(|(i, _)| needed[*i]) {
            let results = step.run(&self.info.label, &self.device, |name| self.argument(name, &values))?;
            observer(step, &values, &results)?;
            if !keep {
                values.retain(|name, _| last.get(name).is_some_and(|l| *l > i));
            }
            values.extend(step.outputs.iter().map(String::as_str).zip(results));
        }
        let y = self.argument(output, &values).cloned();
        y.ok_or_else(|| self.info.error(format!("`{output}` was not computed")))
    }

    /// Checks that the declared input accepts `x`.
    fn check_input(&self, x: &Tensor, input: &ValueInfo) -> Result<()> {
        let float = ["float", "float16", "bfloat16", "double"].contains(&input.dtype.as_str());
        let shape = input.shape.as_ref().is_none_or(|dims| {
            dims.len() == x.rank() && dims.iter().zip(x.dims()).all(|(d, n)| !matches!(d, Dim::Fixed(m) if m != n))
        });
        match (float && x.dtype().is_float(), shape) {
            (true, true) if x.elem_count() > 0 => Ok(()),
            (false, _) => {
                Err(self.info.error(format!("its input {input} is not of floats, so that no gradient flows into it")))
            }
            _ => Err(self.info.error(format!("its input is {input}, and {:?} does not fit", x.dims()))),
        }
    }

    /// The value or constant `name`.
    pub(crate) fn argument<'v>(&'v self, name: &str, values: &'v HashMap<&str, Tensor>) -> Option<&'v Tensor> {
        values.get(name).or_else(|| self.constants.get(name))
    }
}

impl Step {
    /// Computes the results of the node. Errors name it.
    pub(crate) fn run<'v>(
        &self,
        label: &str,
        device: &Device,
        value: impl Fn(&str) -> Option<&'v Tensor>,
    ) -> Result<Vec<Tensor>> {
        let values = self.inputs.iter().map(|name| value(name)).collect();
        (self.run)(&Inputs { values, device }).map_err(|e| Error::input(format!("{label}: {}: {e}", self.label)))
    }
}
