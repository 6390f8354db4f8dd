//! Denoisers: the prediction for a noisy latent, under classifier-free guidance. Samplers use nothing else of a model.

use std::sync::Arc;

use candle_core::Tensor;
use lsregen_tensor::ops::{Mix, mix};

use crate::models::unet::{AttentionKind, AttentionLayer, AttentionMap};
use crate::models::unet::{Conditioning, FreeU, PassOptions, Perturbed, UNet};
use crate::perturbed_attention::PerturbedAttention;
use crate::reduce::{at_least_f32, rms};
use crate::schedule::{Parameterisation, PredictionType};
use crate::{Error, Result};

/// A network that predicts for the latent z_t what its parameterisation says: ε, v, x₀ or EDM's F.
pub trait Denoiser: Sync {
    /// Predicts for `z` (B, C, h, w) in the variance-preserving space, at `t`: the training timestep, or ¼ ln σ for EDM.
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor>;

    /// Returns the RMS of classifier-free guidance's correction, s (ε_c − ε_u); without such guidance, that of the prediction.
    /// Perturbed-attention guidance is a part of the prediction, but not of this correction. The result is a tensor without
    /// dimensions in f64.
    fn correction(&self, z: &Tensor, t: f64) -> Result<Tensor> {
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

/// Whether there is classifier-free guidance at this scale: above 1, as in diffusers' pipelines. Below 1 the prompt
/// would count less, and at 0 not at all.
pub fn guides(scale: f64) -> bool {
    scale > 1.0
}

/// A U-Net under classifier-free guidance (Ho and Salimans): ε = ε_u + s (ε_c − ε_u), both halves in one batch.
pub struct CfgDenoiser {
    unet: Arc<UNet>,
    /// The unconditional and the conditional half, stacked; the conditional half alone where `scale` is `None`. Where there is
    /// an `image_scale`, a part without text and image comes first.
    conditioning: Conditioning,
    conditional: Conditioning,
    /// s.
    scale: Option<f64>,
    /// s_I of a network that edits an image.
    image_scale: Option<f64>,
    /// σ_data of a network that is told ¼ ln σ.
    sigma_data: Option<f64>,
    options: CfgOptions,
    /// FreeU's factors.
    freeu: Option<FreeU>,
    perturbation: Option<Perturbation>,
}

/// Perturbed-attention guidance, with the conditioning of its batches: the perturbed part comes last.
#[derive(Clone)]
struct Perturbation {
    guidance: PerturbedAttention,
    layers: Arc<[AttentionLayer]>,
    /// After all parts of classifier-free guidance.
    guided: Conditioning,
    /// After the conditional part alone.
    plain: Conditioning,
}

/// How classifier-free guidance acts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CfgOptions {
    /// φ, the share of the prediction that gets the spread of the conditional one (Lin et al., section 3.4). A zero terminal
    /// SNR needs it.
    pub rescale: f64,
    /// The lowest and the highest timestep at which there is such guidance; by default all.
    pub timesteps: Option<(f64, f64)>,
    /// Whether the network receives the nearest whole timestep, as in ComfyUI.
    pub whole_timesteps: bool,
}

impl CfgDenoiser {
    /// Combines both halves with s = `scale`. Without [`guides`], the unconditional half is skipped.
    pub fn new(unet: Arc<UNet>, conditional: &Conditioning, unconditional: &Conditioning, scale: f64) -> Result<Self> {
        if !guides(scale) {
            return Ok(Self::plain(unet, conditional));
        }
        let conditioning = unconditional.stack(conditional)?;
        Ok(CfgDenoiser { conditioning, scale: Some(scale), ..Self::plain(unet, conditional) })
    }

    /// Combines both halves, which have the latent of an image as channels, with the prediction without text and image:
    /// ε = ε_u + s (ε_c − ε_i) + s_I (ε_i − ε_u) (InstructPix2Pix, Brooks et al., eq. 3), where ε_i is the unconditional half,
    /// and ε_u has zeros in place of the image. Without [`guides`], and with s_I below 1, there is no guidance at all, as in
    /// diffusers.
    pub fn editing(
        unet: Arc<UNet>,
        conditional: &Conditioning,
        unconditional: &Conditioning,
        scale: f64,
        image_scale: f64,
    ) -> Result<Self> {
        if !guides(scale) || image_scale < 1.0 {
            return Ok(Self::plain(unet, conditional));
        }
        let channels = unconditional.channels.as_ref().map(Tensor::zeros_like).transpose()?;
        let neither = Conditioning { channels, ..unconditional.clone() };
        let conditioning = neither.stack(unconditional)?.stack(conditional)?;
        let (scale, image_scale) = (Some(scale), Some(image_scale));
        Ok(CfgDenoiser { conditioning, scale, image_scale, ..Self::plain(unet, conditional) })
    }

    /// Sets how classifier-free guidance acts.
    #[must_use]
    pub fn with_options(mut self, options: CfgOptions) -> Self {
        self.options = options;
        self
    }

