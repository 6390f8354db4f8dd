//! Candle's own convolutions, and the columns of those of one dimension. Those of one dimension are images of one row.

use super::host::Arg;
use super::values::Values;
use super::{Subject, compare};

/// Sizes of one case: (N, C, H, W), and filters (K, C, R, S), or (C, K, R, S) of a transposed convolution.
struct Case {
    x: [usize; 4],
    w: [usize; 4],
    stride: usize,
    padding: usize,
    dilation: usize,
    /// Rows and columns that a transposed convolution adds behind.
    more: usize,
    /// Whether the image has one row, which stride, padding and dilation leave as it is.
    line: bool,
}

pub fn check(s: &Subject<'_>) -> Option<Result<(), String>> {
    match s.operation {
        "conv1d" | "conv2d" | "conv_transpose1d" | "conv_transpose2d" => Some(convolve(s)),
        "im2col1d" => Some(columns(s)),
        "col2im1d" => Some(image(s)),
        _ => None,
    }
}

impl Case {
    fn new(line: bool, transposed: bool, [stride, padding, dilation, more]: [usize; 4]) -> Case {
        let (x, mut w) = if line { ([2, 3, 1, 11], [4, 3, 1, 3]) } else { ([2, 3, 7, 6], [4, 3, 3, 2]) };
        if transposed {
            w.swap(0, 1);
        }
        Case { x, w, stride, padding, dilation, more, line }
    }

    /// Stride, padding and dilation of an axis; 0 is rows.
    fn axis(&self, axis: usize) -> (usize, usize, usize) {
        if self.line && axis == 0 { (1, 0, 1) } else { (self.stride, self.padding, self.dilation) }
    }

    fn size(&self, axis: usize, transposed: bool) -> usize {
        let (stride, padding, dilation) = self.axis(axis);
        let (size, filter) = (self.x[2 + axis], dilation * (self.w[2 + axis] - 1) + 1);
        match transposed {
            false => (size + 2 * padding - filter) / stride + 1,
            true => (size - 1) * stride + filter - 2 * padding + if self.line && axis == 0 { 0 } else { self.more },
        }
    }

    /// Calls `f` with the place in the wide image, (H + …, W + …), that each place in the narrow one sees through each
    /// place of the filter: narrow · stride + filter · dilation − padding.
    fn pairs(&self, narrow: [usize; 2], wide: [usize; 2], mut f: impl FnMut(usize, usize, usize)) {
        let place = |axis: usize, from: usize, at: usize| {
            let (stride, padding, dilation) = self.axis(axis);
            (from * stride + at * dilation).checked_sub(padding).filter(|to| *to < wide[axis])
        };
        let [_, _, r, q] = self.w;
        for (y, x) in (0..narrow[0]).flat_map(|y| (0..narrow[1]).map(move |x| (y, x))) {
            for (u, v) in (0..r).flat_map(|u| (0..q).map(move |v| (u, v))) {
                if let (Some(to_y), Some(to_x)) = (place(0, y, u), place(1, x, v)) {
                    f(y * narrow[1] + x, to_y * wide[1] + to_x, u * q + v);
                }
            }
        }
    }

    fn reference(&self, transposed: bool, x: &[f64], w: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
        let [n, c, height, width] = self.x;
        let k = self.w[usize::from(transposed)];
        let (plane, filter) = (height * width, self.w[2] * self.w[3]);
        let mut y = vec![0.0; n * k * rows * columns];
        for (sample, to, from) in (0..n * k * c).map(|i| (i / (k * c), i / c % k, i % c)) {
            let x = &x[(sample * c + from) * plane..][..plane];
            let y = &mut y[(sample * k + to) * rows * columns..][..rows * columns];
            let w = &w[(if transposed { from * k + to } else { to * c + from }) * filter..][..filter];
            match transposed {
                false => self.pairs([rows, columns], [height, width], |small, large, at| y[small] += x[large] * w[at]),
                true => self.pairs([height, width], [rows, columns], |small, large, at| y[large] += x[small] * w[at]),
            }
        }
        y
    }
}

/// Strides of a tensor with its channels, the second dimension, first or last.
fn strides(dims: &[usize; 4], last: bool) -> [usize; 4] {
    let [_, c, h, w] = *dims;
    if last { [c * h * w, 1, w * c, c] } else { [c * h * w, h * w, w, 1] }
}

/// The numbers in the order of the strides.
fn laid_out(dims: &[usize; 4], numbers: &[f64], last: bool) -> Vec<f64> {
    let [_, c, h, w] = *dims;
    let s = strides(dims, last);
    let mut to = vec![0.0; numbers.len()];
    for (i, x) in numbers.iter().enumerate() {
        let at = [i / (c * h * w), i / (h * w) % c, i / w % h, i % w];
        to[at.iter().zip(s).map(|(i, s)| i * s).sum::<usize>()] = *x;
    }
    to
}

