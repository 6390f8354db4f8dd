//! ONNX networks: values and gradients against torch and onnxruntime on fixtures that `fixtures/onnx_networks.py` made,
//! the self-test, and bad files.

mod common;

use std::path::PathBuf;

use candle_core::{Device, Tensor, Var};
use common::{fixture, relative, tensors};
use lsregen_diffusion::noise::Generator;
use lsregen_diffusion::onnx::OnnxNetwork;

const CPU: &Device = &Device::Cpu;

fn file(name: &str) -> PathBuf {
    fixture("onnx_nets").join(format!("{name}.onnx"))
}

fn open(name: &str) -> OnnxNetwork {
    OnnxNetwork::open(&file(name), CPU).unwrap_or_else(|e| panic!("{e}"))
}

/// Networks that torch exported, and the shape of their input.
const EXPORTED: [(&str, &[usize]); 13] = [
    ("residual", &[2, 3, 37, 30]),
    ("residual_dynamo", &[2, 3, 37, 30]),
    ("unet", &[2, 3, 19, 14]),
    ("unet_dynamo", &[2, 3, 19, 14]),
    ("vit", &[2, 3, 32, 32]),
    ("vit_old", &[2, 3, 32, 32]),
    ("vit_dynamo", &[2, 3, 32, 32]),
    ("pools", &[1, 2, 11, 14]),
    ("convs", &[2, 6, 13, 10]),
    ("sizes", &[1, 4, 8, 6]),
    ("sizes_dynamo", &[1, 4, 8, 6]),
    ("functions", &[1, 4, 5, 6]),
    ("functions_dynamo", &[1, 4, 5, 6]),
];

/// Networks that were written by hand.
const HANDMADE: [(&str, &[usize]); 4] =
    [("old", &[1, 4, 5, 4]), ("odd", &[1, 4, 6, 6]), ("external", &[1, 6]), ("group18", &[1, 4, 3, 3])];

fn normal(shape: &[usize], seed: u64) -> Tensor {
    Generator::new(seed).randn(shape, CPU).unwrap()
}

#[test]
fn values_and_gradients_equal_torchs() {
    let io = tensors("onnx_nets/io.safetensors");
    let mut wrong = vec![];
    for (name, shape) in EXPORTED {
        let x = Var::from_tensor(&normal(shape, 1)).unwrap();
        // Both exporters' files of a network have the same numbers.
        let base = name.trim_end_matches("_dynamo");
        let network = open(name);
        let y = network.forward(&x, None).unwrap_or_else(|e| panic!("{e}"));
        let value = relative(&y, &io[&format!("{base}.y")]);
        let loss = (&y * normal(y.dims(), 2)).unwrap().sum_all().unwrap();
        let gradient = loss.backward().unwrap().remove(&x).unwrap();
        let slope = relative(&gradient, &io[&format!("{base}.g")]);
        println!("{name}: value {value:.1e}, gradient {slope:.1e}");
        if !(value < 1e-5 && slope < 1e-4) {
            wrong.push((name, value, slope));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn values_of_rare_and_old_operators_equal_onnxruntimes() {
    let io = tensors("onnx_nets/io.safetensors");
    for (name, shape) in HANDMADE {
        let y = open(name).forward(&normal(shape, 1), None).unwrap_or_else(|e| panic!("{e}"));
        common::assert_close(name, &y, &io[&format!("{name}.y")], 1e-5);
    }
}

#[test]
fn every_network_passes_the_self_test() {
    for (name, shape) in EXPORTED.into_iter().chain(HANDMADE) {
        let deviation = open(name).self_test(shape).unwrap_or_else(|e| panic!("{e}"));
        println!("{name}: {deviation:.1e}");
    }
}
