//! Prepares images for CLIP's image encoder as `preprocessor_config.json` says: resizes, crops the centre, normalises.
//! Differentiable.
//!
//! transformers' `CLIPImageProcessor` resizes 8-bit images and rounds twice. Here nothing is rounded, so that gradients
//! flow.

use candle_core::Tensor;
use serde::Deserialize;
use serde_json::json;

use crate::image::{Resampling, Resizer};
use crate::weights::{Json, ModelFiles};
use crate::{Error, Result};

const FILE: &str = "preprocessor_config.json";

/// The file in which transformers 5 saves it with the tokenizer's settings, and its key there.
const JOINED: (&str, &str) = ("processor_config.json", "image_processor");

/// The files that may hold the preparation of images.
pub const FILES: [&str; 2] = [FILE, JOINED.0];

/// The most by which images may be resized beyond the size that the encoder takes.
const LARGEST_RESIZE: usize = 8;

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

/// A size in the forms that files have; a number alone is that of the shorter side.
#[derive(Clone, Copy, Default, Deserialize)]
struct Size {
    shortest_edge: Option<usize>,
    height: Option<usize>,
    width: Option<usize>,
}

impl Size {
    fn resize(self, key: &str, file: &str) -> Result<Resize> {
        match (self.shortest_edge, self.height, self.width) {
            (Some(n), ..) => Ok(Resize::Shortest(n)),
            (None, Some(height), Some(width)) => Ok(Resize::To(height, width)),
            _ => Err(Error::Config(format!("{file}: `{key}` must have `shortest_edge`, or `height` and `width`"))),
        }
    }
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

    /// Reads a folder's `preprocessor_config.json` or `processor_config.json`, and checks it against the encoder's `side`.
    /// Without such a file returns [`ClipProcessor::clip`].
    ///
    /// # Errors
    /// If the file is malformed or not supported, or does not fit the encoder.
    pub fn read(files: &ModelFiles, side: usize) -> Result<Self> {
        let json = match (files.has(FILE), files.has(JOINED.0)) {
            (true, _) => Some(files.json(FILE)?),
            (false, true) => files.json(JOINED.0)?.object(JOINED.1)?,
            (false, false) => None,
        };
        json.map_or_else(|| Ok(Self::clip(side)), |json| Self::of(&json, side))
    }

    /// Parses the JSON text of a file, which messages call `file`.
    ///
    /// # Errors
    /// If it is malformed or not supported, or does not fit the encoder.
    pub fn parse(json: &[u8], file: &str, side: usize) -> Result<Self> {
        Self::of(&Json::parse(json, file)?, side)
    }

    fn of(json: &Json, side: usize) -> Result<Self> {
        let file = json.label();
        json.only(&[("do_rescale", &[json!(true)]), ("rescale_factor", &[json!(1.0 / 255.0)])])?;
        let raw: Raw = json.decode()?;
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
        let size =
            |given: Option<Size>, key: &str| given.map_or(Ok(Resize::Shortest(side)), |size| size.resize(key, file));
        let resize = raw.do_resize.then(|| size(raw.size, "size")).transpose()?;
        let crop = raw.do_center_crop.then(|| size(raw.crop_size, "crop_size")).transpose()?;
        let crop = crop.map(|crop| match crop {
            Resize::Shortest(n) => (n, n),
            Resize::To(height, width) => (height, width),
        });
        let most = side.saturating_mul(LARGEST_RESIZE);
        if matches!(resize, Some(Resize::Shortest(n)) if n > most)
            || matches!(resize, Some(Resize::To(h, w)) if h > most || w > most)
        {
            return Err(Error::Config(format!(
                "{file}: `size` is more than {LARGEST_RESIZE} times the {side} pixels that the encoder takes"
            )));
        }
        let (mean, std) = if raw.do_normalize { (raw.image_mean, raw.image_std) } else { ([0.0; 3], [1.0; 3]) };
        if std.iter().any(|s| !(1e-3..=1e3).contains(s)) || mean.iter().any(|m| m.abs() > 1e3) {
            return Err(Error::Config(format!(
                "{file}: `image_std` must be between 0.001 and 1000, and `image_mean` at most 1000, but they are {std:?} and \
                 {mean:?}"
            )));
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
        self.prepare_by(picture, &Resizer::default())
    }

    /// [`ClipProcessor::prepare`] by a resizer that keeps its matrices.
    ///
    /// # Errors
    /// As [`ClipProcessor::prepare`].
    pub fn prepare_by(&self, picture: &Tensor, resizer: &Resizer) -> Result<Tensor> {
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
                x = resizer.resize(&x, height, width, self.resampling)?;
            }
        }
        if let Some((height, width)) = self.crop {
            let (_, _, h, w) = x.dims4()?;
            x = x.narrow(2, (h - height) / 2, height)?.narrow(3, (w - width) / 2, width)?;
        }
        // (x/2 + 1/2 − mean) / std, with numbers that no call copies to the device.
        let channel = |c: usize| x.narrow(1, c, 1)?.affine(0.5 / self.std[c], (0.5 - self.mean[c]) / self.std[c]);
        Ok(Tensor::cat(&[channel(0)?, channel(1)?, channel(2)?], 1)?)
    }
}
