//! Layer norm, gates, activation functions and sums.

use super::super::elementwise::gelu_erf;
use super::super::host::Arg;
use super::super::values::Element;
use super::super::{Subject, compare};
use super::{gradient, noise, sigmoid, silu, slope, tolerance};

const ROWS: usize = 7;

/// Features of a row: not a multiple of a warp, and more vectors than a warp has threads.
fn features(s: &Subject<'_>) -> usize {
    if s.vector == 1 { 133 } else { 37 * s.vector }
}

fn normalised(x: &[f64], weight: &[f64], bias: impl Fn(usize) -> f64, eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let scale = 1.0 / (variance + eps).sqrt();
    x.iter().enumerate().map(|(i, x)| (x - mean) * scale * weight[i] + bias(i)).collect()
}

pub fn norm(s: &Subject<'_>) -> Result<(), String> {
    let d = features(s);
    let vjp = s.operation == "layer_norm_vjp";
    let (x, weight) = (noise(s, ROWS * d, 0), noise(s, d, 1));
    // The bias, or the gradient of the result.
    let third = noise(s, if vjp { ROWS * d } else { d }, 2);
    let eps = 1e-5f32;
    let args = [
        Arg::In(&x),
        Arg::In(&weight),
        Arg::In(&third),
        Arg::Out(s.element, ROWS * d),
        Arg::Int(ROWS as i32),
        Arg::Int(d as i32),
        Arg::Number(Element::F32, eps.into()),
    ];
    let found = s.host.run(s.name, ROWS.div_ceil(4) as u32, [128, 1, 1], 0, &args)?;
    let (x, weight, third) = (x.numbers(), weight.numbers(), third.numbers());
    let row = |(i, x): (usize, &[f64])| {
        if !vjp {
            return normalised(x, &weight, |c| third[c], eps.into());
        }
        let dy = &third[i * d..][..d];
        let along = |x: &[f64]| {
            let y = normalised(x, &weight, |_| 0.0, eps.into());
            y.iter().zip(dy).map(|(y, dy)| y * dy).sum()
        };
        gradient(along, x)
    };
    let expected: Vec<f64> = x.chunks(d).enumerate().flat_map(row).collect();
    compare("rows", &found, &expected, tolerance(s.element))
}

pub fn gate(s: &Subject<'_>) -> Result<(), String> {
    let d = features(s);
    let vjp = s.operation == "geglu_vjp";
    let (x, dy) = (noise(s, ROWS * 2 * d, 0), noise(s, ROWS * d, 1));
    let mut args = vec![Arg::In(&x)];
    if vjp {
        args.push(Arg::In(&dy));
    }
    args.extend([Arg::Out(s.element, ROWS * d * if vjp { 2 } else { 1 }), Arg::Int(d as i32)]);
    let found = s.host.run(s.name, ROWS as u32, [32, 1, 1], 0, &args)?;
    let (x, dy) = (x.numbers(), dy.numbers());
    let mut expected = Vec::new();
    for (x, dy) in x.chunks(2 * d).zip(dy.chunks(d)) {
        let (value, gate) = x.split_at(d);
        if vjp {
            expected.extend((0..d).map(|i| dy[i] * gelu_erf(gate[i])));
            expected.extend((0..d).map(|i| dy[i] * value[i] * slope(gelu_erf, gate[i])));
        } else {
            expected.extend((0..d).map(|i| value[i] * gelu_erf(gate[i])));
        }
    }
    compare("rows", &found, &expected, tolerance(s.element))
}

pub fn activation(s: &Subject<'_>) -> Result<(), String> {
    // The last block is not full.
    let count = 301 * s.vector;
    let (x, dy) = (noise(s, count, 0), noise(s, count, 1));
    type Function = fn(f64) -> f64;
    let kinds: [(&str, Function); 3] =
        [("GELU", gelu_erf), ("quick GELU", |x| x * sigmoid(f64::from(1.702f32) * x)), ("SiLU", silu)];
    for (kind, (what, function)) in kinds.into_iter().enumerate() {
        let args = [Arg::In(&x), Arg::In(&dy), Arg::Out(s.element, count), Arg::Size(count), Arg::Int(kind as i32)];
        let found = s.host.run(s.name, 301usize.div_ceil(64) as u32, [64, 1, 1], 0, &args)?;
        let expected: Vec<f64> = x.numbers().iter().zip(dy.numbers()).map(|(x, dy)| dy * slope(function, *x)).collect();
        compare(what, &found, &expected, tolerance(s.element))?;
    }
    Ok(())
}

/// Sums of two tensors.
pub fn mix(s: &Subject<'_>) -> Result<(), String> {
    // The last block is not full.
    let count = 301 * s.vector;
    let (x, y) = (noise(s, count, 0), noise(s, count, 1));
    let (a, b) = (f64::from(0.7f32), f64::from(1.3f32));
    type Function = fn(f64, f64, f64, f64) -> f64;
    let kinds: [(&str, Function); 3] = [
        ("a x + b y", |x, y, a, b| a * x + b * y),
        ("x + a (y - x)", |x, y, a, _| x + a * (y - x)),
        ("(x - a y) / b", |x, y, a, b| (x - a * y) / b),
    ];
    for (kind, (what, function)) in kinds.into_iter().enumerate() {
        let mut args = vec![Arg::In(&x), Arg::In(&y), Arg::Out(s.element, count), Arg::Size(count)];
        args.extend([Arg::Int(kind as i32), Arg::Number(Element::F32, a), Arg::Number(Element::F32, b)]);
        let found = s.host.run(s.name, 301usize.div_ceil(64) as u32, [64, 1, 1], 0, &args)?;
        let expected: Vec<f64> = x.numbers().iter().zip(y.numbers()).map(|(x, y)| function(*x, y, a, b)).collect();
        compare(what, &found, &expected, tolerance(s.element))?;
    }
    Ok(())
}
