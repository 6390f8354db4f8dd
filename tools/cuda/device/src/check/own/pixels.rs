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
