//! Small pictures of a latent on its way: how the result looks so far.
//!
//! No failure in here is one of the node.

use lsregen_diffusion::models::bands::BandOptions;
use lsregen_diffusion::sampler::Step;
use lsregen_engine::Context;
use lsregen_tensor::candle_core::Tensor;
use lsregen_tensor::image;

use super::bridge::on_step;
use crate::values::{Image, Model};

/// Latent pixels a side at most: 256 of the picture.
const SIDE: usize = 32;

/// Previews a node at most, and the last step's.
const COUNT: usize = 10;

/// Steps of a sampling as steps of the node, with previews where someone wants them.
pub(crate) fn on_step_with_previews<'a>(
    cx: &'a Context,
    model: &'a Model,
) -> impl Fn(Step) -> lsregen_diffusion::Result<()> + 'a {
    let tell = on_step(cx);
    move |step| {
        tell(step)?;
        let is_shown = step.done.is_multiple_of(step.of.div_ceil(COUNT)) || step.done == step.of;
        if is_shown && cx.previews_enabled() {
            match preview(step.predicted_x0, model) {
                Ok(png) => cx.preview(step.done, step.of, png),
                Err(error) => cx.note(format!("no preview of step {}: {error}", step.done)),
            }
        }
        Ok(())
    }
}

/// The picture of a latent made small, which any autoencoder decodes in a moment.
fn preview(z: &Tensor, model: &Model) -> lsregen_diffusion::Result<Vec<u8>> {
    let (_, _, h, w) = z.dims4()?;
    let shrink = h.max(w).div_ceil(SIDE);
    let small = z.avg_pool2d((shrink.min(h), shrink.min(w)))?;
    image::png(&Image::decoded(model, &small, &BandOptions::default())?.to_rgb()?, &[])
}
