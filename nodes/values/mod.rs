//! The values that nodes exchange.

mod batch;
mod codecs;
mod declared;
mod measured;

use std::borrow::Cow;
use std::sync::Arc;

use lsregen_diffusion::guidance::{GuidanceSpec, InversionGuidance};
use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_diffusion::models::bands::BandOptions;
use lsregen_diffusion::models::config::UNetInput;
use lsregen_diffusion::models::{self, Family, ModelInfo, ModelLimit};
use lsregen_engine::{Codec, Links, NodeError, Payload};
use lsregen_tensor::candle_core::{DType, Device, Tensor};
use lsregen_tensor::image::{RgbImage, from_tensor, to_tensor};
use lsregen_tensor::ops;

pub use self::batch::ImageBatch;
pub(crate) use self::batch::{NOT_A_BATCH, seeds};
pub use self::declared::{
    Conditioning, ImageInfo, ImageSize, LatentNoise, LeftNoise, Phrases, SamplingNeeds, declared,
};
pub(crate) use self::declared::{batch_errors, downscale_error};
pub use self::measured::{Features, Score};

/// An image, or a batch of images.
pub enum Image {
    /// (1, 3, H, W) in [-1, 1], f32 on the CPU. It is rounded to 8 bits only when it is saved, so that nothing is lost
    /// between a model that decodes and one that encodes.
    Float(Tensor),
    /// 8 bits for each channel, of a file or a drawing: a quarter of the memory.
    Rgb(RgbImage),
    /// Several images, each by itself: what a sampling with `count` gives.
    Batch(ImageBatch),
}

/// A latent, or a batch of latents, scaled for the denoiser.
pub struct Latent {
    /// (n, C, h, w), where n is the number of images.
    pub z: Tensor,
    /// The family of the model whose autoencoder it belongs to; `None` if it was loaded from a file without one.
    pub family: Option<Family>,
    /// The seed of each image of a batch, if they are known; empty for a single image.
    pub seeds: Vec<u64>,
}

/// A loaded model.
pub struct Model(pub models::Model);

/// A backward guidance that is not yet bound to a sampling run.
pub struct Guidance {
    pub spec: Arc<dyn GuidanceSpec>,
    /// Width and height in pixels of the images that it is for; `None` if it fits any size.
    pub size: Option<(usize, usize)>,
    /// LSReGen's guidance. Only this guidance is cached on disk; the others are cheap to create.
    pub(crate) inverted: Option<Arc<InversionGuidance>>,
}

/// Phrases in boxes.
pub struct Layout(pub Vec<GroundedPhrase>);

/// The content of the file that a node has written, or of the files of a batch. The parameters of the node and the host
/// determine their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile {
    /// One, or one for each image of a batch.
    pub files: Vec<Arc<[u8]>>,
    /// The seed of each image of a batch, if they are known.
    pub seeds: Vec<u64>,
}

impl Image {
    /// Returns width and height in pixels; the images of a batch have the same.
    pub fn size(&self) -> anyhow::Result<(usize, usize)> {
        match self {
            Image::Batch(batch) => batch.images()[0].size(),
            Image::Float(x) => {
                let (_, _, height, width) = x.dims4()?;
                Ok((width, height))
            }
            Image::Rgb(image) => Ok((image.width() as usize, image.height() as usize)),
        }
    }

    /// Returns a single image as (1, 3, H, W) in [-1, 1], f32 on the CPU.
    ///
    /// # Errors
    /// If it is a batch: see [`each`](Image::each).
    pub fn tensor(&self) -> anyhow::Result<Tensor> {
        match self {
            Image::Batch(_) => anyhow::bail!(NOT_A_BATCH),
            Image::Float(x) => Ok(x.clone()),
            Image::Rgb(image) => Ok(to_tensor(image, DType::F32, &Device::Cpu)?),
        }
    }

    /// Decodes a latent (1, C, h, w).
    pub(crate) fn decoded(model: &Model, z: &Tensor, work: &BandOptions) -> lsregen_tensor::Result<Image> {
        let z = z.to_device(model.0.device())?;
        let x = ops::clamp(&model.0.vae()?.decode_with(&z, work)?, -1.0, 1.0)?;
        Ok(Image::Float(x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?))
    }

    /// Converts a single image to 8 bits per channel.
    ///
    /// # Errors
    /// If it is a batch: see [`images`](Image::images). If its numbers are not finite.
    pub fn to_rgb(&self) -> lsregen_tensor::Result<Cow<'_, RgbImage>> {
        match self {
            Image::Batch(_) => Err(lsregen_tensor::Error::input(NOT_A_BATCH)),
            Image::Float(x) => from_tensor(x).map(Cow::Owned),
            Image::Rgb(image) => Ok(Cow::Borrowed(image)),
        }
    }
}

impl Guidance {
    /// Creates a guidance for images of any size.
    pub fn new(spec: impl GuidanceSpec + 'static) -> Guidance {
        Guidance { spec: Arc::new(spec), size: None, inverted: None }
    }

