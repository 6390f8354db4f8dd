//! Linear maps as matrix products by `gemm`, between token-first and channel-first layouts without transposition.
//!
//! Weights in half precision are widened one block of rows at a time, and each block is multiplied while it is in a cache.

use std::ops::Range;

use candle_core::{Result, Shape, Tensor};
use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use super::kernel::{Arg, Kernel, apply1, apply2, read_numbers, read_some, result_len};
use super::plain;
use super::simd::Shared;
use super::widen::WeightSlice;

/// Multiply-adds below which one thread is faster than several.
const WORTH_THREADS: usize = 1 << 21;

/// Up to this many tokens, each thread widens and multiplies blocks of its own. With more, all threads share a block: then
/// blocks can be larger, and the tokens, which are read once for each block, are read less often.
const FEW_TOKENS: usize = 256;

/// Weights of a block of one thread, and of a block that all threads share: 512 KiB and 4 MiB in f32.
const OWN_BLOCK: usize = 1 << 17;
const SHARED_BLOCK: usize = 1 << 20;

/// The memory layout of a tensor of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// (…, N, C): the features of a token lie beside each other.
    Tokens,
    /// (B, C, …): a plane for each feature.
    Channels,
}

/// `x Wᵀ + b`. `x` (…, in), `weight` (out, in), `bias` (out).
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_between(x, weight, bias, None, (Layout::Tokens, Layout::Tokens))
}

/// `x Wᵀ + b + add` from one layout to another.
///
/// From [`Layout::Channels`], the dimensions after the second become one dimension of tokens; to channels, they are those
/// of `add`. `add` has the shape of the result. Without it the result has rank 3, or the rank of `x` if the layout stays.
/// The weight may be in half precision; the computation is in the dtype of `x`.
///
/// # Errors
/// If shapes do not match.
pub fn linear_between(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    add: Option<&Tensor>,
    (from, to): (Layout, Layout),
) -> Result<Tensor> {
    let linear = Linear { weight: weight.clone(), transposed: false, bias: bias.cloned(), from, to };
    match add {
        Some(add) => apply2(linear, x, add),
        None => apply1(linear, x),
    }
}

/// The VJP of [`linear`] with respect to its input: `dy W`. Autodiff must track neither tensor.
pub fn linear_vjp(weight: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (from, to) = (Layout::Tokens, Layout::Tokens);
    apply1(Linear { weight: weight.clone(), transposed: true, bias: None, from, to }, dy)
}

struct Linear {
    /// (to, from), or (from, to) if `transposed`.
    weight: Tensor,
    transposed: bool,
    bias: Option<Tensor>,
    from: Layout,
    to: Layout,
}

/// The sizes of a map: `batch` products of (tokens, from) with (from, to).
struct Sizes {
    batch: usize,
    tokens: usize,
    from: usize,
    to: usize,
    result: Vec<usize>,
}

impl Linear {
    fn sizes(&self, x: &[usize], add: Option<&[usize]>) -> Result<Sizes> {
        let (mut to, mut from) = self.weight.dims2()?;
        if self.transposed {
            (to, from) = (from, to);
        }
        let (batch, tokens, features, result) = match (self.from, self.to, x) {
            (Layout::Tokens, Layout::Tokens, [rest @ .., c]) => (1, rest.iter().product(), *c, [rest, &[to]].concat()),
            (Layout::Tokens, Layout::Channels, &[b, n, c]) => (b, n, c, vec![b, to, n]),
            (Layout::Channels, Layout::Tokens, [b, c, rest @ ..]) => {
                let n = rest.iter().product();
                (*b, n, *c, vec![*b, n, to])
            }
            (Layout::Channels, Layout::Channels, [b, c, rest @ ..]) => {
                (*b, rest.iter().product(), *c, [&[*b, to], rest].concat())
            }
            _ => candle_core::bail!("linear: cannot take {x:?} from {:?} to {:?}", self.from, self.to),
        };
        if features != from || self.bias.as_ref().is_some_and(|b| b.dims() != [to]) {
            let bias = self.bias.as_ref().map(Tensor::dims);
            candle_core::bail!("linear: {features} features for weights {from}→{to}, bias {bias:?}");
        }
        let result = match add {
            Some(add) if add == result => result,
            // The dimension of tokens becomes the spatial dimensions of `add`.
            Some([b, c, rest @ ..]) if self.to == Layout::Channels && [*b, *c, rest.iter().product()] == *result => {
                [&[*b, *c], rest].concat()
            }
            Some(add) => candle_core::bail!("linear: cannot add {add:?} to {result:?}"),
            None => result,
        };
        Ok(Sizes { batch, tokens, from, to, result })
    }

