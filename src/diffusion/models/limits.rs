//! What keeps a model that loads from being used by the nodes that sample.

use crate::models::Family;
use crate::models::config::{UNetConfig, UNetInput};
use crate::models::markers::Markers;

/// A property of a model that a sampling would have to honour and that none does yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLimit {
    /// The property and what it needs, as a clause.
    pub reason: String,
}

impl ModelLimit {
    fn new(reason: impl Into<String>) -> ModelLimit {
        ModelLimit { reason: reason.into() }
    }

    /// The limit of a file whose metadata states a prediction that is not known.
    pub(crate) fn unknown_prediction(stated: &str) -> ModelLimit {
        ModelLimit::new(format!(
            "its metadata (`modelspec`) states the prediction `{stated:.60}`, which is not supported; give `prediction` if its U-Net \
             predicts ε or v all the same"
        ))
    }

    /// The limits of a U-Net in a model of this family.
    pub(crate) fn of_networks(unet: &UNetConfig, family: Family) -> Vec<ModelLimit> {
        let (channels, latent) = (unet.in_channels, unet.out_channels);
        let input = match unet.input() {
            UNetInput::Latent => None,
            UNetInput::Inpainting => Some(format!(
                "it is an inpainting model: its U-Net takes a mask and a masked image besides the latent ({channels} \
                 channels, not {latent}), which no sampling gives it yet"
            )),
            UNetInput::Edit => Some(format!(
                "it is an InstructPix2Pix model: its U-Net takes the image to edit besides the latent ({channels} channels, \
                 not {latent}), which no sampling gives it yet"
            )),
        };
        let refiner = (family == Family::SdxlRefiner).then(|| {
            "it is SDXL's refiner, which continues a sampling of SDXL, and no sampling hands over to it yet".into()
        });
        let lcm = unet.time_cond_proj_dim.map(|width| {
            format!(
                "its U-Net takes the guidance scale as an input (`time_cond_proj_dim` is {width}, as in LCM), which no \
                 sampling gives it yet"
            )
        });
        let playground = (family == Family::Playground).then(|| {
            "its latents have a mean and a deviation of their own (`latents_mean` and `latents_std`, or the keys `edm_mean` \
             and `edm_std`, as in Playground v2.5), which goes with EDM's prediction, and no sampling has that yet"
                .into()
        });
        input.into_iter().chain(refiner).chain(playground).chain(lcm).map(ModelLimit::new).collect()
    }

    /// The limits of what a file states about its sampling.
    pub(crate) fn of_markers(markers: &Markers) -> Vec<ModelLimit> {
        let mut limits = vec![];
        if markers.ztsnr {
            limits.push(ModelLimit::new(
                "its key `ztsnr` says that it needs a schedule with zero terminal SNR, which no sampling has for it yet",
            ));
        }
        if markers.edm_vpred.is_some() {
            limits.push(ModelLimit::new(
                "its key `edm_vpred.sigma_max` says that it needs EDM's continuous schedule, which no sampling has for it yet",
            ));
        }
        limits
    }
}
