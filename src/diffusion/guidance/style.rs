//! Style: the textures of the predicted picture are drawn to those of another, wherever they are.
//!
//! Textures are the Gram matrix of what CLIP's picture encoder makes of the patches in one of its first layers (Gatys et
//! al. with CLIP in place of VGG, as FreeDoM has it: the third layer, and the Frobenius norm).

use std::sync::Arc;

use candle_core::Tensor;

use super::{Acting, Extractor, GramFrobenius, Guidance, Guide, Moment, Normalise, Run, Schedule, Window};
use crate::Result;
use crate::models::clip_pair::Clip;

/// feat(picture) = what a layer of CLIP makes of its patches, (1, d, n).
pub struct ClipPatches {
    clip: Arc<Clip>,
    layer: usize,
    target: Tensor,
}

impl ClipPatches {
    /// After layer number `layer`, from 1; drawn to those of `picture` (1, 3, H, W) in [-1, 1], of any size.
    ///
    /// Errors if the encoder has fewer layers.
    pub fn new(clip: Arc<Clip>, layer: usize, picture: &Tensor) -> Result<Self> {
        let target = patches(&clip, layer, picture)?;
        Ok(ClipPatches { clip, layer, target })
    }
}

fn patches(clip: &Clip, layer: usize, picture: &Tensor) -> Result<Tensor> {
    let states = clip.hidden_state(picture, layer)?;
    // The first is the class token.
    let patches = states.narrow(1, 1, states.dim(1)? - 1)?.transpose(1, 2)?.contiguous()?;
    // Sums over places and features are too much for half precision.
    Ok(if patches.dtype().size_in_bytes() < 4 { patches.to_dtype(candle_core::DType::F32)? } else { patches })
}

impl Extractor for ClipPatches {
    fn name(&self) -> &str {
        "style"
    }

    fn feat(&self, picture: &Tensor, _: &Moment) -> Result<Tensor> {
        patches(&self.clip, self.layer, picture)
    }

    fn target(&self, _: &Moment) -> Result<Tensor> {
        Ok(self.target.clone())
    }
}

/// Guidance towards the style of a picture.
#[derive(Debug)]
pub struct StyleGuide {
    /// The network.
    pub clip: Arc<Clip>,
    /// The layer whose textures count, from 1.
    pub layer: usize,
    /// (1, 3, H, W) in [-1, 1], of any size.
    pub picture: Tensor,
    /// How it acts.
    pub acting: Acting,
}

impl StyleGuide {
    /// The layer that FreeDoM takes.
    pub const LAYER: usize = 3;

    /// FreeDoM's: in the middle of the run, three times a step with fresh noise between, a fifth of what classifier-free
    /// guidance adds.
    pub fn usual() -> Acting {
        Acting {
            scale: 0.2,
            schedule: Schedule::Constant,
            window: Window::Share(0.3, 0.7),
            repeats: 3,
            renoise: true,
            normalise: Normalise::Freedom,
            ..Acting::default()
        }
    }
}

impl Guide for StyleGuide {
    fn prepare(&self, run: &Run) -> Result<Vec<Guidance>> {
        let extractor = ClipPatches::new(self.clip.clone(), self.layer, &self.picture)?;
        Ok(vec![run.guidance(extractor, Arc::new(GramFrobenius), run.picture()?, &self.acting)?])
    }

    fn bytes(&self) -> usize {
        self.clip.bytes() + self.picture.elem_count() * self.picture.dtype().size_in_bytes()
    }
}
