//! Layer norm and group norm by our own kernels, and their VJPs.

use candle_core::{DType, Result, Tensor};

use super::channels_last::{channels_second, pixels_first};
use super::launch::{Arg, Module, Size, address, form, int, launch, new_tensor};

/// Rows of a block of the layer norm, a warp each.
const ROWS: usize = 4;

/// Layer norm over the last dimension, in the dtype of `x`, which the weights share.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    over_rows("layer_norm", [x, weight, bias], eps)
}

/// The VJP of [`layer_norm`] with respect to `x`.
pub fn layer_norm_vjp(x: &Tensor, weight: &Tensor, eps: f64, dy: &Tensor) -> Result<Tensor> {
    over_rows("layer_norm_vjp", [x, weight, dy], eps)
}

/// A kernel of rows of `x`: its arguments are `x` and two more, (d) or of the shape of `x`.
fn over_rows(name: &str, args: [&Tensor; 3], eps: f64) -> Result<Tensor> {
    let d = args[0].dims().last().copied().unwrap_or(0);
    for arg in &args[1..] {
        if (arg.dims() != [d] && arg.dims() != args[0].dims()) || arg.dtype() != args[0].dtype() {
            candle_core::bail!("layer norm: {:?} does not fit {:?}", arg.shape(), args[0].shape());
        }
    }
    let [x, a, b] = args.map(Tensor::contiguous);
    let (x, a, b) = (x?, a?, b?);
    let (at_x, at_a, at_b) = (address(&x)?, address(&a)?, address(&b)?);
    new_tensor(&x, x.shape(), x.dtype(), |device, y| {
        let rows = x.elem_count() / d.max(1);
        let (name, _) = form(name, x.dtype(), &[d], &[at_x, at_a, at_b, y]);
        let size = Size { blocks: (rows.div_ceil(ROWS), 1), threads: 32 * ROWS, shared: 0 };
        let addresses = [at_x, at_a, at_b, y].map(Arg::Address);
        let args = [&addresses[..], &[int(rows)?, int(d)?, Arg::Float(eps as f32)]].concat();
        launch(device, Module::LayerNorm, &name, size, &args)
    })
}

/// The parameters of a group norm. `weight` and `bias` have the dtype of the feature map.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    /// Number of groups.
    pub groups: usize,
    /// (C)
    pub weight: &'a Tensor,
    /// (C)
    pub bias: &'a Tensor,
    /// ε
    pub eps: f64,
    /// Whether SiLU follows.
    pub activate: bool,
}

/// A feature map with channels last, and how its kernels divide it.
struct Map {
    x: Tensor,
    at: u64,
    b: usize,
    pixels: usize,
    c: usize,
    groups: usize,
    /// Pixels of a block.
    chunk: usize,
}

/// Pixels of a block, at least: fewer would make the sums of the blocks a large part of the work.
const CHUNK: usize = 64;

/// Blocks of a sample, at most: their sums are added by one warp.
const CHUNKS: usize = 256;

/// Whether the kernels take a feature map of these channels: a thread has a vector of them, a block a pixel.
pub fn fits(dtype: DType, channels: usize, groups: usize) -> bool {
    let vector = if channels.is_multiple_of(16 / dtype.size_in_bytes()) { 16 / dtype.size_in_bytes() } else { 1 };
    // Two numbers for each channel in 48 KiB of shared memory.
    groups > 0 && channels.is_multiple_of(groups) && channels / vector <= 1024 && channels <= 6144
}

impl Map {
    fn new(x: &Tensor, groups: usize) -> Result<Map> {
        let (b, c, h, w) = x.dims4()?;
        let x = pixels_first(x)?;
        let pixels = h * w;
        let chunk = pixels.div_ceil(CHUNKS).max(CHUNK);
        Ok(Map { at: address(&x)?, x, b, pixels, c, groups, chunk })
    }

    fn chunks(&self) -> usize {
        self.pixels.div_ceil(self.chunk)
    }

    /// The name of the kernel, and its launch for feature maps at these addresses. `sums` says whether its blocks add.
    fn form(&self, name: &str, addresses: &[u64], sums: bool) -> (String, Size) {
        let (name, vector) = form(name, self.x.dtype(), &[self.c], addresses);
        let vectors = self.c / vector;
        // As many rows of threads as 256 threads and 48 KiB allow.
        let rows = (256 / vectors).clamp(1, self.chunk).min(6144 / self.c.max(1)).max(1);
        let shared = if sums { 2 * rows * self.c * size_of::<f32>() } else { 0 };
        (name, Size { blocks: (self.chunks(), self.b), threads: vectors * rows, shared })
    }

    /// The integers that most kernels take: pixels, C, groups and, last, pixels of a block.
    fn sizes(&self, last: usize) -> Result<[Arg; 4]> {
        Ok([int(self.pixels)?, int(self.c)?, int(self.groups)?, int(last)?])
    }
}

/// Mean and (biased) variance of each group: (B, C, H, W) → (B, groups, 2) in f32.
pub fn group_moments(x: &Tensor, groups: usize) -> Result<Tensor> {
    moments(&Map::new(x, groups)?)
}

