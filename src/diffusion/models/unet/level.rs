//! The levels of a U-Net and its middle block.

use std::sync::Arc;

use candle_core::Tensor;

use super::attention_maps::AttentionLayer;
use super::pass::Pass;
use super::transformer::Transformer;
use crate::Result;
use crate::models::config::{MidBlock, UNetConfig};
use crate::models::layers::Conv2d;
use crate::models::resnet::ResnetBlock;
use crate::weights::Weights;

/// One level on the way down or up: residual blocks, each with an optional transformer after it, then an optional change
/// of resolution.
pub(super) struct Level {
    pub resnets: Vec<Arc<ResnetBlock>>,
    transformers: Vec<Transformer>,
    pub resample: Option<Conv2d>,
}

impl Level {
    /// Level `i` on the way down.
    pub fn down(i: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let channels = &c.block_out_channels;
        let (from, to) = (channels[i.saturating_sub(1)], channels[i]);
        let (layers, w) = (c.layers_per_block, w.at("down_blocks").at(i));
        Ok(Level {
            resnets: (0..layers)
                .map(|j| resnet(if j == 0 { from } else { to }, to, c, &w.at("resnets").at(j)))
                .collect::<Result<_>>()?,
            transformers: transformers(to, c.heads[i], &c.transformer_layers[i], c, &w)?,
            resample: (i + 1 < channels.len())
                .then(|| Conv2d::new(to, to, 3, 2, (1, 1), &w.at("downsamplers.0.conv")))
                .transpose()?,
        })
    }

    /// Level `i` on the way up, whose residual blocks also take the skip connections of the same resolution.
    pub fn up(i: usize, c: &UNetConfig, w: &Weights) -> Result<Self> {
        let channels = &c.block_out_channels;
        let level = channels.len() - 1 - i;
        let (from, to) = (channels[(level + 1).min(channels.len() - 1)], channels[level]);
        let below = channels[level.saturating_sub(1)];
        let (layers, w) = (c.layers_per_block + 1, w.at("up_blocks").at(i));
        Ok(Level {
            resnets: (0..layers)
                .map(|j| {
                    let skip = if j + 1 == layers { below } else { to };
                    resnet(if j == 0 { from } else { to } + skip, to, c, &w.at("resnets").at(j))
                })
                .collect::<Result<_>>()?,
            transformers: transformers(to, c.heads[level], &c.up_transformer_layers[i], c, &w)?,
            resample: (i + 1 < channels.len())
                .then(|| Conv2d::same3(to, to, &w.at("upsamplers.0.conv")))
                .transpose()?,
        })
    }

    /// Runs one residual block and its transformer, whose attention layer is `at`; on the way up also takes a skip
    /// connection. Returns `None` if the pass ends here.
    pub fn layer(
        &self,
        h: &Tensor,
        skip: Option<&Tensor>,
        at: AttentionLayer,
        pass: &mut Pass,
    ) -> Result<Option<Tensor>> {
        let h = pass.resnet(&self.resnets[at.transformer], h, skip)?;
        match self.transformers.get(at.transformer) {
            Some(t) => t.forward(&h, at, pass),
            None => Ok(Some(h)),
        }
    }
}

/// The middle block.
pub(super) struct Mid {
    pub first: Arc<ResnetBlock>,
    /// The transformer and the residual block after it.
    pub rest: Option<(Transformer, Arc<ResnetBlock>)>,
}

impl Mid {
    /// Builds the middle block, if the network has one.
    pub fn new(c: &UNetConfig, w: &Weights) -> Result<Option<Self>> {
        let last = c.block_out_channels.len() - 1;
        let (channels, w) = (c.block_out_channels[last], w.at("mid_block"));
        let resnet = |name: &str| resnet(channels, channels, c, &w.at(name));
        let rest = match c.mid {
            MidBlock::Absent => return Ok(None),
            MidBlock::Residual => None,
            MidBlock::Transformer(depth) => {
                let transformer = Transformer::new(channels, c.heads[last], depth, c, &w.at("attentions.0"))?;
                Some((transformer, resnet("resnets.1")?))
            }
        };
        Ok(Some(Mid { first: resnet("resnets.0")?, rest }))
    }
}

/// Width of the time embedding.
pub(super) fn temb_width(c: &UNetConfig) -> usize {
    4 * c.block_out_channels[0]
}

fn resnet(from: usize, to: usize, c: &UNetConfig, w: &Weights) -> Result<Arc<ResnetBlock>> {
    ResnetBlock::new(from, to, Some(temb_width(c)), c.norm_num_groups, c.norm_eps, w).map(Arc::new)
}

/// The transformers of a level, one after each residual block, with so many blocks each.
fn transformers(
    channels: usize,
    heads: usize,
    depths: &[usize],
    c: &UNetConfig,
    w: &Weights,
) -> Result<Vec<Transformer>> {
    let depths = depths.iter().enumerate();
    depths.map(|(j, depth)| Transformer::new(channels, heads, *depth, c, &w.at("attentions").at(j))).collect()
}
