//! Guides each pixel's attention towards the words of its region in a segmentation map.
//!
//! The network's own cross-attention segments the image: p(word | pixel) among the words of the prompt. The probability
//! of a region is that of its phrase. The background belongs to the remaining words and the end of the text. The
//! distance is the cross-entropy to the map. This extends layout-guidance to regions of any shape. It also covers the
//! paper's segmentation maps as control information, without a second network.

use candle_core::{D, Tensor};

use super::attention::{Layers, columns, index, mean_map, resolution};
use super::{
    BoundGuidance, Extractor, FeatureSpace, GuidanceSettings, GuidanceSpec, Metric, SamplingRun, Schedule, StepContext,
    Window,
};
use crate::{Error, Result};

/// feat(z_t) = ln p(region | pixel), (1, regions + 1, cells); the last region is the background.
pub struct WordSegmentation {
    layers: Layers,
    /// The index of the words of each region, and last of the background.
    words: Vec<Tensor>,
    /// p̄, (1, regions + 1, cells).
    target: Tensor,
}

impl Extractor for WordSegmentation {
    fn name(&self) -> &str {
        "segmentation"
    }

    fn feat(&self, z: &Tensor, at: &StepContext) -> Result<Tensor> {
        let map = mean_map(&self.layers.maps(z, at)?)?;
        let region = |index: &Tensor| Ok(columns(&map, index)?.sum(D::Minus1)?);
        let attention = Tensor::stack(&self.words.iter().map(region).collect::<Result<Vec<_>>>()?, 0)?;
        let share = attention.broadcast_div(&(attention.sum_keepdim(0)? + 1e-12)?)?;
        Ok((share + 1e-12)?.log()?.unsqueeze(0)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(self.target.clone())
    }
}

/// A region of a map: its phrase and its colour, red, green and blue in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct ColouredPhrase {
    /// Words that the prompt also contains.
    pub phrase: String,
    /// Its colour in the map.
    pub colour: [f32; 3],
}

/// Guidance by a colour-coded map.
#[derive(Debug)]
pub struct SegmentationGuidance {
    /// The map, (1, 3, H, W) in [-1, 1], of any size.
    pub map: Tensor,
    /// Its regions.
    pub regions: Vec<ColouredPhrase>,
    /// The largest difference between the colours of a pixel and its region, in each channel, from 0 to 1.
    pub tolerance: f32,
    /// Resolution of the attention maps that are used: latent pixels along each side of one pixel of the attention map.
    /// By default the one whose maps are nearest to 16 × 16.
    pub downscale: Option<usize>,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl SegmentationGuidance {
    /// The defaults, after layout-guidance: in the first part of the steps, by the share of noise.
    pub fn defaults() -> GuidanceSettings {
        GuidanceSettings {
            scale: 30.0,
            schedule: Schedule::Noise,
            window: Window::first(0.4),
            repeats: 3,
            ..GuidanceSettings::default()
        }
    }

    /// Returns the share of each region, and last of the background, in each cell of `height` × `width`:
    /// (1, regions + 1, cells).
    ///
    /// # Errors
    /// If a region has no pixel in the map.
    pub fn shares(&self, height: usize, width: usize) -> Result<Tensor> {
        let picture = self.map.to_device(&candle_core::Device::Cpu)?.squeeze(0)?.affine(0.5, 0.5)?;
        let (_, h, w) = picture.dims3()?;
        let pixels: Vec<Vec<f32>> = picture.flatten_from(1)?.to_dtype(candle_core::DType::F32)?.to_vec2()?;
        let n = self.regions.len();
        let mut counts = vec![0f32; (n + 1) * height * width];
        let mut seen = vec![false; n + 1];
        for (i, pixel) in (0..h * w).map(|i| (i, [pixels[0][i], pixels[1][i], pixels[2][i]])) {
            let apart = |colour: &[f32; 3]| colour.iter().zip(pixel).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let near = self.regions.iter().map(|r| apart(&r.colour)).enumerate();
            let near = near.filter(|(_, apart)| *apart <= self.tolerance).min_by(|a, b| a.1.total_cmp(&b.1));
            let region = near.map_or(n, |(region, _)| region);
            seen[region] = true;
            let cell = (i / w * height / h) * width + i % w * width / w;
            counts[region * height * width + cell] += 1.0;
        }
        if let Some(region) = seen[..n].iter().position(|seen| !seen) {
            let ColouredPhrase { phrase, colour } = &self.regions[region];
            let [r, g, b] = colour.map(|v| (v * 255.0).round() as u8);
            return Err(Error::input(format!(
                "the map has no pixel of #{r:02x}{g:02x}{b:02x}, the colour of `{phrase}`"
            )));
        }
        let shares = Tensor::from_vec(counts, (1, n + 1, height * width), self.map.device())?;
        // If the map is smaller than the attention's, some cells have no pixel and add nothing to the distance.
        Ok(shares.broadcast_div(&shares.sum_keepdim(1)?.maximum(1f32)?)?)
    }
}

impl GuidanceSpec for SegmentationGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let words = run.model.words(run.prompt)?;
        let phrases = self.regions.iter().map(|region| run.model.positions(run.prompt, &region.phrase));
        let mut positions = phrases.collect::<Result<Vec<_>>>()?;
        let of_none = words.into_iter().filter(|p| !positions.iter().flatten().any(|taken| taken == p)).collect();
        positions.push(of_none);
        let (h, w) = run.latent_size();
        let downscale = resolution(self.downscale, run)?;
        let target = self.shares(h.div_ceil(downscale), w.div_ceil(downscale))?.to_device(run.device())?;
        let words = positions.iter().map(|positions| index(positions, run.device())).collect::<Result<_>>()?;
        let extractor = WordSegmentation { layers: Layers::Downscale(downscale), words, target };
        Ok(vec![run.bound(extractor, Metric::CrossEntropy.distance(), FeatureSpace::Latent, &self.settings)?])
    }

    fn bytes(&self) -> usize {
        self.map.elem_count() * self.map.dtype().size_in_bytes()
    }
}
