//! The backward guidance framework: z̃_t = z_t − γ ∇D, D = distance(feat(z_t), target_t) (the paper, §3.2).
//!
//! An [`Extractor`] computes the feature and its target; a [`Distance`] compares the two. The [`GuidanceSettings`] say how
//! strongly, when, how often and where the guidance acts; the [`FeatureSpace`] says what the feature is computed from. The
//! update is applied before the network is called. A [`GuidanceSpec`] is a guidance that is not yet bound to a run: for a
//! [`SamplingRun`] it returns [`BoundGuidance`]s. A [`Session`] keeps their state from step to step of one run.
//!
//! Each extractor has a file here. Deals with latents and the networks of a run, not with graphs.

mod settings;
pub mod attention;
pub mod box_energy;
pub mod bounded;
pub mod boxdiff;
pub mod clip;
pub mod colour_layout;
mod distance;
pub mod edges;
mod spec;
mod inversion;
mod low_pass;
pub mod onnx;
mod reference;
pub mod segmentation;
mod session;
pub mod style;

pub use bounded::BoundedAttentionGuidance;
pub use box_energy::LayoutGuidance;
pub use boxdiff::BoxDiffGuidance;
pub use clip::{ClipGoal, ClipGuidance};
pub use colour_layout::ColourLayoutGuidance;
pub use distance::{Cosine, CrossEntropy, Distance, GramFrobenius, Huber, L1, MeanSquaredL2, Metric, SquaredL2};
pub use edges::EdgesGuidance;
pub use inversion::{Inversion, InversionGuidance};
pub use low_pass::{LowPass, LowPassGuidance};
pub use onnx::{OnnxGoal, OnnxGuidance};
pub use reference::ReferenceGuidance;
pub use segmentation::SegmentationGuidance;
pub use session::Session;
pub use settings::{Auto, GuidanceSettings, Normalise, Region, Schedule, StepShare, Until, Window};
pub use spec::{GuidanceSpec, SamplingRun};
pub use style::StyleGuidance;

use std::sync::Arc;

use candle_core::{DType, Tensor, Var};

use crate::denoiser::{Denoiser, Prediction};
use crate::models::vae::AutoencoderKl;
use crate::reduce::{at_least_f32, numbers, rms, scalar};
use crate::schedule::Parameterisation;
use crate::{Error, Result, ops};

/// A step of a sampling run, and the network that it calls.
#[derive(Clone, Copy)]
pub struct StepContext<'a> {
    /// Number of the step, from 0.
    pub step: usize,
    /// Number of steps of the run.
    pub steps: usize,
    /// The timestep t.
    pub t: f64,
    /// ᾱ_t.
    pub alpha_bar: f64,
    /// What the network predicts.
    pub parameterisation: Parameterisation,
    /// The network, under the run's conditioning.
    pub denoiser: &'a dyn Denoiser,
}

impl StepContext<'_> {
    /// Returns x̂₀ = (z − √(1−ᾱ) ε_θ(z, t)) / √ᾱ: the clean latent that the run's own prediction implies, differentiable
    /// through the network.
    pub fn predicted_x0(&self, z: &Tensor) -> Result<Tensor> {
        let raw = self.denoiser.predict(z, self.t)?;
        Ok(Prediction::new(self.parameterisation, raw, z, self.alpha_bar)?.x0)
    }
}

/// What a feature is computed from. The gradient is propagated from this space back to z_t.
#[derive(Clone)]
pub enum FeatureSpace {
    /// The noisy latent z_t (B, C, h, w), and the network's attention at z_t.
    Latent,
    /// The predicted clean latent x̂₀ (B, C, h, w); the gradient goes through the network.
    PredictedX0,
    /// The predicted image (B, 3, H, W), nominally in [-1, 1]; the gradient goes through the network and the decoder.
    Image(Arc<AutoencoderKl>),
}

impl FeatureSpace {
    /// Maps z_t into this space.
    fn map(&self, z: &Tensor, at: &StepContext) -> Result<Tensor> {
        match self {
            FeatureSpace::Latent => Ok(z.clone()),
            FeatureSpace::PredictedX0 => at.predicted_x0(z),
            FeatureSpace::Image(vae) => vae.decode(&at.predicted_x0(z)?),
        }
    }
}

/// A feature, and the target that it is compared with.
pub trait Extractor: Send + Sync {
    /// Returns a short name for messages.
    fn name(&self) -> &str;

    /// Computes the feature of `x`, a point of the guidance's [`FeatureSpace`]; differentiable.
    fn feat(&self, x: &Tensor, at: &StepContext) -> Result<Tensor>;

    /// Returns the target of the feature at t.
    fn target(&self, at: &StepContext) -> Result<Tensor>;

    /// Whether the feature is `x` itself, so that the gradient of the distance is also that of the latent.
    fn is_identity(&self) -> bool {
        false
    }
}

/// A guidance bound to one sampling run. Clones share its tensors and networks.
#[derive(Clone)]
pub struct BoundGuidance {
    /// The feature and its target.
    pub extractor: Arc<dyn Extractor>,
    /// The distance between the two.
    pub distance: Arc<dyn Distance>,
    /// What the feature is computed from.
    pub space: FeatureSpace,
    /// How strongly, when and how often the guidance acts.
    pub settings: GuidanceSettings,
    /// The mask by which the gradient is multiplied, (1, 1, h, w). `None` is 1 everywhere.
    pub mask: Option<Tensor>,
}

/// A latent after an update, and numbers on its device that nothing has read yet.
pub struct Update {
    /// z̃_t.
    pub z: Tensor,
    /// D at z_t, if it was wanted.
    pub d: Option<Tensor>,
    /// The RMS of z̃_t and of z_t, (2) in f64.
    sizes: Tensor,
}

