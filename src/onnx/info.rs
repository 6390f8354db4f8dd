//! What a file says about its network: inputs, outputs, operators, sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use lsregen_tensor::nearest;

use crate::{Error, Result};

/// One dimension of a declared shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Any size, by a name that other dimensions may share.
    Named(String),
    /// Any size.
    Any,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Named(name) => f.write_str(name),
            Dim::Any => f.write_str("?"),
        }
    }
}

/// An input or output of a network, as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// ONNX's name of the element type.
    pub dtype: String,
    /// `None` if the file does not declare it.
    pub shape: Option<Vec<Dim>>,
}

impl fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.dtype)?;
        match &self.shape {
            None => Ok(()),
            Some(dims) => {
                let dims: Vec<_> = dims.iter().map(Dim::to_string).collect();
                write!(f, " ({})", dims.join(", "))
            }
        }
    }
}

/// What a file says about its network.
#[derive(Clone, Debug)]
pub struct OnnxInfo {
    /// The file, as messages name it.
    pub label: String,
    /// Inputs that have to be given.
    pub inputs: Vec<ValueInfo>,
    /// Values that are declared as outputs.
    pub outputs: Vec<ValueInfo>,
    /// Names of all values that its nodes compute, with the outputs.
    pub values: Vec<String>,
    /// External data files, with values of its weights.
    pub files: Vec<PathBuf>,
    /// How often each operator occurs.
    pub operators: BTreeMap<String, usize>,
    /// Version of the standard operator set.
    pub opset: i64,
    /// Number of parameters, of all weights together.
    pub parameters: usize,
    /// The program that wrote the file.
    pub producer: String,
}

impl OnnxInfo {
    pub(crate) fn error(&self, message: impl fmt::Display) -> Error {
        Error::input(format!("{}: {message}", self.label))
    }

    /// The only input that has to be given.
    ///
    /// # Errors
    /// If there are several, or none.
    pub(crate) fn only_input(&self) -> Result<&ValueInfo> {
        let [input] = &self.inputs[..] else {
            let list: Vec<_> = self.inputs.iter().map(ToString::to_string).collect();
            return Err(self.error(format!(
                "must have one input, an image, but has {}: {}",
                list.len(),
                list.join(", ")
            )));
        };
        Ok(input)
    }

    /// Returns the sizes that the file declares for an output, each as far as it is fixed; `None` if it declares no shape, and
    /// for inner values.
    pub fn declared_shape(&self, output: &str) -> Option<Vec<Option<usize>>> {
        let dims = self.outputs.iter().find(|value| value.name == output)?.shape.as_ref()?;
        Some(dims.iter().map(|dim| if let Dim::Fixed(n) = dim { Some(*n) } else { None }).collect())
    }

    /// Checks and returns the name of an output or inner value; by default that of the only output.
    ///
    /// # Errors
    /// If there is no such value, or several outputs to choose from.
    pub fn output<'n>(&'n self, wanted: Option<&'n str>) -> Result<&'n str> {
        let Some(wanted) = wanted else {
            let names = self.outputs.iter().map(|o| o.name.as_str());
            return match &self.outputs[..] {
                [only] => Ok(&only.name),
                _ => Err(self.error(format!("has several outputs; name one of them: {}", nearest("", names)))),
            };
        };
        let all: BTreeSet<&str> =
            self.values.iter().map(String::as_str).chain(self.outputs.iter().map(|o| o.name.as_str())).collect();
        if all.contains(wanted) {
            return Ok(wanted);
        }
        Err(self.error(format!("has no value `{wanted}`; its outputs and inner values are {}", nearest(wanted, all))))
    }
}
