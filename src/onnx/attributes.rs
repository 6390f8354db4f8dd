//! The settings of a node. What an operator does not ask for is refused: a setting that is not understood is a network
//! that computes something else.

use std::cell::RefCell;
use std::collections::HashSet;

use super::proto::{self, Attribute, Node};
use super::size;
use crate::{Error, Result};

/// A node's attributes, and which of them have been asked for.
pub struct Attributes<'a> {
    node: &'a Node,
    /// Version of the operators' set, which some meanings depend on.
    pub opset: i64,
    asked: RefCell<HashSet<&'static str>>,
}

impl<'a> Attributes<'a> {
    pub fn new(node: &'a Node, opset: i64) -> Self {
        Attributes { node, opset, asked: RefCell::default() }
    }

    /// How many results the node names.
    pub fn outputs(&self) -> usize {
        self.node.outputs.len()
    }

    fn get(&self, name: &'static str, kind: i32) -> Result<Option<&'a Attribute>> {
        self.asked.borrow_mut().insert(name);
        let found = self.node.attributes.iter().find(|a| a.name == name);
        match found {
            Some(a) if a.kind != kind && a.kind != 0 => {
                Err(Error::input(format!("attribute `{name}` has the wrong type")))
            }
            found => Ok(found),
        }
    }

    pub fn optional_int(&self, name: &'static str) -> Result<Option<i64>> {
        Ok(self.get(name, Attribute::INT)?.map(|a| a.int))
    }

    pub fn int(&self, name: &'static str, default: i64) -> Result<i64> {
        Ok(self.optional_int(name)?.unwrap_or(default))
    }

    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.int(name, default.into())? != 0)
    }

    pub fn optional_float(&self, name: &'static str) -> Result<Option<f32>> {
        Ok(self.get(name, Attribute::FLOAT)?.map(|a| a.float))
    }

    pub fn float(&self, name: &'static str, default: f32) -> Result<f64> {
        Ok(f64::from(self.optional_float(name)?.unwrap_or(default)))
    }

    pub fn ints(&self, name: &'static str) -> Result<Option<Vec<i64>>> {
        Ok(self.get(name, Attribute::INTS)?.map(|a| a.ints.clone()))
    }

    pub fn sizes(&self, name: &'static str) -> Result<Option<Vec<usize>>> {
        self.ints(name)?.map(|ints| ints.into_iter().map(|n| size(n, name)).collect()).transpose()
    }

    pub fn floats(&self, name: &'static str) -> Result<Option<Vec<f32>>> {
        Ok(self.get(name, Attribute::FLOATS)?.map(|a| a.floats.clone()))
    }

    pub fn text(&self, name: &'static str, default: &str) -> Result<String> {
        match self.get(name, Attribute::STRING)? {
            Some(a) => String::from_utf8(a.string.to_vec())
                .map_err(|_| Error::input(format!("attribute `{name}` is not UTF-8"))),
            None => Ok(default.into()),
        }
    }

    pub fn tensor(&self, name: &'static str) -> Result<Option<&'a proto::Tensor>> {
        Ok(self.get(name, Attribute::TENSOR)?.and_then(|a| a.tensor.as_ref()))
    }

    /// A setting that only has this value here.
    pub fn only(&self, name: &'static str, value: i64) -> Result<()> {
        match self.int(name, value)? {
            n if n == value => Ok(()),
            n => Err(Error::input(format!("`{name}` = {n} is not supported"))),
        }
    }

    /// A setting that makes no difference here.
    pub fn ignore(&self, name: &'static str) {
        self.asked.borrow_mut().insert(name);
    }

    /// An error that names the settings that nobody asked for.
    pub fn finish(&self) -> Result<()> {
        let asked = self.asked.borrow();
        let unknown = self.node.attributes.iter().map(|a| a.name.as_str()).filter(|name| !asked.contains(name));
        let unknown: Vec<_> = unknown.map(|name| format!("`{name}`")).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::input(format!("does not understand {}", unknown.join(", "))))
    }
}
