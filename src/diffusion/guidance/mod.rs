//! The backward guidance framework: z̃_t = z_t − γ ∇D, D = distance(feat(z_t), target_t) (the paper, §3.2).
//!
//! An [`Extractor`] supplies the feature and its ideal value, a [`Distance`] how far apart they are; a [`Guidance`] says
//! what the feature is taken of (its [`View`]) and how, when and where it acts ([`Acting`]). The update comes before the
//! network is called. A [`Guide`] is a guidance before it is known what run it guides: it makes [`Guidance`]s for a
//! [`Run`]. A [`Session`] keeps what guidances remember from step to step of one run.
//!
//! Each extractor has a file here. Knows latents and what a run's networks show of them; knows no graph.

mod acting;
pub mod attention;
pub mod box_energy;
pub mod bounded;
pub mod boxdiff;
pub mod clip;
pub mod colour_layout;
mod distance;
pub mod edges;
mod guide;
mod inversion;
mod low_pass;
pub mod onnx;
mod reference;
pub mod segmentation;
mod session;
pub mod style;

pub use acting::{Acting, Auto, Normalise, Region, Schedule, Until, Window};
pub use bounded::BoundedGuide;
pub use box_energy::LayoutGuidance;
pub use boxdiff::BoxDiff;
pub use clip::{ClipGoal, ClipGuide};
pub use colour_layout::ColourLayoutGuide;
pub use distance::{Cosine, CrossEntropy, Distance, GramFrobenius, Huber, L1, MeanSquaredL2, Metric, SquaredL2};
pub use edges::EdgesGuide;
pub use guide::{Guide, Run};
pub use inversion::{Inversion, Inverted};
pub use low_pass::{LowPass, LowPassGuide};
pub use onnx::{OnnxGoal, OnnxGuide};
pub use reference::Reference;
pub use segmentation::SegmentationGuide;
pub use session::Session;
pub use style::StyleGuide;

use std::sync::Arc;

use candle_core::{DType, Tensor, Var};

use crate::denoiser::{Denoiser, epsilon, predicted};
use crate::models::vae::AutoencoderKl;
use crate::schedule::PredictionType;
use crate::{Error, Result, ops};

/// Where a sampling run stands, and the network that it samples with.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// Number of the step, from 0.
    pub step: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Timestep.
    pub t: f64,
    /// ᾱ_t.
    pub alpha_bar: f64,
    /// What the network predicts.
    pub kind: PredictionType,
    /// The network, under the run's conditioning.
    pub denoiser: &'a dyn Denoiser,
}

impl Moment<'_> {
    /// x̂₀ = (z − √(1−ᾱ) ε_θ(z, t)) / √ᾱ: the clean latent as the run's own prediction for z has it, differentiable
    /// through the network.
    pub fn clean(&self, z: &Tensor) -> Result<Tensor> {
        let e = epsilon(self.kind, &self.denoiser.predict(z, self.t)?, z, self.alpha_bar)?;
        predicted(z, &e, self.alpha_bar)
    }
}

/// What a feature is taken of. Gradients go back from there to z_t.
#[derive(Clone)]
pub enum View {
    /// The noisy latent z_t (B, C, h, w), and what the network shows of it.
    Latent,
    /// The predicted clean latent x̂₀ (B, C, h, w): the gradient goes through the network.
    Clean,
    /// The predicted picture (B, 3, H, W), nominally in [-1, 1]: through the network and the decoder.
    Picture(Arc<AutoencoderKl>),
}

impl View {
    fn of(&self, z: &Tensor, at: &Moment) -> Result<Tensor> {
        match self {
            View::Latent => Ok(z.clone()),
            View::Clean => at.clean(z),
            View::Picture(vae) => vae.decode(&at.clean(z)?),
        }
    }
}

/// A feature of the intermediate variable, and the value that it ought to have.
pub trait Extractor: Send + Sync {
    /// Short name, for messages.
    fn name(&self) -> &str;

    /// The feature of `x`, which is what the guidance's [`View`] shows; differentiable.
    fn feat(&self, x: &Tensor, at: &Moment) -> Result<Tensor>;

    /// The ideal feature at t.
    fn target(&self, at: &Moment) -> Result<Tensor>;

