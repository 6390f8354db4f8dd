//! Where a U-Net attends, and what: the softmax weights of its attention layers.
//!
//! Knows places and what is to be looked at on the way through a network. Knows no loss.

use std::collections::VecDeque;

use candle_core::Tensor;

use crate::models::config::UNetConfig;

/// Which attention is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKind {
    /// Of the pixels to the text.
    Cross,
    /// Of the pixels to each other.
    SelfAttention,
}

/// A block of a U-Net, numbered as in diffusers' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// `down_blocks.N`
    Down(usize),
    /// `mid_block`
    Mid,
    /// `up_blocks.N`
    Up(usize),
}

/// Where a U-Net attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionPlace {
    /// The block of the network.
    pub part: Part,
    /// `attentions.N` of it.
    pub transformer: usize,
    /// `transformer_blocks.N` of that.
    pub block: usize,
    /// Latent pixels a side of one pixel of the map.
    pub downscale: usize,
}

impl AttentionPlace {
    /// Where a network of this configuration attends, in the order in which it walks.
    pub fn all(c: &UNetConfig) -> Vec<AttentionPlace> {
        let deepest = c.block_out_channels.len() - 1;
        let mut places = Vec::new();
        let mut add = |part, transformers, blocks, downscale| {
            for transformer in 0..transformers {
                places.extend((0..blocks).map(|block| AttentionPlace { part, transformer, block, downscale }));
            }
        };
        let levels = || 0..=deepest;
        for i in levels().filter(|i| c.down_attention[*i]) {
            add(Part::Down(i), c.layers_per_block, c.transformer_layers[i], 1 << i);
        }
        add(Part::Mid, 1, c.transformer_layers[deepest], 1 << deepest);
        for i in levels().filter(|i| c.up_attention[*i]) {
            add(Part::Up(i), c.layers_per_block + 1, c.up_transformer_layers[i], 1 << (deepest - i));
        }
        places
    }

    /// Heads of the attention there, in a network of this configuration.
    pub fn heads(&self, config: &UNetConfig) -> usize {
        let deepest = config.heads.len() - 1;
        match self.part {
            Part::Down(i) => config.heads[i],
            Part::Mid => config.heads[deepest],
            Part::Up(i) => config.heads[deepest - i],
        }
    }
}

impl std::fmt::Display for AttentionPlace {
    /// As in diffusers' names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.part {
            Part::Down(i) => write!(f, "down_blocks.{i}")?,
            Part::Mid => write!(f, "mid_block")?,
            Part::Up(i) => write!(f, "up_blocks.{i}")?,
        }
        write!(f, ".attentions.{}.transformer_blocks.{}", self.transformer, self.block)
    }
}

/// The softmax weights of one attention layer.
#[derive(Clone, Debug)]
pub struct AttentionMap {
    /// Where the layer is.
    pub place: AttentionPlace,
    /// Height and width of the feature map whose pixels are the queries.
    pub size: (usize, usize),
    /// Each query's weights over the keys: (B, heads, h·w, L), row by row of the feature map.
    pub weights: Tensor,
}

/// What is to be seen on a walk through the network, and what was.
pub(super) struct Look {
    kind: AttentionKind,
    /// What is still to come, in the order of the walk.
    wanted: VecDeque<AttentionPlace>,
    maps: Vec<AttentionMap>,
}

impl Look {
    /// At the attention of `kind` in these places, which are in the order of the walk.
    pub fn new(kind: AttentionKind, wanted: Vec<AttentionPlace>) -> Self {
        Look { kind, wanted: wanted.into(), maps: vec![] }
    }

    /// The attention to be looked at in this place, and whether it is the last.
    pub fn at(&self, place: &AttentionPlace) -> Option<(AttentionKind, bool)> {
        (self.wanted.front() == Some(place)).then_some((self.kind, self.wanted.len() == 1))
    }

    /// Takes down the weights of the place to which the walk has come.
    pub fn saw(&mut self, size: (usize, usize), weights: Tensor) {
        if let Some(place) = self.wanted.pop_front() {
            self.maps.push(AttentionMap { place, size, weights });
        }
    }

    /// What was seen.
    pub fn into_maps(self) -> Vec<AttentionMap> {
        self.maps
    }
}
