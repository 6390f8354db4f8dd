//! Bounded guidance: guides each object's words and the pixels of its box to be attended from inside the box (Dahary et al.,
//! Be Yourself: Bounded Attention, ECCV 2024).
//!
//! For object i, Â_i(x) is how much pixel x attends to its words (cross-attention), or to the pixels of its box
//! (self-attention), in the mean over heads and layers of one resolution. With n objects
//!
//! ```text
//! L_i = (1 − Σ_{x ∈ B_i} Â_i / (Σ_{x ∈ B_i} Â_i + n Σ_{x ∉ B_i} Â_i))²
//! ```
//!
//! and D is the mean over objects of 1.5 L_i by cross-attention and 0.5 L_i by self-attention. In the first 15 of 50 steps
//! z ← z − γ ∇D, γ from 18 to 5, up to five times a step, until D ≤ 0.2. The other half of the method, masks on attention
//! during sampling, is not a guidance and is not implemented.

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::attention::{Layers, cell_mask, columns, index, mean_map, objects_in_prompt, resolution};
use super::{
    BoundGuidance, Distance, Extractor, FeatureSpace, GuidanceSettings, GuidanceSpec, SamplingRun, Schedule,
    StepContext, Until, Window,
};
use crate::Result;
use crate::layout::GroundedPhrase;
use crate::models::unet::AttentionKind;

/// feat(z_t) = the attention of each pixel to each object's words, then to each object's box, (2 · objects, cells).
pub struct BoundedAttention {
    layers: Layers,
    /// The index of the words of each object.
    words: Vec<Tensor>,
    /// (objects, cells): 1 in the box of an object.
    masks: Tensor,
}

impl Extractor for BoundedAttention {
    fn name(&self) -> &str {
        "bounded attention"
    }

    fn feat(&self, z: &Tensor, at: &StepContext) -> Result<Tensor> {
        let words = mean_map(&self.layers.maps(z, at)?)?;
        let word = |index: &Tensor| Ok(columns(&words, index)?.sum(D::Minus1)?);
        let to_words = Tensor::stack(&self.words.iter().map(word).collect::<Result<Vec<_>>>()?, 0)?;
        let pixels = mean_map(&self.layers.maps_of(z, at, AttentionKind::SelfAttention)?)?;
        let to_boxes = self.masks.to_dtype(pixels.dtype())?.matmul(&pixels.t()?.contiguous()?)?;
        Ok(Tensor::cat(&[to_words, to_boxes], 0)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(Tensor::cat(&[&self.masks, &self.masks], 0)?)
    }
}

/// The distance D: the mean over objects of a weight times (1 − inside / (inside + n outside))².
pub struct BoundedLoss {
    /// The weights of cross-attention and of self-attention.
    pub weights: [f64; 2],
}

impl Distance for BoundedLoss {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let objects = feature.dim(0)? / 2;
        let inside = (feature * target)?.sum(D::Minus1)?;
        let outside = (feature.sum(D::Minus1)? - &inside)?;
        let share = (&inside / (&inside + (outside * objects as f64)?)?)?;
        let losses = share.affine(-1.0, 1.0)?.sqr()?;
        let [cross, itself] = self.weights;
        let part = |first: usize, weight: f64| losses.narrow(0, first, objects)?.mean_all()? * weight;
        Ok((part(0, cross)? + part(objects, itself)?)?)
    }
}

/// Guidance by bounded attention.
#[derive(Debug)]
pub struct BoundedAttentionGuidance {
    /// Phrases in boxes; the prompt must contain them.
    pub layout: Vec<GroundedPhrase>,
    /// Resolution of the attention maps that are used: latent pixels along each side of one pixel of the map. By
    /// default the one whose maps are nearest to the published 16 × 16.
    pub downscale: Option<usize>,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl BoundedAttentionGuidance {
    /// The published weights of cross-attention and self-attention.
    pub const WEIGHTS: [f64; 2] = [1.5, 0.5];

    /// The published settings.
    pub fn defaults() -> GuidanceSettings {
        GuidanceSettings {
            scale: 18.0,
            schedule: Schedule::Linear,
            schedule_end: 5.0 / 18.0,
            window: Window::first(0.3),
            repeats: 5,
            until: Until::Reached(0.2),
            ..GuidanceSettings::default()
        }
    }
}

impl GuidanceSpec for BoundedAttentionGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let objects = objects_in_prompt(&self.layout, run)?;
        let (h, w) = run.latent_size();
        let downscale = resolution(self.downscale, run)?;
        let (h, w) = (h.div_ceil(downscale), w.div_ceil(downscale));
        let masks: Vec<f32> = objects.iter().flat_map(|o| cell_mask(o.bounds, h, w, f64::round_ties_even)).collect();
        let extractor = BoundedAttention {
            layers: Layers::Downscale(downscale),
            masks: Tensor::from_vec(masks, (objects.len(), h * w), run.device())?,
            words: objects.iter().map(|o| index(&o.positions, run.device())).collect::<Result<_>>()?,
        };
        let loss = Arc::new(BoundedLoss { weights: Self::WEIGHTS });
        Ok(vec![run.bound(extractor, loss, FeatureSpace::Latent, &self.settings)?])
    }
}
