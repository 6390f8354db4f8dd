//! The kernels of lsregen itself, in `src/tensor/cuda/kernels`. They compute in f32, whatever the type of their numbers.
//!
//! References of derivatives are differences of the function, so that they share no formula with the kernels.

mod attention;
mod groups;
mod layers;
mod pixels;

use super::Subject;
use super::values::{Element, Values};

pub fn check(s: &Subject<'_>) -> Option<Result<(), String>> {
    match s.operation {
        "attention" => Some(attention::check(s)),
        "layer_norm" | "layer_norm_vjp" => Some(layers::norm(s)),
        "geglu" | "geglu_vjp" => Some(layers::gate(s)),
        "activation_vjp" => Some(layers::activation(s)),
        "mix" => Some(layers::mix(s)),
        "add_channels" => Some(pixels::add_channels(s)),
        "double_pixels" => Some(pixels::double(s)),
        "strided" => Some(pixels::strided(s)),
        "sum_pixels" => Some(pixels::sum(s)),
        _ => groups::check(s),
    }
}

/// The step of a difference, whose error is then about 1e-10 of the function.
const STEP: f64 = 1e-5;

/// The derivative of a function at `x`.
fn slope(f: impl Fn(f64) -> f64, x: f64) -> f64 {
    (f(x + STEP) - f(x - STEP)) / (2.0 * STEP)
}

/// The derivatives of a function of many numbers.
fn gradient(f: impl Fn(&[f64]) -> f64, x: &[f64]) -> Vec<f64> {
    let mut near = x.to_vec();
    let mut of = |i: usize| {
        let mut there = |value: f64| {
            near[i] = value;
            f(&near)
        };
        let difference = there(x[i] + STEP) - there(x[i] - STEP);
        near[i] = x[i];
        difference / (2.0 * STEP)
    };
    (0..x.len()).map(&mut of).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// What one rounding of the result and sums in f32 allow.
fn tolerance(element: Element) -> f64 {
    element.precision().max(1e-5)
}

/// Numbers of the type of the kernel; each `stream` has others.
fn noise(s: &Subject<'_>, count: usize, stream: usize) -> Values {
    Values::noise(s.element, count, -2.0, 3.0, stream)
}
