//! Upsample.

use std::sync::Arc;

use anyhow::ensure;
use lsregen_diffusion::image::{Resampling, resize};
use lsregen_engine::{CheckContext, Context, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::raise;
use crate::values::Image;

/// Resizes a picture, up or down, to a width and height or by a factor.
///
/// LSReGen resizes the small layout picture with it before the large model encodes it. Smaller sizes are averaged
/// properly (antialias) by all methods but `nearest`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upsample {
    /// Width in pixels, together with `height`. A picture of other proportions is stretched.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16384))]
    pub width: Option<u32>,
    /// Height in pixels, together with `width`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16384))]
    pub height: Option<u32>,
    /// How many times larger each side gets, in place of `width` and `height`. The result is rounded to whole pixels.
    #[serde(default)]
    #[schemars(range(min = 0.01, max = 64.0))]
    pub factor: Option<f64>,
    /// The kernel. `bicubic` is the reference's; `lanczos` is a little sharper, `bilinear` softer; `nearest` repeats
    /// pixels.
    #[serde(default)]
    pub method: Resampling,
}

sockets! {
    pub struct UpsampleInputs {
        /// The picture.
        pub image: Arc<Image>,
    }
}

outputs! {
    pub struct UpsampleOutputs {
        /// The picture in its new size.
        pub image: Arc<Image>,
    }
}

/// Longest side that is made, in pixels.
const LONGEST: usize = 16384;

impl Node for Upsample {
    const TYPE: &'static str = "Upsample";
    const VERSION: u32 = 1;

    type Inputs = UpsampleInputs;
    type Outputs = UpsampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        let fault = match (self.width, self.height, self.factor) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => return vec![],
            (None, None, None) => NodeError::new("", "there is no size").help("give `width` and `height`, or `factor`"),
            (_, _, Some(_)) => {
                NodeError::new("factor", "the size is given twice, by `factor` and by `width` or `height`")
                    .help("keep `factor` alone, or `width` and `height`")
            }
            (Some(_), None, None) => NodeError::new("width", "there is a `width` but no `height`").help("add `height`"),
            (None, Some(_), None) => NodeError::new("height", "there is a `height` but no `width`").help("add `width`"),
        };
        vec![fault]
    }

    fn run(&self, inputs: UpsampleInputs, cx: &Context) -> anyhow::Result<UpsampleOutputs> {
        cx.cancel().check()?;
        let (w, h) = inputs.image.size()?;
        let side = |given: Option<u32>, old: usize| match (given, self.factor) {
            (Some(side), _) => side as usize,
            (None, factor) => ((old as f64 * factor.unwrap_or(1.0)).round() as usize).max(1),
        };
        let (width, height) = (side(self.width, w), side(self.height, h));
        ensure!(
            width.max(height) <= LONGEST,
            "{w}×{h} times {} is {width}×{height}, and {LONGEST} pixels is the most a side may have: lower `factor`",
            self.factor.unwrap_or(1.0)
        );
        let resized = resize(&inputs.image.0, height, width, self.method).map_err(raise)?;
        // Bicubic and Lanczos overshoot at edges.
        Ok(UpsampleOutputs { image: Arc::new(Image(resized.clamp(-1f32, 1f32)?)) })
    }
}
