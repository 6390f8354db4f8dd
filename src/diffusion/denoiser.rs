//! Denoisers: the prediction for a noisy latent, under classifier-free guidance. Samplers use nothing else of a model.

use std::sync::Arc;

use candle_core::Tensor;

use crate::models::unet::{AttentionKind, AttentionLayer, AttentionMap};
use crate::models::unet::{Conditioning, UNet};
use crate::reduce::rms;
use crate::schedule::PredictionType;
use crate::{Error, Result};

/// A network that predicts ε (or v) for the latent z_t at t.
pub trait Denoiser: Sync {
    /// Predicts for `z` (B, C, h, w) in the variance-preserving space and the training timestep `t`.
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor>;

    /// Returns the RMS of classifier-free guidance's correction, s (ε_c − ε_u); without such guidance, that of the prediction.
    fn correction(&self, z: &Tensor, t: f64) -> Result<f64> {
        rms(&self.predict(z, t)?)
    }

    /// Returns the attention layers of its network in the order of the forward pass; empty if it exposes none.
    fn attention_layers(&self) -> Vec<AttentionLayer> {
        vec![]
    }

    /// Computes the attention of the conditional half in these layers for `z` of one sample; differentiable.
    fn attention_maps(
        &self,
        _z: &Tensor,
        _t: f64,
        _kind: AttentionKind,
        _places: &[AttentionLayer],
    ) -> Result<Vec<AttentionMap>> {
        Err(Error::input("this denoiser does not expose its attention"))
    }
}

impl<F: Fn(&Tensor, f64) -> Result<Tensor> + Sync> Denoiser for F {
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        self(z, t)
    }
}

/// Whether there is classifier-free guidance at this scale: above 1, as in diffusers' pipelines. A scale below 1 would turn
/// away from the prompt, and 0 would ignore it.
pub fn guides(scale: f64) -> bool {
    scale > 1.0
}

/// A U-Net under classifier-free guidance (Ho and Salimans): ε = ε_u + s (ε_c − ε_u), both halves in one batch.
pub struct CfgDenoiser {
    unet: Arc<UNet>,
    /// The unconditional and the conditional half, stacked; the conditional half alone where `scale` is `None`.
    conditioning: Conditioning,
    conditional: Conditioning,
    /// s.
    scale: Option<f64>,
}

impl CfgDenoiser {
    /// Combines both halves with s = `scale`. Without [`guides`], the unconditional half is skipped.
    pub fn new(unet: Arc<UNet>, conditional: &Conditioning, unconditional: &Conditioning, scale: f64) -> Result<Self> {
        if !guides(scale) {
            return Ok(Self::plain(unet, conditional));
        }
        Ok(CfgDenoiser {
            unet,
            conditioning: unconditional.stack(conditional)?,
            conditional: conditional.clone(),
            scale: Some(scale),
        })
    }

    /// Predicts with the conditional half alone.
    pub fn plain(unet: Arc<UNet>, conditional: &Conditioning) -> Self {
        CfgDenoiser { unet, conditioning: conditional.clone(), conditional: conditional.clone(), scale: None }
    }

    /// Returns the same denoiser with GLIGEN's fusers off.
    pub fn ungrounded(&self) -> Self {
        let ungrounded = |c: &Conditioning| Conditioning { objs: None, ..c.clone() };
        CfgDenoiser {
            unet: self.unet.clone(),
            conditioning: ungrounded(&self.conditioning),
            conditional: ungrounded(&self.conditional),
            scale: self.scale,
        }
    }

    /// Computes ε_u and ε_c.
    fn halves(&self, z: &Tensor, t: f64) -> Result<(Tensor, Tensor)> {
        let both = self.unet.forward(&Tensor::cat(&[z, z], 0)?, t, &self.conditioning)?;
        let halves = both.chunk(2, 0)?;
        Ok((halves[0].clone(), halves[1].clone()))
    }
}

impl Denoiser for CfgDenoiser {
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        let Some(s) = self.scale else { return self.unet.forward(z, t, &self.conditioning) };
        let (u, c) = self.halves(z, t)?;
        Ok((&u + ((c - &u)? * s)?)?)
    }

    fn correction(&self, z: &Tensor, t: f64) -> Result<f64> {
        let Some(s) = self.scale else { return rms(&self.unet.forward(z, t, &self.conditioning)?) };
        let (u, c) = self.halves(z, t)?;
        Ok(s * rms(&(c - u)?)?)
    }

    fn attention_layers(&self) -> Vec<AttentionLayer> {
        self.unet.attention_layers()
    }

    fn attention_maps(
        &self,
        z: &Tensor,
        t: f64,
        kind: AttentionKind,
        places: &[AttentionLayer],
    ) -> Result<Vec<AttentionMap>> {
        self.unet.attention_maps(z, t, &self.conditional, kind, &|place| places.contains(place))
    }
}

/// Converts a prediction at ᾱ to ε; from v it is ε = √ᾱ v + √(1−ᾱ) z (Salimans and Ho).
pub fn epsilon(prediction_type: PredictionType, prediction: &Tensor, z: &Tensor, alpha_bar: f64) -> Result<Tensor> {
    match prediction_type {
        PredictionType::Epsilon => Ok(prediction.clone()),
        PredictionType::VPrediction => Ok(((prediction * alpha_bar.sqrt())? + (z * (1.0 - alpha_bar).sqrt())?)?),
    }
}

/// Returns x̂₀ = (z − √(1−ᾱ) ε) / √ᾱ.
pub fn predicted_x0(z: &Tensor, epsilon: &Tensor, alpha_bar: f64) -> Result<Tensor> {
    Ok(((z - (epsilon * (1.0 - alpha_bar).sqrt())?)? / alpha_bar.sqrt())?)
}
