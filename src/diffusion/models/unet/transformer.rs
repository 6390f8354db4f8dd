//! The transformers in the levels of a U-Net (diffusers' `Transformer2DModel`).

use std::sync::Arc;

use candle_core::Tensor;

use super::attention_maps::AttentionLayer;
use super::block::TransformerBlock;
use super::pass::Pass;
use crate::Result;
use crate::models::config::UNetConfig;
use crate::models::layers::{GroupNorm, Linear};
use crate::models::remat::Block;
use crate::ops::Layout;
use crate::weights::Weights;

/// The first layers of a transformer, which turn pixels into tokens.
struct TokenProjection {
    norm: GroupNorm,
    proj_in: Linear,
}

impl Block for TokenProjection {
    fn kept(&self, inputs: &[&Tensor]) -> Result<usize> {
        Ok(inputs[0].elem_count())
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.proj_in.forward_between(&self.norm.forward(&inputs[0])?, None, (Layout::Channels, Layout::Tokens))
    }
}

/// Transformer blocks over the pixels of a feature map, with a residual around them.
pub(super) struct Transformer {
    entry: Arc<TokenProjection>,
    proj_out: Linear,
    blocks: Vec<Arc<TransformerBlock>>,
}

impl Transformer {
    /// `d` channels, `depth` blocks.
    pub fn new(d: usize, heads: usize, depth: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let projection = if c.use_linear_projection { Linear::new } else { Linear::pointwise };
        Ok(Transformer {
            entry: Arc::new(TokenProjection {
                norm: GroupNorm::new(c.norm_num_groups, d, 1e-6, &w.at("norm"))?,
                proj_in: projection(d, d, &w.at("proj_in"))?,
            }),
            proj_out: projection(d, d, &w.at("proj_out"))?,
            blocks: (0..depth)
                .map(|j| TransformerBlock::new(d, heads, c, &w.at("transformer_blocks").at(j)).map(Arc::new))
                .collect::<Result<_>>()?,
        })
    }

    /// `x` (B, d, H, W) → (B, d, H, W). `at` is the attention layer of its first block. `None` if the pass ends in it.
    pub fn forward(&self, x: &Tensor, at: AttentionLayer, pass: &mut Pass) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        let mut y = pass.memory.run(&self.entry, &[x])?;
        for (i, block) in self.blocks.iter().enumerate() {
            match pass.transformer(block, &y, (h, w), &AttentionLayer { block: i, ..at })? {
                Some(next) => y = next,
                None => return Ok(None),
            }
        }
        self.proj_out.forward_between(&y, Some(x), (Layout::Tokens, Layout::Channels)).map(Some)
    }
}
