//! The attention layers of a U-Net, and the maps of their softmax weights.

use std::collections::VecDeque;

use candle_core::Tensor;

use crate::models::config::{MidBlock, UNetConfig};

/// One of the two attentions of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKind {
    /// Pixels attend to the text.
    Cross,
    /// Pixels attend to each other.
    SelfAttention,
}

/// A block of a U-Net, numbered as in diffusers' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UNetBlock {
    /// `down_blocks.N`
    Down(usize),
    /// `mid_block`
    Mid,
    /// `up_blocks.N`
    Up(usize),
}

/// A place of attention in a U-Net: a block of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionLayer {
    /// The block of the network.
    pub unet_block: UNetBlock,
    /// N of `attentions.N` in that block.
    pub transformer: usize,
    /// N of `transformer_blocks.N` in that transformer.
    pub block: usize,
    /// Latent pixels a side of one pixel of the map.
    pub downscale: usize,
}

impl AttentionLayer {
    /// All attention layers of a network, in the order of a forward pass.
    pub fn all(c: &UNetConfig) -> Vec<AttentionLayer> {
        let deepest = c.block_out_channels.len() - 1;
        let mut places = Vec::new();
        let mut add = |unet_block, transformers: &[usize], downscale| {
            for (transformer, blocks) in transformers.iter().enumerate() {
                places.extend((0..*blocks).map(|block| AttentionLayer { unet_block, transformer, block, downscale }));
            }
        };
        for (i, transformers) in c.transformer_layers.iter().enumerate() {
            add(UNetBlock::Down(i), transformers, 1 << i);
        }
        if let MidBlock::Transformer(blocks) = c.mid {
            add(UNetBlock::Mid, &[blocks], 1 << deepest);
        }
        for (i, transformers) in c.up_transformer_layers.iter().enumerate() {
            add(UNetBlock::Up(i), transformers, 1 << (deepest - i));
        }
        places
    }

    /// Number of heads, in a network of this configuration.
    pub fn heads(&self, config: &UNetConfig) -> usize {
        let deepest = config.heads.len() - 1;
        match self.unet_block {
            UNetBlock::Down(i) => config.heads[i],
            UNetBlock::Mid => config.heads[deepest],
            UNetBlock::Up(i) => config.heads[deepest - i],
        }
    }
}

impl std::fmt::Display for AttentionLayer {
    /// The name in diffusers' state dict.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.unet_block {
            UNetBlock::Down(i) => write!(f, "down_blocks.{i}")?,
            UNetBlock::Mid => write!(f, "mid_block")?,
            UNetBlock::Up(i) => write!(f, "up_blocks.{i}")?,
        }
        write!(f, ".attentions.{}.transformer_blocks.{}", self.transformer, self.block)
    }
}

/// The softmax weights of one attention layer.
#[derive(Clone, Debug)]
pub struct AttentionMap {
    /// The layer.
    pub place: AttentionLayer,
    /// Height and width of the feature map whose pixels are the queries.
    pub size: (usize, usize),
    /// Each query's weights over the keys: (B, heads, h·w, L), row by row of the feature map.
    pub weights: Tensor,
}

/// Records attention maps during a forward pass.
pub(super) struct Recorder {
    kind: AttentionKind,
    /// The layers still to come, in the order of the pass.
    wanted: VecDeque<AttentionLayer>,
    maps: Vec<AttentionMap>,
}

impl Recorder {
    /// Records the attention of `kind` in these layers, which are in the order of the pass.
    pub fn new(kind: AttentionKind, wanted: Vec<AttentionLayer>) -> Self {
        Recorder { kind, wanted: wanted.into(), maps: vec![] }
    }

    /// The attention to be recorded in this layer, and whether it is the last one.
    pub fn at(&self, place: &AttentionLayer) -> Option<(AttentionKind, bool)> {
        (self.wanted.front() == Some(place)).then_some((self.kind, self.wanted.len() == 1))
    }

    /// Stores the weights of the current layer.
    pub fn record(&mut self, size: (usize, usize), weights: Tensor) {
        if let Some(place) = self.wanted.pop_front() {
            self.maps.push(AttentionMap { place, size, weights });
        }
    }

    /// The recorded maps.
    pub fn into_maps(self) -> Vec<AttentionMap> {
        self.maps
    }
}
