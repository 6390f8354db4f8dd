//! ONNX networks: values and gradients against torch and onnxruntime on fixtures that `fixtures/onnx_networks.py` made,
//! the self-test, and bad files.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::path::PathBuf;

use candle_core::{Device, Tensor, Var};
use common::{fixture, relative, tensors};
use lsregen_onnx::OnnxNetwork;
use lsregen_tensor::noise::Generator;

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

/// Files that `open` and `inspect` reject, and words of the error.
const REFUSED: [(&str, &[&str]); 17] = [
    (
        "operators",
        &[
            "`to_a` (If, opset 17)",
            "NonMaxSuppression",
            "com.microsoft.Fused",
            "`mine`",
            "unsupported attributes: `speed`",
        ],
    ),
    ("undefined", &["`to_feature` (Add, opset 17) uses `nothing`, which no earlier node computes"]),
    ("cycle", &["uses `feature`, which no earlier node computes"]),
    ("twice", &["computes `feature`, a name that is taken already"]),
    ("no_output", &["no node computes its output `feature`"]),
    ("training", &["BatchNormalization", "evaluation mode"]),
    ("mask", &["a further result of node `to_a` (MaxPool, opset 17)"]),
    ("dtype", &["weight `w`: element type string"]),
    ("count", &["shape [4] is 4 numbers, the file holds 3"]),
    ("huge", &["is not a valid size"]),
    ("negative", &["-3 is not a valid size"]),
    ("missing_file", &["nowhere.bin"]),
    ("outside", &["../onnx_networks.py", "in the model's folder"]),
    ("short_file", &["bytes 80 to 92", "which has 84"]),
    ("opset", &["opset 6 is not supported", "from 7 to 28"]),
    ("no_opset", &["does not say which opset"]),
    ("no_graph", &["it has no graph"]),
];

fn contains(name: &str, error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{name}: {word:?} is not in {error}");
    }
}

#[test]
fn bad_files_are_refused_before_they_run() {
    for (name, words) in REFUSED {
        let name = format!("bad_{name}");
        contains(&name, &OnnxNetwork::open(&file(&name), CPU).map(|_| ()).unwrap_err().to_string(), words);
        contains(&name, &OnnxNetwork::inspect(&file(&name)).unwrap_err().to_string(), words);
    }
    let folder = tempfile::tempdir().unwrap();
    for (bytes, words) in
        [(&b""[..], "empty"), (b"\x89PNG\r\n", "not an ONNX file"), (b"lsregen: 1", "not an ONNX file")]
    {
        let path = folder.path().join("x.onnx");
        std::fs::write(&path, bytes).unwrap();
        contains("x", &OnnxNetwork::inspect(&path).unwrap_err().to_string(), &["x.onnx", words]);
    }
    assert!(OnnxNetwork::inspect(folder.path()).is_err());
    assert!(OnnxNetwork::inspect(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
}

#[test]
fn mismatches_are_errors_of_the_run() {
    let x = normal(&[1, 3, 4, 4], 1);
    for (name, words) in [
        ("two_inputs", &["must have one input", "`picture` float (1, 3, 4, 4), `other`"][..]),
        ("tokens", &["`picture` int64", "not of floats"]),
        ("expand", &["node `to_feature` (Expand, opset 17)", "larger than"]),
        ("window", &["4 entries with padding are too few for a window of 9"]),
        ("divided", &["node `to_t` (Div, opset 17)", "divided by zero"]),
    ] {
        let name = format!("bad_{name}");
        contains(&name, &open(&name).forward(&x, None).unwrap_err().to_string(), words);
    }
    let network = open("residual");
    for shape in [&[2, 3, 37][..], &[2, 4, 37, 30], &[0, 3, 37, 30]] {
        let x = Tensor::zeros(shape, candle_core::DType::F32, CPU).unwrap();
        contains("residual", &network.forward(&x, None).unwrap_err().to_string(), &["(batch, 3, height, width)"]);
    }
    let error = network.forward(&normal(&[1, 3, 37, 30], 1), Some("featur")).unwrap_err().to_string();
    contains("residual", &error, &["has no value `featur`", "`feature`"]);
    // The gradient of rounding is 0, but differences over many of its steps are not.
    let error = open("bad_steps").self_test(&[1, 3, 4, 4]).unwrap_err().to_string();
    let words = ["deviates from finite differences", "node `to_b` (Round, opset 17) passes no gradient"];
    contains("bad_steps", &error, &words);
    // An output that does not depend on the input.
    let error = open("bad_constant").self_test(&[1, 3, 4, 4]).unwrap_err().to_string();
    contains("bad_constant", &error, &["does not depend on its input"]);
}

#[test]
fn a_file_is_described_without_its_numbers() {
    let info = OnnxNetwork::inspect(&file("residual")).unwrap();
    assert_eq!(
        info.inputs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["`picture` float (batch, 3, height, width)"]
    );
    assert_eq!((info.outputs.len(), info.outputs[0].name.as_str(), info.opset), (1, "feature", 13));
    assert_eq!(info.operators["BatchNormalization"], 4);
    assert!(info.parameters > 3000 && info.producer.starts_with("pytorch"), "{info:?}");
    let info = OnnxNetwork::inspect(&file("external")).unwrap();
    assert_eq!(info.files, [fixture("onnx_nets/external.bin")]);
}

#[test]
fn inner_values_are_features_too() {
    let network = open("residual");
    let inner = network.info().values.iter().find(|name| name.contains("MaxPool")).unwrap();
    let x = Var::from_tensor(&normal(&[1, 3, 37, 30], 1)).unwrap();
    let y = network.forward(&x, Some(inner)).unwrap();
    assert_eq!(y.dims(), [1, 8, 10, 8]);
    assert!(y.sum_all().unwrap().backward().unwrap().get(&x).is_some());
    assert!(network.self_test_of(&[1, 3, 37, 30], Some(inner)).unwrap() < 1e-2);
}

/// Truncated and corrupt files are errors, or other networks whose runs return results or errors.
#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.onnx");
    let (mut opened, mut ran, mut tried) = (0, 0, 0);
    let mut attempt = |bytes: &[u8], shape: &[usize]| {
        std::fs::write(&path, bytes).unwrap();
        tried += 1;
        let inspected = OnnxNetwork::inspect(&path);
        if let Ok(network) = OnnxNetwork::open(&path, CPU) {
            opened += 1;
            assert!(inspected.is_ok());
            let x = Var::from_tensor(&normal(shape, 1)).unwrap();
            if let Ok(y) = network.forward(&x, network.outputs().first().map(|o| o.name.clone()).as_deref()) {
                ran += 1;
                y.sum_all().unwrap().backward().unwrap();
            }
        }
    };
    for (name, shape) in [HANDMADE[0], HANDMADE[1], HANDMADE[2], EXPORTED[3], EXPORTED[12]] {
        let whole = std::fs::read(file(name)).unwrap();
        for cut in (0..whole.len()).step_by(1 + whole.len() / 100) {
            attempt(&whole[..cut], shape);
        }
        for at in (0..whole.len()).step_by(1 + whole.len() / 400) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            attempt(&bytes, shape);
            bytes[at] = (at * 37) as u8;
            attempt(&bytes, shape);
        }
    }
    println!("{tried} files: {opened} opened, {ran} ran");
    assert!(ran > 100);
}
