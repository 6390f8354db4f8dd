//! The properties of a model that its configuration determines: its family and the sizes of its images.

use crate::Result;
use crate::models::Family;
use crate::models::config::{UNetConfig, VaeConfig};
use crate::weights::ModelFiles;

/// The most pixels along a side of an image.
pub const LARGEST_SIDE: usize = 8192;

/// The properties of a model that are known before its weights are loaded.
#[derive(Clone, Copy, Debug)]
pub struct ModelInfo {
    /// Its family.
    pub family: Family,
    /// Side in pixels of the images that it was trained on.
    pub picture_size: usize,
    /// Width and height must be multiples of this many pixels.
    pub size_step: usize,
}

impl ModelInfo {
    /// Reads the configuration files of a folder.
    ///
    /// # Errors
    /// If one is missing or not supported.
    pub fn inspect(files: &ModelFiles) -> Result<Self> {
        Ok(Self::of(&UNetConfig::read(files)?, &VaeConfig::read(files)?))
    }

    pub(crate) fn of(unet: &UNetConfig, vae: &VaeConfig) -> Self {
        let downscale = vae.downscale();
        ModelInfo {
            family: unet.family(),
            picture_size: unet.sample_size.saturating_mul(downscale),
            size_step: downscale,
        }
    }
}
