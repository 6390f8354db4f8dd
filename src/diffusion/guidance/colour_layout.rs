//! Guides the mean colour of the predicted image in each box towards a given colour.

use candle_core::{Device, Tensor};

use super::{BoundGuidance, Extractor, GuidanceSettings, GuidanceSpec, Metric, SamplingRun, StepContext};
use crate::layout::{self, Bounds};
use crate::{Error, Result};

/// feat(image) = its mean colour in each box, (boxes, 3) in [0, 1].
pub struct ColourLayout {
    /// The weight of each pixel in the mean of each box, (boxes, H·W).
    weights: Tensor,
    /// (boxes, 3) in [0, 1].
    target: Tensor,
}

impl ColourLayout {
    /// Creates the extractor for images of this size.
    ///
    /// # Errors
    /// If a box contains no pixel.
    pub fn new(colours: &[(Bounds, [f32; 3])], height: usize, width: usize, device: &Device) -> Result<Self> {
        let mut weights = Vec::with_capacity(colours.len() * height * width);
        for (i, (bounds, _)) in colours.iter().enumerate() {
            let mask = layout::mask(&[*bounds], height, width, 0.0);
            let pixels: f32 = mask.iter().sum();
            if !layout::has_cell(*bounds, height, width) {
                return Err(Error::input(format!(
                    "box {i} of the colours contains no pixel of an image of {width}×{height}"
                )));
            }
            weights.extend(mask.iter().map(|m| m / pixels));
        }
        let target: Vec<f32> = colours.iter().flat_map(|(_, colour)| *colour).collect();
        Ok(ColourLayout {
            weights: Tensor::from_vec(weights, (colours.len(), height * width), device)?,
            target: Tensor::from_vec(target, (colours.len(), 3), device)?,
        })
    }
}

impl Extractor for ColourLayout {
    fn name(&self) -> &str {
        "colour layout"
    }

    fn feat(&self, picture: &Tensor, _: &StepContext) -> Result<Tensor> {
        let pixels = picture.squeeze(0)?.flatten_from(1)?.t()?.contiguous()?;
        let means = self.weights.to_dtype(pixels.dtype())?.matmul(&pixels)?;
        Ok(means.affine(0.5, 0.5)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(self.target.clone())
    }
}

/// Guidance towards colours in boxes.
#[derive(Debug)]
pub struct ColourLayoutGuidance {
    /// Each box and its colour, red, green and blue in [0, 1].
    pub colours: Vec<(Bounds, [f32; 3])>,
    /// The distance between colours.
    pub metric: Metric,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl GuidanceSpec for ColourLayoutGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let extractor = ColourLayout::new(&self.colours, run.height, run.width, run.device())?;
        Ok(vec![run.bound(extractor, self.metric.distance(), run.image_space()?, &self.settings)?])
    }
}
