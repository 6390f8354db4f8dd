//! The residual block and the changes of resolution that U-Net and autoencoder share.

use candle_core::Tensor;

use crate::Result;
use crate::models::bands::{Map, Reach, Walk};
use crate::models::layers::{Conv2d, GroupNorm, Linear};
use crate::weights::Weights;

/// Two 3×3 convolutions with group norm and SiLU, an optional time embedding between them, and a shortcut.
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// `temb`: width of the time embedding, if the block takes one.
    pub fn new(from: usize, to: usize, temb: Option<usize>, groups: usize, eps: f64, w: &Weights) -> Result<Self> {
        Ok(ResnetBlock {
            norm1: GroupNorm::new(groups, from, eps, &w.at("norm1"))?,
            conv1: Conv2d::same3(from, to, &w.at("conv1"))?,
            time_emb_proj: temb.map(|d| Linear::new(d, to, &w.at("time_emb_proj"))).transpose()?,
            norm2: GroupNorm::new(groups, to, eps, &w.at("norm2"))?,
            conv2: Conv2d::same3(to, to, &w.at("conv2"))?,
            shortcut: (from != to).then(|| Conv2d::new(from, to, 1, 1, (0, 0), &w.at("conv_shortcut"))).transpose()?,
        })
    }

    /// `x` (B, from, H, W), `activated_temb` (B, d): the time embedding after SiLU → (B, to, H, W).
    pub fn forward(&self, x: &Tensor, activated_temb: Option<&Tensor>) -> Result<Tensor> {
        // No name twice: what is shadowed would stay in memory.
        let mut h = self.norm1.forward_silu(x)?;
        h = match (&self.time_emb_proj, activated_temb) {
            (Some(proj), Some(temb)) => self.conv1.forward_add(&h, &proj.forward(temb)?)?,
            _ => self.conv1.forward(&h)?,
        };
        h = self.norm2.forward_silu(&h)?;
        match &self.shortcut {
            Some(conv) => self.conv2.forward_add(&h, &conv.forward(x)?),
            None => self.conv2.forward_add(&h, x),
        }
    }

    /// Layers of [`ResnetBlock::forward_bands`].
    pub(super) const LAYERS: usize = 2;

    /// [`ResnetBlock::forward`] without a time embedding, band by band.
    pub(super) fn forward_bands(&self, x: Map, walk: &Walk) -> Result<Map> {
        let (norm1, norm2) = (Some(&self.norm1), Some(&self.norm2));
        let [h, skip] = match &self.shortcut {
            None => [walk.convolve(&self.conv1, Reach::Around, norm1, x.clone(), None)?, x],
            // Both at once, so that the input, the larger one, can be let go of.
            Some(shortcut) => walk.layer(Reach::Around, norm1, x, self.conv1.channels(), |x, activated, window| {
                let skip = shortcut.forward(&window.inner(&x)?)?;
                Ok([window.kept(self.conv1.forward(&activated)?)?, skip])
            })?,
        };
        walk.convolve(&self.conv2, Reach::Around, norm2, h, Some(skip))
    }
}

/// `conv` of `x` resized to (h, w), nearest neighbour as PyTorch does it: source index ⌊i·in/out⌋.
pub fn upsample(conv: &Conv2d, x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
    let (_, _, ih, iw) = x.dims4()?;
    if (h, w) == (2 * ih, 2 * iw) {
        return conv.forward_doubled(x);
    }
    let index = |from: usize, to: usize| {
        let scale = from as f32 / to as f32;
        let i: Vec<u32> = (0..to).map(|i| ((i as f32 * scale) as u32).min(from as u32 - 1)).collect();
        Tensor::from_vec(i, to, x.device())
    };
    conv.forward(&x.index_select(&index(ih, h)?, 2)?.index_select(&index(iw, w)?, 3)?)
}