    /// Whether the feature is `x` itself, so that the distance's own gradient is that of the latent.
    fn is_identity(&self) -> bool {
        false
    }
}

/// One guidance: what, by which measure, and how it acts. Clones share what is heavy.
#[derive(Clone)]
pub struct Guidance {
    /// The feature and its ideal.
    pub extractor: Arc<dyn Extractor>,
    /// How far they are apart.
    pub distance: Arc<dyn Distance>,
    /// What the feature is taken of.
    pub view: View,
    /// How strongly and when it acts.
    pub acting: Acting,
    /// Where it acts: (1, 1, h, w), multiplied to the gradient. Everywhere alike if absent.
    pub mask: Option<Tensor>,
}

impl Guidance {
    /// ∇_z D, and D where it is `wanted` or falls off by the way.
    ///
    /// In closed form where the feature is the latent itself; else by automatic differentiation, through the network
    /// where the view asks for it.
    pub fn gradient(&self, z: &Tensor, at: &Moment, wanted: bool) -> Result<(Option<f64>, Tensor)> {
        ops::on_pool_for(z.device(), || {
            let target = self.extractor.target(at)?.detach();
            if self.extractor.is_identity() && matches!(self.view, View::Latent) {
                let value = wanted.then(|| scalar(&self.distance.value(z, &target)?)).transpose()?;
                return Ok((value, self.distance.gradient(z, &target)?));
            }
            let var = Var::from_tensor(&z.detach())?;
            let feature = self.extractor.feat(&self.view.of(&var, at)?, at)?;
            let d = self.distance.value(&feature, &target)?;
            let gradient = d.backward()?.remove(&var).ok_or_else(|| {
                let name = self.extractor.name();
                Error::input(format!("guidance `{name}`: its feature does not depend on the latent"))
            })?;
            Ok((Some(scalar(&d)?), gradient))
        })
    }

    /// D at z_t.
    pub fn value(&self, z: &Tensor, at: &Moment) -> Result<f64> {
        let feature = self.extractor.feat(&self.view.of(z, at)?, at)?;
        scalar(&self.distance.value(&feature, &self.extractor.target(at)?)?)
    }

    /// z − γ(t) M ⊙ ∇D, and D before it. D is not computed where nothing asks for it.
    ///
    /// Errors if the result is not finite or has exploded, naming the guidance, the step and what to lower.
    pub fn step(&self, z: &Tensor, at: &Moment) -> Result<(Option<f64>, Tensor)> {
        let wanted = self.acting.until != Until::Spent;
        let (value, mut gradient) = self.gradient(z, at, wanted)?;
        if let Some(mask) = &self.mask {
            gradient = gradient.broadcast_mul(mask)?;
        }
        let mut scale = self.acting.scale_at(at);
        if self.acting.normalise == Normalise::Freedom {
            let (size, wanted) = (rms(&gradient)?, at.denoiser.correction(z, at.t)?);
            scale *= if size > 0.0 { wanted / size } else { 0.0 };
        }
        let updated = (z - (gradient * scale)?)?;
        let size = rms(&updated)?;
        // A latent's numbers are near 1 at every t.
        if !size.is_finite() || size > EXPLODED * rms(z)?.max(1.0) {
            return Err(self.diverged(at, size));
        }
        Ok((value, updated))
    }

    fn diverged(&self, at: &Moment, size: f64) -> Error {
        let how = if size.is_finite() { format!("the latent grew to {size:.1e}") } else { "it is not finite".into() };
        Error::input(format!(
            "guidance `{}` diverged at step {} of {} (t = {}): {how}. Lower its `scale` or `strength` (γ is {:.3e} there), \
             let it act in fewer steps (`window`), repeat it less (`repeats`), or bound it (`normalise: freedom`)",
            self.extractor.name(),
            at.step + 1,
            at.steps,
            at.t,
            self.acting.scale_at(at),
        ))
    }
}

/// How many times its size a latent may grow in one update.
const EXPLODED: f64 = 100.0;

/// A tensor's one number.
pub(crate) fn scalar(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// √ of the mean square.
pub(crate) fn rms(x: &Tensor) -> Result<f64> {
    Ok(scalar(&x.to_dtype(DType::F32)?.sqr()?.mean_all()?)?.sqrt())
}
