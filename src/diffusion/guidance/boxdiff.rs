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

use std::ops::Range;
use std::sync::Arc;

use candle_core::{D, Device, Tensor};

use super::attention::{
    Layers, PromptObject, cell_mask, cells, columns, index, mean_map, objects_in_prompt, resolution,
};
use super::{
    BoundGuidance, Distance, Extractor, FeatureSpace, GuidanceSettings, GuidanceSpec, SamplingRun, StepContext, Until,
    Window,
};
use crate::layout::{Bounds, GroundedPhrase};
use crate::order;
use crate::{Error, Result};

/// feat(z_t) = the smoothed attention of each object, (objects, h, w).
pub struct ObjectAttention {
    layers: Layers,
    /// The index of the words of each object, without the first token.
    words: Vec<Tensor>,
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
        let object = |index: &Tensor| -> Result<Tensor> {
            // Smoothing is linear: the sum is smoothed once.
            Self::smooth(&columns(&share, index)?.sum(D::Minus1)?.reshape((h, w))?)
        };
        Ok(Tensor::stack(&self.words.iter().map(object).collect::<Result<Vec<_>>>()?, 0)?)
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
    /// The terms of the loss.
    pub terms: Terms,
    objects: Vec<BoxCells>,
}

/// What the loss needs of an object's mask, prepared when the guidance is bound, so that no step reads it back.
struct BoxCells {
    /// Cells inside.
    inside: f64,
    /// Cells outside.
    outside: f64,
    /// c_x, (w), and c_y, (h): 1 near an edge of the box.
    near: [Tensor; 2],
}

impl BoxLoss {
    /// The published share P.
    pub const SHARE: f64 = 0.2;
    /// The published distance in cells up to which a cell is near an edge.
    pub const REACH: usize = 1;

    /// Prepares the published loss for these boxes in maps of `(h, w)` cells.
    pub fn published(terms: Terms, boxes: &[Bounds], (h, w): (usize, usize), device: &Device) -> Result<Self> {
        let object = |bounds: &Bounds| {
            let (rows, columns) = box_cells(*bounds, h, w);
            let inside = (rows.len() * columns.len()) as f64;
            let near = |cells: &Range<usize>, n: usize| {
                let near = |edge: usize| edge.saturating_sub(Self::REACH)..(edge + Self::REACH + 1).min(n);
                let (start, end) = (near(cells.start), near(cells.end));
                let c = (0..n).map(|i| f32::from(u8::from(start.contains(&i) || end.contains(&i))));
                Tensor::from_vec(c.collect::<Vec<f32>>(), n, device)
            };
            let near = [near(&columns, w)?, near(&rows, h)?];
            Ok(BoxCells { inside, outside: (h * w) as f64 - inside, near })
        };
        let objects = boxes.iter().map(object).collect::<Result<_>>()?;
        Ok(BoxLoss { share: Self::SHARE, terms, objects })
    }

    /// Returns the mean of the largest P · `cells` numbers, at least one. Outside of a box that covers the whole image it
    /// is 0.
    fn top(&self, x: &Tensor, cells: f64) -> Result<Tensor> {
        let flat = x.flatten_all()?;
        let k = ((self.share * cells) as usize).clamp(1, flat.dim(0)?);
        order::mean_of_largest(&flat, k)
    }

    /// Returns mean |max A − max M| c along one axis, after the maximum over `over`.
    fn corners(a: &Tensor, m: &Tensor, over: usize, near: &Tensor) -> Result<Tensor> {
        Ok(((a.max(over)? - m.max(over)?)?.abs()? * near.to_dtype(a.dtype())?)?.mean_all()?)
    }
}

/// The cells of a box in a map of `h` × `w`.
fn box_cells(bounds: Bounds, h: usize, w: usize) -> (Range<usize>, Range<usize>) {
    cells(bounds, h, w, f64::round_ties_even)
}

impl Distance for BoxLoss {
    fn value(&self, feature: &Tensor, target: &Tensor) -> Result<Tensor> {
        let mut inside = Vec::with_capacity(self.objects.len());
        let mut rest = Vec::new();
        for (i, object) in self.objects.iter().enumerate() {
            let (a, m) = (feature.get(i)?, target.get(i)?);
            inside.push(self.top(&(&a * &m)?, object.inside)?.affine(-1.0, 1.0)?.relu()?);
            if self.terms == Terms::All {
                rest.push(self.top(&(&a * m.affine(-1.0, 1.0)?)?, object.outside)?.relu()?);
                for (over, near) in object.near.iter().enumerate() {
                    rest.push(Self::corners(&a, &m, over, near)?);
                }
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
}

impl GuidanceSpec for BoxDiffGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let objects = objects_in_prompt(&self.layout, run)?;
        let boxes: Vec<Bounds> = objects.iter().map(|o| o.bounds).collect();
        let (h, w) = run.latent_size();
        let downscale = resolution(self.downscale, run)?;
        let (h, w) = (h.div_ceil(downscale), w.div_ceil(downscale));
        let masks: Vec<f32> = boxes.iter().flat_map(|b| cell_mask(*b, h, w, f64::round_ties_even)).collect();
        // The begin-of-text token, which is left out, comes before every word.
        let words = |o: &PromptObject| index(&o.positions.iter().map(|p| p - 1).collect::<Vec<_>>(), run.device());
        let extractor = Arc::new(ObjectAttention {
            layers: Layers::Downscale(downscale),
            masks: Tensor::from_vec(masks, (objects.len(), h, w), run.device())?,
            words: objects.iter().map(words).collect::<Result<_>>()?,
        });
        let loss = |terms| Ok::<_, Error>(Arc::new(BoxLoss::published(terms, &boxes, (h, w), run.device())?));
        let whole = run.bound_by(extractor.clone(), loss(Terms::All)?, FeatureSpace::Latent, &self.settings)?;
        let refinement = |&(share, inside): &(f64, f64)| -> Result<BoundGuidance> {
            let settings = GuidanceSettings {
                window: Window::step(share),
                repeats: self.refinements,
                until: Until::Reached(1.0 - inside),
                ..self.settings.clone()
            };
            run.bound_by(extractor.clone(), loss(Terms::WorstInside)?, FeatureSpace::Latent, &settings)
        };
        self.refined.iter().map(refinement).chain([Ok(whole)]).collect()
    }
}
