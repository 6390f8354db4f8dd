//! Guides the coarse part of the latent towards that of a reference image.
//!
//! Choi et al., ILVR, eq. 8: z' = z − φ(z) + φ(z̄_t), where φ is a low-pass filter of factor N. With an orthogonal projection
//! for φ, here the mean of each N × N block, this is the update of D = ‖φ(z) − φ(z̄_t)‖² with γ = ½.

use candle_core::{Device, Tensor};
use lsregen_tensor::Constants;

use super::{BoundGuidance, Extractor, FeatureSpace, GuidanceSettings, GuidanceSpec, Metric, SamplingRun, StepContext};
use crate::inversion::Trajectory;
use crate::{Result, inversion};

/// feat(z) = φ(z), target_t = φ(z̄_t).
pub struct LowPass {
    /// z̄_t, the reference's noisy latents.
    pub trajectory: Trajectory,
    /// N, in latent pixels.
    pub factor: usize,
    /// The matrices of φ.
    means: Constants<(usize, usize)>,
}

impl LowPass {
    /// Extracts the coarse part, in blocks of `factor` latent pixels.
    pub fn new(trajectory: Trajectory, factor: usize) -> Self {
        LowPass { trajectory, factor, means: Constants::default() }
    }

    /// Computes φ(z): each pixel becomes the mean of its block. Blocks at the right and lower border may be smaller.
    pub fn filter(z: &Tensor, factor: usize) -> Result<Tensor> {
        Self::filter_by(z, factor, &Constants::default())
    }

    fn filter_by(z: &Tensor, factor: usize, means: &Constants<(usize, usize)>) -> Result<Tensor> {
        let (_, _, h, w) = z.dims4()?;
        let matrix = |n: usize| means.get((n, factor), z.dtype(), z.device(), || block_means(n, factor, z.device()));
        Ok(matrix(h)?.broadcast_matmul(&z.broadcast_matmul(&matrix(w)?)?)?)
    }
}

/// Returns the matrix (n, n) that averages n pixels in a line over their blocks. It is symmetric and idempotent.
fn block_means(n: usize, factor: usize, device: &Device) -> Result<Tensor> {
    let factor = factor.max(1);
    let weight = |i: usize, j: usize| {
        let block = i / factor;
        let size = factor.min(n - block * factor);
        if j / factor == block { 1.0 / size as f32 } else { 0.0 }
    };
    let weights: Vec<f32> = (0..n).flat_map(|i| (0..n).map(move |j| weight(i, j))).collect();
    Ok(Tensor::from_vec(weights, (n, n), device)?)
}

impl Extractor for LowPass {
    fn name(&self) -> &str {
        "low pass"
    }

    fn feat(&self, z: &Tensor, _: &StepContext) -> Result<Tensor> {
        Self::filter_by(z, self.factor, &self.means)
    }

    fn target(&self, at: &StepContext) -> Result<Tensor> {
        Self::filter_by(self.trajectory.at(at.t)?, self.factor, &self.means)
    }
}

/// Guidance towards the coarse part of an image.
#[derive(Debug)]
pub struct LowPassGuidance {
    /// (1, 3, H, W) in [-1, 1], of any size.
    pub picture: Tensor,
    /// N, in latent pixels.
    pub factor: usize,
    /// The distance between the coarse parts.
    pub metric: Metric,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl GuidanceSpec for LowPassGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let z0 = run.model.vae()?.encode(&run.fitted(&self.picture)?)?;
        let keep = self.settings.window.steps(run.sampler.timesteps()).end;
        let trajectory = inversion::noise(&z0, run.sampler, &run.noise(false)?, keep)?;
        let extractor = LowPass::new(trajectory, self.factor);
        Ok(vec![run.bound(extractor, self.metric.distance(), FeatureSpace::Latent, &self.settings)?])
    }

    fn bytes(&self) -> usize {
        self.picture.elem_count() * self.picture.dtype().size_in_bytes()
    }
}
