//! The image that a U-Net takes besides the latent: the one to inpaint, with its mask, or the one to edit.

use candle_core::{DType, Tensor};

use crate::models::Model;
use crate::models::config::UNetInput;
use crate::{Error, Result};

/// The image on which a sampling with an inpainting or InstructPix2Pix model is conditioned. The default has none.
#[derive(Clone, Debug)]
pub struct SourceImage {
    /// The image, (1, 3, H, W) in [-1, 1].
    pub image: Option<Tensor>,
    /// The mask of an inpainting model, (1, 3, H, W) in [-1, 1]: where the mean of its channels is 0 or more, the image is
    /// regenerated.
    pub mask: Option<Tensor>,
    /// s_I, the scale of InstructPix2Pix's guidance by the image; below 1 there is no classifier-free guidance at all.
    pub cfg: f64,
}

impl Default for SourceImage {
    fn default() -> Self {
        SourceImage { image: None, mask: None, cfg: 1.5 }
    }
}

impl SourceImage {
    /// Returns the channels that the model's U-Net takes after those of a latent of `width`×`height` pixels, (1, C', h, w).
    ///
    /// For inpainting: the mask at the size of the latent, the nearest pixel of each, and the scaled latent of the image with
    /// grey in place of what is regenerated. For InstructPix2Pix: the latent of the image, which only a model on EDM's
    /// schedule (CosXL) takes scaled. Both latents are means.
    ///
    /// # Errors
    /// If the model needs an image or a mask that is absent, or does not take the one that is given, or a size differs.
    pub fn channels(&self, model: &Model, width: usize, height: usize) -> Result<Option<Tensor>> {
        let refused = match (model.info.input, self.image.is_some(), self.mask.is_some()) {
            (UNetInput::Latent, false, false)
            | (UNetInput::Inpainting, true, true)
            | (UNetInput::Edit, true, false) => None,
            (UNetInput::Latent, ..) => Some("this model takes neither an image nor a mask"),
            (UNetInput::Inpainting, ..) => Some("this inpainting model needs an image and a mask"),
            (UNetInput::Edit, ..) => Some("this InstructPix2Pix model needs an image, and takes no mask"),
        };
        if let Some(message) = refused {
            return Err(Error::input(message));
        }
        for (name, given) in [("image", &self.image), ("mask", &self.mask)] {
            let Some(given) = given else { continue };
            if given.dims() != [1, 3, height, width] {
                return Err(Error::input(format!(
                    "the {name} is {:?}, but this sampling needs {:?}: leave `width` and `height` out, or resize it",
                    given.dims(),
                    [1, 3, height, width]
                )));
            }
        }
        match (&self.image, &self.mask) {
            (Some(image), Some(mask)) => inpainting(model, image, mask).map(Some),
            (Some(image), None) => edited(model, image).map(Some),
            (None, _) => Ok(None),
        }
    }
}

fn inpainting(model: &Model, image: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let mask = mask.to_dtype(DType::F32)?.mean_keepdim(1)?.ge(0f64)?.to_dtype(DType::F32)?;
    let masked = image.to_dtype(DType::F32)?.broadcast_mul(&mask.affine(-1.0, 1.0)?)?;
    let z = model.vae()?.encode(&masked.to_device(model.device())?)?;
    let mut small = mask;
    for dim in [2, 3] {
        let count = z.dim(dim)?;
        let step = small.dim(dim)? / count;
        let first: Vec<u32> = (0..count).map(|i| (i * step) as u32).collect();
        small = small.index_select(&Tensor::new(first, small.device())?, dim)?;
    }
    Ok(Tensor::cat(&[&small.to_device(model.device())?, &z.to_dtype(DType::F32)?], 1)?)
}

fn edited(model: &Model, image: &Tensor) -> Result<Tensor> {
    let vae = model.vae()?;
    let z = vae.encode(&image.to_dtype(DType::F32)?.to_device(model.device())?)?;
    match model.info.scheduler.parameterisation().sigma_data {
        Some(_) => Ok(z),
        None => vae.unscaled(&z),
    }
}
