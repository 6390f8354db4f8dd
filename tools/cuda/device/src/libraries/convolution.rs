//! Convolutions of images in f32, as a gather of patches and a matrix product. Tensors are in the logical order
//! (N, C, H, W) and filters (K, C / groups, R, S), whatever their layout in device memory is.

use rayon::prelude::*;

use super::product::{Matrix, product};

/// Elements of the largest matrix of patches that is gathered at once.
const PATCHES: usize = 1 << 23;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Convolution {
    /// Rows and columns of zeros before and after the image.
    pub(super) before: [usize; 2],
    pub(super) after: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    pub(super) groups: usize,
    /// Whether the filter is flipped (`CUDNN_CONVOLUTION`); networks use cross-correlation.
    pub(super) flipped: bool,
}

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) x: [usize; 4],
    pub(super) w: [usize; 4],
    pub(super) y: [usize; 4],
}

impl Convolution {
    /// The size of the result, if there is one.
    pub(super) fn result(&self, x: [usize; 4], w: [usize; 4]) -> Option<[usize; 4]> {
        if self.groups == 0 || x[1] != w[1] * self.groups || !w[0].is_multiple_of(self.groups) {
            return None;
        }
        let mut y = [x[0], w[0], 0, 0];
        for i in 0..2 {
            let extent = (w[2 + i].checked_sub(1)?) * self.dilation[i] + 1;
            let padded = x[2 + i] + self.before[i] + self.after[i];
            y[2 + i] = padded.checked_sub(extent)?.checked_div(self.stride[i])? + 1;
        }
        Some(y)
    }

    pub(super) fn flops(&self, s: Sizes) -> f64 {
        2.0 * s.y.iter().product::<usize>() as f64 * s.w[1..].iter().product::<usize>() as f64
    }

    /// Calls `f` with the rows of the result that are computed at once.
    fn pieces(s: Sizes, mut f: impl FnMut(usize, usize)) {
        let rows = (PATCHES / (s.w[1] * s.w[2] * s.w[3] * s.y[3]).max(1)).max(1);
        let mut first = 0;
        while first < s.y[2] {
            f(first, rows.min(s.y[2] - first));
            first += rows;
        }
    }

    /// The column of the image that column `to` of the result sees through column `at` of the filter, `None` in the zeros
    /// around it. Axis 0 is rows.
    fn source(&self, s: Sizes, axis: usize, to: usize, at: usize) -> Option<usize> {
        let at = if self.flipped { s.w[2 + axis] - 1 - at } else { at };
        let from = (to * self.stride[axis] + at * self.dilation[axis]).checked_sub(self.before[axis])?;
        (from < s.x[2 + axis]).then_some(from)
    }

    /// Gathers the patches of rows of the result: (C / groups · R · S, rows · columns).
    fn gather(&self, s: Sizes, image: &[f32], (first, rows): (usize, usize), to: &mut [f32]) {
        let [.., r, q] = s.w;
        let (plane, width, columns) = (s.x[2] * s.x[3], s.x[3], s.y[3]);
        to.par_chunks_mut(rows * columns).enumerate().for_each(|(line, to)| {
            let (channel, u, v) = (line / (r * q), line / q % r, line % q);
            let image = &image[channel * plane..][..plane];
            for (row, to) in to.chunks_mut(columns).enumerate() {
                match self.source(s, 0, first + row, u) {
                    None => to.fill(0.0),
                    Some(y) => {
                        for (column, to) in to.iter_mut().enumerate() {
                            *to = self.source(s, 1, column, v).map_or(0.0, |x| image[y * width + x]);
                        }
                    }
                }
            }
        });
    }

    /// Adds patches to the image they come from: the transpose of [`Self::gather`].
    fn scatter(&self, s: Sizes, patches: &[f32], (first, rows): (usize, usize), image: &mut [f32]) {
        let [.., r, q] = s.w;
        let (plane, width, columns) = (s.x[2] * s.x[3], s.x[3], s.y[3]);
        image.par_chunks_mut(plane).enumerate().for_each(|(channel, image)| {
            for (u, v) in (0..r).flat_map(|u| (0..q).map(move |v| (u, v))) {
                let patches = &patches[((channel * r + u) * q + v) * rows * columns..][..rows * columns];
                for (row, patches) in patches.chunks(columns).enumerate() {
                    let Some(y) = self.source(s, 0, first + row, u) else { continue };
                    for (column, patch) in patches.iter().enumerate() {
                        if let Some(x) = self.source(s, 1, column, v) {
                            image[y * width + x] += patch;
                        }
                    }
                }
            }
        });
    }

