//! Guides the CLIP embedding of the predicted image towards that of a text or of another image.
//!
//! Embeddings have length 1 here, so that ‖f̄ − f‖² = 2 (1 − cos) and every distance depends on the angle only. If an
//! image is not square, CLIP sees only its centre, as in its own preprocessing. (FreeDoM, Yu et al., ICCV 2023, and
//! others before it.)

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    BoundGuidance, Extractor, GuidanceSettings, GuidanceSpec, Metric, Normalise, SamplingRun, Schedule, StepContext,
    Window,
};
use crate::Result;
use crate::models::clip::{Clip, normalise};

/// feat(image) = its CLIP embedding, of length 1, (1, p).
pub struct ClipEmbedding {
    clip: Arc<Clip>,
    target: Tensor,
    name: &'static str,
}

impl ClipEmbedding {
    /// Extracts embeddings, with the embedding of `goal` as the target.
    pub fn new(clip: Arc<Clip>, goal: &ClipGoal) -> Result<Self> {
        let (name, target) = match goal {
            ClipGoal::Text(text) => ("CLIP text", clip.text_embeds(text)?),
            ClipGoal::Picture(picture) => ("CLIP image", clip.image_embeds(picture)?),
        };
        Ok(ClipEmbedding { target: normalise(&target)?, clip, name })
    }
}

impl Extractor for ClipEmbedding {
    fn name(&self) -> &str {
        self.name
    }

    fn feat(&self, picture: &Tensor, _: &StepContext) -> Result<Tensor> {
        normalise(&self.clip.image_embeds(picture)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(self.target.clone())
    }
}

/// The target of a CLIP guidance.
#[derive(Clone, Debug)]
pub enum ClipGoal {
    /// The embedding of a text.
    Text(String),
    /// The embedding of an image (1, 3, H, W) in [-1, 1], of any size.
    Picture(Tensor),
}

/// Guidance by CLIP embeddings.
#[derive(Debug)]
pub struct ClipGuidance {
    /// The network.
    pub clip: Arc<Clip>,
    /// The text or image whose embedding is the target.
    pub goal: ClipGoal,
    /// The distance between embeddings.
    pub metric: Metric,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl ClipGuidance {
    /// The defaults, after FreeDoM. FreeDoM's step is a share of the predicted noise that grows with √(1−ᾱ)/√ᾱ; here it is a
    /// constant share of classifier-free guidance's correction.
    pub fn defaults() -> GuidanceSettings {
        GuidanceSettings {
            scale: 0.3,
            schedule: Schedule::Constant,
            window: Window::first(0.6),
            normalise: Normalise::Freedom,
            ..GuidanceSettings::default()
        }
    }
}

impl GuidanceSpec for ClipGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let extractor = ClipEmbedding::new(self.clip.clone(), &self.goal)?;
        Ok(vec![run.bound(extractor, self.metric.distance(), run.image_space()?, &self.settings)?])
    }

    fn bytes(&self) -> usize {
        let goal = match &self.goal {
            ClipGoal::Text(text) => text.len(),
            ClipGoal::Picture(picture) => picture.elem_count() * picture.dtype().size_in_bytes(),
        };
        self.clip.bytes() + goal
    }
}
