//! Guides the textures of the predicted image towards those of another image, independent of position.
//!
//! A texture is the Gram matrix of the patches after one of the first layers of CLIP's image encoder (Gatys et al. with CLIP
//! in place of VGG; FreeDoM uses the third layer and the Frobenius norm).

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    BoundGuidance, Extractor, GramFrobenius, GuidanceSettings, GuidanceSpec, Normalise, SamplingRun, Schedule,
    StepContext, Window,
};
use crate::Result;
use crate::models::clip::Clip;

/// feat(image) = its patches after a layer of CLIP, (1, d, n).
pub struct ClipPatches {
    clip: Arc<Clip>,
    layer: usize,
    target: Tensor,
}

impl ClipPatches {
    /// Extracts the patches after layer `layer` (from 1), with those of `picture` (1, 3, H, W) in [-1, 1], of any size, as
    /// the target.
    ///
    /// # Errors
    /// If the encoder has fewer layers.
    pub fn new(clip: Arc<Clip>, layer: usize, picture: &Tensor) -> Result<Self> {
        let target = patches(&clip, layer, picture)?;
        Ok(ClipPatches { clip, layer, target })
    }
}

fn patches(clip: &Clip, layer: usize, picture: &Tensor) -> Result<Tensor> {
    let states = clip.hidden_state(picture, layer)?;
    // The first state is the class token.
    let patches = states.narrow(1, 1, states.dim(1)? - 1)?.transpose(1, 2)?.contiguous()?;
    // Sums over patches and features overflow half precision.
    Ok(if patches.dtype().size_in_bytes() < 4 { patches.to_dtype(candle_core::DType::F32)? } else { patches })
}

impl Extractor for ClipPatches {
    fn name(&self) -> &str {
        "style"
    }

    fn feat(&self, picture: &Tensor, _: &StepContext) -> Result<Tensor> {
        patches(&self.clip, self.layer, picture)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(self.target.clone())
    }
}

/// Guidance towards the style of an image.
#[derive(Debug)]
pub struct StyleGuidance {
    /// The network.
    pub clip: Arc<Clip>,
    /// The layer whose textures are compared, from 1.
    pub layer: usize,
    /// (1, 3, H, W) in [-1, 1], of any size.
    pub picture: Tensor,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl StyleGuidance {
    /// FreeDoM's layer.
    pub const LAYER: usize = 3;

    /// FreeDoM's defaults: in the middle of the run, three times a step with fresh noise between, with a fifth of
    /// classifier-free guidance's correction.
    pub fn defaults() -> GuidanceSettings {
        GuidanceSettings {
            scale: 0.2,
            schedule: Schedule::Constant,
            window: Window::between(0.3, 0.7),
            repeats: 3,
            renoise: true,
            normalise: Normalise::Freedom,
            ..GuidanceSettings::default()
        }
    }
}

impl GuidanceSpec for StyleGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let extractor = ClipPatches::new(self.clip.clone(), self.layer, &self.picture)?;
        Ok(vec![run.bound(extractor, Arc::new(GramFrobenius), run.image_space()?, &self.settings)?])
    }

    fn bytes(&self) -> usize {
        self.clip.bytes() + self.picture.elem_count() * self.picture.dtype().size_in_bytes()
    }
}
