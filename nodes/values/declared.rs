//! What nodes declare of their outputs before a run. Checks compare these data, and never ask for the type of a node.
//!
//! A model declares its [`ModelInfo`], an image and a latent their [`ImageInfo`], a layout its [`Phrases`], and a guidance
//! its [`SamplingNeeds`].

use crate::params::steps::{StepRange, Steps};
use lsregen_diffusion::guidance::Window;
use lsregen_diffusion::layout::{Bounds, has_cell};
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::models::{Family, ModelInfo};
use lsregen_engine::{Declaration, Links, NodeError};

/// What is known of an image, or of the image that a latent is decoded to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageInfo {
    /// Its size.
    pub size: Option<ImageSize>,
    /// The phrases of the layout that it was generated from.
    pub phrases: Vec<String>,
    /// The number of images: more than 1 for a batch.
    pub count: Option<u32>,
    /// The seed of the first image. The others of a batch have the seeds that follow.
    pub seed: Option<u64>,
    /// The noise of a latent.
    pub noise: LatentNoise,
}

/// The noise of a latent.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LatentNoise {
    /// Not known, as that of a file.
    #[default]
    Unknown,
    /// None.
    None,
    /// That of a step, at which a sampling ended.
    Left(LeftNoise),
}

/// The noise that a sampling left.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftNoise {
    /// The steps of the sampling.
    pub steps: Steps,
    /// Its `denoise`.
    pub denoise: f64,
    /// The step before which it ended.
    pub end: u32,
}

impl ImageInfo {
    /// Returns what is known of the image or latent at `socket`.
    pub(crate) fn of(links: &Links, socket: &str) -> ImageInfo {
        links.declaration::<ImageInfo>(socket).cloned().unwrap_or_default()
    }
}

/// Reports batches at sockets that take a single image.
pub(crate) fn batch_errors<'a>(links: &'a Links<'_>, sockets: impl IntoIterator<Item = &'a str>) -> Vec<NodeError> {
    let batch = |socket: &'a str| {
        let (link, info) = links.declared::<ImageInfo>(socket).find(|(_, info)| info.count > Some(1))?;
        let message =
            format!("`{socket}` takes a single image, but `{}` is a batch of {}", link.name, info.count.unwrap_or(0));
        let help = "generate the image alone: leave `count` out, and give the seed that it has in the batch";
        Some(NodeError::new(socket, message).help(help))
    };
    sockets.into_iter().filter_map(batch).collect()
}

/// A size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    pub width: u32,
    pub height: u32,
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}×{}", self.width, self.height)
    }
}

impl ImageSize {
    /// Reports, at `path`, a size that the model at the socket `model` cannot encode.
    pub(crate) fn step_error(self, links: &Links, path: &str) -> Option<NodeError> {
        let step = u32::try_from(links.declaration::<ModelInfo>("model")?.size_step).ok()?;
        (!self.width.is_multiple_of(step) || !self.height.is_multiple_of(step)).then(|| {
            let fit = |side: u32| side.next_multiple_of(step);
            NodeError::new(path, format!("the sides of the image must be multiples of {step}, but are {self} pixels"))
                .help(format!("resize it with Upsample, for example to {}×{}", fit(self.width), fit(self.height)))
        })
    }
}

/// Reports, at `path`, a resolution of attention maps that `model` does not have.
pub(crate) fn downscale_error(model: &ModelInfo, path: &str, whose: &str, downscale: u32) -> Option<NodeError> {
    let has = &model.attention_downscales;
    (!has.contains(&(downscale as usize))).then(|| {
        let has: Vec<_> = has.iter().map(usize::to_string).collect();
        NodeError::new(path, format!("{whose} has `downscale` {downscale}, but this model has no such attention maps"))
            .help(format!("its maps have downscale {}", has.join(", ")))
    })
}

/// The phrases of a layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phrases(pub Vec<String>);

impl Phrases {
    /// Returns the phrases of the layout at the socket `layout`; none if it declares none.
    pub(crate) fn of_layout(links: &Links) -> Vec<String> {
        links.declaration("layout").map_or(vec![], |Phrases(phrases)| phrases.clone())
    }

    /// Reports a layout without phrases at the socket `layout`, for a guidance that acts on phrases.
    pub(crate) fn empty_error(links: &Links) -> Option<NodeError> {
        let Phrases(phrases) = links.declaration("layout")?;
        phrases.is_empty().then(|| {
            NodeError::new("layout", "the layout has no boxes, but this guidance acts on phrases in boxes")
                .help("give the layout at least one box")
        })
    }
}

/// What a guidance requires of the sampling that it guides. The default requires nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingNeeds {
    /// Phrases that the prompt must contain.
    pub phrases: Vec<String>,
    /// Phrases of the layout that the guidance follows: a prompt without them works against it.
    pub layout: Vec<String>,
    /// The steps whose timesteps the guidance was made for.
    pub steps: Option<(Steps, StepRange)>,
    /// The steps in which it acts, where its parameters name them.
    pub window: Option<Window>,
    /// The size of the image.
    pub size: Option<ImageSize>,
    /// A family whose latents the model must share.
    pub family: Option<Family>,
    /// The resolution of the attention maps that it uses: latent pixels along a side of one of their pixels.
    pub downscale: Option<u32>,
    /// Boxes that must contain a pixel of the image.
    pub boxes: Vec<Bounds>,
    /// Other conditioning that the network must have.
    pub conditioning: Option<Conditioning>,
}

impl SamplingNeeds {
    /// Says which box contains no pixel of an image of this size, and what helps.
    pub(crate) fn box_error(&self, whose: &str, size: ImageSize) -> Option<(String, String)> {
        let (height, width) = (size.height as usize, size.width as usize);
        let bounds = self.boxes.iter().find(|bounds| !has_cell(**bounds, height, width))?;
        let message = format!("{whose} has the box {bounds:?}, which contains no pixel of an image of {size}");
        Some((message, "make the box larger".into()))
    }
}

/// What an SDXL network is conditioned on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditioning {
    pub prompt: String,
    /// The prompt of the second text encoder; `prompt` if absent.
    pub prompt_2: Option<String>,
    pub clip_skip: Option<u32>,
    pub sizes: Sizes,
}

/// Declares `value` of the output `output`, if there is a value: for [`Node::declare`](lsregen_engine::Node::declare).
pub fn declared<D: 'static>(output: &'static str, value: Option<D>) -> Vec<(&'static str, Declaration)> {
    value.into_iter().map(|value| (output, Box::new(value) as Declaration)).collect()
}
