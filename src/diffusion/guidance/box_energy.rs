//! Layout-guidance: guides most of the cross-attention of each object's words into its box (Chen et al., WACV 2024).
//!
//! ```text
//!     E = mean over heads and words of (1 − Σ_{u ∈ B} A_u / Σ_u A_u)²
//! ```
//!
//! averaged over objects and maps. The maps are those of the middle block and of the first upsampling block with attention. In
//! the first fifth of the steps z ← z − (1−ᾱ) 30 ∇E, up to five times a step. Once E ≤ 0.2, the guidance skips the rest of the
//! run. (The authors write σ² for a latent z/√ᾱ, which is 1 − ᾱ for z.)

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::attention::{Layers, cell_mask, columns, index, objects_in_prompt};
use super::{
    BoundGuidance, Distance, Extractor, FeatureSpace, GuidanceSettings, GuidanceSpec, SamplingRun, Schedule,
    StepContext, Until, Window,
};
use crate::Result;
use crate::layout::GroundedPhrase;
use crate::models::unet::AttentionLayer;

/// feat(z_t) = the attention of each object in each map: a row for each map, object, word and head, (rows, cells), padded with
/// zeros to the largest map.
pub struct BoxAttention {
    layers: Layers,
    /// The index of the words of all objects.
    words: Tensor,
    /// (rows, cells): 1 in the box of a row's object.
    masks: Tensor,
}

impl Extractor for BoxAttention {
    fn name(&self) -> &str {
        "layout-guidance"
    }

    fn feat(&self, z: &Tensor, at: &StepContext) -> Result<Tensor> {
        let most = self.masks.dim(1)?;
        let mut rows = Vec::new();
        for map in self.layers.maps(z, at)? {
            // (heads, cells, words)
            let a = columns(&map.weights.squeeze(0)?, &self.words)?;
            let (heads, cells, words) = a.dims3()?;
            let a = a.permute((2, 0, 1))?.reshape((words * heads, cells))?;
            rows.push(a.pad_with_zeros(1, 0, most - cells)?);
        }
        Ok(Tensor::cat(&rows, 0)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(self.masks.clone())
    }
}

/// The distance E: Σ over rows of a weight times (1 − Σ A M / Σ A)².
pub struct BoxEnergy {
    /// The weight of each row, (rows).
    weights: Tensor,
}

impl Distance for BoxEnergy {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let inside = (feature * target)?.sum(D::Minus1)?;
        let missing = (inside / feature.sum(D::Minus1)?)?.affine(-1.0, 1.0)?;
        Ok((missing.sqr()? * self.weights.to_dtype(feature.dtype())?)?.sum_all()?)
    }
}

/// Guidance by the energy of layout-guidance.
#[derive(Debug)]
pub struct LayoutGuidance {
    /// Phrases in boxes; the prompt must contain them.
    pub layout: Vec<GroundedPhrase>,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl LayoutGuidance {
    /// The published settings: γ = 30 (1−ᾱ), up to five times in each of the first fifth of the steps, until E ≤ 0.2.
    pub fn defaults() -> GuidanceSettings {
        GuidanceSettings {
            scale: 30.0,
            schedule: Schedule::Noise,
            window: Window::first(0.2),
            repeats: 5,
            until: Until::Settled(0.2),
            ..GuidanceSettings::default()
        }
    }

    /// Returns the extractor and its distance for a run.
    pub fn parts(&self, run: &SamplingRun) -> Result<(BoxAttention, BoxEnergy)> {
        let objects = objects_in_prompt(&self.layout, run)?;
        let layers = Layers::MidAndUp;
        let config = &run.model.blueprint().unet.0;
        let maps = layers.of(&AttentionLayer::all(config))?;
        let (h, w) = run.latent_size();
        let size = |place: &AttentionLayer| (h.div_ceil(place.downscale), w.div_ceil(place.downscale));
        let most = maps.iter().map(|place| size(place).0 * size(place).1).max().unwrap_or(0);
        let (mut masks, mut weights) = (Vec::new(), Vec::new());
        for place in &maps {
            let ((h, w), heads) = (size(place), place.heads(config));
            for object in &objects {
                let mut mask = cell_mask(object.bounds, h, w, f64::floor);
                mask.resize(most, 0.0);
                let count = (heads * object.positions.len() * objects.len() * maps.len()) as f32;
                for _ in 0..heads * object.positions.len() {
                    masks.extend_from_slice(&mask);
                    weights.push(1.0 / count);
                }
            }
        }
        let rows = weights.len();
        let positions: Vec<usize> = objects.into_iter().flat_map(|o| o.positions).collect();
        let words = index(&positions, run.device())?;
        let masks = Tensor::from_vec(masks, (rows, most), run.device())?;
        let energy = BoxEnergy { weights: Tensor::from_vec(weights, rows, run.device())? };
        Ok((BoxAttention { layers, words, masks }, energy))
    }
}

impl GuidanceSpec for LayoutGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let (extractor, energy) = self.parts(run)?;
        Ok(vec![run.bound(extractor, Arc::new(energy), FeatureSpace::Latent, &self.settings)?])
    }
}
