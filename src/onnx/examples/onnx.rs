//! Tests an ONNX network: prints what the file declares, runs the self-test, and measures values and gradients.
//!
//!     cargo run --release --example onnx -p lsregen-onnx -- FILE 1 3 224 224 [IO]
//!
//! The numbers are the shape of the input. IO is a safetensors file with x, y, r and g: then it also prints the deviations
//! from y and from the gradient g of Σ y·r.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use lsregen_onnx::OnnxNetwork;
use lsregen_onnx::{Error, Result};
use lsregen_tensor::noise::Generator;

fn relative(a: &Tensor, b: &Tensor) -> Result<f64> {
    let norm = |t: Tensor| -> Result<f64> { Ok(t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    Ok(norm((a - b)?)? / norm(b.clone())?)
}

fn main() -> Result<()> {
    lsregen_tensor::ops::keep_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((file, rest)) = arguments.split_first() else { return Err(Error::input("usage: FILE SHAPE... [IO]")) };
    let shape: Vec<usize> = rest.iter().map_while(|n| n.parse().ok()).collect();
    let network = OnnxNetwork::open(Path::new(file), &Device::Cpu)?;
    let info = network.info();
    info.inputs.iter().for_each(|input| println!("input {input}"));
    info.outputs.iter().for_each(|output| println!("output {output}"));
    println!("opset {}, {} weights, by {}, {:?}", info.opset, info.parameters, info.producer, info.operators);
    let io = rest.get(shape.len()).map(|io| candle_core::safetensors::load(io, &Device::Cpu)).transpose()?;
    let known = |name: &str| io.as_ref().and_then(|io| io.get(name)).cloned();
    let output = info.outputs.first().map(|o| o.name.as_str());
    let x = known("x").map_or_else(|| Generator::new(0).randn(&shape, &Device::Cpu), Ok)?;
    for _ in 0..2 {
        let start = Instant::now();
        network.forward(&x, output)?;
        let (value, start) = (start.elapsed(), Instant::now());
        let var = Var::from_tensor(&x)?;
        let y = network.forward(&var, output)?;
        let r = known("r").map_or_else(|| y.ones_like(), Ok)?;
        let gradient = (&y * &r)?.sum_all()?.backward()?.remove(&var);
        println!("values {value:.1?}, values and gradient {:.1?}", start.elapsed());
        if let (Some(gradient), Some(y0), Some(g0)) = (gradient, known("y"), known("g")) {
            println!("apart: values {:.1e}, gradient {:.1e}", relative(&y, &y0)?, relative(&gradient, &g0)?);
        }
    }
    let start = Instant::now();
    println!("self-test: {:.1e} in {:.1?}", network.self_test_of(x.dims(), output)?, start.elapsed());
    Ok(())
}
