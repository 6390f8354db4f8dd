//! Convolution on the CPU without an unrolled copy of its input.
//!
//! The input is copied, with its margin of zeros, into planes whose lines follow each other: one plane for each
//! channel, or s² planes for stride s, one for each phase. Large images are copied one band at a time. For every entry
//! of the window, neighbouring pixels of the output then read neighbouring numbers, at an offset that is the same for
//! all pixels. This also holds across the end of a line, where the results are dropped. So the convolution is a sum of
//! products of panels of weights with segments of these planes ([`super::tile`]). Panels in half precision are widened
//! where they are used.

mod compute;
mod grid;

use candle_core::{DType, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Arg, Kernel, apply1, apply2, read_numbers, read_some, ready, result_len};
use super::linear::{Layout, linear_between};
use super::plain;
use super::resample::{sum_2x2, upsample_nearest_2x};
use super::simd::{Shared, Unwritten, written};
use super::tile::ROWS;
use super::widen::WeightSlice;
#[cfg(feature = "cudnn")]
use crate::cuda::{channels_last, convolution as cudnn};
use compute::Work;
use grid::Grid;

/// Multiply-adds below which one thread is faster than several.
const WORTH_THREADS: usize = 1 << 20;

/// Numbers of the copy of the input: 28 MiB, which [`super::keep_memory`] keeps for the next convolution.
const COPY: usize = 7 << 20;

/// A two-dimensional convolution: its weights, laid out for the kernel in their own dtype, and its geometry.
#[derive(Clone)]
pub struct Convolution {
    /// Panels (⌈O/8⌉, C·k², 8) if `packed`, else (O, C, k, k), on a CUDA device with channels last.
    weight: Tensor,
    packed: bool,
    bias: Option<Tensor>,
    /// O, C and k.
    dims: (usize, usize, usize),
    stride: usize,
    padding: (usize, usize),
    upsample: bool,
}

