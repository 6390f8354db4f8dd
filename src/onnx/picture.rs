//! How a picture goes into a network: what its input declares of size, channels and their order.

use candle_core::{DType, Tensor};

use super::network::{Dim, OnnxInfo};
use crate::{Error, Result};
use lsregen_tensor::image::grey;
use lsregen_tensor::image::{Resampling, resize};

/// What a network's input takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureInput {
    /// 3, or 1 for grey.
    pub channels: usize,
    /// Whether channels come last, (B, H, W, C), as in networks of TensorFlow.
    pub channels_last: bool,
    /// If it is fixed.
    pub height: Option<usize>,
    /// If it is fixed.
    pub width: Option<usize>,
}

/// Mean and standard deviation of each channel, of pictures in [0, 1], that a network's pictures are normalised by.
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
    /// What the only input takes, if it is a picture.
    ///
    /// Errors if there are several inputs, or the one is no picture of one or three channels.
    pub fn picture_input(&self) -> Result<PictureInput> {
        let input = self.only_input()?;
        let Some(dims) = &input.shape else {
            return Ok(PictureInput { channels: 3, channels_last: false, height: None, width: None });
        };
        let no_picture = || self.error(format!("its input {input} is no picture (B, 3, H, W)"));
        let [batch, rest @ ..] = &dims[..] else { return Err(no_picture()) };
        let ([a, b, c], true) = (rest, matches!(batch, Dim::Fixed(1) | Dim::Named(_) | Dim::Any)) else {
            return Err(no_picture());
        };
        let fixed = |d: &Dim| if let Dim::Fixed(n) = d { Some(*n) } else { None };
        let colours = |d: &Dim| fixed(d).filter(|n| [1, 3].contains(n));
        match (colours(a), colours(c), fixed(a)) {
            (None, Some(channels), _) => {
                Ok(PictureInput { channels, channels_last: true, height: fixed(a), width: fixed(b) })
            }
            (None, None, Some(_)) => Err(no_picture()),
            (channels, ..) => Ok(PictureInput {
                channels: channels.unwrap_or(3),
                channels_last: false,
                height: fixed(b),
                width: fixed(c),
            }),
        }
    }
}

impl PictureInput {
    /// A picture (B, 3, H, W) in [-1, 1] at height and width `to`, normalised, as the network takes it; on the tape.
    pub fn prepare(&self, picture: &Tensor, to: Option<(usize, usize)>, by: &Normalisation) -> Result<Tensor> {
        let picture = picture.to_dtype(DType::F32)?;
        let (_, channels, h, w) = picture.dims4()?;
        if channels != 3 {
            return Err(Error::input(format!("{:?} is no picture of three colours", picture.dims())));
        }
        let coloured = if self.channels == 1 { grey(&picture)? } else { picture.affine(0.5, 0.5)? };
        let sized = match to {
            Some((height, width)) if (height, width) != (h, w) => {
                resize(&coloured, height, width, Resampling::Bilinear)?
            }
            _ => coloured,
        };
        let row = |values: [f64; 3]| {
            let values: Vec<f32> = values[..self.channels].iter().map(|v| *v as f32).collect();
            Tensor::from_vec(values, (1, self.channels, 1, 1), picture.device())
        };
        let normal = sized.broadcast_sub(&row(by.mean)?)?.broadcast_div(&row(by.std)?)?;
        Ok(if self.channels_last { normal.permute([0, 2, 3, 1])?.contiguous()? } else { normal })
    }
}
