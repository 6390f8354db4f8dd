//! One prompt for each region of an image: MultiDiffusion (Bar-Tal et al., ICML 2023).
//!
//! Every prompt predicts for the same latent, and the next latent is the mean of their steps, weighted by their masks (eq. 5):
//! z' = Σ M_i Φ(z, y_i) / Σ M_i. A sampler's step is the same affine map in every pixel, so the mean of the steps is the
//! step of the mean prediction, and regions are a denoiser like any other. In the first steps a region has a plain background
//! around it (bootstrapping), so that its object stays inside.
//!
//! Deals with denoisers and masks, not with samplers.

use candle_core::Tensor;

use crate::Result;
use crate::denoiser::{CfgDenoiser, Denoiser, noised};
use crate::models::unet::{AttentionKind, AttentionLayer, AttentionMap};
use crate::noise::Generator;
use crate::schedule::NoiseSchedule;

/// A region: the denoiser of its prompt, and its mask.
pub struct RegionPart {
    /// Predicts with the region's prompt.
    pub denoiser: CfgDenoiser,
    /// (1, 1, h, w): 1 inside, 0 outside.
    pub mask: Tensor,
    /// Whether bootstrapping gives it a plain background; `false` for the background region.
    pub is_object: bool,
}

/// A denoiser that combines the predictions of several prompts, each in its region.
pub struct Regions {
    /// The regions, the background first. Together their masks cover the latent.
    pub parts: Vec<RegionPart>,
    /// Σ M_i.
    pub cover: Tensor,
    /// The clean latents (1, C, h, w) of plain backgrounds for bootstrapping.
    pub grounds: Vec<Tensor>,
    /// The lowest timestep with bootstrapping.
    pub bootstrap: f64,
    /// ᾱ_t, by which backgrounds are noised.
    pub schedule: NoiseSchedule,
    /// Seed of that noise.
    pub seed: u64,
}

impl Regions {
    /// Returns a background noised to t, with new noise each time; `None` after bootstrapping.
    fn ground(&self, t: f64, part: usize) -> Result<Option<Tensor>> {
        if t < self.bootstrap || self.grounds.is_empty() {
            return Ok(None);
        }
        let turn = t as u64 * self.parts.len() as u64 + part as u64;
        let ground = &self.grounds[turn as usize % self.grounds.len()];
        let a = self.schedule.alpha_bar(t);
        let n = Generator::new(self.seed.wrapping_add(1 + turn)).randn(ground.dims(), ground.device())?;
        Ok(Some(noised(ground, &n, a)?))
    }
}

impl Denoiser for Regions {
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (i, part) in self.parts.iter().enumerate() {
            let seen = match self.ground(t, i)? {
                Some(ground) if part.is_object => {
                    (z.broadcast_mul(&part.mask)? + ground.broadcast_mul(&part.mask.affine(-1.0, 1.0)?)?)?
                }
                _ => z.clone(),
            };
            let e = part.denoiser.predict(&seen, t)?.broadcast_mul(&part.mask)?;
            sum = Some(match sum {
                Some(sum) => (sum + e)?,
                None => e,
            });
        }
        match sum {
            Some(sum) => Ok(sum.broadcast_div(&self.cover)?),
            None => Ok(z.zeros_like()?),
        }
    }

    /// Returns the attention layers of the background, whose prompt is that of the whole image.
    fn attention_layers(&self) -> Vec<AttentionLayer> {
        self.parts.first().map_or_else(Vec::new, |ground| ground.denoiser.attention_layers())
    }

    fn attention_maps(
        &self,
        z: &Tensor,
        t: f64,
        kind: AttentionKind,
        places: &[AttentionLayer],
    ) -> Result<Vec<AttentionMap>> {
        match self.parts.first() {
            Some(ground) => ground.denoiser.attention_maps(z, t, kind, places),
            None => Ok(vec![]),
        }
    }
}