    /// What the network is told at t.
    fn c_noise(&self, t: f64) -> f64 {
        if self.options.whole_timesteps { t.round() } else { t }
    }

    /// Changes the network by FreeU.
    #[must_use]
    pub fn with_freeu(mut self, freeu: Option<FreeU>) -> Self {
        self.freeu = freeu;
        self
    }

    /// Adds perturbed-attention guidance: ε + s (ε_c − ε_p), where ε is the prediction under classifier-free guidance, or the
    /// conditional one ε_c where there is none. The prediction ε_p is conditional, on the prompt and on the image that an
    /// editing network takes. [`CfgOptions::rescale`] acts on the sum, as in diffusers; [`CfgOptions::timesteps`] is for
    /// classifier-free guidance alone.
    ///
    /// # Errors
    /// If the network lacks one of the layers.
    pub fn with_perturbed_attention(mut self, guidance: &PerturbedAttention) -> Result<Self> {
        self.perturbation = Some(Perturbation {
            layers: guidance.of(&self.unet.attention_layers())?.into(),
            guidance: guidance.clone(),
            guided: self.conditioning.stack(&self.conditional)?,
            plain: self.conditional.stack(&self.conditional)?,
        });
        Ok(self)
    }

    /// s at t, if there is guidance.
    fn scale_at(&self, t: f64) -> Option<f64> {
        let (low, high) = self.options.timesteps.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
        self.scale.filter(|_| (low..=high).contains(&t))
    }

    /// Scales the network's input as this parameterisation requires.
    #[must_use]
    pub fn with_parameterisation(mut self, parameterisation: Parameterisation) -> Self {
        self.sigma_data = parameterisation.sigma_data;
        self
    }

    /// The network's input: z itself, or x/√(σ² + σ_data²) (Karras et al., table 1), where t is ¼ ln σ.
    fn input(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        let Some(sigma_data) = self.sigma_data else { return Ok(z.clone()) };
        let variance = (8.0 * t).exp();
        Ok((z * ((variance + 1.0) / (variance + sigma_data * sigma_data)).sqrt())?)
    }

    /// Predicts with the conditional half alone.
    pub fn plain(unet: Arc<UNet>, conditional: &Conditioning) -> Self {
        let conditional = conditional.clone();
        CfgDenoiser {
            unet,
            conditioning: conditional.clone(),
            conditional,
            scale: None,
            image_scale: None,
            sigma_data: None,
            options: CfgOptions::default(),
            freeu: None,
            perturbation: None,
        }
    }

    /// Returns the same denoiser with GLIGEN's fusers off.
    pub fn ungrounded(&self) -> Self {
        let ungrounded = |c: &Conditioning| Conditioning { objs: None, ..c.clone() };
        let perturbation = self.perturbation.as_ref().map(|p| Perturbation {
            guided: ungrounded(&p.guided),
            plain: ungrounded(&p.plain),
            ..p.clone()
        });
        CfgDenoiser {
            unet: self.unet.clone(),
            conditioning: ungrounded(&self.conditioning),
            conditional: ungrounded(&self.conditional),
            perturbation,
            ..*self
        }
    }

    /// Computes ε_u, ε_i of a network that edits an image, and ε_c; without `guides`, ε_c alone. A `perturbation` adds ε_p.
    fn parts(&self, z: &Tensor, t: f64, guides: bool, perturbation: Option<&Perturbation>) -> Result<Vec<Tensor>> {
        let z = self.input(z, t)?;
        let own = match (guides, self.image_scale) {
            (false, _) => 1,
            (true, None) => 2,
            (true, Some(_)) => 3,
        };
        let conditioning = match (guides, perturbation) {
            (false, None) => &self.conditional,
            (false, Some(p)) => &p.plain,
            (true, None) => &self.conditioning,
            (true, Some(p)) => &p.guided,
        };
        let count = own + usize::from(perturbation.is_some());
        let from = own * z.dim(0)?;
        let perturbed = perturbation.map(|p| Perturbed { layers: p.layers.clone(), from });
        let options = PassOptions { freeu: self.freeu, perturbed };
        let all =
            self.unet.forward_with(&Tensor::cat(&vec![&z; count], 0)?, self.c_noise(t), conditioning, &options)?;
        Ok(all.chunk(count, 0)?)
    }
}

/// s (ε_c − ε_i) + s_I (ε_i − ε_u) of three parts.
fn edit(parts: &[Tensor], s: f64, s_image: f64) -> Result<Tensor> {
    Ok((((&parts[2] - &parts[1])? * s)? + ((&parts[1] - &parts[0])? * s_image)?)?)
}

impl Denoiser for CfgDenoiser {
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        let cfg = self.scale_at(t);
        let perturbation = self.perturbation.as_ref().and_then(|p| Some((p.guidance.scale_at(t)?, p)));
        if cfg.is_none() && perturbation.is_none() {
            let options = PassOptions { freeu: self.freeu, perturbed: None };
            return self.unet.forward_with(&self.input(z, t)?, self.c_noise(t), &self.conditional, &options);
        }
        let mut parts = self.parts(z, t, cfg.is_some(), perturbation.map(|(_, p)| p))?;
        let perturbed = if perturbation.is_some() { parts.pop() } else { None };
        let (u, c) = (&parts[0], &parts[parts.len() - 1]);
        let mut guided = match (cfg, self.image_scale) {
            (Some(s), Some(s_image)) => (u + edit(&parts, s, s_image)?)?,
            (Some(s), None) => mix(u, c, Mix::Between(s))?,
            (None, _) => c.clone(),
        };
        if let (Some((s, _)), Some(p)) = (perturbation, &perturbed) {
            guided = (guided + ((c - p)? * s)?)?;
        }
        match self.options.rescale {
            share if cfg.is_some() && share != 0.0 => rescaled(&guided, c, share),
            _ => Ok(guided),
        }
    }

