//! What the guidances by attention share: token positions, attention maps and masks of boxes.
//!
//! Each loss has a file of its own.

use candle_core::{D, Device, Tensor};

use super::{SamplingRun, StepContext};
use crate::layout::{Bounds, GroundedPhrase};
use crate::models::unet::{AttentionKind, AttentionLayer, AttentionMap, UNetBlock};
use crate::{Error, Result};

/// The attention layers of a network that a guidance uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Those whose map has one pixel for this number of latent pixels along each side.
    Downscale(usize),
    /// Those of the middle block and of the first upsampling block with attention.
    MidAndUp,
}

impl Layers {
    /// Selects from the layers of a network.
    ///
    /// # Errors
    /// If there is no such layer. The error lists the resolutions of the network.
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
                "this model has no attention of this resolution: its maps have downscale {}",
                there.join(", ")
            )));
        }
        Ok(chosen)
    }

    /// Computes their cross-attention at z_t, with the run's own prompt.
    pub fn maps(self, z: &Tensor, at: &StepContext) -> Result<Vec<AttentionMap>> {
        self.maps_of(z, at, AttentionKind::Cross)
    }

    /// Computes their attention of this kind at z_t.
    pub fn maps_of(self, z: &Tensor, at: &StepContext, kind: AttentionKind) -> Result<Vec<AttentionMap>> {
        let wanted = self.of(&at.denoiser.attention_layers())?;
        at.denoiser.attention_maps(z, at.t, kind, &wanted)
    }
}

/// Side of the maps of the published guidances, in pixels of the map.
const SIDE: f64 = 16.0;

/// Returns the resolution for a run: `downscale`, or else the one whose maps are nearest to the published 16 × 16.
///
/// # Errors
/// If the model has no attention of this resolution.
pub fn resolution(downscale: Option<usize>, run: &SamplingRun) -> Result<usize> {
    let places = AttentionLayer::all(&run.model.blueprint().unet.0);
    if let Some(downscale) = downscale {
        Layers::Downscale(downscale).of(&places)?;
        return Ok(downscale);
    }
    let downscales: Vec<_> = places.iter().map(|p| p.downscale).collect();
    nearest_resolution(&downscales, run.latent_size()).ok_or_else(|| Error::input("this model has no attention"))
}

/// Returns that of `downscales` at which the maps of a latent of `(h, w)` are nearest to the published ones.
fn nearest_resolution(downscales: &[usize], (h, w): (usize, usize)) -> Option<usize> {
    let apart = |downscale: usize| (((h * w) as f64).sqrt() / downscale as f64 / SIDE).ln().abs();
    downscales.iter().copied().min_by(|a, b| apart(*a).total_cmp(&apart(*b)))
}

/// Averages maps of one size over heads and layers: (h·w, L).
pub fn mean_map(maps: &[AttentionMap]) -> Result<Tensor> {
    let means = maps.iter().map(|map| Ok(map.weights.squeeze(0)?.mean(0)?)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&means, 0)?.mean(0)?)
}

/// Returns token positions as the index of [`columns`]. A guidance makes it once, when it is bound to a run.
pub fn index(positions: &[usize], device: &Device) -> Result<Tensor> {
    let index: Vec<u32> = positions.iter().map(|p| *p as u32).collect();
    Ok(Tensor::new(index, device)?)
}

/// Selects the columns of (…, L) at the positions of an [`index`]: (…, n).
pub fn columns(weights: &Tensor, index: &Tensor) -> Result<Tensor> {
    Ok(weights.contiguous()?.index_select(index, D::Minus1)?)
}

/// An object of a layout with its words in the prompt.
#[derive(Clone, Debug)]
pub struct PromptObject {
    /// The token positions of its words.
    pub positions: Vec<usize>,
    /// Its box.
    pub bounds: Bounds,
}

/// Finds the objects of a layout in the prompt of a run.
///
/// # Errors
/// If the layout is empty, or if a phrase is not in the prompt.
pub fn objects_in_prompt(layout: &[GroundedPhrase], run: &SamplingRun) -> Result<Vec<PromptObject>> {
    if layout.is_empty() {
        return Err(Error::input("a guidance by attention requires at least one phrase in a box"));
    }
    let object = |object: &GroundedPhrase| {
        Ok(PromptObject { positions: run.model.positions(run.prompt, &object.phrase)?, bounds: object.bounds })
    };
    layout.iter().map(object).collect()
}

/// Returns the cells of a grid of `height` × `width` that a box covers: (rows, columns), at least one of each. `edge` rounds
/// the position of an edge.
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

/// Returns the mask of a box, row by row: 1 in its cells, 0 outside.
pub fn cell_mask(bounds: Bounds, height: usize, width: usize, edge: fn(f64) -> f64) -> Vec<f32> {
    let (rows, columns) = cells(bounds, height, width, edge);
    let inside = |i: usize, j: usize| f32::from(u8::from(rows.contains(&i) && columns.contains(&j)));
    (0..height).flat_map(|i| (0..width).map(move |j| (i, j))).map(|(i, j)| inside(i, j)).collect()
}
