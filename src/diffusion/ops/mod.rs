//! The building blocks that every network of this crate is made of, differentiable on every device.
//!
//! Each function here chooses between the CPU's fast path and the plain candle form in [`plain`]; the plain form is
//! the definition, the test and the form on other devices and dtypes. This module knows no model.

pub mod plain;

pub use plain::{
    attention, conv2d, geglu, gelu, group_norm, layer_norm, linear, quick_gelu, silu, upsample_nearest_2x,
};
