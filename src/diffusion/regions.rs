//! Each region of a picture by its own prompt: MultiDiffusion (Bar-Tal et al., ICML 2023).
//!
//! Every prompt predicts for the same latent, and the next latent is the mean of their steps, each where its mask is:
//! z' = Σ M_i Φ(z, y_i) / Σ M_i. A sampler's step is the same affine map in every pixel, so the mean of the steps is the
//! step of the mean prediction, and regions are a denoiser like any other. In the first steps a region sees a plain ground
//! around it (bootstrapping), so that its object is drawn inside of it and not across its border.
//!
//! Knows denoisers and masks. Knows no sampler.

use candle_core::Tensor;

use crate::Result;
use crate::denoiser::{CfgDenoiser, Denoiser};
use crate::models::unet::{AttentionKind, AttentionLayer, AttentionMap};
use crate::noise::Generator;
use crate::schedule::NoiseSchedule;

/// A region: its prompt's denoiser, and where it is.
pub struct Part {
    /// Predicts by the region's prompt.
    pub denoiser: CfgDenoiser,
    /// (1, 1, h, w): 1 inside, 0 outside.
    pub mask: Tensor,
    /// Whether bootstrapping shields it from what is around it: all but the ground.
    pub is_object: bool,
}

/// Predictions of several prompts, each where its region is.
pub struct Regions {
    /// The regions. Together their masks leave nothing out.
    pub parts: Vec<Part>,
    /// Σ M_i.
    pub cover: Tensor,
    /// The clean latents (1, C, h, w) of plain grounds, one of which stands around an object while bootstrapping lasts.
    pub grounds: Vec<Tensor>,
    /// The lowest timestep at which it does.
    pub bootstrap: f64,
    /// ᾱ_t, for grounds to be noised by.
    pub schedule: NoiseSchedule,
    /// Of that noise.
    pub seed: u64,
}

impl Regions {
    /// A ground at t, with noise of its own each time.
    fn ground(&self, t: f64, part: usize) -> Result<Option<Tensor>> {
        if t < self.bootstrap || self.grounds.is_empty() {
            return Ok(None);
        }
        let turn = t as u64 * self.parts.len() as u64 + part as u64;
        let ground = &self.grounds[turn as usize % self.grounds.len()];
        let a = self.schedule.alpha_bar(t);
        let n = Generator::new(self.seed.wrapping_add(1 + turn)).randn(ground.dims(), ground.device())?;
        Ok(Some(((ground * a.sqrt())? + (n * (1.0 - a).sqrt())?)?))
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

    /// That of the ground, whose prompt is the whole picture's.
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
