//! Prepares images for CLIP's image encoder as `preprocessor_config.json` says: resizes, crops the centre, normalises.
//! Differentiable.
//!
//! transformers' `CLIPImageProcessor` resizes 8-bit images and rounds twice. Here nothing is rounded, so that gradients
//! flow.

use candle_core::Tensor;
use serde::Deserialize;

use crate::image::{self, Resampling};
use crate::weights::ModelFiles;
use crate::{Error, Result};

const FILE: &str = "preprocessor_config.json";

/// The size after resizing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resize {
    /// The shorter side, in pixels; the aspect ratio is kept.
    Shortest(usize),
    /// Height and width.
    To(usize, usize),
}

/// The preparation of images for CLIP's image encoder.
#[derive(Clone, Debug)]
pub struct ClipProcessor {
    resize: Option<Resize>,
    resampling: Resampling,
    /// Height and width of the centre crop.
    crop: Option<(usize, usize)>,
    /// Mean of each channel, for values in [0, 1].
    mean: [f64; 3],
    std: [f64; 3],
}

/// A size in the forms that files have.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    One(usize),
    Shortest { shortest_edge: usize },
    Both { height: usize, width: usize },
}

fn yes() -> bool {
    true
}
fn bicubic() -> u8 {
    3
}
fn mean() -> [f64; 3] {
    [0.48145466, 0.4578275, 0.40821073]
}
fn std() -> [f64; 3] {
    [0.26862954, 0.26130258, 0.27577711]
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default = "yes")]
    do_resize: bool,
    size: Option<Size>,
    /// The number of PIL's resampling kernel.
    #[serde(default = "bicubic")]
    resample: u8,
    #[serde(default = "yes")]
    do_center_crop: bool,
    crop_size: Option<Size>,
    #[serde(default = "yes")]
    do_normalize: bool,
    #[serde(default = "mean")]
    image_mean: [f64; 3],
    #[serde(default = "std")]
    image_std: [f64; 3],
}

impl ClipProcessor {
    /// The preparation of CLIP itself for images of `side` pixels, for folders without a `preprocessor_config.json`.
    pub fn clip(side: usize) -> Self {
        ClipProcessor {
            resize: Some(Resize::Shortest(side)),
            resampling: Resampling::Bicubic,
            crop: Some((side, side)),
            mean: mean(),
            std: std(),
        }
    }

    /// Reads a folder's `preprocessor_config.json` and checks it against the encoder's `side`. Without such a file returns
    /// [`ClipProcessor::clip`].
    ///
    /// # Errors
    /// If the file is malformed or not supported, or does not fit the encoder.
    pub fn read(files: &ModelFiles, side: usize) -> Result<Self> {
        if !files.has(FILE) {
            return Ok(Self::clip(side));
        }
        Self::parse(&files.read(FILE)?, &files.label(FILE), side)
    }

    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed or not supported, or does not fit the encoder.
    pub fn parse(json: &[u8], file: &str, side: usize) -> Result<Self> {
        let raw: Raw = serde_json::from_slice(json).map_err(|e| Error::Config(format!("{file}: {e}")))?;
        let resampling = match raw.resample {
            0 => Resampling::Nearest,
            1 => Resampling::Lanczos,
            2 => Resampling::Bilinear,
            3 => Resampling::Bicubic,
            other => {
                return Err(Error::Config(format!(
                    "{file}: `resample` is {other}; supported are 0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic)"
                )));
            }
        };
        let resize = raw.do_resize.then(|| match raw.size.unwrap_or(Size::One(side)) {
            Size::One(n) | Size::Shortest { shortest_edge: n } => Resize::Shortest(n),
            Size::Both { height, width } => Resize::To(height, width),
        });
        let crop = raw.do_center_crop.then(|| match raw.crop_size.unwrap_or(Size::One(side)) {
            Size::One(n) | Size::Shortest { shortest_edge: n } => (n, n),
            Size::Both { height, width } => (height, width),
        });
        let (mean, std) = if raw.do_normalize { (raw.image_mean, raw.image_std) } else { ([0.0; 3], [1.0; 3]) };
        if std.iter().any(|s| *s <= 0.0) || std.iter().chain(&mean).any(|v| !v.is_finite()) {
            return Err(Error::Config(format!("{file}: `image_std` must be above 0, and `image_mean` finite")));
        }
        // Every image must come out with the encoder's size, whatever its own size.
        let comes_to = match (crop, resize) {
            (Some(crop), Some(Resize::Shortest(n))) if crop.0 <= n && crop.1 <= n => Some(crop),
            (Some(crop), Some(Resize::To(h, w))) if crop.0 <= h && crop.1 <= w => Some(crop),
            (None, Some(Resize::To(h, w))) => Some((h, w)),
            _ => None,
        };
        if comes_to != Some((side, side)) {
            return Err(Error::Config(format!(
                "{file}: `size` and `crop_size` do not make every image {side}×{side}, which the encoder takes \
                 (`image_size` of config.json)"
            )));
        }
        Ok(ClipProcessor { resize, resampling, crop, mean, std })
    }

    /// Prepares images: (B, 3, H, W) in [-1, 1] → (B, 3, s, s), normalised.
    ///
    /// # Errors
    /// If the images do not have three channels.
    pub fn prepare(&self, picture: &Tensor) -> Result<Tensor> {
        let (_, channels, h, w) = picture.dims4()?;
        if channels != 3 {
            return Err(Error::input(format!("CLIP: takes images of 3 channels, not {channels}")));
        }
        let mut x = picture.clone();
        if let Some(resize) = self.resize {
            let (height, width) = match resize {
                Resize::To(height, width) => (height, width),
                // The other side is rounded down, as in transformers.
                Resize::Shortest(n) if h <= w => (n, n * w / h.max(1)),
                Resize::Shortest(n) => (n * h / w.max(1), n),
            };
            if (height, width) != (h, w) {
                x = image::resize(&x, height, width, self.resampling)?;
            }
        }
        if let Some((height, width)) = self.crop {
            let (_, _, h, w) = x.dims4()?;
            x = x.narrow(2, (h - height) / 2, height)?.narrow(3, (w - width) / 2, width)?;
        }
        // (x/2 + 1/2 − mean) / std.
        let per_channel = |f: &dyn Fn(usize) -> f64| -> Result<Tensor> {
            let values: [f32; 3] = std::array::from_fn(|c| f(c) as f32);
            Ok(Tensor::new(&values, x.device())?.reshape((1, 3, 1, 1))?.to_dtype(x.dtype())?)
        };
        let scale = per_channel(&|c| 0.5 / self.std[c])?;
        let shift = per_channel(&|c| (0.5 - self.mean[c]) / self.std[c])?;
        Ok(x.broadcast_mul(&scale)?.broadcast_add(&shift)?)
    }
}
