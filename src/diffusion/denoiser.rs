//! What a sampler sees of a model: a prediction for a noisy latent, under classifier-free guidance.

use std::sync::Arc;

use candle_core::Tensor;

use crate::guidance::rms;
use crate::models::unet::{AttentionKind, AttentionLayer, AttentionMap};
use crate::models::unet::{Conditioning, UNet};
use crate::schedule::PredictionType;
use crate::{Error, Result};

/// Predicts ε (or v) for the latent z_t at t.
pub trait Denoiser: Sync {
    /// `z` (B, C, h, w) in the variance-preserving space, `t` in timesteps of training.
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor>;

    /// The size (RMS) of what classifier-free guidance adds, s (ε_c − ε_u); that of the prediction where there is none.
    fn correction(&self, z: &Tensor, t: f64) -> Result<f64> {
        rms(&self.predict(z, t)?)
    }

    /// Where its network attends, in the order in which it walks; nowhere that it shows, if there is nothing.
    fn attention_layers(&self) -> Vec<AttentionLayer> {
        vec![]
    }

    /// The attention of the conditional half in these places, for `z` of one sample; differentiable.
    fn attention_maps(
        &self,
        _z: &Tensor,
        _t: f64,
        _kind: AttentionKind,
        _places: &[AttentionLayer],
    ) -> Result<Vec<AttentionMap>> {
        Err(Error::input("this denoiser does not show where it attends"))
    }
}

impl<F: Fn(&Tensor, f64) -> Result<Tensor> + Sync> Denoiser for F {
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        self(z, t)
    }
}

/// Classifier-free guidance (Ho and Salimans): ε = ε_u + s (ε_c − ε_u), both halves in one batch.
pub struct Guided {
    unet: Arc<UNet>,
    conditioning: Conditioning,
    /// Its conditional half.
    conditional: Conditioning,
    scale: Option<f64>,
}

impl Guided {
    /// With `scale` 1 the unconditional half is not computed.
    pub fn new(unet: Arc<UNet>, conditional: &Conditioning, unconditional: &Conditioning, scale: f64) -> Result<Self> {
        if scale == 1.0 {
            return Ok(Self::plain(unet, conditional));
        }
        Ok(Guided {
            unet,
            conditioning: unconditional.stack(conditional)?,
            conditional: conditional.clone(),
            scale: Some(scale),
        })
    }

    /// The conditional prediction alone.
    pub fn plain(unet: Arc<UNet>, conditional: &Conditioning) -> Self {
        Guided { unet, conditioning: conditional.clone(), conditional: conditional.clone(), scale: None }
    }

    /// The same without grounding: GLIGEN's fusers off.
    pub fn ungrounded(&self) -> Self {
        let ungrounded = |c: &Conditioning| Conditioning { objs: None, ..c.clone() };
        Guided {
            unet: self.unet.clone(),
            conditioning: ungrounded(&self.conditioning),
            conditional: ungrounded(&self.conditional),
            scale: self.scale,
        }
    }

    /// ε_u and ε_c.
    fn halves(&self, z: &Tensor, t: f64) -> Result<(Tensor, Tensor)> {
        let both = self.unet.forward(&Tensor::cat(&[z, z], 0)?, t, &self.conditioning)?;
        let halves = both.chunk(2, 0)?;
        Ok((halves[0].clone(), halves[1].clone()))
    }
}

impl Denoiser for Guided {
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

/// ε from the prediction at ᾱ.
pub fn epsilon(kind: PredictionType, prediction: &Tensor, z: &Tensor, alpha_bar: f64) -> Result<Tensor> {
    match kind {
        PredictionType::Epsilon => Ok(prediction.clone()),
        PredictionType::VPrediction => Ok(((prediction * alpha_bar.sqrt())? + (z * (1.0 - alpha_bar).sqrt())?)?),
    }
}

/// x̂₀ from ε: (z − √(1−ᾱ) ε) / √ᾱ.
pub fn predicted(z: &Tensor, epsilon: &Tensor, alpha_bar: f64) -> Result<Tensor> {
    Ok(((z - (epsilon * (1.0 - alpha_bar).sqrt())?)? / alpha_bar.sqrt())?)
}
