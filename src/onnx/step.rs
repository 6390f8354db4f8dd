//! A node that runs on every call.

use candle_core::{DType, Device, Tensor};

use crate::operators::{Inputs, Run};
use crate::{Error, Result};

pub struct Step {
    /// How messages name the node.
    pub label: String,
    /// Whether its results may be integers, or piecewise constant in a continuous argument, so that no gradient flows.
    pub piecewise_constant: bool,
    pub run: Run,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

impl Step {
    /// Computes the results of the node, with floats of type `float`. Errors name it.
    pub fn run(
        &self,
        label: &str,
        device: &Device,
        float: DType,
        value: impl Fn(&str) -> Result<Option<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let values = self.inputs.iter().map(|name| value(name)).collect::<Result<Vec<_>>>()?;
        let values = values.iter().map(Option::as_ref).collect();
        (self.run)(&Inputs { values, device, float }).map_err(|e| Error::input(format!("{label}: {}: {e}", self.label)))
    }
}
