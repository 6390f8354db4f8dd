//! Which words of a prompt look where: what the guidances by cross-attention have in common.
//!
//! Knows where phrases stand in a prompt and how maps are gathered. Each loss has a file of its own.

use candle_core::{D, Tensor};

use super::{SamplingRun, StepContext};
use crate::layout::{Bounds, GroundedPhrase};
use crate::models::unet::{AttentionKind, AttentionLayer, AttentionMap, UNetBlock};
use crate::{Error, Result};

/// Which layers of a network are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Those whose map has one pixel for so many latent pixels a side.
    Downscale(usize),
    /// The middle, and the first block on the way up that attends.
    MidAndUp,
}

impl Layers {
    /// The places that are meant, of those that there are.
    ///
    /// Errors if there is none, saying which there are.
    pub fn of(self, places: &[AttentionLayer]) -> Result<Vec<AttentionLayer>> {
        let first_up = places.iter().find(|p| matches!(p.unet_block, UNetBlock::Up(_))).map(|p| p.unet_block);
        let meant = |p: &&AttentionLayer| match self {
            Layers::Downscale(downscale) => p.downscale == downscale,
            Layers::MidAndUp => p.unet_block == UNetBlock::Mid || Some(p.unet_block) == first_up,
        };
        let chosen: Vec<_> = places.iter().filter(meant).copied().collect();
        if chosen.is_empty() {
            let mut there: Vec<_> = places.iter().map(|p| p.downscale).collect();
            there.sort_unstable();
            there.dedup();
            let there: Vec<_> = there.iter().map(usize::to_string).collect();
            return Err(Error::input(format!(
                "this model has no attention of the wanted kind: its maps are of downscale {}",
                there.join(", ")
            )));
        }
        Ok(chosen)
    }

    /// Their cross-attention for z_t, under the run's own prompt.
    pub fn maps(self, z: &Tensor, at: &StepContext) -> Result<Vec<AttentionMap>> {
        self.maps_of(z, at, AttentionKind::Cross)
    }

    /// Their attention of this kind for z_t.
    pub fn maps_of(self, z: &Tensor, at: &StepContext, kind: AttentionKind) -> Result<Vec<AttentionMap>> {
        let wanted = self.of(&at.denoiser.attention_layers())?;
        at.denoiser.attention_maps(z, at.t, kind, &wanted)
    }
}

/// Side of the maps that the published guidances look at, in pixels of the map.
const SIDE: f64 = 16.0;

/// The resolution that counts in this run: the given one, or else that whose maps are nearest to the published 16 × 16.
///
/// Errors if the run's model has no attention of it.
pub fn resolution(downscale: Option<usize>, run: &SamplingRun) -> Result<usize> {
    let places = AttentionLayer::all(&run.model.blueprint().unet.0);
    if let Some(downscale) = downscale {
        Layers::Downscale(downscale).of(&places)?;
        return Ok(downscale);
    }
    let (h, w) = run.latent_size();
    let apart = |downscale: usize| (((h * w) as f64).sqrt() / downscale as f64 / SIDE).ln().abs();
    let nearest = places.iter().map(|p| p.downscale).min_by(|a, b| apart(*a).total_cmp(&apart(*b)));
    nearest.ok_or_else(|| Error::input("this model has no attention"))
}

/// The mean over heads and layers of maps of one size: (h·w, L).
pub fn mean_map(maps: &[AttentionMap]) -> Result<Tensor> {
    let means = maps.iter().map(|map| Ok(map.weights.squeeze(0)?.mean(0)?)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&means, 0)?.mean(0)?)
}

/// The columns of (…, L) at these positions: (…, n).
pub fn columns(weights: &Tensor, positions: &[usize]) -> Result<Tensor> {
    let index: Vec<u32> = positions.iter().map(|p| *p as u32).collect();
    Ok(weights.contiguous()?.index_select(&Tensor::new(index, weights.device())?, D::Minus1)?)
}

/// An object of a layout as its prompt has it.
#[derive(Clone, Debug)]
pub struct Spoken {
    /// Where its words stand among the tokens.
    pub positions: Vec<usize>,
    /// Its box.
    pub bounds: Bounds,
}

/// The objects of a layout, found in the run's prompt.
///
/// Errors if there are none, or if a phrase is not in the prompt.
pub fn spoken(layout: &[GroundedPhrase], run: &SamplingRun) -> Result<Vec<Spoken>> {
    if layout.is_empty() {
        return Err(Error::input("a guidance by attention needs at least one phrase in a box"));
    }
    let object = |object: &GroundedPhrase| {
        Ok(Spoken { positions: run.model.positions(run.prompt, &object.phrase)?, bounds: object.bounds })
    };
    layout.iter().map(object).collect()
}

/// The cells of a grid of `height` × `width` that a box covers: (rows, columns), at least one of each. `edge` makes a
/// whole number of an edge's place.
pub fn cells(
    [x0, y0, x1, y1]: Bounds,
    height: usize,
    width: usize,
    edge: fn(f64) -> f64,
) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let span = |from: f32, to: f32, n: usize| {
        let place = |v: f32| (edge(f64::from(v) * n as f64).max(0.0) as usize).min(n);
        let start = place(from).min(n.saturating_sub(1));
        start..place(to).max(start + 1)
    };
    (span(y0, y1, height), span(x0, x1, width))
}

/// 1 in the cells of a box, 0 outside, row by row.
pub fn cell_mask(bounds: Bounds, height: usize, width: usize, edge: fn(f64) -> f64) -> Vec<f32> {
    let (rows, columns) = cells(bounds, height, width, edge);
    let inside = |i: usize, j: usize| f32::from(u8::from(rows.contains(&i) && columns.contains(&j)));
    (0..height).flat_map(|i| (0..width).map(move |j| (i, j))).map(|(i, j)| inside(i, j)).collect()
}
