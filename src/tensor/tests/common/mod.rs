//! What the tests of the numeric crates share: fixtures and comparison.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

/// A file or folder among the fixtures of the crate that is tested.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The built-in models' folder.
pub fn shapes(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shapes").join(name)
}

/// Names and shapes of the tensors of real checkpoints, which the tests of lsregen-weights have.
pub fn keys(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/tests/fixtures/keys").join(name)
}

/// All tensors of a fixture.
pub fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// ‖a − b‖ / ‖b‖, in f64.
pub fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
    norm(&(a - &b).unwrap()) / norm(&b)
}

/// Asserts that `a` equals the reference `b` within a relative error.
#[track_caller]
pub fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    let error = relative(a, b);
    println!("{what}: relative error {error:.2e}");
    assert!(error < tolerance, "{what}: relative error {error:.2e}, at most {tolerance:.0e} allowed");
}