    fn correction(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        let Some(s) = self.scale_at(t) else { return rms(&self.predict(z, t)?) };
        let parts = self.parts(z, t, true, None)?;
        match self.image_scale {
            Some(s_image) => rms(&edit(&parts, s, s_image)?),
            None => Ok((rms(&(&parts[1] - &parts[0])?)? * s)?),
        }
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
        let (z, wanted) = (self.input(z, t)?, |place: &AttentionLayer| places.contains(place));
        let options = PassOptions { freeu: self.freeu, perturbed: None };
        self.unet.attention_maps(&z, self.c_noise(t), &self.conditional, kind, &wanted, &options)
    }
}

/// Lin et al., eq. 15 and 16: of a guided prediction, `share` gets the standard deviation of the conditional one.
fn rescaled(guided: &Tensor, conditional: &Tensor, share: f64) -> Result<Tensor> {
    let deviation = |x: &Tensor| -> Result<Tensor> { Ok(at_least_f32(x)?.flatten_from(1)?.var_keepdim(1)?.sqrt()?) };
    let ratio = (deviation(conditional)? / deviation(guided)?)?;
    let factor = ratio.affine(share, 1.0 - share)?.unsqueeze(2)?.unsqueeze(3)?.to_dtype(guided.dtype())?;
    Ok(guided.broadcast_mul(&factor)?)
}

/// √ᾱ x̂₀ + √(1−ᾱ) ε.
pub(crate) fn noised(x0: &Tensor, e: &Tensor, alpha_bar: f64) -> Result<Tensor> {
    Ok(mix(x0, e, Mix::Sum(alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()))?)
}

/// What a network's prediction for z_t implies.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The network's prediction.
    pub raw: Tensor,
    /// x̂₀, the clean latent.
    pub x0: Tensor,
    /// ε.
    pub e: Tensor,
}

impl Prediction {
    /// Converts the prediction `raw` for `z` at ᾱ.
    ///
    /// From ε, x̂₀ = (z − √(1−ᾱ) ε)/√ᾱ. From v, x̂₀ = √ᾱ z − √(1−ᾱ) v and ε = √ᾱ v + √(1−ᾱ) z (Salimans and Ho). From
    /// EDM's F, x̂₀ = c_skip x + c_out F (Karras et al., table 1), with c_out negative if F is of the sign of v.
    pub fn new(parameterisation: Parameterisation, raw: Tensor, z: &Tensor, alpha_bar: f64) -> Result<Prediction> {
        let (signal, noise) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        if let Some(data) = parameterisation.sigma_data {
            let (sigma, sign) = match parameterisation.prediction {
                PredictionType::Epsilon => (noise / signal, 1.0),
                _ => (noise / signal, -1.0),
            };
            let spread = sigma * sigma + data * data;
            let (skip, out) = (data * data / spread, sign * sigma * data / spread.sqrt());
            let x0 = mix(z, &raw, Mix::Sum(skip / signal, out))?;
            return Self::of_x0(x0, raw, z, alpha_bar);
        }
        match parameterisation.prediction {
            PredictionType::Epsilon => {
                let x0 = mix(z, &raw, Mix::Without(noise, signal))?;
                Ok(Prediction { x0, e: raw.clone(), raw })
            }
            PredictionType::VPrediction => {
                let x0 = mix(z, &raw, Mix::Sum(signal, -noise))?;
                let e = mix(&raw, z, Mix::Sum(signal, noise))?;
                Ok(Prediction { raw, x0, e })
            }
            PredictionType::Sample => Self::of_x0(raw.clone(), raw, z, alpha_bar),
        }
    }

    /// The ε that x̂₀ implies: ε = (z − √ᾱ x̂₀)/√(1−ᾱ).
    pub fn of_x0(x0: Tensor, raw: Tensor, z: &Tensor, alpha_bar: f64) -> Result<Prediction> {
        let e = mix(z, &x0, Mix::Without(alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()))?;
        Ok(Prediction { raw, x0, e })
    }
}
