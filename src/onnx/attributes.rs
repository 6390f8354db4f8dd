//! The attributes of a node. An attribute that the operator does not read is an error: without it the network would
//! compute something else.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::dims::checked_size;
use crate::proto::{self, Attribute, Node};
use crate::{Error, Result};

/// A node's attributes, and which of them have been read.
pub struct Attributes<'a> {
    node: &'a Node,
    /// Version of the operator set, on which some meanings depend.
    pub opset: i64,
    read: RefCell<HashSet<&'static str>>,
}

impl<'a> Attributes<'a> {
    pub fn new(node: &'a Node, opset: i64) -> Self {
        Attributes { node, opset, read: RefCell::default() }
    }

    /// Number of results that the node names.
    pub fn outputs(&self) -> usize {
        self.node.outputs.len()
    }

    /// Whether the node names result number `i`.
    pub fn wants(&self, i: usize) -> bool {
        self.node.outputs.get(i).is_some_and(|name| !name.is_empty())
    }

    fn get(&self, name: &'static str, attribute_type: i32) -> Result<Option<&'a Attribute>> {
        self.read.borrow_mut().insert(name);
        let found = self.node.attributes.iter().find(|a| a.name == name);
        match found {
            Some(a) if a.attribute_type != attribute_type && a.attribute_type != 0 => {
                Err(Error::input(format!("attribute `{name}` has an unexpected type")))
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
        self.ints(name)?.map(|ints| ints.into_iter().map(|n| checked_size(n, name)).collect()).transpose()
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

    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<String>>> {
        let Some(a) = self.get(name, Attribute::STRINGS)? else { return Ok(None) };
        let texts = a.strings.iter().map(|text| String::from_utf8(text.to_vec()));
        texts.collect::<Result<_, _>>().map(Some).map_err(|_| Error::input(format!("attribute `{name}` is not UTF-8")))
    }

    pub fn tensor(&self, name: &'static str) -> Result<Option<&'a proto::Tensor>> {
        Ok(self.get(name, Attribute::TENSOR)?.and_then(|a| a.tensor.as_ref()))
    }

    /// Reads an attribute of which only this value is supported.
    pub fn only(&self, name: &'static str, value: i64) -> Result<()> {
        match self.int(name, value)? {
            n if n == value => Ok(()),
            n => Err(Error::input(format!("`{name}` = {n} is not supported"))),
        }
    }

    /// Skips an attribute that has no effect here.
    pub fn ignore(&self, name: &'static str) {
        self.read.borrow_mut().insert(name);
    }

    pub fn finish(&self) -> Result<()> {
        let read = self.read.borrow();
        let unknown = self.node.attributes.iter().map(|a| a.name.as_str()).filter(|name| !read.contains(name));
        let unknown: Vec<_> = unknown.map(|name| format!("`{name}`")).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::input(format!("has unsupported attributes: {}", unknown.join(", "))))
    }
}