    fn multiply(&self, x: Arg, add: Option<Arg>) -> Result<(Vec<f32>, Shape)> {
        let z = self.sizes(x.dims, add.map(|a| a.dims))?;
        let mut y = read_some(self.bias.as_ref(), |bias| self.start(&z, bias, add.map(|a| a.data)))?;
        let len = result_len(&[z.batch, z.tokens, z.to])?;
        // The products are added to what `start` wrote.
        y.clear();
        let room = Shared::new(&mut y.spare_capacity_mut()[..len]);
        let add = self.bias.is_some() || add.is_some();
        let product =
            Product { x: x.data, y: room, add, from: self.from, to: self.to, transposed: self.transposed, z: &z };
        read_numbers(&self.weight, |weight| product.all(weight))?;
        // SAFETY: the products are written.
        unsafe { y.set_len(len) };
        Ok((y, Shape::from(z.result)))
    }

    /// Writes what the products are added to: bias, `add`, or their sum; writes nothing if there is neither.
    fn start(&self, z: &Sizes, bias: Option<&[f32]>, add: Option<&[f32]>) -> Vec<f32> {
        let (n, o) = (z.tokens, z.to);
        let len = z.batch * n * o;
        let Some(bias) = bias else { return add.map_or_else(|| Vec::with_capacity(len), <[f32]>::to_vec) };
        let mut y = Vec::with_capacity(len);
        match (self.to, add) {
            (Layout::Tokens, None) => (0..z.batch * n).for_each(|_| y.extend_from_slice(bias)),
            (Layout::Tokens, Some(add)) => {
                add.chunks_exact(o.max(1)).for_each(|row| y.extend(row.iter().zip(bias).map(|(a, b)| a + b)))
            }
            (Layout::Channels, None) => (0..z.batch * o).for_each(|i| y.resize(y.len() + n, bias[i % o])),
            (Layout::Channels, Some(add)) => {
                let rows = add.chunks_exact(n.max(1)).enumerate();
                rows.for_each(|(i, row)| y.extend(row.iter().map(|a| a + bias[i % o])))
            }
        }
        y
    }

    fn plain_form(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Tensor> {
        let z = self.sizes(x.dims(), add.map(Tensor::dims))?;
        let x = match self.from {
            Layout::Tokens => x.clone(),
            Layout::Channels => x.reshape((z.batch, z.from, z.tokens))?.transpose(1, 2)?,
        };
        let weight = if self.transposed { &self.weight.t()? } else { &self.weight };
        let y = plain::linear(&x, weight, self.bias.as_ref())?;
        match self.to {
            Layout::Tokens => Ok(y),
            Layout::Channels => y.transpose(1, 2)?.reshape(z.result),
        }
    }

    /// The map by cuBLASLt. Between layouts only strides change: a result in channels is a view of its tokens.
    #[cfg(feature = "cuda")]
    fn on_device(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Option<Tensor>> {
        use crate::cuda::channels_last::{channels_second, pixels_first};
        let dtype = x.dtype();
        let z = self.sizes(x.dims(), add.map(Tensor::dims))?;
        if !self.weight.device().is_cuda() || z.tokens * z.batch * z.from * z.to == 0 {
            return Ok(None);
        }
        let tokens = |t: &Tensor, layout: Layout, width: usize| -> Result<Tensor> {
            let t = if layout == Layout::Channels { &pixels_first(t)? } else { t };
            t.reshape((z.batch * z.tokens, width))?.to_dtype(dtype)
        };
        let add = add.map(|add| tokens(add, self.to, z.to)).transpose()?;
        let bias = self.bias.as_ref().map(|b| b.to_dtype(dtype)).transpose()?;
        let weight = self.weight.to_dtype(dtype)?;
        let map = crate::cuda::linear::Linear { weight: &weight, transposed: self.transposed, bias: bias.as_ref() };
        let y = map.forward(&tokens(x, self.from, z.from)?, add.as_ref())?;
        if self.to == Layout::Tokens {
            return y.reshape(z.result).map(Some);
        }
        let mut pixels = z.result;
        let channels = pixels.remove(1);
        pixels.push(channels);
        channels_second(&y.reshape(pixels)?).map(Some)
    }

    /// dx = dy W, in the layout of x.
    fn input_vjp(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (weight, transposed) = (self.weight.clone(), !self.transposed);
        apply1(Linear { weight, transposed, bias: None, from: self.to, to: self.from }, dy)?.reshape(x.shape())
    }
}

/// The matrix product of a linear map.
struct Product<'a> {
    x: &'a [f32],
    /// batch·tokens·to numbers; with `add` they are initialised, and the product is added to them.
    y: Shared,
    add: bool,
    from: Layout,
    to: Layout,
    transposed: bool,
    z: &'a Sizes,
}

impl Product<'_> {
    /// Multiplies by the whole `weight`.
    fn all(&self, weight: WeightSlice) {
        let z = self.z;
        let threads = match z.batch * z.tokens * z.from * z.to {
            ..WORTH_THREADS => 1,
            _ => rayon::current_num_threads(),
        };
        // In the order of the weight in memory.
        let (rows, width) = if self.transposed { (z.from, z.to) } else { (z.to, z.from) };
        if let WeightSlice::F32(weight) = weight {
            return self.rows(0..rows, weight, threads);
        }
        // Blocks differ by at most one row, because `gemm` is slower for very small ones. Blocks of a transposed weight add
        // to the same results, so they are processed one after the other.
        let few = z.batch * z.tokens <= FEW_TOKENS && !self.transposed;
        let most = (if few { OWN_BLOCK } else { SHARED_BLOCK } / width.max(1)).max(1);
        let blocks = rows.div_ceil(most).max(if few { threads.min(rows) } else { 1 });
        let block = |i: usize| i * rows / blocks..(i + 1) * rows / blocks;
        if few && threads > 1 {
            (0..blocks).into_par_iter().for_each_init(Vec::new, |room, i| {
                let rows = block(i);
                let numbers = rows.start * width..rows.end * width;
                self.rows(rows, weight.widened(numbers, room), 1);
            });
            return;
        }
        let mut room = vec![0f32; rows.div_ceil(blocks.max(1)) * width];
        for rows in (0..blocks).map(block) {
            let (start, room) = (rows.start * width, &mut room[..rows.len() * width]);
            if threads == 1 {
                weight.widen(start, room);
            } else {
                let part = room.len().div_ceil(threads).max(1);
                let parts = room.par_chunks_mut(part).enumerate();
                parts.for_each(|(i, part_of_room)| weight.widen(start + i * part, part_of_room));
            }
            self.rows(rows, room, threads);
        }
    }