impl Convolution {
    /// Prepares `weight` (O, C, k, k) and `bias` (O). `padding` is the number of zeros (above and left, below and right). The
    /// weight may be in half precision; the computation is in the dtype of the input.
    ///
    /// # Errors
    /// If the window is not square, the stride is 0, or shapes do not match.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: (usize, usize)) -> Result<Self> {
        let (o, c, k, width) = weight.dims4()?;
        if k != width || k == 0 || stride == 0 {
            candle_core::bail!("convolution: a {k}×{width} window with stride {stride} is not supported");
        }
        if let Some(bias) = bias
            && bias.dims() != [o]
        {
            candle_core::bail!("convolution: bias {:?} does not fit {o} channels", bias.dims());
        }
        let pointwise = k == 1 && stride == 1 && padding == (0, 0);
        // A broadcast weight (of a network built on shapes alone) stays as it is, and so does one that autodiff tracks.
        let packed = !pointwise && ready(weight, true);
        let weight = if packed {
            let panels = o.div_ceil(ROWS);
            let weight = weight.reshape((o, c * k * k))?.pad_with_zeros(0, 0, panels * ROWS - o)?;
            weight.reshape((panels, ROWS, c * k * k))?.transpose(1, 2)?.contiguous()?
        } else {
            #[cfg(feature = "cudnn")]
            let weight = if weight.device().is_cuda() && !pointwise {
                &channels_last::channels_second(&channels_last::pixels_first(weight)?)?
            } else {
                weight
            };
            weight.clone()
        };
        Ok(Convolution { weight, packed, bias: bias.cloned(), dims: (o, c, k), stride, padding, upsample: false })
    }

    /// Applies the convolution: (B, C, H, W) → (B, O, H', W').
    ///
    /// # Errors
    /// If `x` has other channels, or is smaller than the window.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_pointwise() {
            return self.pointwise(x, None);
        }
        apply1(self.clone(), x)
    }

    /// Upsamples `x` by 2 (nearest neighbour), then applies the convolution.
    ///
    /// # Errors
    /// As [`Convolution::forward`].
    pub fn forward_doubled(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_pointwise() {
            return self.pointwise(&upsample_nearest_2x(x)?, None);
        }
        apply1(Convolution { upsample: true, ..self.clone() }, x)
    }

    /// [`Convolution::forward`] plus `add`, which is (B, O), one number for each channel, or (B, O, H', W').
    ///
    /// # Errors
    /// As [`Convolution::forward`], or if `add` has another shape.
    pub fn forward_add(&self, x: &Tensor, add: &Tensor) -> Result<Tensor> {
        match (self.is_pointwise(), add.rank()) {
            (true, 2) => self.pointwise(x, None)?.broadcast_add(&add.unsqueeze(2)?.unsqueeze(3)?),
            (true, _) => self.pointwise(x, Some(add)),
            _ => apply2(self.clone(), x, add),
        }
    }

    fn is_pointwise(&self) -> bool {
        self.dims.2 == 1 && self.stride == 1 && self.padding == (0, 0)
    }

    /// A 1×1 convolution is a matrix product.
    fn pointwise(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Tensor> {
        let matrix = self.weight.squeeze(3)?.squeeze(2)?;
        let layouts = (Layout::Channels, Layout::Channels);
        linear_between(x, &matrix, self.bias.as_ref(), add, layouts)
    }

    /// The weights as (O, C, k, k).
    fn weight(&self) -> Result<Tensor> {
        if !self.packed {
            return Ok(self.weight.clone());
        }
        let (o, c, k) = self.dims;
        let rows = self.weight.transpose(1, 2)?.reshape((o.div_ceil(ROWS) * ROWS, c * k * k))?;
        rows.narrow(0, 0, o)?.reshape((o, c, k, k))
    }

    fn plain_form(&self, x: &Tensor) -> Result<Tensor> {
        let large = if self.upsample { Some(plain::upsample_nearest_2x(x)?) } else { None };
        plain::conv2d(large.as_ref().unwrap_or(x), &self.weight()?, self.bias.as_ref(), self.stride, self.padding)
    }

    /// The convolution by cuDNN, plus `add`, which is (B, O) or (B, O, H', W'). `None` if cuDNN has no kernel for it.
    #[cfg(feature = "cudnn")]
    fn on_device(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Option<Tensor>> {
        let large = if self.upsample { Some(channels_last::double(x)?) } else { None };
        let (x, geometry) = self.padded(large.as_ref().unwrap_or(x))?;
        let (weight, dtype) = (self.weight()?.to_dtype(x.dtype())?, x.dtype());
        let bias = self.bias.as_ref().map(|b| b.to_dtype(dtype)).transpose()?;
        let (of_pixels, of_channels) = match add {
            Some(add) if add.rank() == 2 => (None, Some(add)),
            add => (add, None),
        };
        let y = match cudnn::forward(&x, &weight, bias.as_ref(), of_pixels, geometry)? {
            Some(y) => y,
            // cuDNN may know the convolution without its sums.
            None => {
                let Some(mut y) = cudnn::forward(&x, &weight, None, None, geometry)? else { return Ok(None) };
                if let Some(bias) = &bias {
                    y = channels_last::add_channels(&y, &bias.broadcast_left(y.dim(0)?)?.contiguous()?)?;
                }
                if let Some(add) = of_pixels { (y + add)? } else { y }
            }
        };
        match of_channels {
            Some(add) => channels_last::add_channels(&y, add).map(Some),
            None => Ok(Some(y)),
        }
    }

    /// The input for cuDNN, which pads all sides alike: with its zeros where they differ.
    #[cfg(feature = "cudnn")]
    fn padded(&self, x: &Tensor) -> Result<(Tensor, cudnn::Geometry)> {
        let ((before, after), stride) = (self.padding, self.stride);
        if before == after {
            return Ok((x.clone(), cudnn::Geometry { stride, padding: before }));
        }
        let x = channels_last::pixels_first(x)?;
        let x = x.pad_with_zeros(1, before, after)?.pad_with_zeros(2, before, after)?;
        Ok((channels_last::channels_second(&x)?, cudnn::Geometry { stride, padding: 0 }))
    }

    /// [`Convolution::input_vjp`] by cuDNN.
    #[cfg(feature = "cudnn")]
    fn input_vjp_on_device(&self, (h, w): (usize, usize), dy: &Tensor) -> Result<Option<Tensor>> {
        let ((before, after), stride) = (self.padding, self.stride);
        let (h, w) = if self.upsample { (2 * h, 2 * w) } else { (h, w) };
        let (padding, zeros) = if before == after { (before, 0) } else { (0, before + after) };
        let weight = self.weight()?.to_dtype(dy.dtype())?;
        let geometry = cudnn::Geometry { stride, padding };
        let Some(mut dx) = cudnn::input_vjp(dy, &weight, (h + zeros, w + zeros), geometry)? else { return Ok(None) };
        if zeros > 0 {
            dx = dx.narrow(2, before, h)?.narrow(3, before, w)?;
        }
        if self.upsample { channels_last::sum_2x2(&dx).map(Some) } else { Ok(Some(dx)) }
    }

    /// The VJP with respect to the input, which has (height, width), plus `add`. It is a convolution too.
    ///
    /// # Errors
    /// If shapes do not match.
    pub fn input_vjp(&self, (h, w): (usize, usize), dy: &Tensor, add: Option<&Tensor>) -> Result<Tensor> {
        #[cfg(feature = "cudnn")]
        if !self.is_pointwise()
            && super::kernel::on_device([dy, &self.weight])
            && let Some(dx) = self.input_vjp_on_device((h, w), dy)?
        {
            return if let Some(add) = add { dx + add } else { Ok(dx) };
        }
        let ((o, c, k), (before, after)) = (self.dims, self.padding);
        let forward = |convolution: Convolution| match add {
            Some(add) => convolution.forward_add(dy, add),
            None => convolution.forward(dy),
        };
        if self.stride > 1 || before >= k || after >= k {
            let (full_h, full_w) = if self.upsample { (2 * h, 2 * w) } else { (h, w) };
            let dx = self.strided_vjp((full_h, full_w), dy)?;
            let dx = if self.upsample { sum_2x2(&dx)? } else { dx };
            return if let Some(add) = add { dx + add } else { Ok(dx) };
        }
        let padding = (k - 1 - before, k - 1 - after);
        if !self.upsample {
            return forward(match self.packed {
                true => {
                    Convolution { weight: self.flipped_panels()?, bias: None, dims: (c, o, k), padding, ..self.clone() }
                }
                false => Convolution::new(&self.flipped(self.weight.dtype())?, None, 1, padding)?,
            });
        }
        // The gradient of a pixel is the sum over its four copies: use larger windows that contain the sums.
        let flipped = self.flipped(dy.dtype())?;
        let rows = (flipped.pad_with_zeros(2, 0, 1)? + flipped.pad_with_zeros(2, 1, 0)?)?;
        let summed = (rows.pad_with_zeros(3, 0, 1)? + rows.pad_with_zeros(3, 1, 0)?)?;
        forward(Convolution::new(&summed, None, 2, padding)?)
    }

    /// [`Convolution::input_vjp`] for any stride s and padding, without upsampling.
    ///
    /// Pixel s·p + r of the padded input contributes through entry s·j + r of the window at p − j. So each phase r is a
    /// convolution with every s-th entry, and the results are interleaved.
    fn strided_vjp(&self, (h, w): (usize, usize), dy: &Tensor) -> Result<Tensor> {
        let ((o, c, k), s, (before, _)) = (self.dims, self.stride, self.padding);
        let (b, entries) = (dy.dim(0)?, k.div_ceil(s));
        let room = entries * s - k;
        let weight = self.weight()?.to_dtype(dy.dtype())?;
        let weight = weight.pad_with_zeros(2, 0, room)?.pad_with_zeros(3, 0, room)?;
        let phases = weight.reshape(vec![o, c, entries, s, entries, s])?.permute(vec![3, 5, 1, 0, 2, 4])?;
        let phases = phases.reshape((s * s * c, o, entries, entries))?.flip(&[2, 3])?.contiguous()?;
        let full = Convolution::new(&phases, None, 1, (entries - 1, entries - 1))?.forward(dy)?;
        let (_, _, rows, columns) = full.dims4()?;
        let full = full.reshape(vec![b, s, s, c, rows, columns])?.permute(vec![0, 3, 4, 1, 5, 2])?;
        let full = full.reshape((b, c, rows * s, columns * s))?;
        // Removes the padding, and adds zeros for pixels that no window covers.
        let cut = |x: Tensor, dim: usize, n: usize| {
            let missing = (before + n).saturating_sub(x.dim(dim)?);
            x.pad_with_zeros(dim, 0, missing)?.narrow(dim, before, n)
        };
        cut(cut(full, 2, h)?, 3, w)?.contiguous()
    }

    /// The weights of the VJP, (C, O, k, k): inputs and outputs exchanged, the window flipped.
    fn flipped(&self, dtype: DType) -> Result<Tensor> {
        self.weight()?.to_dtype(dtype)?.transpose(0, 1)?.contiguous()?.flip(&[2, 3])?.contiguous()
    }

    /// [`Convolution::flipped`] from panels to panels, (⌈C/8⌉, O·k², 8), without another copy.
    fn flipped_panels(&self) -> Result<Tensor> {
        let (o, c, k) = self.dims;
        let shape = (c.div_ceil(ROWS), o * k * k, ROWS);
        let device = self.weight.device();
        read_numbers(&self.weight, |numbers| match numbers {
            WeightSlice::F32(panels) => Tensor::from_vec(flip_panels(panels, self.dims), shape, device),
            WeightSlice::F16(panels) => Tensor::from_vec(flip_panels(panels, self.dims), shape, device),
            WeightSlice::Bf16(panels) => Tensor::from_vec(flip_panels(panels, self.dims), shape, device),
        })?
    }

    /// Computes the convolution. Copies at most `copy` numbers of the input at a time, or else a few lines of one sample.
    fn convolve(&self, x: Arg, add: Option<Arg>, copy: usize) -> Result<(Vec<f32>, Shape)> {
        let (o, c, k) = self.dims;
        let &[b, channels, h, w] = x.dims else { candle_core::bail!("convolution: needs (B, C, H, W)") };
        if channels != c {
            candle_core::bail!("convolution: {channels} channels do not fit weights for {c}");
        }
        let grid = Grid::new((h, w), k, self.stride, self.padding, self.upsample)?;
        let (ho, wo) = grid.out;
        let shape = Shape::from((b, o, ho, wo));
        let panels = o.div_ceil(ROWS);

        let len = result_len(&[b, o, ho, wo])?;
        // The start value of each channel of each sample.
        let mut start = vec![0f32; b * panels * ROWS];
        read_some(self.bias.as_ref(), |bias| {
            for (row, bias) in start.chunks_exact_mut(panels * ROWS).zip(bias.into_iter().cycle()) {
                row[..o].copy_from_slice(bias);
            }
        })?;
        let add = match add {
            Some(a) if a.dims == [b, o] => {
                for (row, a) in start.chunks_exact_mut(panels * ROWS).zip(a.data.chunks_exact(o)) {
                    row.iter_mut().zip(a).for_each(|(s, a)| *s += a);
                }
                None
            }
            Some(a) if a.dims == shape.dims() => Some(a.data),
            Some(a) => candle_core::bail!("convolution: cannot add {:?} to {:?}", a.dims, shape.dims()),
            None => None,
        };

        let threaded = b * grid.positions * panels * ROWS * c * k * k > WORTH_THREADS;
        let threads = if threaded { rayon::current_num_threads() } else { 1 };
        let (samples, rows) = grid.part(b, c, copy);
        let compute = |weight: WeightSlice, y: &mut [Unwritten]| {
            let (y, size, mut copy) = (Shared::new(y), c * h * w, Vec::new());
            for first in (0..b).step_by(samples) {
                let samples = samples.min(b - first);
                let x = &x.data[first * size..][..samples * size];
                for top in (0..ho).step_by(rows) {
                    let band = grid.band(top..(top + rows).min(ho));
                    let padded = band.pad(x, samples * c, threaded, &mut copy);
                    let offsets = band.offsets();
                    let work = Work { grid: &band, weight, padded, offsets: &offsets, start: &start, add, first, c, o };
                    work.run(samples, threads, y);
                }
            }
        };
        // SAFETY: the bands of all samples together write every element.
        let y = read_numbers(&self.weight, |weight| unsafe { written(len, |y| compute(weight, y)) })?;
        Ok((y, shape))
    }
}

/// Flips the panels of a convolution's weights.
fn flip_panels<T: Copy + Default + Send + Sync>(panels: &[T], (o, c, k): (usize, usize, usize)) -> Vec<T> {
    let (entries, panel) = (k * k, o * k * k * ROWS);
    let mut flipped = vec![T::default(); c.div_ceil(ROWS) * panel];
    flipped.par_chunks_exact_mut(panel.max(1)).enumerate().for_each(|(i, to)| {
        for (j, to) in to.chunks_exact_mut(ROWS).enumerate() {
            // Read from channel `from` of the result, at the opposite entry of the window.
            let (from, entry) = (j / entries, entries - 1 - j % entries);
            let panel = &panels[from / ROWS * c * entries * ROWS..];
            for (row, to) in to.iter_mut().enumerate().take(c - i * ROWS) {
                *to = panel[((i * ROWS + row) * entries + entry) * ROWS + from % ROWS];
            }
        }
    });
    flipped
}

impl Kernel<1> for Convolution {
    const NAME: &'static str = "convolution";
    const HALF_WEIGHTS: bool = true;

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.weight), self.bias.as_ref()]
    }

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        self.convolve(x, None, COPY)
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        self.plain_form(x)
    }

    #[cfg(feature = "cudnn")]
    fn device(&self, [x]: [&Tensor; 1]) -> Result<Option<Tensor>> {
        self.on_device(x, None)
    }

    fn vjp(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let (_, _, h, w) = x.dims4()?;
        Ok([Some(self.input_vjp((h, w), dy, None)?)])
    }
}

