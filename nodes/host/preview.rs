//! Previews: small images of the predicted x̂₀ during a sampling.
//!
//! A failed preview does not fail the node.

use lsregen_diffusion::models::bands::BandOptions;
use lsregen_diffusion::sampler::Step;
use lsregen_engine::Context;
use lsregen_tensor::candle_core::Tensor;
use lsregen_tensor::image;

use super::bridge::on_image_step;
use super::metadata;
use crate::values::{Image, Model};

/// The longest side of a preview in latent pixels: 256 pixels of the image.
const SIDE: usize = 32;

/// The largest number of previews of a node, besides that of the last step of each image.
const COUNT: usize = 10;

/// Reports the steps of a sampling of `count` images as steps of the node, with previews if the host has enabled them.
pub(crate) fn on_step_with_previews<'a>(
    cx: &'a Context,
    model: &'a Model,
    count: usize,
) -> impl Fn(usize, Step) -> lsregen_tensor::Result<()> + 'a {
    move |image, step| {
        on_image_step(cx, (image, count), step.done, step.of)?;
        let (done, of) = (image * step.of + step.done, count * step.of);
        let is_shown = done.is_multiple_of(of.div_ceil(COUNT)) || step.done == step.of;
        if is_shown && cx.previews_enabled() {
            match preview(step.predicted_x0, model) {
                Ok(png) => cx.preview(done, of, png),
                Err(error) => cx.note(format!("no preview of step {done}: {error}")),
            }
        }
        Ok(())
    }
}

/// Decodes a downscaled latent, which is fast.
fn preview(z: &Tensor, model: &Model) -> lsregen_tensor::Result<Vec<u8>> {
    let (_, _, h, w) = z.dims4()?;
    let shrink = h.max(w).div_ceil(SIDE);
    let small = z.avg_pool2d((shrink.min(h), shrink.min(w)))?;
    let image = Image::decoded(model, &small, &BandOptions::default())?;
    image::png(&*image.to_rgb()?, &[metadata::PROGRAM_TEXT])
}
