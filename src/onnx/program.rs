//! What a network consists of, once it is read: its steps and its constants.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::Result;
use crate::info::OnnxInfo;
use crate::step::Step;

/// The steps and constants of a network.
pub struct Program {
    pub info: OnnxInfo,
    pub device: Device,
    pub constants: HashMap<String, Tensor>,
    pub steps: Vec<Step>,
}

impl Program {
    /// The constant `name`, with floats of type `float`.
    pub fn constant(&self, name: &str, float: DType) -> Result<Option<Tensor>> {
        Ok(match self.constants.get(name) {
            Some(t) if t.dtype().is_float() => Some(t.to_dtype(float)?),
            t => t.cloned(),
        })
    }
}
