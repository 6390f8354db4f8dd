//! Guidance through ONNX networks: compares features and gradients with torch, and tests the errors of unsuitable
//! targets. The networks are those of lsregen-onnx's tests.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use common::assert_close;
use lsregen_diffusion::guidance::onnx::{Look, OnnxFeature};
use lsregen_diffusion::guidance::{Metric, OnnxGoal};
use lsregen_onnx::{Normalisation, OnnxNetwork};
use lsregen_tensor::noise::Generator;

const CPU: &Device = &Device::Cpu;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/tests/fixtures/onnx_nets").join(name)
}

fn open(name: &str) -> OnnxNetwork {
    OnnxNetwork::open(&file(&format!("{name}.onnx")), CPU).unwrap_or_else(|e| panic!("{e}"))
}

fn normal(shape: &[usize], seed: u64) -> Tensor {
    Generator::new(seed).randn(shape, CPU).unwrap()
}

fn contains(name: &str, error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{name}: {word:?} is not in {error}");
    }
}

/// A predicted image.
fn picture() -> Tensor {
    (normal(&[1, 3, 40, 52], 1) * 0.4).unwrap()
}

#[test]
fn features_of_images_equal_torchs() {
    let io = candle_core::safetensors::load(file("io.safetensors"), CPU).unwrap();
    let by = Normalisation { mean: [0.5, 0.4, 0.3], std: [0.2, 0.3, 0.25] };
    let looks = [
        ("look", Look::new(Arc::new(open("residual")), None, Some((37, 30)), by, None)),
        // A fixed size, grey images, channels last.
        ("look_grey", Look::new(Arc::new(open("grey_last")), None, None, Normalisation::default(), None)),
    ];
    for (name, look) in looks {
        let x = Var::from_tensor(&picture()).unwrap();
        let y = look.unwrap().feature(&x).unwrap();
        assert_close(name, &y, &io[&format!("{name}.y")], 1e-5);
        let loss = (&y * normal(y.dims(), 2)).unwrap().sum_all().unwrap();
        assert_close(name, &loss.backward().unwrap().remove(&x).unwrap(), &io[&format!("{name}.g")], 1e-4);
    }
}

#[test]
fn goals_that_do_not_fit_the_feature_are_refused() {
    let look =
        Arc::new(Look::new(Arc::new(open("residual")), None, Some((37, 30)), Normalisation::default(), None).unwrap());
    let made = |goal: &OnnxGoal, metric| OnnxFeature::new(look.clone(), goal, metric, &picture()).map(|_| ());
    made(&OnnxGoal::Class(4), Metric::CrossEntropy).unwrap();
    made(&OnnxGoal::Picture(picture()), Metric::CrossEntropy).unwrap();
    made(&OnnxGoal::Feature(normal(&[5], 3)), Metric::L2).unwrap();
    for (goal, metric, words) in [
        (OnnxGoal::Class(5), Metric::CrossEntropy, "has 5 classes, so that there is no class 5"),
        (
            OnnxGoal::Feature(normal(&[1, 6], 3)),
            Metric::L2,
            "has the shape [1, 6], but the network's `feature` has [1, 5]",
        ),
        (OnnxGoal::Picture(picture()), Metric::Gram, "has no positions to compare textures over"),
    ] {
        contains("residual", &made(&goal, metric).unwrap_err().to_string(), &[words]);
    }
    // An image of another size than the network's fixed one, and an input that is not an image.
    let other = Look::new(Arc::new(open("grey_last")), None, Some((8, 8)), Normalisation::default(), None);
    contains(
        "grey_last",
        &other.map(|_| ()).unwrap_err().to_string(),
        &["(1, 12, 16, 1)", "[1, 8, 8, 1] does not fit"],
    );
    let none = Look::new(Arc::new(open("external")), None, None, Normalisation::default(), None);
    contains("external", &none.map(|_| ()).unwrap_err().to_string(), &["`picture` float (1, 6) is not an image"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("target.safetensors");
    std::fs::write(&path, b"{}").unwrap();
    contains("target", &OnnxGoal::read(&path).unwrap_err().to_string(), &["target.safetensors", "safetensors"]);
    let two = [("a", normal(&[1], 1)), ("b", normal(&[1], 1))].into_iter().map(|(n, t)| (n.to_string(), t)).collect();
    candle_core::safetensors::save(&two, &path).unwrap();
    contains("target", &OnnxGoal::read(&path).unwrap_err().to_string(), &["contains 2 tensors"]);
}