fn moments(map: &Map) -> Result<Tensor> {
    let sums = new_tensor(&map.x, (map.b, map.chunks(), map.groups, 2), DType::F32, |device, sums| {
        let (name, size) = map.form("group_sums", &[map.at], true);
        let args = [&[Arg::Address(map.at), Arg::Address(sums)][..], &map.sizes(map.chunk)?].concat();
        launch(device, Module::GroupNorm, &name, size, &args)
    })?;
    let at_sums = address(&sums)?;
    new_tensor(&map.x, (map.b, map.groups, 2), DType::F32, |device, to| {
        let name = format!("group_moments_{}", map.x.dtype().as_str());
        let size = Size { blocks: (map.groups, map.b), threads: 32, shared: 0 };
        let addresses = [map.at, at_sums, to].map(Arg::Address);
        launch(device, Module::GroupNorm, &name, size, &[&addresses[..], &map.sizes(map.chunks())?].concat())
    })
}

impl Group<'_> {
    fn check(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        let c = x.dim(1)?;
        if self.weight.dims() != [c] || self.bias.dims() != [c] || self.groups == 0 || !c.is_multiple_of(self.groups) {
            candle_core::bail!(
                "group norm: {c} channels do not fit {} groups, weight {:?}",
                self.groups,
                self.weight.shape()
            );
        }
        Ok([self.weight.contiguous()?, self.bias.contiguous()?])
    }

    fn last_args(&self) -> [Arg; 2] {
        [Arg::Float(self.eps as f32), Arg::Int(self.activate.into())]
    }

    /// The group norm of `x` (B, C, H, W), by its own moments or by `given` ones (B, groups, 2), which are f32.
    pub fn forward(&self, x: &Tensor, given: Option<&Tensor>) -> Result<Tensor> {
        let [weight, bias] = self.check(x)?;
        let map = Map::new(x, self.groups)?;
        let moments = match given {
            Some(given) => given.contiguous()?,
            None => moments(&map)?,
        };
        let (at_moments, at_weight, at_bias) = (address(&moments)?, address(&weight)?, address(&bias)?);
        let y = new_tensor(&map.x, map.x.shape(), x.dtype(), |device, y| {
            let (name, size) = map.form("group_norm", &[map.at, y], false);
            let addresses = [map.at, at_moments, at_weight, at_bias, y].map(Arg::Address);
            let args = [&addresses[..], &map.sizes(map.chunk)?, &self.last_args()].concat();
            launch(device, Module::GroupNorm, &name, size, &args)
        })?;
        channels_second(&y)
    }

    /// The VJP: dx, and the gradient (B, groups, 2) of the moments if they are given.
    pub fn vjp(&self, x: &Tensor, given: Option<&Tensor>, dy: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let [weight, bias] = self.check(x)?;
        let (map, dy) = (Map::new(x, self.groups)?, pixels_first(dy)?);
        if dy.shape() != map.x.shape() || dy.dtype() != map.x.dtype() {
            candle_core::bail!("group norm: a gradient {:?} does not fit {:?}", dy.shape(), map.x.shape());
        }
        let moments = match given {
            Some(given) => given.contiguous()?,
            None => moments(&map)?,
        };
        let [m, w, b, g] = [address(&moments)?, address(&weight)?, address(&bias)?, address(&dy)?];
        let sums = new_tensor(&map.x, (map.b, map.chunks(), map.groups, 2), DType::F32, |device, sums| {
            let (name, size) = map.form("group_norm_vjp_sums", &[map.at, g], true);
            let addresses = [map.at, m, w, b, g, sums].map(Arg::Address);
            let args = [&addresses[..], &map.sizes(map.chunk)?, &self.last_args()].concat();
            launch(device, Module::GroupNorm, &name, size, &args)
        })?;
        let at_sums = address(&sums)?;
        let total = new_tensor(&map.x, (map.b, map.groups, 2), DType::F32, |device, to| {
            let size = Size { blocks: (map.groups, map.b), threads: 32, shared: 0 };
            let args = [Arg::Address(at_sums), Arg::Address(to), int(map.groups)?, int(map.chunks())?];
            launch(device, Module::GroupNorm, "group_norm_vjp_total", size, &args)
        })?;
        let t = if given.is_some() { 0 } else { address(&total)? };
        let dx = new_tensor(&map.x, map.x.shape(), x.dtype(), |device, dx| {
            let (name, size) = map.form("group_norm_vjp", &[map.at, g, dx], false);
            let addresses = [map.at, m, w, b, g, t, dx].map(Arg::Address);
            let args = [&addresses[..], &map.sizes(map.chunk)?, &self.last_args()].concat();
            launch(device, Module::GroupNorm, &name, size, &args)
        })?;
        let of_moments = match given {
            None => None,
            Some(moments) => {
                // ∂/∂mean = −Σd · s and ∂/∂variance = −½ Σ d x̂ · s², with s = 1 / √(variance + ε).
                let variance = moments.narrow(2, 1, 1)?;
                let squared = (variance + self.eps)?.recip()?;
                let to_mean = (total.narrow(2, 0, 1)?.mul(&squared.sqrt()?)? * -1.0)?;
                let to_variance = (total.narrow(2, 1, 1)?.mul(&squared)? * -0.5)?;
                Some(Tensor::cat(&[to_mean, to_variance], 2)?)
            }
        };
        Ok((channels_second(&dx)?, of_moments))
    }
}
