//! Kernels of images: the columns of convolutions, pools and scales.

use super::host::Arg;
use super::values::{Element, Values};
use super::{Subject, compare};

/// An image: batch, channels, height and width.
const DIMS: [usize; 4] = [2, 3, 9, 7];
const COUNT: usize = 2 * 3 * 9 * 7;

fn info() -> Vec<usize> {
    let [_, c, h, w] = DIMS;
    DIMS.into_iter().chain([c * h * w, h * w, w, 1]).collect()
}

pub fn check(s: &Subject<'_>) -> Option<Result<(), String>> {
    match s.operation {
        "im2col" => Some(columns(s)),
        "avg_pool2d" | "max_pool2d" => Some(pool(s)),
        "upsample_nearest2d" => Some(nearest(s)),
        "upsample_bilinear2d" => Some(bilinear(s)),
        _ => None,
    }
}

fn input(element: Element) -> Values {
    Values::between(element, COUNT, 0.0, 20.0)
}

fn blocks(count: usize) -> u32 {
    count.div_ceil(64) as u32
}

fn columns(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let [b, c, h, w] = DIMS;
    let (k, stride, padding) = (3usize, 2usize, 1usize);
    let (h_out, w_out) = ((h + 2 - k) / stride + 1, (w + 2 - k) / stride + 1);
    let count = b * h_out * w_out * c * k * k;
    let info = info();
    let mut args: Vec<Arg<'_>> = [count, h_out, w_out, k, k, stride, padding, 1].map(Arg::Size).into();
    args.extend([Arg::Sizes(&info), Arg::In(&x), Arg::Out(s.element, count)]);
    let found = s.host.run(s.name, blocks(count), [64, 1, 1], 0, &args)?;
    let x = x.numbers();
    let expected: Vec<f64> = (0..count)
        .map(|i| {
            let (kx, ky, channel) = (i % k, i / k % k, i / (k * k) % c);
            let pixel = i / (k * k * c);
            let (column, row, batch) = (pixel % w_out, pixel / w_out % h_out, pixel / (w_out * h_out));
            let (y, x_) = (row * stride + ky, column * stride + kx);
            let inside = (padding..h + padding).contains(&y) && (padding..w + padding).contains(&x_);
            if inside { x[((batch * c + channel) * h + y - padding) * w + x_ - padding] } else { 0.0 }
        })
        .collect();
    compare("columns", &found, &expected, 0.0)
}

fn pool(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let [b, c, h, w] = DIMS;
    let (h_out, w_out) = (h / 2, w / 2);
    let count = b * c * h_out * w_out;
    let info = info();
    let mut args: Vec<Arg<'_>> = [COUNT, 2, 2, 2, 2].map(Arg::Size).into();
    args.extend([Arg::Sizes(&info), Arg::In(&x), Arg::Out(s.element, count)]);
    let found = s.host.run(s.name, blocks(count), [64, 1, 1], 0, &args)?;
    let x = x.numbers();
    let average = s.operation == "avg_pool2d";
    let expected: Vec<f64> = (0..count)
        .map(|i| {
            let (column, row, plane) = (i % w_out, i / w_out % h_out, i / (w_out * h_out));
            let at = |y: usize, x_: usize| x[(plane * h + 2 * row + y) * w + 2 * column + x_];
            let four = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
            let sum: f64 = four.iter().sum();
            let mean = if s.element.float() { sum / 4.0 } else { (sum / 4.0).trunc() };
            if average { mean } else { four.into_iter().fold(f64::MIN, f64::max) }
        })
        .collect();
    compare("planes", &found, &expected, 2.0 * s.element.precision())
}

fn nearest(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let [b, c, h, w] = DIMS;
    let (h_out, w_out) = (2 * h, 3 * w);
    let count = b * c * h_out * w_out;
    let info = info();
    // The kernel calls the third dimension width.
    let args = [
        Arg::Size(h_out),
        Arg::Size(w_out),
        Arg::F64(0.5),
        Arg::F64(1.0 / 3.0),
        Arg::Sizes(&info),
        Arg::In(&x),
        Arg::Out(s.element, count),
    ];
    let found = s.host.run(s.name, blocks(count), [64, 1, 1], 0, &args)?;
    let x = x.numbers();
    let expected: Vec<f64> = (0..count)
        .map(|i| {
            let (column, row, plane) = (i % w_out, i / w_out % h_out, i / (w_out * h_out));
            x[(plane * h + row / 2) * w + ((column as f64 / 3.0) as usize).min(w - 1)]
        })
        .collect();
    compare("planes", &found, &expected, 0.0)
}

fn bilinear(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let [b, c, h, w] = DIMS;
    let (h_out, w_out) = (2 * h, 2 * w);
    let count = b * c * h_out * w_out;
    let info = info();
    let args = [
        Arg::Size(w_out),
        Arg::Size(h_out),
        Arg::Byte(0),
        Arg::Byte(0),
        Arg::F64(0.0),
        Arg::Byte(0),
        Arg::F64(0.0),
        Arg::Sizes(&info),
        Arg::In(&x),
        Arg::Out(s.element, count),
    ];
    let found = s.host.run(s.name, blocks(count), [64, 1, 1], 0, &args)?;
    let x = x.numbers();
    let place = |i: usize, size: usize| {
        let at = ((i as f64 + 0.5) / 2.0 - 0.5).max(0.0);
        let low = (at as usize).min(size - 1);
        (low, (low + 1).min(size - 1), at - low as f64)
    };
    let expected: Vec<f64> = (0..count)
        .map(|i| {
            let (column, row, plane) = (i % w_out, i / w_out % h_out, i / (w_out * h_out));
            let ((y0, y1, fy), (x0, x1, fx)) = (place(row, h), place(column, w));
            let at = |y: usize, x_: usize| x[(plane * h + y) * w + x_];
            let mix = |a: f64, b: f64, f: f64| a * (1.0 - f) + b * f;
            let value = mix(mix(at(y0, x0), at(y0, x1), fx), mix(at(y1, x0), at(y1, x1), fx), fy);
            if s.element.float() { value } else { value.trunc() }
        })
        .collect();
    // Of whole numbers, the kernel may round either way.
    compare("planes", &found, &expected, if s.element.float() { 4.0 * s.element.precision() } else { 1.0 })
}
