//! How an image enters a network: the size, channels and channel order that the network's input declares.

use candle_core::{DType, Tensor};

use crate::info::{Dim, OnnxInfo};
use crate::{Error, Result};
use lsregen_tensor::image::grey;
use lsregen_tensor::image::{Resampling, resize};

/// The images that a network's input accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInput {
    /// 3, or 1 for grey.
    pub channels: usize,
    /// Whether channels come last, (B, H, W, C), as in networks from TensorFlow.
    pub channels_last: bool,
    /// The height, if the network fixes it.
    pub height: Option<usize>,
    /// The width, if the network fixes it.
    pub width: Option<usize>,
}

/// Mean and standard deviation by which a network's images are normalised, for images in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Of red, green and blue.
    pub mean: [f64; 3],
    /// Of red, green and blue.
    pub std: [f64; 3],
}

impl Default for Normalisation {
    fn default() -> Self {
        Normalisation { mean: [0.0; 3], std: [1.0; 3] }
    }
}

impl OnnxInfo {
    /// Returns the images that the network's only input accepts.
    ///
    /// # Errors
    /// If there are several inputs, or the input is not an image of one or three channels.
    pub fn image_input(&self) -> Result<ImageInput> {
        let input = self.only_input()?;
        let Some(dims) = &input.shape else {
            return Ok(ImageInput { channels: 3, channels_last: false, height: None, width: None });
        };
        let not_an_image = || self.error(format!("its input {input} is not an image (B, 3, H, W)"));
        let [batch, rest @ ..] = &dims[..] else { return Err(not_an_image()) };
        let ([a, b, c], true) = (rest, matches!(batch, Dim::Fixed(1) | Dim::Named(_) | Dim::Any)) else {
            return Err(not_an_image());
        };
        let fixed = |d: &Dim| if let Dim::Fixed(n) = d { Some(*n) } else { None };
        let colours = |d: &Dim| fixed(d).filter(|n| [1, 3].contains(n));
        match (colours(a), colours(c), fixed(a)) {
            (None, Some(channels), _) => {
                Ok(ImageInput { channels, channels_last: true, height: fixed(a), width: fixed(b) })
            }
            (None, None, Some(_)) => Err(not_an_image()),
            (channels, ..) => Ok(ImageInput {
                channels: channels.unwrap_or(3),
                channels_last: false,
                height: fixed(b),
                width: fixed(c),
            }),
        }
    }
}

impl ImageInput {
    /// Turns an image (B, 3, H, W) in [-1, 1] into the network's input: resized to height and width `to`, normalised, in
    /// the network's channels. Differentiable.
    ///
    /// # Errors
    /// If the image does not have three channels.
    pub fn prepare(&self, image: &Tensor, to: Option<(usize, usize)>, by: &Normalisation) -> Result<Tensor> {
        let image = image.to_dtype(DType::F32)?;
        let (_, channels, h, w) = image.dims4()?;
        if channels != 3 {
            return Err(Error::input(format!("{:?} is not an image with three channels", image.dims())));
        }
        let coloured = if self.channels == 1 { grey(&image)? } else { image.affine(0.5, 0.5)? };
        let sized = match to {
            Some((height, width)) if (height, width) != (h, w) => {
                resize(&coloured, height, width, Resampling::Bilinear)?
            }
            _ => coloured,
        };
        let row = |values: [f64; 3]| {
            let values: Vec<f32> = values[..self.channels].iter().map(|v| *v as f32).collect();
            Tensor::from_vec(values, (1, self.channels, 1, 1), image.device())
        };
        let normal = sized.broadcast_sub(&row(by.mean)?)?.broadcast_div(&row(by.std)?)?;
        Ok(if self.channels_last { normal.permute([0, 2, 3, 1])?.contiguous()? } else { normal })
    }
}
