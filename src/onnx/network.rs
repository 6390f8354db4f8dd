//! A network: its nodes in order, with constants folded, run on one tensor.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::file::{CheckedFile, describe};
use crate::info::{Dim, OnnxInfo, ValueInfo};
use crate::operators::{self, dtype_name};
use crate::program::Program;
use crate::route::Route;
use crate::step::Step;
use crate::tape::Tape;
use crate::vjp::custom_vjp;
use crate::{Error, Result};

/// An ONNX network, differentiable with respect to its input.
pub struct OnnxNetwork {
    pub(crate) program: Program,
}

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
            let (inputs, outputs) = (node.inputs.clone(), node.outputs.clone());
            let step = Step {
                label,
                piecewise_constant: operators::is_piecewise_constant(&node.operator),
                run,
                inputs,
                outputs,
            };
            if !constant {
                steps.push(step);
                continue;
            }
            let results = step.run(&info.label, device, DType::F32, |name| Ok(constants.get(name).cloned()))?;
            constants.extend(step.outputs.iter().cloned().zip(results));
        }
        // Drops the constants that only other constants were computed from.
        let read: HashSet<&String> =
            steps.iter().flat_map(|s| &s.inputs).chain(info.outputs.iter().map(|o| &o.name)).collect();
        constants.retain(|name, _| read.contains(name));
        Ok(OnnxNetwork { program: Program { info, device: device.clone(), constants, steps } })
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
        &self.program.info
    }

    /// Inputs that have to be given.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.program.info.inputs
    }

    /// Values that are declared as outputs. [`OnnxNetwork::forward`] returns any other named value too.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.program.info.outputs
    }

    /// Bytes of memory that the weights take.
    pub fn bytes(&self) -> usize {
        self.program.constants.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum()
    }

    /// The device of weights and features.
    pub fn device(&self) -> &Device {
        &self.program.device
    }

    /// Computes the value `output` for `x`, in f32: an output or an inner value, by default the only output.
    ///
    /// Gradients flow to `x`, whatever its dtype. Weights are constants. Only the nodes that `output` depends on run.
    ///
    /// # Errors
    /// If the network has no such value, `x` does not fit its input, a node fails, or the value is not of floats.
    pub fn forward(&self, x: &Tensor, output: Option<&str>) -> Result<Tensor> {
        let route = Route::new(&self.program, self.program.info.output(output)?)?;
        let x = self.accepted(x)?;
        if !x.track_op() {
            return self.of_floats(route.run(&x, &mut |_, _, _| Ok(()))?, route.output);
        }
        let (y, tape) = Tape::record(&route, &x)?;
        let y = self.of_floats(y, route.output)?;
        if !tape.has_gradient() {
            return Ok(y);
        }
        custom_vjp(&x, y, move |x, _, g| tape.vjp(g)?.map_or_else(|| Ok(x.zeros_like()?), Ok))
    }

    /// Computes the value `output`, of floats (f32), integers (i64) or truth values (u8), without a gradient.
    ///
    /// # Errors
    /// As [`OnnxNetwork::forward`], but for values of other types.
    pub fn evaluate(&self, x: &Tensor, output: Option<&str>) -> Result<Tensor> {
        Route::new(&self.program, self.program.info.output(output)?)?.run(&self.accepted(x)?, &mut |_, _, _| Ok(()))
    }

    /// Checks that a value is of floats.
    pub(crate) fn of_floats(&self, y: Tensor, name: &str) -> Result<Tensor> {
        match y.dtype() {
            DType::F32 => Ok(y),
            _ => {
                Err(self.program.info.error(format!("`{name}` is {}, through which no gradient flows", dtype_name(&y))))
            }
        }
    }

    /// The input as f32 on the network's device.
    pub(crate) fn accepted(&self, x: &Tensor) -> Result<Tensor> {
        self.check_input(x, self.program.info.only_input()?)?;
        Ok(x.to_dtype(DType::F32)?.to_device(&self.program.device)?)
    }

    /// Checks that the declared input accepts `x`.
    fn check_input(&self, x: &Tensor, input: &ValueInfo) -> Result<()> {
        let float = ["float", "float16", "bfloat16", "double"].contains(&input.dtype.as_str());
        let shape = input.shape.as_ref().is_none_or(|dims| {
            dims.len() == x.rank() && dims.iter().zip(x.dims()).all(|(d, n)| !matches!(d, Dim::Fixed(m) if m != n))
        });
        match (float && x.dtype().is_float(), shape) {
            (true, true) if x.elem_count() > 0 => Ok(()),
            (false, _) => Err(self
                .program
                .info
                .error(format!("its input {input} is not of floats, so that no gradient flows into it"))),
            _ => Err(self.program.info.error(format!("its input is {input}, and {:?} does not fit", x.dims()))),
        }
    }
}
