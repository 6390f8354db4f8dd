//! CLIP's image encoder, equal to transformers' `CLIPVisionModelWithProjection`, differentiable with respect to the image.
//!
//! It takes normalised images of the one size that it was trained on; [`ClipProcessor`](super::ClipProcessor) prepares them.

use candle_core::{IndexOp, Tensor};

use super::layer::ClipLayer;
use crate::models::config::{ClipConfig, ClipVisionConfig};
use crate::models::layers::{LayerNorm, Linear};
use crate::weights::Weights;
use crate::{Error, Result};

/// The results of the encoder for B images of n patches.
pub struct ClipImage {
    /// The input of the first layer, then the output of each layer: (B, 1 + n, d), the class token first.
    pub hidden_states: Vec<Tensor>,
    /// The class token of the last layer after the final layer norm, (B, d).
    pub pooled: Tensor,
    /// The projected class token, (B, p), in the space of text embeddings. Not normalised.
    pub image_embeds: Tensor,
}

/// A CLIP image encoder.
pub struct ClipVisionModel {
    patches: Linear,
    class: Tensor,
    positions: Tensor,
    pre_norm: LayerNorm,
    layers: Vec<ClipLayer>,
    post_norm: LayerNorm,
    projection: Linear,
    config: ClipVisionConfig,
}

impl ClipVisionModel {
    /// Builds the model from `vision_model` and `visual_projection` of `w`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &ClipConfig, w: &Weights) -> Result<Self> {
        let (c, v) = (&config.vision, w.at("vision_model"));
        let (d, e) = (c.hidden_size, v.at("embeddings"));
        Ok(ClipVisionModel {
            patches: Linear::windows(c.num_channels, c.patch_size, d, &e.at("patch_embedding"))?,
            class: e.get(d, "class_embedding")?,
            positions: e.get((c.patches() * c.patches() + 1, d), "position_embedding.weight")?,
            // The files misspell the name.
            pre_norm: LayerNorm::new(d, c.layer_norm_eps, &v.at("pre_layrnorm"))?,
            layers: ClipLayer::all(&c.layer(), c.num_hidden_layers, &v.at("encoder"))?,
            post_norm: LayerNorm::new(d, c.layer_norm_eps, &v.at("post_layernorm"))?,
            projection: Linear::no_bias(d, config.projection_dim, &w.at("visual_projection"))?,
            config: c.clone(),
        })
    }

    /// The number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Computes the input of the first layer.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let (b, channels, height, width) = pixels.dims4()?;
        if (channels, height, width) != (c.num_channels, c.image_size, c.image_size) {
            return Err(Error::input(format!(
                "CLIP: its images have {0} channels and {1}×{1} pixels, not {channels} and {width}×{height}",
                c.num_channels, c.image_size
            )));
        }
        // A convolution with windows that do not overlap is a linear map of each window. Pixels at the right and lower edge
        // that fill no window are dropped.
        let (n, p) = (c.patches(), c.patch_size);
        let windows = pixels.narrow(2, 0, n * p)?.narrow(3, 0, n * p)?.contiguous()?;
        let windows = windows.reshape(&[b, channels, n, p, n, p])?.permute(vec![0, 2, 4, 1, 3, 5])?;
        let patches = self.patches.forward(&windows.reshape((b, n * n, channels * p * p))?)?;
        let class = self.class.reshape((1, 1, c.hidden_size))?.broadcast_as((b, 1, c.hidden_size))?;
        let x = Tensor::cat(&[class.to_dtype(patches.dtype())?, patches], 1)?.broadcast_add(&self.positions)?;
        self.pre_norm.forward(&x)
    }

    /// Encodes normalised images (B, 3, s, s) of the encoder's size.
    ///
    /// # Errors
    /// If the images have another size.
    pub fn forward(&self, pixels: &Tensor) -> Result<ClipImage> {
        let mut hidden_states = vec![self.embed(pixels)?];
        for layer in &self.layers {
            let next = layer.forward(&hidden_states[hidden_states.len() - 1])?;
            hidden_states.push(next);
        }
        let class = hidden_states[hidden_states.len() - 1].i((.., 0))?;
        let pooled = self.post_norm.forward(&class)?;
        let image_embeds = self.projection.forward(&pooled)?;
        Ok(ClipImage { hidden_states, pooled, image_embeds })
    }

    /// Computes the output of layer number `layer`, counted from 1; 0 is the input of the first layer. (B, 1 + n, d), the
    /// class token first. Later layers are not computed.
    ///
    /// # Errors
    /// If the images have another size, or there is no such layer.
    pub fn hidden_state(&self, pixels: &Tensor, layer: usize) -> Result<Tensor> {
        if layer > self.layers.len() {
            return Err(Error::input(format!(
                "CLIP: its image encoder has {} layers, but the requested layer is {layer}",
                self.layers.len()
            )));
        }
        self.layers[..layer].iter().try_fold(self.embed(pixels)?, |x, layer| layer.forward(&x))
    }
}