impl BoundGuidance {
    /// Returns ∇_z D in the dtype of z. Returns D too, a tensor without dimensions, if it is `wanted`, or if the gradient needs
    /// it anyway.
    ///
    /// The gradient has a closed form where the feature is the latent itself; otherwise it comes from automatic
    /// differentiation, through the network if the feature space is the predicted x₀ or the image. Feature and target are
    /// compared in f32 or f64, whatever the dtype of the network.
    pub fn gradient(&self, z: &Tensor, at: &StepContext, wanted: bool) -> Result<(Option<Tensor>, Tensor)> {
        ops::on_pool_for(z.device(), || {
            let target = self.extractor.target(at)?.detach();
            if self.extractor.is_identity() && matches!(self.space, FeatureSpace::Latent) {
                let (feature, target) = comparable(z, &target)?;
                let d = wanted.then(|| self.distance.value(&feature, &target)).transpose()?;
                return Ok((d, self.distance.gradient(&feature, &target)?.to_dtype(z.dtype())?));
            }
            let var = Var::from_tensor(&z.detach())?;
            let feature = self.extractor.feat(&self.space.map(&var, at)?, at)?;
            let (feature, target) = comparable(&feature, &target)?;
            let d = self.distance.value(&feature, &target)?;
            let gradient = d.backward()?.remove(&var).ok_or_else(|| {
                let name = self.extractor.name();
                Error::input(format!("guidance `{name}`: its feature does not depend on the latent"))
            })?;
            Ok((Some(d.detach()), gradient))
        })
    }

    /// Returns D at z_t.
    pub fn value(&self, z: &Tensor, at: &StepContext) -> Result<f64> {
        let feature = self.extractor.feat(&self.space.map(z, at)?, at)?;
        let (feature, target) = comparable(&feature, &self.extractor.target(at)?)?;
        scalar(&self.distance.value(&feature, &target)?)
    }

    /// Returns z̃_t = z_t − γ(t) M ⊙ ∇D (the paper, §3.2), and D at z_t if [`GuidanceSettings::until`] needs it.
    ///
    /// # Errors
    /// If z̃_t is not finite or has exploded. The error names the guidance, the step and the settings to lower.
    pub fn step(&self, z: &Tensor, at: &StepContext) -> Result<(Option<f64>, Tensor)> {
        let update = self.update(z, at)?;
        let (d, sizes) = update.read()?;
        self.check(sizes, at)?;
        Ok((d, update.z))
    }

    /// [`BoundGuidance::step`] without reading anything from the device, and therefore without its check.
    pub fn update(&self, z: &Tensor, at: &StepContext) -> Result<Update> {
        let wanted = self.settings.until != Until::Never;
        let (d, mut gradient) = self.gradient(z, at, wanted)?;
        if let Some(mask) = &self.mask {
            gradient = gradient.broadcast_mul(mask)?;
        }
        let gamma = self.settings.scale_at(at);
        let moved = match self.settings.normalise {
            Normalise::None => (gradient * gamma)?,
            Normalise::Freedom => {
                // With a dimension: for tensors without one, candle asks CUDA for no bytes at all, which is an error.
                let (size, correction) = (rms(&gradient)?.reshape(1)?, at.denoiser.correction(z, at.t)?.reshape(1)?);
                // Without a gradient the latent stays.
                let factor = size.gt(0f64)?.where_cond(&(correction / &size)?, &size.zeros_like()?)?;
                gradient.broadcast_mul(&(factor * gamma)?.to_dtype(gradient.dtype())?)?
            }
        };
        let updated = (z - moved)?;
        let sizes = Tensor::stack(&[rms(&updated)?, rms(z)?], 0)?;
        Ok(Update { z: updated, d: d.filter(|_| wanted), sizes })
    }

    /// Checks the sizes of z̃_t and z_t.
    ///
    /// # Errors
    /// As [`BoundGuidance::step`].
    fn check(&self, [size, before]: [f64; 2], at: &StepContext) -> Result<()> {
        // The values of a latent are of the order of 1 at every t.
        if size.is_finite() && size <= EXPLODED * before.max(1.0) {
            return Ok(());
        }
        let how = if size.is_finite() { format!("the latent grew to {size:.1e}") } else { "it is not finite".into() };
        Err(Error::input(format!(
            "guidance `{}` diverged at step {} of {} (t = {}): {how}. Lower its `scale` or `strength` (γ is {:.3e} there), \
             guide fewer steps (`window`), repeat it less (`repeats`), or normalise it (`normalise: freedom`)",
            self.extractor.name(),
            at.step + 1,
            at.steps,
            at.t,
            self.settings.scale_at(at),
        )))
    }
}

impl Update {
    /// Reads D and the sizes of both latents, all at once.
    fn read(&self) -> Result<(Option<f64>, [f64; 2])> {
        let Some(d) = &self.d else { return Ok((None, sizes(&numbers(&self.sizes)?))) };
        let all = Tensor::cat(&[&d.to_dtype(DType::F64)?.reshape(1)?, &self.sizes], 0)?;
        let all = numbers(&all)?;
        Ok((all.first().copied(), sizes(&all[1..])))
    }
}

fn sizes(pair: &[f64]) -> [f64; 2] {
    [pair[0], pair[1]]
}

/// Feature and target in one dtype: f32 or f64, because a distance sums many small differences.
fn comparable(feature: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor)> {
    let feature = at_least_f32(feature)?;
    let target = target.to_dtype(feature.dtype())?;
    Ok((feature, target))
}

/// The largest factor by which one update may enlarge a latent.
const EXPLODED: f64 = 100.0;
