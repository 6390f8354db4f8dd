//! Distances between a feature and its target, each a scalar with a gradient.
//!
//! A feature has any shape that its extractor returns; a distance that treats a dimension specially documents it.
//! Reductions are those of PyTorch's loss of the same name.

use std::sync::Arc;

use candle_core::{D, Tensor, Var};
use lsregen_tensor::ops;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A distance and its gradient with respect to the feature.
pub trait Distance: Send + Sync {
    /// D, a scalar, differentiable.
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor>;

    /// ∂D/∂feature, in the feature's shape. The default uses automatic differentiation.
    fn gradient(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let feature = Var::from_tensor(&feature.detach())?;
        let gradient = self.value(&feature, &target.detach())?.backward()?.remove(&feature);
        gradient.ok_or_else(|| Error::input("a distance that does not depend on the feature"))
    }
}

/// The distances that any feature can be compared by, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Metric {
    /// The sum of squared differences.
    #[default]
    L2,
    /// The mean of squared differences.
    L2Mean,
    /// The sum of absolute differences.
    L1,
    /// The sum of ½d² where |d| ≤ 1 and of |d| − ½ elsewhere.
    Huber,
    /// 1 − cos of the angle between the two, summed over samples.
    Cosine,
    /// The Frobenius norm of the difference of the two Gram matrices: texture, independent of position.
    Gram,
    /// Cross-entropy. The feature is the logits of classes, the target their probabilities.
    CrossEntropy,
}

impl Metric {
    /// Returns the distance of this name.
    pub fn distance(self) -> Arc<dyn Distance> {
        match self {
            Metric::L2 => Arc::new(SquaredL2),
            Metric::L2Mean => Arc::new(MeanSquaredL2),
            Metric::L1 => Arc::new(L1),
            Metric::Huber => Arc::new(Huber { delta: 1.0 }),
            Metric::Cosine => Arc::new(Cosine),
            Metric::Gram => Arc::new(GramFrobenius),
            Metric::CrossEntropy => Arc::new(CrossEntropy),
        }
    }
}

/// D = ‖f̄ − f‖², the sum over all elements: LSReGen's.
pub struct SquaredL2;

impl Distance for SquaredL2 {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        Ok((feature - target)?.sqr()?.sum_all()?)
    }

    fn gradient(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        Ok(((feature - target)? * 2.0)?)
    }
}

/// D = ‖f̄ − f‖² / N, the mean over all N elements.
pub struct MeanSquaredL2;

impl Distance for MeanSquaredL2 {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        Ok((feature - target)?.sqr()?.mean_all()?)
    }

    fn gradient(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        Ok(((feature - target)? * (2.0 / feature.elem_count() as f64))?)
    }
}

/// D = Σ |f̄ − f|.
pub struct L1;

impl Distance for L1 {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        Ok(absolute(&(feature - target)?)?.sum_all()?)
    }
}

/// |d| with the slope 0 at 0, as PyTorch has it; candle's own has 1 there.
fn absolute(d: &Tensor) -> Result<Tensor> {
    Ok(ops::keep_nan((d.relu()? + d.neg()?.relu()?)?, d)?)
}

/// D = Σ ½d² where |d| ≤ δ, else δ (|d| − ½δ), with d = f − f̄.
pub struct Huber {
    /// δ.
    pub delta: f64,
}

impl Distance for Huber {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let d = absolute(&(feature - target)?)?;
        // min(|d|, δ) = q: ½q² + δ (|d| − q) is both branches in one, with the right gradient at their border.
        let q = d.clamp(0.0, self.delta)?;
        Ok(((q.sqr()? * 0.5)? + ((&d - &q)? * self.delta)?)?.sum_all()?)
    }
}

/// D = Σ over samples of 1 − cos(f, f̄), each sample's feature flattened.
pub struct Cosine;

impl Distance for Cosine {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let rows = |x: &Tensor| x.flatten_from(1);
        let (f, g) = (rows(feature)?, rows(target)?);
        let norm = |x: &Tensor| x.sqr()?.sum(D::Minus1)?.affine(1.0, 1e-16)?.sqrt();
        let cosine = ((&f * &g)?.sum(D::Minus1)? / (norm(&f)? * norm(&g)?)?)?;
        Ok(cosine.affine(-1.0, 1.0)?.sum_all()?)
    }
}

/// D = ‖F Fᵀ/n − F̄ F̄ᵀ/n̄‖_F for features (…, d, n) of n positions: the difference of textures, independent of
/// position (Gatys et al.).
pub struct GramFrobenius;

impl GramFrobenius {
    /// F Fᵀ/n, (…, d, d).
    pub fn gram(f: &Tensor) -> Result<Tensor> {
        let n = f.dim(D::Minus1)?.max(1);
        Ok((f.matmul(&f.transpose(D::Minus1, D::Minus2)?.contiguous()?)? * (1.0 / n as f64))?)
    }
}

impl Distance for GramFrobenius {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let apart = (Self::gram(feature)? - Self::gram(target)?)?;
        // The square root is not differentiable at 0.
        Ok(apart.sqr()?.sum_all()?.affine(1.0, 1e-16)?.sqrt()?)
    }
}

/// D = −Σ_c p̄_c ln softmax(f)_c, the mean over positions, for logits and class probabilities (B, classes, …).
pub struct CrossEntropy;

impl Distance for CrossEntropy {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let places = feature.elem_count() / feature.dim(1)?.max(1);
        let log = candle_nn::ops::log_softmax(feature, 1)?;
        Ok(((log * target)?.sum_all()? * (-1.0 / places.max(1) as f64))?)
    }
}