impl Kernel<2> for Convolution {
    const NAME: &'static str = "convolution and sum";
    const HALF_WEIGHTS: bool = true;

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.weight), self.bias.as_ref()]
    }

    fn fast(&self, [x, add]: [Arg; 2]) -> Result<(Vec<f32>, Shape)> {
        self.convolve(x, Some(add), COPY)
    }

    fn plain(&self, [x, add]: [&Tensor; 2]) -> Result<Tensor> {
        let y = self.plain_form(x)?;
        if add.rank() == 2 { y.broadcast_add(&add.unsqueeze(2)?.unsqueeze(3)?) } else { y + add }
    }

    #[cfg(feature = "cudnn")]
    fn device(&self, [x, add]: [&Tensor; 2]) -> Result<Option<Tensor>> {
        self.on_device(x, Some(add))
    }

    fn vjp(&self, [x, add]: [&Tensor; 2], wanted: [bool; 2], dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let (_, _, h, w) = x.dims4()?;
        let dx = wanted[0].then(|| self.input_vjp((h, w), dy, None)).transpose()?;
        let to_add = match (wanted[1], add.rank()) {
            (false, _) => None,
            (true, 2) => Some(dy.sum((2, 3))?),
            (true, _) => Some(dy.clone()),
        };
        Ok([dx, to_add])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::{kernel::read, simd};

    /// Bands of every height, and samples one at a time, give the same bits as the whole.
    #[test]
    fn bands_are_the_whole() {
        let _alone = simd::ALONE.lock();
        let normal = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let mut parts = std::collections::HashSet::new();
        for (b, c, o, h, w) in [(1, 1, 1, 1, 1), (2, 3, 9, 23, 5), (1, 5, 17, 40, 41), (3, 2, 8, 7, 60)] {
            let (x, add) = (normal(&[b, c, h, w]), normal(&[b, o]));
            for (k, stride, padding, upsample) in [
                (3, 1, (1, 1), false),
                (3, 1, (1, 1), true),
                (3, 2, (1, 1), false),
                (3, 2, (0, 1), false),
                (3, 2, (1, 1), true),
                (1, 2, (0, 0), false),
                (5, 3, (2, 4), false),
                (2, 1, (0, 1), true),
            ] {
                for dtype in [DType::F32, DType::F16] {
                    let weight = normal(&[o, c, k, k]).to_dtype(dtype).unwrap();
                    let convolution = Convolution::new(&weight, None, stride, padding).unwrap();
                    let convolution = Convolution { upsample, ..convolution };
                    let run = |copy| {
                        let arg = |t: &Tensor, f: &mut dyn FnMut(Arg)| {
                            read(t, |data| f(Arg { data, dims: t.dims() })).unwrap();
                        };
                        let mut y = None;
                        arg(&x, &mut |x| arg(&add, &mut |add| y = convolution.convolve(x, Some(add), copy).ok()));
                        y.map(|(y, shape)| (y.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), shape.into_dims()))
                    };
                    let whole = run(usize::MAX);
                    for copy in [0, 300, 1000, 3000, 10_000] {
                        assert!(run(copy) == whole, "{b}×{c}→{o} {h}×{w}, window {k}, stride {stride}, at most {copy}");
                        if let Ok(grid) = Grid::new((h, w), k, stride, padding, upsample) {
                            let (samples, rows) = grid.part(b, c, copy);
                            parts.insert((b.div_ceil(samples), grid.out.0.div_ceil(rows)));
                        }
                    }
                }
            }
        }
        assert!(parts.len() > 10 && parts.contains(&(1, 1)) && parts.iter().any(|p| p.0 > 1 && p.1 > 3), "{parts:?}");
    }
}
