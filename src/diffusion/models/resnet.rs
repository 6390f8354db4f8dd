//! The residual block, the last layers and the upsampling that U-Net and autoencoder share.

use candle_core::{DType, Tensor};

use crate::models::bands::{BandedPass, FeatureMap, ReceptiveField};
use crate::models::layers::{Conv2d, GroupNorm, Linear};
use crate::models::remat::{Block, recomputed};
use crate::models::unet::{UNetConstant, UNetConstants};
use crate::weights::Weights;
use crate::{Result, ops};

/// Two 3×3 convolutions with group norm and SiLU, an optional time embedding between them, and a shortcut (diffusers'
/// `ResnetBlock2D`).
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// Builds the block. `temb` is the width of the time embedding, if the block has one.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
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
        // Reassigned, not shadowed: a shadowed tensor would stay in memory.
        let mut h = self.before_norm2(x, activated_temb)?;
        h = self.norm2.forward_silu(&h)?;
        match &self.shortcut {
            Some(conv) => self.conv2.forward_add(&h, &conv.forward(x)?),
            None => self.conv2.forward_add(&h, x),
        }
    }

    fn before_norm2(&self, x: &Tensor, activated_temb: Option<&Tensor>) -> Result<Tensor> {
        let h = self.norm1.forward_silu(x)?;
        match (&self.time_emb_proj, activated_temb) {
            (Some(proj), Some(temb)) => self.conv1.forward_add(&h, &proj.forward(temb)?),
            _ => self.conv1.forward(&h),
        }
    }

    /// The VJP with respect to `x` alone. Recomputes only one activation, the input of the second norm.
    fn input_vjp(&self, x: &Tensor, activated_temb: Option<&Tensor>, dy: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let mut d = self.conv2.input_vjp((h, w), dy)?;
        d = self.norm2.silu_vjp(&self.before_norm2(x, activated_temb)?, &d)?;
        d = self.conv1.input_vjp((h, w), &d)?;
        d = self.norm1.silu_vjp(x, &d)?;
        match &self.shortcut {
            Some(conv) => conv.input_vjp_add((h, w), dy, &d),
            None => Ok((d + dy)?),
        }
    }

    /// Number of layers of [`ResnetBlock::forward_bands`].
    pub(super) const LAYERS: usize = 2;

    /// [`ResnetBlock::forward`] without a time embedding, band by band.
    pub(super) fn forward_bands(&self, x: FeatureMap, pass: &BandedPass) -> Result<FeatureMap> {
        let (norm1, norm2) = (Some(&self.norm1), Some(&self.norm2));
        let [h, skip] = match &self.shortcut {
            None => [pass.convolve(&self.conv1, ReceptiveField::Around, norm1, x.clone(), None)?, x],
            // Computes both in one pass, so that the larger one, the input, can be freed.
            Some(shortcut) => {
                pass.layer(ReceptiveField::Around, norm1, x, self.conv1.channels(), |x, activated, window| {
                    let skip = shortcut.forward(&window.inner(&x)?)?;
                    Ok([window.kept(self.conv1.forward(&activated)?)?, skip])
                })?
            }
        };
        pass.convolve(&self.conv2, ReceptiveField::Around, norm2, h, Some(skip))
    }
}

/// The inputs are a feature map, in one or two parts of its channels, and the time embedding, if the block has one.
impl Block for ResnetBlock {
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize> {
        let ((b, _, h, w), parts) = (inputs[0].dims4()?, self.parts(inputs.len()));
        let from = inputs[..parts].iter().map(|t| t.dim(1)).sum::<candle_core::Result<usize>>()?;
        let to = self.conv2.channels();
        // The results of both norms and of the first convolution; the joined parts; the result of the shortcut.
        let channels = from + 2 * to + if parts > 1 { from } else { 0 } + self.shortcut.as_ref().map_or(0, |_| to);
        Ok(b * channels * h * w)
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let parts = self.parts(inputs.len());
        match &inputs[..parts] {
            [x] => self.forward(x, inputs.get(parts)),
            parts_of_x => self.forward(&joined(parts_of_x)?, inputs.get(parts)),
        }
    }

    fn vjp(&self, inputs: &[Tensor], wanted: &[bool], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let parts = self.parts(inputs.len());
        let temb = inputs.get(parts);
        if wanted.get(parts) == Some(&true) {
            return recomputed(self, inputs, wanted, dy);
        }
        let x = match &inputs[..parts] {
            [x] => x,
            parts_of_x => &joined(parts_of_x)?,
        };
        let dx = self.input_vjp(x, temb, dy)?;
        let mut gradients = Vec::new();
        let mut first = 0;
        for part in &inputs[..parts] {
            let channels = part.dim(1)?;
            gradients.push(Some(dx.narrow(1, first, channels)?));
            first += channels;
        }
        Ok(gradients)
    }
}

fn joined(parts: &[Tensor]) -> Result<Tensor> {
    Ok(ops::join_channels(&parts.iter().collect::<Vec<_>>())?)
}

impl ResnetBlock {
    /// How many of the inputs are parts of the feature map.
    fn parts(&self, inputs: usize) -> usize {
        inputs - usize::from(self.time_emb_proj.is_some())
    }
}

/// The last layers of a network: group norm, SiLU, convolution.
pub(super) struct Head {
    pub norm: GroupNorm,
    pub conv: Conv2d,
}

impl Block for Head {
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize> {
        Ok(inputs[0].elem_count())
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.conv.forward(&self.norm.forward_silu(&inputs[0])?)
    }

    fn vjp(&self, inputs: &[Tensor], _: &[bool], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (_, _, h, w) = inputs[0].dims4()?;
        Ok(vec![Some(self.norm.silu_vjp(&inputs[0], &self.conv.input_vjp((h, w), dy)?)?)])
    }
}

/// Resizes `x` to (h, w) by nearest neighbour, with PyTorch's source index ⌊i·in/out⌋, then applies `conv`.
pub fn upsample(conv: &Conv2d, x: &Tensor, (h, w): (usize, usize), kept: &UNetConstants) -> Result<Tensor> {
    let (_, _, ih, iw) = x.dims4()?;
    if (h, w) == (2 * ih, 2 * iw) {
        return conv.forward_doubled(x);
    }
    let index = |from: usize, to: usize| {
        let scale = from as f32 / to as f32;
        let i: Vec<u32> = (0..to).map(|i| ((i as f32 * scale) as u32).min(from as u32 - 1)).collect();
        kept.get(UNetConstant::Nearest(from, to), DType::U32, x.device(), || Tensor::from_vec(i, to, x.device()))
    };
    conv.forward(&ops::select_pixels(x, &index(ih, h)?, &index(iw, w)?)?)
}