    /// The forward convolution.
    pub(super) fn forward(&self, s: Sizes, x: &[f32], w: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; s.y.iter().product()];
        let (inside, filters) = (s.w[1], s.w[0] / self.groups);
        let (lines, plane) = (inside * s.w[2] * s.w[3], s.y[2] * s.y[3]);
        let image = inside * s.x[2] * s.x[3];
        let mut patches = Vec::new();
        for unit in 0..s.x[0] * self.groups {
            let (x, w) = (&x[unit * image..][..image], &w[unit % self.groups * filters * lines..][..filters * lines]);
            let y = &mut y[unit * filters * plane..][..filters * plane];
            Self::pieces(s, |first, rows| {
                let columns = rows * s.y[3];
                patches.resize(lines * columns, 0.0);
                self.gather(s, x, (first, rows), &mut patches);
                let left = Matrix { data: w, row: lines, column: 1 };
                let right = Matrix { data: &patches, row: columns, column: 1 };
                product((filters, columns, lines), left, right, &mut y[first * s.y[3]..], (plane, 1), false);
            });
        }
        y
    }

    /// The gradient of the image, from that of the result.
    pub(super) fn backward_data(&self, s: Sizes, dy: &[f32], w: &[f32]) -> Vec<f32> {
        let mut dx = vec![0.0; s.x.iter().product()];
        let (inside, filters) = (s.w[1], s.w[0] / self.groups);
        let (lines, plane) = (inside * s.w[2] * s.w[3], s.y[2] * s.y[3]);
        let image = inside * s.x[2] * s.x[3];
        let mut patches = Vec::new();
        for unit in 0..s.x[0] * self.groups {
            let (dy, w) =
                (&dy[unit * filters * plane..][..filters * plane], &w[unit % self.groups * filters * lines..]);
            let dx = &mut dx[unit * image..][..image];
            Self::pieces(s, |first, rows| {
                let columns = rows * s.y[3];
                patches.resize(lines * columns, 0.0);
                let left = Matrix { data: w, row: 1, column: lines };
                let right = Matrix { data: &dy[first * s.y[3]..], row: plane, column: 1 };
                product((lines, columns, filters), left, right, &mut patches, (columns, 1), false);
                self.scatter(s, &patches, (first, rows), dx);
            });
        }
        dx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let step = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(step).take(n).collect()
    }

    fn cases() -> Vec<(Convolution, [usize; 4], [usize; 4])> {
        let case = |pad, stride, dilation, groups| Convolution {
            before: [pad, pad],
            after: [pad, pad],
            stride: [stride, stride],
            dilation: [dilation, dilation],
            groups,
            flipped: false,
        };
        let uneven = Convolution { after: [1, 2], stride: [2, 1], flipped: true, ..case(0, 1, 1, 1) };
        vec![
            (case(1, 1, 1, 1), [2, 3, 5, 7], [4, 3, 3, 3]),
            (case(1, 2, 1, 2), [1, 4, 8, 6], [6, 2, 3, 3]),
            (case(2, 1, 2, 1), [1, 2, 9, 9], [3, 2, 3, 3]),
            (case(0, 1, 1, 1), [2, 5, 3, 2], [4, 5, 1, 1]),
            (uneven, [1, 2, 6, 5], [2, 2, 3, 2]),
        ]
    }

    /// By the definition, in f64.
    fn slow(c: &Convolution, s: Sizes, x: &[f32], w: &[f32]) -> Vec<f64> {
        let [n, k, h, q] = s.y;
        let mut y = vec![0.0; n * k * h * q];
        for (at, y) in y.iter_mut().enumerate() {
            let (sample, filter, row, column) = (at / (k * h * q), at / (h * q) % k, at / q % h, at % q);
            let group = filter / (k / c.groups);
            for line in 0..s.w[1] * s.w[2] * s.w[3] {
                let (channel, u, v) = (line / (s.w[2] * s.w[3]), line / s.w[3] % s.w[2], line % s.w[3]);
                let sources = (c.source(s, 0, row, u), c.source(s, 1, column, v));
                if let (Some(from_row), Some(from_column)) = sources {
                    let from = (sample * s.x[1] + group * s.w[1] + channel) * s.x[2] + from_row;
                    let weight = w[filter * s.w[1] * s.w[2] * s.w[3] + line];
                    *y += f64::from(x[from * s.x[3] + from_column]) * f64::from(weight);
                }
            }
        }
        y
    }

    #[test]
    fn forward_and_backward_agree_with_the_definition() {
        for (c, x, w) in cases() {
            let s = Sizes { x, w, y: c.result(x, w).unwrap() };
            let (image, filter) = (noise(x.iter().product(), 1), noise(w.iter().product(), 2));
            let (fast, exact) = (c.forward(s, &image, &filter), slow(&c, s, &image, &filter));
            for (a, b) in fast.iter().zip(&exact) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "{c:?}: {a} {b}");
            }
            // ⟨dy, conv(x)⟩ = ⟨backward(dy), x⟩ for every x.
            let dy = noise(fast.len(), 3);
            let dx = c.backward_data(s, &dy, &filter);
            let left: f64 = dy.iter().zip(&exact).map(|(a, b)| f64::from(*a) * b).sum();
            let right: f64 = dx.iter().zip(&image).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((left - right).abs() < 1e-4, "{c:?}: {left} {right}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_have_no_result() {
        let (c, x, w) = cases().remove(0);
        assert_eq!(c.result(x, [w[0], w[1] + 1, 3, 3]), None);
        assert_eq!(c.result([1, 3, 1, 1], [4, 3, 9, 9]), None);
    }
}
