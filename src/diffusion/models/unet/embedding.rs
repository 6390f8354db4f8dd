//! The embeddings of timesteps and sizes.

use candle_core::{DType, Tensor};
use candle_nn::Module;
use candle_transformers::models::stable_diffusion::embeddings::Timesteps;

use crate::models::config::UNetConfig;
use crate::models::layers::Linear;
use crate::weights::Weights;
use crate::{Result, ops};

/// Sinusoidal embedding of (N) numbers: (N, dim). Computed in f32 for every dtype of the network, because bf16 is off
/// by up to 2 at t = 981.
pub(super) fn sinusoidal(t: &Tensor, dim: usize, c: &UNetConfig) -> Result<Tensor> {
    Ok(Timesteps::new(dim, c.flip_sin_to_cos, c.freq_shift).forward(&t.to_dtype(DType::F32)?)?)
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
