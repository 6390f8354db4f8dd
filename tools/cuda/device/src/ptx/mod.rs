//! PTX, NVIDIA's text form of kernels: its syntax tree and parser.
//!
//! Source: "Parallel Thread Execution ISA", version 9.0. The parser reads what nvcc writes, and reports everything else
//! with its line.

pub mod token;
pub mod tree;
pub mod parse;

pub use parse::parse;
pub use tree::{Function, Instruction, Module, Operand, Param, Space, Statement, Type, Variable};

/// An error in a PTX text, or an instruction that is not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtxError {
    pub line: u32,
    pub text: String,
}

impl PtxError {
    pub fn new(line: u32, text: impl Into<String>) -> Self {
        Self { line, text: text.into() }
    }
}

impl std::fmt::Display for PtxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for PtxError {}
