//! The largest tensors that candle's CUDA kernels can compute, and those that a network would need.
//!
//! candle 0.11.1 counts elements in 32 bits and checks nothing. An operation on more computes a part, or writes outside its
//! tensors:
//!
//! - Elementwise operations, casts, copies, fills, gathers and im2col launch `LaunchConfig::for_num_elems(n as u32)`, which
//!   drops what exceeds 32 bits. Their loops count `unsigned int i += blockDim.x * gridDim.x`, which wraps above 2³¹: operations
//!   that add in place then add twice, and at 2³² the loop does not end.
//! - Softmax, layer norm and RMS norm compute `row * ncols` as `int`: at most 2³¹ − 1.
//! - Sums, maxima and minima have a block for each result, at most 2³¹ − 1. Sorts too, and at most 8192 columns
//!   (48 KiB of shared memory): see [`crate::order`].
//! - `upsample_nearest`, pooling and convolutions without cuDNN count results as above; without cuDNN a convolution also writes
//!   its input out k² times. cuBLAS takes 32-bit sizes and strides of a matrix, and a batch in the grid's second or third
//!   dimension, at most 65535, which it splits itself.
//!
//! So no tensor may have more than 2³¹ − 1 elements. Weights never do; feature maps and attention scores grow with the image.

use candle_core::Device;

use super::config::{MidBlock, UNetConfig, VaeConfig};
use super::unet::AttentionLayer;
use crate::{Error, Result};

/// The most elements of a tensor on a CUDA device.
pub(crate) const MOST_ELEMENTS: usize = i32::MAX as usize;

/// Windows of a 3×3 convolution: without cuDNN its input is written out that often.
const WINDOWS: usize = if cfg!(feature = "cudnn") { 1 } else { 9 };

/// Refuses tensors that candle's CUDA kernels cannot index. `tensors` are the names and elements of the largest ones.
///
/// # Errors
/// If one is too large. The error says what it is, and what needs less.
pub(crate) fn check(device: &Device, of: &str, tensors: &[(&str, usize)]) -> Result<()> {
    if device.is_cuda() { fit(of, tensors) } else { Ok(()) }
}

fn fit(of: &str, tensors: &[(&str, usize)]) -> Result<()> {
    let Some((name, elements)) = tensors.iter().find(|(_, elements)| *elements > MOST_ELEMENTS) else { return Ok(()) };
    Err(Error::input(format!(
        "the image is too large for CUDA: {name} of the {of} would have {:.1} billion elements, but candle's kernels count at most \
         2.1 billion; use a smaller image, `cfg: 1` (half the batch), or `--device cpu`",
        *elements as f64 / 1e9
    )))
}

/// Returns the largest tensors of a pass of `batch` samples of `(h, w)` latent pixels. Attention processes some queries at a
/// time, forward and backward.
pub(crate) fn of_unet(c: &UNetConfig, batch: usize, (h, w): (usize, usize)) -> [(&'static str, usize); 2] {
    let (mut map, mut wide) = (0, 0);
    let deepest = c.block_out_channels.len() - 1;
    for (i, &channels) in c.block_out_channels.iter().enumerate() {
        let pixels = batch.saturating_mul(h.div_ceil(1 << i)).saturating_mul(w.div_ceil(1 << i));
        // On the way up a block takes the features from below and a skip connection.
        let most = channels + c.block_out_channels[(i + 1).min(deepest)];
        map = map.max(pixels.saturating_mul(WINDOWS * most));
        let in_mid = i == deepest && matches!(c.mid, MidBlock::Transformer(_));
        if in_mid || !c.transformer_layers[i].is_empty() || !c.up_transformer_layers[deepest - i].is_empty() {
            wide = wide.max(pixels.saturating_mul(8 * channels));
        }
    }
    [("a feature map", map), ("a feed-forward layer", wide)]
}

/// Returns the largest map of self-attention that is recorded for these layers.
pub(crate) fn of_maps(
    c: &UNetConfig,
    batch: usize,
    (h, w): (usize, usize),
    layers: &[AttentionLayer],
) -> [(&'static str, usize); 1] {
    let map = |layer: &AttentionLayer| {
        let n = h.div_ceil(layer.downscale).saturating_mul(w.div_ceil(layer.downscale));
        (batch * layer.heads(c)).saturating_mul(n).saturating_mul(n)
    };
    [("an attention map", layers.iter().map(map).max().unwrap_or(0))]
}

/// Returns the largest tensor of a decoder for `batch` latents of `(h, w)` pixels that is computed whole, for its gradient.
pub(crate) fn of_decoder(c: &VaeConfig, batch: usize, (h, w): (usize, usize)) -> [(&'static str, usize); 1] {
    let deepest = c.block_out_channels.len() - 1;
    let latent = batch.saturating_mul(h).saturating_mul(w);
    let at = |i: usize| {
        let channels = c.block_out_channels[i].max(c.block_out_channels[(i + 1).min(deepest)]);
        latent.saturating_mul(1 << (2 * (deepest - i))).saturating_mul(WINDOWS * channels)
    };
    [("a feature map", (0..=deepest).map(at).max().unwrap_or(0))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::unet::UNetBlock;

    #[test]
    fn too_large_tensors_are_errors() {
        let c = UNetConfig::parse(b"{ \"attention_head_dim\": 8, \"cross_attention_dim\": 768 }", "unet").unwrap();
        let of = |batch, side| fit("U-Net", &of_unet(&c, batch, (side, side)));
        assert!(of(2, 128).is_ok());
        let error = of(2, 4096).unwrap_err().to_string();
        for word in ["a feature map of the U-Net", "2.1 billion", "smaller image", "`cfg: 1`"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(of(usize::MAX, usize::MAX).is_err());
        // Stable Diffusion 1.5 at 1024²: 8 heads of 16384² scores are 2³¹ exactly, one too many.
        let layers = [AttentionLayer { unet_block: UNetBlock::Down(0), transformer: 0, block: 0, downscale: 1 }];
        let of = |side| fit("U-Net", &of_maps(&c, 1, (side, side), &layers));
        assert!(of(127).is_ok());
        assert!(of(128).unwrap_err().to_string().contains("an attention map of the U-Net"));
        // The processor has no such limit.
        assert!(check(&Device::Cpu, "U-Net", &[("all", usize::MAX)]).is_ok());
        let c = VaeConfig::parse(b"{ \"block_out_channels\": [128, 256, 512, 512], \"norm_num_groups\": 32 }", "vae")
            .unwrap();
        let of = |side| fit("decoder", &of_decoder(&c, 1, (side, side)));
        assert!(of(96).is_ok());
        assert!(of(400).unwrap_err().to_string().contains("a feature map of the decoder"));
    }
}
