//! The image that a sampling with an inpainting or InstructPix2Pix model fills in or edits.

use lsregen_diffusion::models::ModelInfo;
use lsregen_diffusion::models::config::UNetInput;
use lsregen_diffusion::source::SourceImage;
use lsregen_engine::{Links, NodeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{Image, ImageInfo, ImageSize, batch_errors, limit_errors};

/// The sockets of the image and of the mask at the sampling nodes.
pub(crate) const SOCKETS: [&str; 2] = ["image", "mask"];

/// The guidance by the image to edit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ImageGuidance {
    /// Scale of the guidance by `image`, for an InstructPix2Pix model: how closely the result keeps to that image. Below 1
    /// there is no classifier-free guidance at all. `cfg` is the scale of the guidance by the prompt.
    #[serde(default = "image_cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub image_cfg: f64,
}

fn image_cfg() -> f64 {
    SourceImage::default().cfg
}

impl ImageGuidance {
    /// Returns the images at the sockets `image` and `mask` for the library.
    pub(crate) fn source(self, images: [Option<&Image>; 2]) -> anyhow::Result<SourceImage> {
        let [image, mask] = images.map(|image| image.map(Image::tensor).transpose());
        Ok(SourceImage { image: image?, mask: mask?, cfg: self.image_cfg })
    }

    /// Reports a model that cannot be sampled, and an image or a mask that it lacks, does not take, or that does not fit
    /// the `size` of the result. `sockets` are those of the image and of the mask.
    pub(crate) fn errors(self, links: &Links, sockets: [&'static str; 2], size: Option<ImageSize>) -> Vec<NodeError> {
        let mut errors = limit_errors(links);
        let [image, mask] = sockets;
        if let Some(info) = links.declaration::<ModelInfo>("model") {
            let is_edit = info.input == UNetInput::Edit;
            let takes = [(image, info.input != UNetInput::Latent), (mask, info.input == UNetInput::Inpainting)];
            let wrong = takes.map(|(socket, takes)| missing_or_unused(info.input, socket, takes, links));
            errors.extend(wrong.into_iter().flatten());
            errors.extend((self.image_cfg != image_cfg() && !is_edit).then(|| {
                NodeError::new("image_cfg", "`image_cfg` has no effect: the model is not an InstructPix2Pix model")
                    .help("leave `image_cfg` out")
                    .as_warning("no-effect")
            }));
        }
        if errors.iter().all(|error| !error.is_error()) {
            errors.extend(batch_errors(links, sockets));
            errors.extend(size_error(links, sockets, size));
        }
        errors
    }
}

/// Reports an empty socket that a model with this input takes, and a linked one that it does not take.
fn missing_or_unused(input: UNetInput, socket: &'static str, takes: bool, links: &Links) -> Option<NodeError> {
    let model = match input {
        UNetInput::Latent if socket != "image" => "is not an inpainting model",
        UNetInput::Latent => "is neither an inpainting nor an InstructPix2Pix model",
        UNetInput::Inpainting => "is an inpainting model",
        UNetInput::Edit => "is an InstructPix2Pix model",
    };
    match (takes, links.has(socket)) {
        (true, false) => {
            let help = match socket {
                "image" => "link `image` to the image to change, for example to LoadImage".to_string(),
                mask => format!(
                    "link `{mask}` to an image that is white where the image is regenerated, and black elsewhere"
                ),
            };
            Some(NodeError::new("model", format!("the model {model}, but `{socket}` is missing")).help(help))
        }
        (false, true) => {
            let help = match socket {
                "image" => {
                    "link another model; to start from an image, link `latent` to VAEEncode and lower `denoise`".into()
                }
                mask => format!("link an inpainting model, or leave `{mask}` out"),
            };
            Some(NodeError::new(socket, format!("the model takes no `{socket}`: it {model}")).help(help))
        }
        _ => None,
    }
}

/// Reports an image of a size that cannot be encoded, or other than that of the sampling, and a mask of another size.
fn size_error(links: &Links, sockets: [&'static str; 2], result: Option<ImageSize>) -> Option<NodeError> {
    let size = |socket| ImageInfo::of(links, socket).size;
    if let Some(error) = size(sockets[0]).and_then(|size| size.step_error(links, sockets[0])) {
        return Some(error);
    }
    let result = result?;
    let socket = sockets.into_iter().find(|socket| size(socket).is_some_and(|own| own != result))?;
    let message = format!("`{socket}` has {} pixels, but this sampling generates {result}", size(socket)?);
    Some(NodeError::new(socket, message).help("leave `width` and `height` out, or resize it with Upsample"))
}
