//! The residual block and the changes of resolution that U-Net and autoencoder share.

use candle_core::Tensor;

use crate::models::layers::{Conv2d, GroupNorm, Linear};
use crate::weights::Weights;
use crate::{Result, ops};

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
            shortcut: (from != to).then(|| Conv2d::new(from, to, 1, 1, 0, &w.at("conv_shortcut"))).transpose()?,
        })
    }

    /// `x` (B, from, H, W), `activated_temb` (B, d): the time embedding after SiLU → (B, to, H, W).
    pub fn forward(&self, x: &Tensor, activated_temb: Option<&Tensor>) -> Result<Tensor> {
        let mut h = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        if let (Some(proj), Some(temb)) = (&self.time_emb_proj, activated_temb) {
            let t = proj.forward(temb)?;
            let (b, c) = t.dims2()?;
            h = h.broadcast_add(&t.reshape((b, c, 1, 1))?)?;
        }
        let h = self.conv2.forward(&self.norm2.forward_silu(&h)?)?;
        Ok(match &self.shortcut {
            Some(conv) => (conv.forward(x)? + h)?,
            None => (x + h)?,
        })
    }
}

/// Nearest-neighbour resize to (h, w) as PyTorch does it: source index ⌊i·in/out⌋.
pub fn nearest_to(x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
    let (_, _, ih, iw) = x.dims4()?;
    if (h, w) == (2 * ih, 2 * iw) {
        return Ok(ops::upsample_nearest_2x(x)?);
    }
    let index = |from: usize, to: usize| {
        let scale = from as f32 / to as f32;
        let i: Vec<u32> = (0..to).map(|i| ((i as f32 * scale) as u32).min(from as u32 - 1)).collect();
        Tensor::from_vec(i, to, x.device())
    };
    Ok(x.index_select(&index(ih, h)?, 2)?.index_select(&index(iw, w)?, 3)?)
}
