//! cuDNN's graphs: descriptors with attributes, which describe operations, are finalised, and are run by engines.
//!
//! Names and numbers are those of cudnn_graph.h. What each descriptor needs is in its comments there; how descriptors are
//! used, and which graphs the engines of attention know, is as in NVIDIA's cudnn-frontend (MIT).

pub mod api;
mod attribute;
mod engine;
mod operation;
mod pattern;
mod run;
mod tensor;
#[cfg(test)]
mod tests;

pub(super) use super::{BAD_PARAM, EXECUTION_FAILED, NOT_SUPPORTED, NULL_POINTER, SUCCESS};

const MISALIGNED_POINTER: i32 = 2003;
const NOT_FINALIZED: i32 = 2004;
const SIZE_INSUFFICIENT: i32 = 2006;
const SHAPE_MISMATCH: i32 = 2008;
const DUPLICATED_ENTRIES: i32 = 2009;
const ATTRIBUTE_TYPE: i32 = 2010;
const DESCRIPTOR_TYPE: i32 = 2012;
const PATTERN: i32 = 3001;
const SHAPE: i32 = 3002;
const DATA_TYPE: i32 = 3003;
const LAYOUT: i32 = 3004;
const ARCHITECTURE: i32 = 3007;