    /// Multiplies by `weight`, which is some `rows` of the whole in memory order.
    fn rows(&self, rows: Range<usize>, weight: &[f32], threads: usize) {
        let (n, c, o) = (self.z.tokens, self.z.from, self.z.to);
        let (whole, width) = if self.transposed { (c, o) } else { (o, c) };
        assert!(rows.end <= whole && weight.len() == rows.len() * width && self.x.len() == self.z.batch * n * c);
        // Strides (of a feature, of a token).
        let strides = |layout, c: usize| match layout {
            Layout::Tokens => (1, c),
            Layout::Channels => (n, 1),
        };
        let ((x_feature, x_token), (y_feature, y_token)) = (strides(self.from, c), strides(self.to, o));
        // Either some features of the result, or the contribution of some features of the input to all of it.
        let (features, inner) = if self.transposed { (o, rows.len()) } else { (rows.len(), c) };
        let (row, column) = if self.transposed { (1, o) } else { (c, 1) };
        let (x_start, y_start) =
            if self.transposed { (rows.start * x_feature, 0) } else { (0, (rows.start * y_feature).min(n * o)) };
        let add = self.add || self.transposed && rows.start > 0;
        let threads = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
        for i in 0..self.z.batch {
            let x = &self.x[i * n * c..][..n * c];
            // SAFETY: `y` has room for batch·n·o numbers, `x` holds n·c and `weight` its rows, and the strides walk
            // exactly these. Elements of `y` are read only after they were written. No two calls at a time share
            // results.
            unsafe {
                gemm(
                    features,
                    n,
                    inner,
                    self.y.at(i * n * o + y_start, n * o - y_start),
                    y_token as isize,
                    y_feature as isize,
                    add,
                    weight.as_ptr(),
                    column as isize,
                    row as isize,
                    x.as_ptr().add(x_start.min(x.len())),
                    x_token as isize,
                    x_feature as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    threads,
                );
            }
        }
    }
}

impl Kernel<1> for Linear {
    const NAME: &'static str = "linear";
    const HALF_WEIGHTS: bool = true;

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.weight), self.bias.as_ref()]
    }

    fn fast(&self, [x]: [Arg; 1]) -> Result<(Vec<f32>, Shape)> {
        self.multiply(x, None)
    }

    fn plain(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        self.plain_form(x, None)
    }

    #[cfg(feature = "cuda")]
    fn device(&self, [x]: [&Tensor; 1]) -> Result<Option<Tensor>> {
        self.on_device(x, None)
    }

    fn vjp(&self, [x]: [&Tensor; 1], _: [bool; 1], dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(self.input_vjp(x, dy)?)])
    }
}

impl Kernel<2> for Linear {
    const NAME: &'static str = "linear and sum";
    const HALF_WEIGHTS: bool = true;

    fn constants(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.weight), self.bias.as_ref()]
    }

    fn fast(&self, [x, add]: [Arg; 2]) -> Result<(Vec<f32>, Shape)> {
        self.multiply(x, Some(add))
    }

    fn plain(&self, [x, add]: [&Tensor; 2]) -> Result<Tensor> {
        self.plain_form(x, Some(add))? + add
    }

    #[cfg(feature = "cuda")]
    fn device(&self, [x, add]: [&Tensor; 2]) -> Result<Option<Tensor>> {
        self.on_device(x, Some(add))
    }

    fn vjp(&self, [x, _]: [&Tensor; 2], wanted: [bool; 2], dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let dx = wanted[0].then(|| self.input_vjp(x, dy)).transpose()?;
        Ok([dx, Some(dy.clone())])
    }
}
