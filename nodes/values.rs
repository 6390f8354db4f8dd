//! What travels between nodes.

use std::sync::Arc;

use lsregen_diffusion::candle_core::{DType, Device, Tensor};
use lsregen_diffusion::guidance::{GuidanceSpec, InversionGuidance};
use lsregen_diffusion::image::{RgbImage, from_tensor, to_tensor};
use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_diffusion::models::{self, Family};
use lsregen_engine::{Codec, Links, NodeError, Payload};

use crate::codecs;

/// A picture: (1, 3, H, W) in [-1, 1], f32 on the CPU. Eight bits only where it becomes a file, so that nothing is
/// lost between a model that decodes and one that encodes.
pub struct Image(pub Tensor);

/// A latent as the denoisers know it: scaled, (1, C, h, w).
pub struct Latent {
    pub z: Tensor,
    /// The family of the model whose autoencoder it belongs to; unknown for a file that does not say.
    pub family: Option<Family>,
}

/// A loaded model.
pub struct Model(pub models::Model);

/// A backward guidance: what it draws a sampling to, and how it acts.
pub struct Guidance {
    pub spec: Arc<dyn GuidanceSpec>,
    /// Width and height in pixels of the pictures that it is for, if it is not for all.
    pub size: Option<(usize, usize)>,
    /// LSReGen's guidance, which alone is kept on disk: the others cost nothing to make.
    pub(crate) inverted: Option<Arc<InversionGuidance>>,
}

/// Phrases in boxes.
pub struct Layout(pub Vec<GroundedPhrase>);

/// A file that a node has written: its content. Where it was written is the affair of node and host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile(pub Arc<[u8]>);

impl Image {
    /// Width and height in pixels.
    pub fn size(&self) -> anyhow::Result<(usize, usize)> {
        let (_, _, height, width) = self.0.dims4()?;
        Ok((width, height))
    }

    /// From 8 bits a channel.
    pub fn from_rgb(picture: &RgbImage) -> lsregen_diffusion::Result<Image> {
        Ok(Image(to_tensor(picture, DType::F32, &Device::Cpu)?))
    }

    /// As 8 bits a channel.
    pub fn to_rgb(&self) -> lsregen_diffusion::Result<RgbImage> {
        from_tensor(&self.0)
    }
}

impl Guidance {
    /// For pictures of any size.
    pub fn new(spec: impl GuidanceSpec + 'static) -> Guidance {
        Guidance { spec: Arc::new(spec), size: None, inverted: None }
    }

    /// LSReGen's guidance, for pictures of that width and height.
    pub(crate) fn inverted(inverted: InversionGuidance, size: (usize, usize)) -> Guidance {
        let inverted = Arc::new(inverted);
        Guidance { spec: inverted.clone(), size: Some(size), inverted: Some(inverted) }
    }
}

impl Latent {
    /// The latent, if it is one of `model`'s autoencoder.
    ///
    /// # Errors
    /// When it is known to be another family's: its numbers would mean something else there.
    pub fn of(&self, model: &Model) -> anyhow::Result<&Tensor> {
        let family = model.0.info.family;
        match self.family {
            Some(own) if !own.shares_latents(family) => anyhow::bail!(
                "this latent belongs to {}'s autoencoder and means nothing to {}'s: decode it with its own model, and \
                 encode the picture with the other",
                own.name(),
                family.name()
            ),
            _ => Ok(&self.z),
        }
    }
}

/// The fault of a `latent` that belongs to another autoencoder than that of its `model`, where both are known before a
/// run.
pub(crate) fn latent_faults(links: &Links) -> Vec<NodeError> {
    let (latent, model) = (links.variant("latent"), links.variant("model"));
    let family = |name: Option<&str>| name.and_then(Family::from_name);
    match (family(latent), family(model)) {
        (Some(own), Some(other)) if !own.shares_latents(other) => vec![
            NodeError::new(
                "latent",
                format!(
                    "`latent` belongs to the autoencoder of the family `{}`, and means nothing to a model of the family \
                     `{}`",
                    own.name(),
                    other.name()
                ),
            )
            .help("decode it with its own model, then encode the picture with this one"),
        ],
        _ => vec![],
    }
}

fn tensor_bytes(x: &Tensor) -> usize {
    x.elem_count() * x.dtype().size_in_bytes()
}

impl Payload for Image {
    const TYPE: &'static str = "Image";
    const CODEC: Option<Codec<Image>> = Some(codecs::IMAGE);

    fn bytes(&self) -> usize {
        tensor_bytes(&self.0)
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

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl Payload for Guidance {
    const TYPE: &'static str = "Guidance";
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
        self.0.len()
    }

    /// The file itself.
    const CODEC: Option<Codec<SavedFile>> = Some(Codec {
        format: "file",
        version: 1,
        encode: |file| Ok(Some(file.0.to_vec())),
        decode: |bytes| Ok(SavedFile(bytes.into())),
    });
}
