//! CLIP's text encoder, equal to transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use candle_core::{Device, IndexOp, Tensor};

use super::layer::ClipLayer;
use crate::models::config::ClipTextConfig;
use crate::models::layers::{LayerNorm, Linear};
use crate::weights::Weights;
use crate::{Error, Result};

/// The results of a text encoder for (B, L) tokens.
pub struct ClipText {
    /// Output of the last layer after the final layer norm, (B, L, d).
    pub last_hidden_state: Tensor,
    /// Output of the last layer but one, without the final layer norm, (B, L, d), on which SDXL is conditioned.
    pub penultimate: Tensor,
    /// Last hidden state at the end-of-text token, (B, d), unprojected: GLIGEN's embedding of a phrase.
    pub pooled: Tensor,
    /// The projected pooled text, (B, p), if the model has a projection.
    pub text_embeds: Option<Tensor>,
}

/// A CLIP text encoder.
pub struct ClipTextModel {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    eos_token_id: u32,
    device: Device,
}

impl ClipTextModel {
    /// Builds the model from `w`.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or belongs to another network.
    pub fn build(config: &ClipTextConfig, w: &Weights) -> Result<Self> {
        let model = Self::new(config, w)?;
        w.finish()?;
        Ok(model)
    }

    /// Builds the model from the tensors of `w`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(c: &ClipTextConfig, w: &Weights) -> Result<Self> {
        let t = w.at("text_model");
        Ok(ClipTextModel {
            token_embedding: t.matrix((c.vocab_size, c.hidden_size), "embeddings.token_embedding.weight")?,
            position_embedding: t
                .get((c.max_position_embeddings, c.hidden_size), "embeddings.position_embedding.weight")?,
            layers: ClipLayer::all(&c.layer(), c.num_hidden_layers, &t.at("encoder"))?,
            final_layer_norm: LayerNorm::new(c.hidden_size, c.layer_norm_eps, &t.at("final_layer_norm"))?,
            text_projection: c
                .projects
                .then(|| Linear::no_bias(c.hidden_size, c.projection_dim, &w.at("text_projection")))
                .transpose()?,
            eos_token_id: c.eos_token_id,
            device: w.precision().device.clone(),
        })
    }

    /// Encodes texts of the same number of tokens.
    ///
    /// # Errors
    /// If there are no texts, or their lengths differ or are too great.
    pub fn forward(&self, ids: &[Vec<u32>]) -> Result<ClipText> {
        self.forward_without(0, ids)
    }

    /// [`Self::forward`], with the states of an earlier layer: without the last `skipped` layers. The pooled text is that of the
    /// last layer all the same.
    ///
    /// # Errors
    /// As [`Self::forward`], and if there are not more layers.
    pub fn forward_without(&self, skipped: usize, ids: &[Vec<u32>]) -> Result<ClipText> {
        if skipped >= self.layers.len() {
            let layers = self.layers.len();
            return Err(Error::input(format!("text encoder: cannot skip {skipped} of its {layers} layers")));
        }
        let (b, l) = (ids.len(), ids.first().map_or(0, Vec::len));
        let longest = self.position_embedding.dim(0)?;
        if b == 0 || l == 0 || l > longest || ids.iter().any(|i| i.len() != l) {
            return Err(Error::input(format!(
                "text encoder: requires texts of equal length, from 1 to {longest} tokens"
            )));
        }
        let flat = Tensor::from_vec(ids.concat(), b * l, &self.device)?;
        let x = self.token_embedding.index_select(&flat, 0)?.reshape((b, l, ()))?;
        let x = x.to_dtype(self.position_embedding.dtype())?;
        let mut x = x.broadcast_add(&self.position_embedding.narrow(0, 0, l)?)?;
        let kept = self.layers.len() - skipped;
        let (mut penultimate, mut last) = (x.clone(), x.clone());
        for (i, layer) in self.layers.iter().enumerate() {
            let next = layer.forward(&x)?;
            if i + 1 == kept {
                (penultimate, last) = (x, next.clone());
            }
            x = next;
        }
        let last_hidden_state = self.final_layer_norm.forward(&last)?;
        let end = if skipped == 0 { last_hidden_state.clone() } else { self.final_layer_norm.forward(&x)? };
        let ends = ids.iter().enumerate().map(|(i, ids)| end.i((i, self.end_of_text(ids))));
        let pooled = Tensor::stack(&ends.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let text_embeds = self.text_projection.as_ref().map(|p| p.forward(&pooled)).transpose()?;
        Ok(ClipText { last_hidden_state, penultimate, pooled, text_embeds })
    }

    /// The index of the first end-of-text token; with `eos_token_id: 2` of early configurations, of the first greatest id, as
    /// in transformers.
    fn end_of_text(&self, ids: &[u32]) -> usize {
        let eos = if self.eos_token_id == 2 { ids.iter().copied().max().unwrap_or(0) } else { self.eos_token_id };
        ids.iter().position(|&id| id == eos).unwrap_or(0)
    }
}
