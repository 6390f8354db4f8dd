//! Compares networks with their expected outputs, for `tools/onnx/node_tests.py`.
//!
//!     cargo run --release --example node_tests -p lsregen-onnx -- FOLDER
//!
//! Each folder in FOLDER has a `model.onnx`, and an `io.safetensors` with the input `x`, an output `y.NAME` each, and the
//! relative and absolute `tolerance`. Prints a line for each, separated by tabs: its name; `agree`, `refused` or `apart`;
//! whether the gradients by the self-test `agrees`, are `refused`, or there is `none`; and the words of an error.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lsregen_onnx::{Error, OnnxNetwork, Result};

const CPU: &Device = &Device::Cpu;

fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    Ok(if t.elem_count() == 0 { vec![] } else { t.to_dtype(DType::F64)?.flatten_all()?.to_vec1()? })
}

/// The greatest difference of two tensors, relative to what is allowed; `None` if their shapes differ.
fn apart(a: &Tensor, b: &Tensor, relative: f64, absolute: f64) -> Result<Option<f64>> {
    if a.dims() != b.dims() {
        return Ok(None);
    }
    let differences = numbers(a)?.into_iter().zip(numbers(b)?).map(|(a, b)| match (a, b) {
        _ if a == b || (a.is_nan() && b.is_nan()) => 0.0,
        _ if (a - b).is_nan() => f64::INFINITY,
        _ => (a - b).abs() / (absolute + relative * b.abs()),
    });
    Ok(Some(differences.fold(0.0, f64::max)))
}

/// Verdict, gradient and words.
fn compare(folder: &Path) -> Result<[String; 3]> {
    let io: HashMap<String, Tensor> = candle_core::safetensors::load(folder.join("io.safetensors"), CPU)?;
    let network = OnnxNetwork::open(&folder.join("model.onnx"), CPU)?;
    let named = |name: &str| io.get(name).ok_or_else(|| Error::input(format!("{name} is missing")));
    let (x, tolerance) = (named("x")?, numbers(named("tolerance")?)?);
    let (mut far, mut gradient, mut words) = (vec![], "none", String::new());
    for name in network.outputs().iter().map(|o| &o.name) {
        let Ok(expected) = named(&format!("y.{name}")) else { continue };
        let y = network.evaluate(x, Some(name))?;
        match apart(&y, expected, tolerance[0], tolerance[1])? {
            None => far.push(format!("`{name}` is {:?}, not {:?}", y.dims(), expected.dims())),
            Some(by) if by > 1.0 => far.push(format!("`{name}` is apart by {by:.1e} of the tolerance")),
            Some(_) if y.dtype() != DType::F32 || numbers(&y)?.iter().any(|n| !n.is_finite()) => {}
            Some(_) => match network.self_test_of(x.dims(), Some(name)) {
                Ok(_) if gradient == "none" => gradient = "agrees",
                Ok(_) => {}
                Err(e) if e.to_string().contains("does not depend on its input") => {}
                Err(e) => (gradient, words) = ("refused", e.to_string()),
            },
        }
    }
    Ok(match far.is_empty() {
        true => ["agree".into(), gradient.into(), words],
        false => ["apart".into(), gradient.into(), far.join("; ")],
    })
}

fn main() -> Result<()> {
    let given = std::env::args().nth(1).ok_or_else(|| Error::input("usage: FOLDER"))?;
    let mut folders: Vec<_> =
        std::fs::read_dir(&given).map_err(Error::io(&given))?.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let outcome = compare(&folder).unwrap_or_else(|e| ["refused".into(), "none".into(), e.to_string()]);
        let place = format!("{}/model.onnx", folder.display());
        let [verdict, gradient, words] = outcome.map(|text| text.replace(&place, "").replace(['\n', '\t'], " "));
        println!("{name}\t{verdict}\t{gradient}\t{}", words.trim_start_matches([':', ' ']));
    }
    Ok(())
}
