//! BoxDiff: guides the cross-attention of each object's words into its box (Xie et al., ICCV 2023).
//!
//! A is the mean of all cross-attention of one resolution: without the first and the last token, × 100, softmax over the
//! rest, smoothed. An object of several words has the sum of their attention. With the mask M of the box, the share P of
//! cells that count and the cells c near the edges of the box:
//!
//! ```text
//!     L_ib = Σ max(0, 1 − mean topk_P(A ⊙ M))        L_ob = Σ mean topk_P(A ⊙ (1−M))
//!     L_cx = Σ mean_x |max_y A − max_y M| c_x        L_cy likewise
//! ```
//!
//! In the first half of the steps z ← z − 20 √(1 … ½) ∇(L_ib + L_ob + L_cx + L_cy). Three of these steps are refined first: up
//! to 20 updates by the largest L_ib alone, until it is small enough.

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::attention::{Layers, cell_mask, cells, columns, mean_map, objects_in_prompt, resolution};
use super::{
    BoundGuidance, Distance, Extractor, FeatureSpace, GuidanceSettings, GuidanceSpec, SamplingRun, StepContext, Until,
    Window,
};
use crate::layout::Bounds;
use crate::layout::GroundedPhrase;
use crate::reduce::scalar;
use crate::{Error, Result};

/// feat(z_t) = the smoothed attention of each object, (objects, h, w).
pub struct ObjectAttention {
    layers: Layers,
    /// The token positions of the words of each object.
    positions: Vec<Vec<usize>>,
    /// The masks of the boxes, (objects, h, w).
    masks: Tensor,
}

/// σ of the smoothing kernel, which is e^(−((x−1)/2σ)²) at x = 0, 1, 2 in each direction.
const SIGMA: f64 = 0.5;

impl ObjectAttention {
    /// Smooths (h, w) by the kernel of 3 × 3; the border is mirrored.
    fn smooth(map: &Tensor) -> Result<Tensor> {
        let side = (-(1.0 / (2.0 * SIGMA)).powi(2)).exp();
        let total = 1.0 + 2.0 * side;
        let line = |x: &Tensor, dim: usize| -> Result<Tensor> {
            let n = x.dim(dim)?;
            let (before, after) = (1.min(n - 1), n.saturating_sub(2));
            let padded = Tensor::cat(&[&x.narrow(dim, before, 1)?, x, &x.narrow(dim, after, 1)?], dim)?;
            let part = |i: usize, w: f64| -> Result<Tensor> { Ok((padded.narrow(dim, i, n)? * (w / total))?) };
            Ok(((part(0, side)? + part(1, 1.0)?)? + part(2, side)?)?)
        };
        line(&line(map, 0)?, 1)
    }
}

impl Extractor for ObjectAttention {
    fn name(&self) -> &str {
        "BoxDiff"
    }

    fn feat(&self, z: &Tensor, at: &StepContext) -> Result<Tensor> {
        let maps = self.layers.maps(z, at)?;
        let (h, w) = maps.first().map_or((0, 0), |map| map.size);
        let map = mean_map(&maps)?;
        // The begin-of-text token takes most of the attention and carries no position.
        let tokens = map.dim(1)?.saturating_sub(2);
        let share = candle_nn::ops::softmax(&(map.narrow(1, 1, tokens)? * 100.0)?, D::Minus1)?;
        let object = |positions: &Vec<usize>| -> Result<Tensor> {
            let shifted: Vec<usize> = positions.iter().map(|p| p - 1).collect();
            // Smoothing is linear: the sum is smoothed once.
            Self::smooth(&columns(&share, &shifted)?.sum(D::Minus1)?.reshape((h, w))?)
        };
        Ok(Tensor::stack(&self.positions.iter().map(object).collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(self.masks.clone())
    }
}

/// The losses of BoxDiff that the distance contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// L_ib + L_ob + L_cx + L_cy.
    All,
    /// The largest L_ib of all objects, which refinement follows.
    WorstInside,
}

/// BoxDiff's distance between attention (objects, h, w) and masks of the same shape.
pub struct BoxLoss {
    /// P.
    pub share: f64,
    /// The distance in cells up to which a cell is near an edge.
    pub reach: usize,
    /// The terms of the loss.
    pub terms: Terms,
}

impl BoxLoss {
    /// Returns the published loss: P = 0.2, a reach of one cell.
    pub fn published(terms: Terms) -> Self {
        BoxLoss { share: 0.2, reach: 1, terms }
    }

    /// Returns the mean of the largest P · `cells` numbers, at least one.
    fn top(&self, x: &Tensor, cells: f64) -> Result<Tensor> {
        let flat = x.flatten_all()?;
        let k = ((self.share * cells) as usize).clamp(1, flat.dim(0)?);
        let order = flat.detach().arg_sort_last_dim(false)?.narrow(0, 0, k)?;
        Ok(flat.index_select(&order.contiguous()?, 0)?.mean_all()?)
    }

