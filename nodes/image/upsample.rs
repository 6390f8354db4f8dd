//! Upsample.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use lsregen_engine::{CheckContext, Context, Declaration, Links, Node, NodeError, outputs, sockets};
use lsregen_tensor::image::{Resampling, resize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::params::sampling::trained_side;
use crate::values::{Image, ImageInfo, ImageSize, Model, declared};

/// Resizes an image, up or down: to a width and height, by a factor, or to the size that a model was trained on.
///
/// LSReGen uses it to resize the small layout image before the large model encodes it. When an image shrinks, every method
/// but `nearest` averages its pixels (antialiasing).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upsample {
    /// Width in pixels, together with `height`. An image of other proportions is stretched.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16384))]
    pub width: Option<u32>,
    /// Height in pixels, together with `width`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16384))]
    pub height: Option<u32>,
    /// The factor by which each side grows, in place of `width` and `height`. The result is rounded to whole pixels.
    #[serde(default)]
    #[schemars(range(min = 0.01, max = 64.0))]
    pub factor: Option<f64>,
    /// The resampling kernel. `bicubic` is that of the paper's reference implementation; `lanczos` is slightly sharper,
    /// `bilinear` softer; `nearest` repeats pixels.
    #[serde(default)]
    pub method: Resampling,
}

sockets! {
    pub struct UpsampleInputs {
        /// The image, or a batch of them.
        pub image: Arc<Image>,
        /// A model: without `width`, `height` and `factor`, the result has the size of the images that it was trained on.
        pub model: Option<Arc<Model>>,
    }
}

outputs! {
    pub struct UpsampleOutputs {
        /// The image in its new size.
        pub image: Arc<Image>,
    }
}

/// The longest side of a result, in pixels.
const LONGEST: usize = 16384;

impl Upsample {
    /// Returns width and height of the result for an image of the size `old`, beside a model that was trained on images with
    /// sides of `trained` pixels; `None` if what decides it is not known.
    fn resized(&self, old: Option<(usize, usize)>, trained: Option<usize>) -> Option<(usize, usize)> {
        match (self.width, self.height, self.factor) {
            (Some(width), Some(height), _) => Some((width as usize, height as usize)),
            (_, _, Some(factor)) => {
                let side = |old: usize| ((old as f64 * factor).round() as usize).max(1);
                old.map(|(width, height)| (side(width), side(height)))
            }
            _ => trained.map(|side| (side, side)),
        }
    }

    /// Returns the error of a result that is too large, if it is.
    fn too_large(&self, (w, h): (usize, usize), (width, height): (usize, usize)) -> Option<String> {
        (width.max(height) > LONGEST).then(|| {
            let factor = self.factor.unwrap_or(1.0);
            format!("{w}×{h} times {factor} is {width}×{height}, but a side may have at most {LONGEST} pixels")
        })
    }
}

/// Returns the side in pixels of the images that the linked model was trained on, if there is one.
fn trained(links: &Links) -> Option<usize> {
    trained_side(links).map(|side| side as usize)
}

/// Returns the warning of an image whose proportions change by more than 2 %, if they do.
fn stretched(old: (usize, usize), new: (usize, usize)) -> Option<NodeError> {
    let proportions = |(width, height): (usize, usize)| width as f64 / height as f64;
    let change = proportions(new) / proportions(old);
    (!(1.0 / 1.02..=1.02).contains(&change)).then(|| {
        let ((w, h), (width, height)) = (old, new);
        NodeError::new("image", format!("the image of {w}×{h} pixels is stretched to {width}×{height}"))
            .help("give it the proportions of the result where it is made, or resize it by `factor`")
            .as_warning("stretched")
    })
}

impl Node for Upsample {
    const TYPE: &'static str = "Upsample";
    const VERSION: u32 = 1;

    type Inputs = UpsampleInputs;
    type Outputs = UpsampleOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        let error = match (self.width, self.height, self.factor) {
            (Some(_), Some(_), None) | (None, None, _) => return vec![],
            (_, _, Some(_)) => {
                NodeError::new("factor", "the size is given twice, by `factor` and by `width` or `height`")
                    .help("keep `factor` alone, or `width` and `height`")
            }
            (Some(_), None, None) => NodeError::new("width", "`width` is given without `height`").help("add `height`"),
            (None, Some(_), None) => NodeError::new("height", "`height` is given without `width`").help("add `width`"),
        };
        vec![error]
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        if self.width.or(self.height).is_none() && self.factor.is_none() && !links.has("model") {
            let error = NodeError::new("", "the size is missing");
            return vec![
                error.help("give `width` and `height`, or `factor`, or link a `model`, whose size it then has"),
            ];
        }
        let old = ImageInfo::of(links, "image").size.map(|size| (size.width as usize, size.height as usize));
        let Some((old, new)) = old.zip(self.resized(old, trained(links))) else { return vec![] };
        let too_large = self.too_large(old, new);
        let error = too_large.map(|message| NodeError::new("factor", message).help("lower `factor`"));
        // A factor changes proportions only by rounding.
        let stretched = || self.factor.is_none().then(|| stretched(old, new)).flatten();
        error.or_else(stretched).into_iter().collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let image = ImageInfo::of(links, "image");
        let old = image.size.map(|size| (size.width as usize, size.height as usize));
        let size = self.resized(old, trained(links)).and_then(|(width, height)| {
            Some(ImageSize { width: width.try_into().ok()?, height: height.try_into().ok()? })
        });
        declared("image", Some(ImageInfo { size, ..image }))
    }

    fn run(&self, inputs: UpsampleInputs, cx: &Context) -> anyhow::Result<UpsampleOutputs> {
        cx.cancel().check()?;
        let (w, h) = inputs.image.size()?;
        let trained = inputs.model.map(|model| model.0.info.picture_size);
        let (width, height) = self.resized(Some((w, h)), trained).context("the size is missing")?;
        if let Some(message) = self.too_large((w, h), (width, height)) {
            bail!("{message}: lower `factor`");
        }
        let image = inputs.image.each(|image| {
            cx.cancel().check()?;
            let resized = resize(&image.tensor()?, height, width, self.method).map_err(raise)?;
            // Bicubic and Lanczos overshoot at edges.
            Ok(Image::Float(resized.clamp(-1f32, 1f32)?))
        });
        Ok(UpsampleOutputs { image: Arc::new(image?) })
    }
}
