//! What keeps a model that loads from being used by the nodes that sample.

use crate::models::config::{UNetConfig, UNetInput};

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

    /// The limits of a U-Net.
    pub(crate) fn of_networks(unet: &UNetConfig) -> Vec<ModelLimit> {
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
        input.map(ModelLimit::new).into_iter().collect()
    }

    /// The limit of a file whose key `ztsnr` asks for a last timestep without signal, where ε says nothing of x₀.
    pub(crate) fn zero_snr_without_v() -> ModelLimit {
        ModelLimit::new(
            "its key `ztsnr` says that it needs a schedule with zero terminal SNR, but its U-Net does not predict v; give \
             `prediction: v_prediction` if it does",
        )
    }
}
