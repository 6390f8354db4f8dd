//! The properties of a model that its configuration determines: its family and the sizes of its images.

use std::collections::BTreeSet;

use crate::Result;
use crate::models::Family;
use crate::models::config::{UNetConfig, UNetInput, VaeConfig};
use crate::models::limits::ModelLimit;
use crate::models::unet::AttentionLayer;
use crate::schedule::SchedulerConfig;
use crate::weights::ModelFiles;

/// The most pixels along a side of an image.
pub const LARGEST_SIDE: usize = 8192;

/// The properties of a model that are known before its weights are loaded.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Its family.
    pub family: Family,
    /// Side in pixels of the images that it was trained on.
    pub picture_size: usize,
    /// Width and height must be multiples of this many pixels.
    pub size_step: usize,
    /// The resolutions of its attention maps: latent pixels along a side of one pixel of a map, from the finest on.
    pub attention_downscales: Vec<usize>,
    /// The attention layers of its U-Net, in the order of a forward pass.
    pub attention_layers: Vec<AttentionLayer>,
    /// What its U-Net takes besides the noisy latent.
    pub input: UNetInput,
    /// The noise schedule, and the sampler of its author.
    pub scheduler: SchedulerConfig,
    /// The number of layers of its text encoders, the fewest if there are several.
    pub text_layers: usize,
    /// What keeps it from being sampled; empty for most models.
    pub limits: Vec<ModelLimit>,
}

impl ModelInfo {
    /// Reads the configuration files of a folder.
    ///
    /// # Errors
    /// If one is missing or not supported.
    pub fn inspect(files: &ModelFiles) -> Result<Self> {
        let mut info = Self::of(&UNetConfig::read(files)?, &VaeConfig::read(files)?, &SchedulerConfig::read(files)?);
        let mut layers = vec![];
        for folder in ["text_encoder", "text_encoder_2"] {
            let path = format!("{folder}/config.json");
            if files.has(&path) {
                layers.push(files.json(&path)?.number("num_hidden_layers").unwrap_or(12.0) as usize);
            }
        }
        info.text_layers = layers.into_iter().min().unwrap_or(0);
        Ok(info)
    }

    pub(crate) fn of(unet: &UNetConfig, vae: &VaeConfig, scheduler: &SchedulerConfig) -> Self {
        let downscale = vae.downscale();
        let attention_layers = AttentionLayer::all(unet);
        let maps: BTreeSet<usize> = attention_layers.iter().map(|layer| layer.downscale).collect();
        let family = match unet.family() {
            Family::Sdxl if vae.is_normalised() => Family::Playground,
            family => family,
        };
        ModelInfo {
            family,
            picture_size: unet.sample_size.saturating_mul(downscale),
            size_step: downscale,
            attention_downscales: maps.into_iter().collect(),
            attention_layers,
            scheduler: SchedulerConfig {
                is_xl: matches!(family, Family::Sdxl | Family::Playground),
                ..scheduler.clone()
            },
            text_layers: 0,
            input: unet.input(),
            limits: vec![],
        }
    }
}
