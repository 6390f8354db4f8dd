//! Guides the edges of the predicted image towards those of a drawing or of another image.
//!
//! The filter is Sobel's on the grey image in [0, 1]: a step from black to white is an edge of strength 1. A trained line
//! extractor can replace it as an ONNX network.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BoundGuidance, Extractor, GuidanceSettings, GuidanceSpec, Metric, SamplingRun, StepContext};
use crate::Result;
use crate::image::grey;

/// feat(image) = the strength of its edges, (1, 1, H, W).
pub struct Edges {
    /// The target edges.
    pub target: Tensor,
}

/// Computes √(g_x² + g_y² + ε) of Sobel's two filters over 4: (B, 1, H, W) → (B, 1, H, W). The border is mirrored.
pub fn sobel(grey: &Tensor) -> Result<Tensor> {
    // Each filter is a difference in one direction and a mean in the other.
    let line = |x: &Tensor, dim: usize, weights: [f64; 3]| -> Result<Tensor> {
        let n = x.dim(dim)?;
        let mirrored = |i: usize| {
            if n == 1 {
                0
            } else if i == 0 {
                1
            } else {
                n - 2
            }
        };
        let (first, last) = (x.narrow(dim, mirrored(0), 1)?, x.narrow(dim, mirrored(n), 1)?);
        let padded = Tensor::cat(&[&first, x, &last], dim)?;
        let parts = weights.iter().enumerate().filter(|(_, w)| **w != 0.0);
        let parts = parts.map(|(i, w)| Ok((padded.narrow(dim, i, n)? * *w)?)).collect::<Result<Vec<_>>>()?;
        Ok(parts[1..].iter().try_fold(parts[0].clone(), |sum, part| sum + part)?)
    };
    let (difference, mean) = ([-0.5, 0.0, 0.5], [0.5, 1.0, 0.5]);
    let gx = line(&line(grey, 3, difference)?, 2, mean)?;
    let gy = line(&line(grey, 2, difference)?, 3, mean)?;
    Ok((gx.sqr()? + gy.sqr()?)?.affine(1.0, 1e-6)?.sqrt()?)
}

impl Extractor for Edges {
    fn name(&self) -> &str {
        "edges"
    }

    fn feat(&self, picture: &Tensor, _: &StepContext) -> Result<Tensor> {
        sobel(&grey(picture)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(self.target.clone())
    }
}

/// How the edges of a drawing are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Drawing {
    /// The image's own edges, by the same filter.
    #[default]
    Picture,
    /// Dark lines on a light ground.
    DarkLines,
    /// Light lines on a dark ground.
    LightLines,
}

/// Guidance towards the edges of a drawing.
#[derive(Debug)]
pub struct EdgesGuidance {
    /// (1, 3, H, W) in [-1, 1], of any size.
    pub picture: Tensor,
    /// How its edges are read.
    pub drawing: Drawing,
    /// The distance between edge maps.
    pub metric: Metric,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl GuidanceSpec for EdgesGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        let grey = grey(&run.fitted(&self.picture)?)?;
        let target = match self.drawing {
            Drawing::Picture => sobel(&grey)?,
            Drawing::DarkLines => grey.affine(-1.0, 1.0)?,
            Drawing::LightLines => grey,
        };
        Ok(vec![run.bound(Edges { target }, self.metric.distance(), run.image_space()?, &self.settings)?])
    }

    fn bytes(&self) -> usize {
        self.picture.elem_count() * self.picture.dtype().size_in_bytes()
    }
}
