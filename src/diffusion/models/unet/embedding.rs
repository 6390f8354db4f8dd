//! The embeddings of timesteps and sizes.

use candle_core::{D, DType, Tensor};

use super::constants::{UNetConstant, UNetConstants};
use crate::models::config::UNetConfig;
use crate::models::layers::Linear;
use crate::weights::Weights;
use crate::{Error, Result, ops};

/// Sinusoidal embedding of (N) numbers: (N, dim). Computed in f32 for every dtype of the network, because bf16 is off
/// by up to 2 at t = 981. The operations are those of candle-transformers' `Timesteps`.
pub(super) fn sinusoidal(t: &Tensor, dim: usize, c: &UNetConfig, kept: &UNetConstants) -> Result<Tensor> {
    embedded(t, dim, c.flip_sin_to_cos, c.freq_shift, kept)
}

fn embedded(t: &Tensor, dim: usize, cos_first: bool, shift: f64, kept: &UNetConstants) -> Result<Tensor> {
    let half = dim / 2;
    let key = UNetConstant::Frequencies(dim, shift.to_bits());
    let frequencies = kept.get(key, DType::F32, t.device(), || -> Result<Tensor> {
        let exponent = (Tensor::arange(0, half as u32, t.device())?.to_dtype(DType::F32)? * -f64::ln(10000.0))?;
        Ok((exponent / (half as f64 - shift))?.exp()?)
    })?;
    // As a product, because candle's broadcasting copies strides to a CUDA device, which no recording holds.
    let x = ops::linear(&t.to_dtype(DType::F32)?.unsqueeze(1)?, &frequencies.unsqueeze(1)?, None)?;
    let (cos, sin) = (x.cos()?, x.sin()?);
    let parts = if cos_first { [cos, sin] } else { [sin, cos] };
    Ok(Tensor::cat(&parts, D::Minus1)?)
}

/// Two linear maps with SiLU between them (diffusers' `TimestepEmbedding`).
pub(super) struct Embedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl Embedding {
    pub fn new(from: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(Embedding {
            linear_1: Linear::new(from, to, &w.at("linear_1"))?,
            linear_2: Linear::new(to, to, &w.at("linear_2"))?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&ops::silu(&self.linear_1.forward(x)?)?)
    }
}

/// The guidance scale that diffusers' `LatentConsistencyModelPipeline` uses by default.
pub const LCM_GUIDANCE: f64 = 8.5;

/// LCM's embedding of the guidance scale s: that of w = s − 1 after a linear map, which is added to the embedding of the
/// timestep (Luo et al., "Latent Consistency Models", sec. 4.3; diffusers' `get_guidance_scale_embedding`).
pub(super) struct GuidanceEmbedding {
    width: usize,
    proj: Linear,
}

impl GuidanceEmbedding {
    /// Loads `time_embedding.cond_proj`, from `width` numbers to those of the timestep's embedding.
    pub fn new(width: usize, to: usize, w: &Weights) -> Result<Self> {
        Ok(GuidanceEmbedding { width, proj: Linear::no_bias(width, to, &w.at("time_embedding.cond_proj"))? })
    }

    /// The embedding of the scales (B), by default [`LCM_GUIDANCE`], for the timesteps' embeddings `like` (B, d): (B, d).
    pub fn forward(&self, scales: Option<&Tensor>, like: &Tensor, kept: &UNetConstants) -> Result<Tensor> {
        let batch = like.dim(0)?;
        let scales = match scales {
            Some(scales) if scales.dims() == [batch] => scales.to_dtype(DType::F32)?,
            Some(scales) => {
                let found = scales.shape();
                return Err(Error::input(format!(
                    "U-Net: {batch} samples need as many guidance scales, not {found:?}"
                )));
            }
            None => Tensor::full(LCM_GUIDANCE as f32, batch, like.device())?,
        };
        // sin before cos, and frequencies from 1 to 1/10000 inclusive, which is a shift of 1.
        let x = embedded(&scales.affine(1000.0, -1000.0)?, self.width, false, 1.0, kept)?;
        self.proj.forward(&x.to_dtype(like.dtype())?)
    }
}
