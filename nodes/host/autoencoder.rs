//! The autoencoder on batches: one image after another, so that memory holds the computation of one.

use lsregen_diffusion::models::bands::BandOptions;
use lsregen_engine::Context;
use lsregen_tensor::candle_core::Tensor;

use super::bridge::raise;
use crate::values::{Image, Latent, Model};

/// Called with the number of the image, from 0, and the finished layers and all layers of its computation.
type OnLayer<'a> = &'a (dyn Fn(usize, usize, usize) -> lsregen_tensor::Result<()> + Sync);

/// Decodes each image of a latent.
pub(crate) fn decoded(latent: &Latent, model: &Model, cx: &Context, on_layer: OnLayer) -> anyhow::Result<Image> {
    let mut images = vec![];
    for (image, z) in latent.each_of(model)?.iter().enumerate() {
        cx.cancel().check()?;
        let on_step = |done, of| on_layer(image, done, of);
        let work = BandOptions { on_step: &on_step, ..BandOptions::default() };
        images.push(Image::decoded(model, z, &work).map_err(raise)?);
    }
    Image::batch(images, latent.seeds.clone())
}

/// Encodes each image, to (n, C, h, w).
pub(crate) fn encoded(image: &Image, model: &Model, cx: &Context, on_layer: OnLayer) -> anyhow::Result<Latent> {
    let mut latents = vec![];
    for (number, image) in image.images().iter().enumerate() {
        cx.cancel().check()?;
        let on_step = |done, of| on_layer(number, done, of);
        let work = BandOptions { on_step: &on_step, ..BandOptions::default() };
        let x = image.tensor()?.to_device(model.0.device()).map_err(|error| raise(error.into()))?;
        latents.push(model.0.vae().and_then(|vae| vae.encode_with(&x, &work)).map_err(raise)?);
    }
    let z = if latents.len() == 1 { latents.remove(0) } else { Tensor::cat(&latents, 0)? };
    Ok(Latent { z, family: Some(model.0.info.family), seeds: image.seeds().to_vec() })
}