    /// Returns mean |max A − max M| c along one axis, after the maximum over `over`.
    fn corners(&self, a: &Tensor, m: &Tensor, over: usize) -> Result<Tensor> {
        let near = {
            let line: Vec<f32> = m.max(over)?.to_dtype(candle_core::DType::F32)?.to_vec1()?;
            let n = line.len();
            let start = line.iter().position(|v| *v > 0.5).unwrap_or(0);
            let end = line.iter().rposition(|v| *v > 0.5).map_or(n, |last| last + 1);
            let near = |edge: usize| edge.saturating_sub(self.reach)..(edge + self.reach + 1).min(n);
            let c = (0..n).map(|i| f32::from(u8::from(near(start).contains(&i) || near(end).contains(&i))));
            Tensor::from_vec(c.collect::<Vec<f32>>(), n, a.device())?.to_dtype(a.dtype())?
        };
        Ok(((a.max(over)? - m.max(over)?)?.abs()? * near)?.mean_all()?)
    }
}

impl Distance for BoxLoss {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let objects = feature.dim(0)?;
        let mut inside = Vec::with_capacity(objects);
        let mut rest = Vec::new();
        for i in 0..objects {
            let (a, m) = (feature.get(i)?, target.get(i)?);
            let within = scalar(&m.sum_all()?)?;
            let outside = m.elem_count() as f64 - within;
            inside.push(self.top(&(&a * &m)?, within)?.affine(-1.0, 1.0)?.relu()?);
            if self.terms == Terms::All {
                rest.push(self.top(&(&a * m.affine(-1.0, 1.0)?)?, outside)?.relu()?);
                rest.push(self.corners(&a, &m, 0)?);
                rest.push(self.corners(&a, &m, 1)?);
            }
        }
        let inside = Tensor::stack(&inside, 0)?;
        if self.terms == Terms::WorstInside {
            return Ok(inside.max(0)?);
        }
        Ok((inside.sum_all()? + Tensor::stack(&rest, 0)?.sum_all()?)?)
    }
}

/// Guidance by the loss of BoxDiff.
#[derive(Debug)]
pub struct BoxDiffGuidance {
    /// Phrases in boxes; the prompt must contain them.
    pub layout: Vec<GroundedPhrase>,
    /// Resolution of the attention maps that are used: latent pixels along each side of one pixel of the map, 4 for 16²
    /// of 64². By default the one whose maps are nearest to the published 16 × 16.
    pub downscale: Option<usize>,
    /// The refined steps as shares of the run, and the attention that the inside of every box must reach there.
    pub refined: Vec<(f64, f64)>,
    /// The largest number of updates of a refined step.
    pub refinements: usize,
    /// How the complete loss acts.
    pub settings: GuidanceSettings,
}

impl BoxDiffGuidance {
    /// The published settings: γ = 20, falling, in the first half of the steps.
    pub fn defaults() -> GuidanceSettings {
        GuidanceSettings {
            scale: 20.0,
            schedule: super::Schedule::BoxDiff,
            window: Window::first(0.5),
            ..GuidanceSettings::default()
        }
    }

    /// The published refined steps: the first, the 11th and the 21st of 50.
    pub const REFINED: [(f64, f64); 3] = [(0.0, 0.05), (0.2, 0.5), (0.4, 0.8)];
    /// The published number of updates in each of them.
    pub const REFINEMENTS: usize = 20;

    /// Returns the extractor for a run.
    pub fn extractor(&self, run: &SamplingRun) -> Result<ObjectAttention> {
        let objects = objects_in_prompt(&self.layout, run)?;
        let latent = run.latent_size();
        let downscale = resolution(self.downscale, run)?;
        let (h, w) = (latent.0.div_ceil(downscale), latent.1.div_ceil(downscale));
        let masks: Vec<f32> = objects.iter().flat_map(|o| cell_mask(o.bounds, h, w, f64::round_ties_even)).collect();
        if objects.iter().any(|o| fills_map(o.bounds, latent, downscale)) {
            return Err(Error::input(
                "BoxDiff: a box covers the whole image, so that nothing is outside it; make it smaller",
            ));
        }
        Ok(ObjectAttention {
            layers: Layers::Downscale(downscale),
            masks: Tensor::from_vec(masks, (objects.len(), h, w), run.device())?,
            positions: objects.into_iter().map(|o| o.positions).collect(),
        })
    }
}

/// Whether a box covers every cell of the attention maps of `downscale` over a latent of `(h, w)`, so that nothing is outside.
pub fn fills_map(bounds: Bounds, (h, w): (usize, usize), downscale: usize) -> bool {
    let (h, w) = (h.div_ceil(downscale), w.div_ceil(downscale));
    let (rows, columns) = cells(bounds, h, w, f64::round_ties_even);
    rows.len() * columns.len() == h * w
}

impl GuidanceSpec for BoxDiffGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let extractor = Arc::new(self.extractor(run)?);
        let whole = run.bound_by(
            extractor.clone(),
            Arc::new(BoxLoss::published(Terms::All)),
            FeatureSpace::Latent,
            &self.settings,
        )?;
        let refinement = |&(share, inside): &(f64, f64)| -> Result<BoundGuidance> {
            let settings = GuidanceSettings {
                window: Window::step(share),
                repeats: self.refinements,
                until: Until::Reached(1.0 - inside),
                ..self.settings.clone()
            };
            run.bound_by(
                extractor.clone(),
                Arc::new(BoxLoss::published(Terms::WorstInside)),
                FeatureSpace::Latent,
                &settings,
            )
        };
        self.refined.iter().map(refinement).chain([Ok(whole)]).collect()
    }
}
