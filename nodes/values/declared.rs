//! What nodes declare of their outputs before a run. Checks compare these data, and never ask for the type of a node.

use lsregen_diffusion::models::Family;
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::sampler::SamplerKind;
use lsregen_engine::{Declaration, Links};

/// The size in pixels of an image, or of the image that a latent is decoded to.
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

/// The phrases of a layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phrases(pub Vec<String>);

impl Phrases {
    /// Returns the phrases of the layout at the socket `layout`; none if it declares none.
    pub(crate) fn of_layout(links: &Links) -> Vec<String> {
        links.declaration("layout").map_or(vec![], |Phrases(phrases)| phrases.clone())
    }
}

/// What a guidance requires of the sampling that it guides. The default requires nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingNeeds {
    /// Phrases that the prompt must contain.
    pub phrases: Vec<String>,
    /// The steps and the sampler whose timesteps the guidance was made for.
    pub timesteps: Option<(u32, SamplerKind)>,
    /// The size of the image.
    pub size: Option<ImageSize>,
    /// A family whose latents the model must share.
    pub family: Option<Family>,
    /// Other conditioning that the network must have.
    pub conditioning: Option<Conditioning>,
}

/// What an SDXL network is conditioned on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditioning {
    pub prompt: String,
    /// The prompt of the second text encoder; `prompt` if absent.
    pub prompt_2: Option<String>,
    pub sizes: Sizes,
}

/// Declares `value` of the output `output`, if there is a value: for [`Node::declare`](lsregen_engine::Node::declare).
pub fn declared<D: 'static>(output: &'static str, value: Option<D>) -> Vec<(&'static str, Declaration)> {
    value.into_iter().map(|value| (output, Box::new(value) as Declaration)).collect()
}
