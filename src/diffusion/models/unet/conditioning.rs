//! What a U-Net's prediction is conditioned on.

use candle_core::Tensor;

use crate::{Error, Result};

/// What a prediction is conditioned on. Each tensor has a row for each sample of the batch.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Hidden states of the text, (B, L, d).
    pub context: Tensor,
    /// SDXL's added conditioning.
    pub added: Option<Added>,
    /// GLIGEN's grounding tokens from [`UNet::grounding_tokens`](super::UNet::grounding_tokens), (B, M, d). `None` turns the
    /// fusers off.
    pub objs: Option<Tensor>,
    /// LCM's embedded guidance scale s, (B). `None` is that of diffusers' pipeline, [`LCM_GUIDANCE`](super::LCM_GUIDANCE).
    /// Networks without `time_cond_proj_dim` ignore it. There is no classifier-free guidance besides.
    pub guidance: Option<Tensor>,
    /// The channels that the network takes after those of the noisy latent, (B, C', h, w), see
    /// [`UNetInput`](crate::models::config::UNetInput). For inpainting: the mask, 1 where the image is to be filled, then
    /// the latent of the image without that part. For InstructPix2Pix: the latent of the image to edit, unscaled.
    pub channels: Option<Tensor>,
}

/// SDXL's added conditioning (`text_time`).
#[derive(Clone, Debug)]
pub struct Added {
    /// Pooled, projected text, (B, p).
    pub text_embeds: Tensor,
    /// Original height and width, crop's top and left, target height and width in pixels, (B, 6). For SDXL's refiner, the
    /// aesthetic score in place of the target, (B, 5).
    pub time_ids: Tensor,
}

impl Conditioning {
    /// All of its tensors.
    #[cfg(feature = "cuda")]
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let added = self.added.iter().flat_map(|a| [&a.text_embeds, &a.time_ids]);
        let others = [&self.objs, &self.guidance, &self.channels].into_iter().flatten();
        std::iter::once(&self.context).chain(added).chain(others).collect()
    }

    /// Joins both halves of classifier-free guidance into one batch: the rows of `self`, then those of `other`. Contexts
    /// of different lengths are repeated to their least common multiple, which does not change the result of
    /// cross-attention.
    ///
    /// # Errors
    /// If only one of them has added conditioning, grounding tokens, a guidance scale, or further channels.
    pub fn stack(&self, other: &Conditioning) -> Result<Conditioning> {
        let pair = |a: &Option<Tensor>, b: &Option<Tensor>| -> Result<Option<Tensor>> {
            match (a, b) {
                (Some(a), Some(b)) => Ok(Some(Tensor::cat(&[a, b], 0)?)),
                (None, None) => Ok(None),
                _ => Err(Error::input("the two halves of classifier-free guidance differ in kind")),
            }
        };
        let part = |c: &Conditioning, f: fn(&Added) -> &Tensor| c.added.as_ref().map(|a| f(a).clone());
        let text = pair(&part(self, |a| &a.text_embeds), &part(other, |a| &a.text_embeds))?;
        let time = pair(&part(self, |a| &a.time_ids), &part(other, |a| &a.time_ids))?;
        let (a, b) = (self.context.dim(1)?, other.context.dim(1)?);
        let length = (1..=b).map(|n| n * a).find(|length| length.is_multiple_of(b)).unwrap_or(a);
        let repeated = |t: &Tensor, l: usize| if l == length { Ok(t.clone()) } else { t.repeat((1, length / l, 1)) };
        Ok(Conditioning {
            context: Tensor::cat(&[repeated(&self.context, a)?, repeated(&other.context, b)?], 0)?,
            added: text.zip(time).map(|(text_embeds, time_ids)| Added { text_embeds, time_ids }),
            objs: pair(&self.objs, &other.objs)?,
            guidance: pair(&self.guidance, &other.guidance)?,
            channels: pair(&self.channels, &other.channels)?,
        })
    }
}
