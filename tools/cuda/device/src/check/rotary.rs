//! Rotary embeddings.

use super::host::Arg;
use super::values::Values;
use super::{Subject, compare};

/// Batch, heads, tokens and features.
const B: usize = 2;
const H: usize = 3;
const T: usize = 5;
const D: usize = 6;
const COUNT: usize = B * H * T * D;

pub fn check(s: &Subject<'_>) -> Option<Result<(), String>> {
    match s.operation {
        "rope" | "rope_i" | "rope_thd" => Some(rotate(s)),
        _ => None,
    }
}

fn rotate(s: &Subject<'_>) -> Result<(), String> {
    let x = Values::noise(s.element, COUNT, -2.0, 2.0, 0);
    for (what, batched) in [("shared angles", false), ("angles of each sample", true)] {
        let angles = if batched { B } else { 1 } * T * D / 2;
        let angle = Values::noise(s.element, angles, -3.0, 3.0, 1).numbers();
        let cos = Values::new(s.element, angle.iter().map(|a| a.cos()));
        let sin = Values::new(s.element, angle.iter().map(|a| a.sin()));
        let stride = Arg::Int(if batched { H * T * D } else { 0 } as i32);
        let mut args = vec![Arg::In(&x), Arg::In(&cos), Arg::In(&sin), Arg::Out(s.element, COUNT)];
        match s.operation {
            "rope_i" => args.extend([B * H, T * D].map(|n| Arg::Int(n as i32))),
            "rope" => args.extend([B * H, T * D, D].map(|n| Arg::Int(n as i32))),
            _ => args.extend([B, T, H, D].map(|n| Arg::Int(n as i32))),
        }
        args.push(stride);
        let found = s.host.run(s.name, 3, [32, 1, 1], 0, &args)?;
        let (cos, sin) = (cos.numbers(), sin.numbers());
        let expected = rotated(s.operation, &x.numbers(), |sample, token, pair| {
            let at = (if batched { sample * T } else { 0 } + token) * D / 2 + pair;
            (cos[at], sin[at])
        });
        // Three roundings in halves.
        compare(what, &found, &expected, 2.0 * s.element.precision())?;
    }
    Ok(())
}

/// Turns each pair of features: neighbours for `rope_i`, otherwise one of each half.
fn rotated(operation: &str, x: &[f64], angle: impl Fn(usize, usize, usize) -> (f64, f64)) -> Vec<f64> {
    let mut y = vec![0.0; COUNT];
    for (sample, head, token) in (0..B * H * T).map(|i| (i / (H * T), i / T % H, i % T)) {
        let row = match operation {
            "rope_thd" => (sample * T + token) * H + head,
            _ => (sample * H + head) * T + token,
        };
        for pair in 0..D / 2 {
            let (i, j) = if operation == "rope_i" { (2 * pair, 2 * pair + 1) } else { (pair, pair + D / 2) };
            let (i, j) = (row * D + i, row * D + j);
            let (cos, sin) = angle(sample, token, pair);
            y[i] = x[i] * cos - x[j] * sin;
            y[j] = x[i] * sin + x[j] * cos;
        }
    }
    y
}
