//! What a pass through a U-Net does differently, without other weights.

use std::sync::Arc;

use super::attention_maps::AttentionLayer;
use super::freeu::FreeU;

/// What a forward pass does differently; by default nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassOptions {
    /// The factors of FreeU.
    pub freeu: Option<FreeU>,
    /// The samples whose self-attention is perturbed.
    pub perturbed: Option<Perturbed>,
}

/// The last samples of a batch, in some layers of which each pixel attends to itself alone: perturbed-attention guidance
/// (Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", eq. 11).
#[derive(Clone, Debug, PartialEq)]
pub struct Perturbed {
    /// The layers.
    pub layers: Arc<[AttentionLayer]>,
    /// The first of these samples in the batch.
    pub from: usize,
}

impl PassOptions {
    /// Returns the first sample whose self-attention is perturbed in a layer, if there is one.
    pub(super) fn perturbed_from(&self, layer: &AttentionLayer) -> Option<usize> {
        let perturbed = self.perturbed.as_ref()?;
        perturbed.layers.contains(layer).then_some(perturbed.from)
    }
}
