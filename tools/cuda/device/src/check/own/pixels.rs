//! Feature maps with channels last: sums with channels, and nearest-neighbour upsampling.

use super::super::host::Arg;
use super::super::{Subject, compare};
use super::{noise, tolerance};

/// Samples, rows and columns of a feature map.
const B: usize = 3;
const H: usize = 3;
const W: usize = 5;

/// Channels: more vectors than a block has threads, here.
fn channels(s: &Subject<'_>) -> usize {
    37 * s.vector
}

/// The four pixels that a pixel of the small map becomes.
fn four(pixel: usize) -> [usize; 4] {
    let (line, column) = (pixel / W, pixel % W);
    [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(y, x)| (2 * line + y) * 2 * W + 2 * column + x)
}

pub fn add_channels(s: &Subject<'_>) -> Result<(), String> {
    let c = channels(s);
    let (x, add) = (noise(s, B * H * W * c, 0), noise(s, B * c, 1));
    let sizes = [H * W, c].map(|n| Arg::Int(n as i32));
    let mut args = vec![Arg::In(&x), Arg::In(&add), Arg::Out(s.element, B * H * W * c)];
    args.extend(sizes);
    let found = s.host.run(s.name, (H * W, B), [32, 1, 1], 0, &args)?;
    let add = add.numbers();
    let expected: Vec<f64> =
        x.numbers().iter().enumerate().map(|(i, x)| x + add[i / (H * W * c) * c + i % c]).collect();
    compare("pixels", &found, &expected, tolerance(s.element))
}

pub fn double(s: &Subject<'_>) -> Result<(), String> {
    let c = channels(s);
    let x = noise(s, B * H * W * c, 0);
    let args = [Arg::In(&x), Arg::Out(s.element, 4 * B * H * W * c), Arg::Int(W as i32), Arg::Int(c as i32)];
    let found = s.host.run(s.name, (B * H * W) as u32, [32, 1, 1], 0, &args)?;
    let (x, mut expected) = (x.numbers(), vec![0.0; 4 * B * H * W * c]);
    for (pixel, x) in x.chunks(c).enumerate() {
        four(pixel).into_iter().for_each(|to| expected[to * c..][..c].copy_from_slice(x));
    }
    compare("pixels", &found, &expected, 0.0)
}

pub fn sum(s: &Subject<'_>) -> Result<(), String> {
    let c = channels(s);
    let x = noise(s, 4 * B * H * W * c, 0);
    let args = [Arg::In(&x), Arg::Out(s.element, B * H * W * c), Arg::Int(W as i32), Arg::Int(c as i32)];
    let found = s.host.run(s.name, (B * H * W) as u32, [32, 1, 1], 0, &args)?;
    let x = x.numbers();
    let expected: Vec<f64> =
        (0..B * H * W * c).map(|i| four(i / c).into_iter().map(|from| x[from * c + i % c]).sum()).collect();
    compare("pixels", &found, &expected, tolerance(s.element))
}

/// Channels of (2, 5, 3, 4) to the end: (2, 3, 4, 5).
pub fn strided(s: &Subject<'_>) -> Result<(), String> {
    let x = noise(s, 120, 0);
    let mut args = vec![Arg::In(&x), Arg::Out(s.element, 120), Arg::Int(5), Arg::Int(3), Arg::Int(4)];
    args.extend([60, 4, 1, 12].map(Arg::Size));
    let found = s.host.run(s.name, 24, [32, 1, 1], 0, &args)?;
    let x = x.numbers();
    let expected: Vec<f64> = (0..120).map(|i| x[i / 60 * 60 + i % 5 * 12 + i % 60 / 5]).collect();
    compare("numbers", &found, &expected, 0.0)
}