fn convolve(s: &Subject<'_>) -> Result<(), String> {
    let (line, transposed) = (s.operation.ends_with("1d"), s.operation.starts_with("conv_transpose"));
    // Candle's conv1d multiplies the place by the dilation too, which is right only for 1. Candle never launches it.
    let dilated = if s.operation == "conv1d" { [1, 2, 1, 0] } else { [1, 2, 2, 0] };
    for numbers in [[2, 1, 1, 1], dilated] {
        let case = Case::new(line, transposed, numbers);
        let (x_count, w_count) = (case.x.iter().product(), case.w.iter().product());
        let x = Values::noise(s.element, x_count, -1.0, 4.0, 0);
        let w = Values::noise(s.element, w_count, -1.0, 3.0, 1);
        let size = [case.size(0, transposed), case.size(1, transposed)];
        let count = case.x[0] * case.w[usize::from(transposed)] * size[0] * size[1];
        // Halves add in f32, and round once.
        let tolerance = s.element.precision() * if s.element.bytes() > 2 { 10.0 } else { 1.0 };
        let expected = case.reference(transposed, &x.numbers(), &w.numbers(), size);
        for last in [false, true] {
            let x = Values::new(s.element, laid_out(&case.x, &x.numbers(), last));
            let w = Values::new(s.element, laid_out(&case.w, &w.numbers(), last));
            let drop_rows = |list: [usize; 4]| {
                let [a, b, c, d] = list;
                if line { vec![a, b, d] } else { vec![a, b, c, d] }
            };
            let info = [case.x, strides(&case.x, last), case.w, strides(&case.w, last)].map(drop_rows).concat();
            let mut args = vec![Arg::Size(x_count)];
            args.extend(if line { vec![size[1]] } else { vec![size[1], size[0]] }.into_iter().map(Arg::Size));
            args.extend([Arg::Size(case.stride), Arg::Size(case.padding)]);
            if transposed {
                args.push(Arg::Size(case.more));
            }
            args.extend([Arg::Size(case.dilation), Arg::Sizes(&info), Arg::In(&x), Arg::In(&w)]);
            args.push(Arg::Out(s.element, count));
            let found = s.host.run(s.name, count.div_ceil(64) as u32, [64, 1, 1], 0, &args)?;
            let what = format!("stride {}, {}", case.stride, if last { "channels last" } else { "contiguous" });
            compare(&what, &found, &expected, tolerance)?;
        }
    }
    Ok(())
}

fn columns(s: &Subject<'_>) -> Result<(), String> {
    let case = Case::new(true, false, [2, 1, 2, 0]);
    let [n, c, _, length] = case.x;
    let (size, filter) = (case.size(1, false), case.w[3]);
    let x = Values::noise(s.element, n * c * length, 0.0, 99.0, 0);
    let threads = n * size * c;
    for last in [false, true] {
        let x_there = Values::new(s.element, laid_out(&case.x, &x.numbers(), last));
        let [a, b, _, d] = strides(&case.x, last);
        let info = [n, c, length, a, b, d];
        let mut args: Vec<Arg<'_>> = [threads, size, filter, 2, 1, 2].map(Arg::Size).into();
        args.extend([Arg::Sizes(&info), Arg::In(&x_there), Arg::Out(s.element, threads * filter)]);
        let found = s.host.run(s.name, threads.div_ceil(32) as u32, [32, 1, 1], 0, &args)?;
        let (x, mut expected) = (x.numbers(), vec![0.0; threads * filter]);
        for (sample, channel) in (0..n * c).map(|i| (i / c, i % c)) {
            case.pairs([1, size], [1, length], |to, from, at| {
                expected[((sample * size + to) * c + channel) * filter + at] =
                    x[(sample * c + channel) * length + from];
            });
        }
        compare("columns", &found, &expected, 0.0)?;
    }
    Ok(())
}

/// The transpose of the columns: adds them to the image they come from.
fn image(s: &Subject<'_>) -> Result<(), String> {
    let case = Case::new(true, true, [2, 0, 1, 0]);
    let ([n, _, _, length], [_, k, _, filter]) = (case.x, case.w);
    let size = case.size(1, true);
    let x = Values::noise(s.element, n * length * k * filter, -3.0, 9.0, 0);
    let count = n * k * size;
    let mut args: Vec<Arg<'_>> = [count, size, length, k, filter, case.stride].map(Arg::Size).into();
    args.extend([Arg::In(&x), Arg::Out(s.element, count)]);
    let found = s.host.run(s.name, count.div_ceil(32) as u32, [32, 1, 1], 0, &args)?;
    let (x, mut expected) = (x.numbers(), vec![0.0; count]);
    for (sample, channel) in (0..n * k).map(|i| (i / k, i % k)) {
        case.pairs([1, length], [1, size], |from, to, at| {
            expected[(sample * k + channel) * size + to] += x[((sample * length + from) * k + channel) * filter + at];
        });
    }
    compare("image", &found, &expected, 2.0 * s.element.precision())
}