    /// Creates LSReGen's guidance, for images of this width and height.
    pub(crate) fn inverted(inverted: InversionGuidance, size: (usize, usize)) -> Guidance {
        let inverted = Arc::new(inverted);
        Guidance { spec: inverted.clone(), size: Some(size), inverted: Some(inverted) }
    }
}

impl Latent {
    /// Returns the tensor of a single image, (1, C, h, w), for use with `model`.
    ///
    /// # Errors
    /// If it is a batch, or if it is known to belong to the autoencoder of another family.
    pub fn of(&self, model: &Model) -> anyhow::Result<&Tensor> {
        anyhow::ensure!(self.count() == 1, NOT_A_BATCH);
        self.all_of(model)
    }

    /// Returns the tensor of all images, (n, C, h, w), for use with `model`.
    ///
    /// # Errors
    /// If the latent is known to belong to the autoencoder of another family.
    pub fn all_of(&self, model: &Model) -> anyhow::Result<&Tensor> {
        let family = model.0.info.family;
        match self.family {
            Some(own) if !own.shares_latents(family) => anyhow::bail!(
                "this latent belongs to {}'s autoencoder, not to {}'s: decode it with its own model, and encode the image \
                 with the other",
                own.name(),
                family.name()
            ),
            _ => Ok(&self.z),
        }
    }
}

/// Reports a `latent` that belongs to another autoencoder than that of its `model`, if both families are known.
pub(crate) fn latent_errors(links: &Links) -> Vec<NodeError> {
    let family = |socket| links.variant(socket).and_then(Family::from_name);
    match (family("latent"), family("model")) {
        (Some(own), Some(other)) if !own.shares_latents(other) => vec![
            NodeError::new(
                "latent",
                format!(
                    "`latent` belongs to the autoencoder of the family `{}`, but the model is of the family `{}`",
                    own.name(),
                    other.name()
                ),
            )
            .help(format!(
                "link `model` to a model of the family `{}`, such as the one that made the latent",
                own.name()
            )),
        ],
        _ => vec![],
    }
}

/// Reports a model at the socket `model` that a node without the sockets `image` and `mask` cannot sample.
pub(crate) fn sampling_errors(links: &Links) -> Vec<NodeError> {
    let what = match links.declaration::<ModelInfo>("model").map(|info| info.input) {
        Some(UNetInput::Inpainting) => Some("it is an inpainting model, which takes an image and a mask"),
        Some(UNetInput::Edit) => Some("it is an InstructPix2Pix model, which takes the image to edit"),
        _ => None,
    };
    let error = what.map(|what| {
        NodeError::new("model", format!("`model` cannot be used by this node: {what}"))
            .help("use GuidedSDSample, SDXLSample or GuidedSDXLSample, or link another model")
    });
    limit_errors(links).into_iter().chain(error).collect()
}

/// Reports a model at the socket `model` with a property that no sampling honours yet.
pub(crate) fn limit_errors(links: &Links) -> Vec<NodeError> {
    let limits = links.declaration::<ModelInfo>("model").into_iter().flat_map(|info| &info.limits);
    let error = |limit: &ModelLimit| {
        NodeError::new("model", format!("`model` cannot be used by this node: {}", limit.reason))
            .help("`lsregen inspect` says what the model is; link another model")
    };
    limits.map(error).collect()
}

fn tensor_bytes(x: &Tensor) -> usize {
    x.elem_count() * x.dtype().size_in_bytes()
}

impl Payload for Image {
    const TYPE: &'static str = "Image";
    const CODEC: Option<Codec<Image>> = Some(codecs::IMAGE);

    fn bytes(&self) -> usize {
        match self {
            Image::Float(x) => tensor_bytes(x),
            Image::Rgb(image) => image.as_raw().len(),
            Image::Batch(batch) => batch.images().iter().map(Payload::bytes).sum(),
        }
    }
}

impl Payload for Latent {
    const TYPE: &'static str = "Latent";
    const CODEC: Option<Codec<Latent>> = Some(codecs::LATENT);

    fn bytes(&self) -> usize {
        tensor_bytes(&self.z)
    }
}

impl Payload for Model {
    const TYPE: &'static str = "Model";
    const READS_LATE: bool = true;

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl Payload for Guidance {
    const TYPE: &'static str = "Guidance";
    const READS_LATE: bool = true;
    const CODEC: Option<Codec<Guidance>> = Some(codecs::GUIDANCE);

    fn bytes(&self) -> usize {
        self.spec.bytes()
    }
}

impl Payload for Layout {
    const TYPE: &'static str = "Layout";
    const CODEC: Option<Codec<Layout>> = Some(codecs::LAYOUT);

    fn bytes(&self) -> usize {
        self.0.iter().map(|object| size_of_val(object) + object.phrase.len()).sum()
    }
}

impl Payload for SavedFile {
    const TYPE: &'static str = "File";

    fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.len()).sum()
    }

    const CODEC: Option<Codec<SavedFile>> = Some(codecs::SAVED_FILE);
}
