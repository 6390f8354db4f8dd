//! The parameters of samplings, and their checks.

use std::sync::Arc;

use anyhow::ensure;
use lsregen_diffusion::models::ModelInfo;
use lsregen_diffusion::models::prompt::{Prompt, Sizes};
use lsregen_diffusion::pipeline::{InputLatent, SamplingOptions, SamplingSettings};
use lsregen_diffusion::source::SourceImage;
use lsregen_engine::{Links, NodeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::batch::BatchParams;
use super::cfg::{CfgParams, cfg_warnings};
use super::source::ImageGuidance;
use super::steps::{Fresh, StepRange, Steps};
use super::unet::UNetParams;
use super::{defaults, prompt_syntax};
use crate::values::{Conditioning, Guidance, Image, ImageInfo, ImageSize, Latent, Model, SamplingNeeds, latent_errors};

/// The parameters of a sampling with a model of any family.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Sampling {
    /// The description of the image, of any length. `(text:1.2)` gives text more weight, `(text:0.8)` less, and `(text)` the
    /// weight 1.1; write parentheses as `\(` and `\)`.
    pub prompt: String,
    /// The description of what the image should not show. By default the empty text, or zeros if the model's configuration
    /// says so.
    #[serde(default)]
    pub negative: Option<String>,
    /// Width of the image in pixels, a multiple of 8. By default that of the input `latent` or `image`, or else of the
    /// guidance, or else of the images that the model was trained on.
    #[serde(default)]
    #[schemars(range(min = 8, max = 8192))]
    pub width: Option<u32>,
    /// Height of the image in pixels, a multiple of 8. By default that of the input `latent` or `image`, or else of the
    /// guidance, or else of the images that the model was trained on.
    #[serde(default)]
    #[schemars(range(min = 8, max = 8192))]
    pub height: Option<u32>,
    /// Seed of the noise. One seed gives the same image on every device, and the same as in diffusers. PyTorch's generator
    /// uses its low 32 bits; the Brownian noise of `conventions: comfyui` uses all 64.
    #[serde(default)]
    #[schemars(extend("x-role" = "seed"))]
    pub seed: u64,
    /// How many images.
    #[serde(flatten)]
    pub batch: BatchParams,
    /// The steps.
    #[serde(flatten)]
    pub steps: Steps,
    /// Their fresh noise.
    #[serde(flatten)]
    pub fresh: Fresh,
    /// The part that is taken.
    #[serde(flatten)]
    pub range: StepRange,
    /// Whether noise of the seed is added to the input `latent`. `false` for a latent that still has the noise of `start_step`,
    /// because an earlier sampling left it (`leftover_noise`).
    #[serde(default = "yes")]
    pub add_noise: bool,
    /// Whether a sampling with an `end_step` returns a latent with the noise of that step, for another sampling to go on. By
    /// default its last step removes all noise.
    #[serde(default)]
    pub leftover_noise: bool,
    /// The layer of the text encoder whose states are used, counted from the last one, as in A1111's web UI: `2` for many models
    /// that were trained on drawings. diffusers counts from the default: its 1 is 2 here for
    /// Stable Diffusion 1, and 3 for the others. ComfyUI writes a negative number. By default 1 for
    /// Stable Diffusion 1, and 2 for the others.
    #[serde(default)]
    #[schemars(range(min = 1, max = 24))]
    pub clip_skip: Option<u32>,
    /// How classifier-free guidance acts.
    #[serde(flatten)]
    pub cfg_options: CfgParams,
    /// How the U-Net is changed.
    #[serde(flatten)]
    pub unet: UNetParams,
}

fn yes() -> bool {
    true
}

/// The parameters of a sampling with an SDXL model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("additionalProperties" = false))]
pub struct SdxlSampling {
    /// The parameters of every sampling.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// Scale of classifier-free guidance: how closely the image follows the prompt. 1 or less disables it and is twice as fast;
    /// large values oversaturate colours. Under guidance `shapes/xl` keeps a layout best near 2; SDXL is at its best
    /// near 5.
    #[serde(default = "defaults::sdxl_cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
    /// The guidance by an image.
    #[serde(flatten)]
    pub image_guidance: ImageGuidance,
    /// The prompt of the second text encoder; by default that of the first. SDXL's pooled text embedding comes from
    /// this prompt.
    #[serde(default)]
    pub prompt_2: Option<String>,
    /// The negative prompt of the second text encoder; by default that of the first.
    #[serde(default)]
    pub negative_2: Option<String>,
    /// SDXL's original size: width and height in pixels of the photograph that the image is taken from. By default the
    /// image's own size. A small one gives the look of an enlarged photograph, a large one more detail.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub original_size: Option<[u32; 2]>,
    /// SDXL's target size: width and height in pixels at which the image is shown. By default the image's own size.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub target_size: Option<[u32; 2]>,
    /// SDXL's crop: the pixels cut off at the left and at the top, `[left, top]`. `[0, 0]` gives a centred, complete subject.
    #[serde(default)]
    #[schemars(inner(range(min = 0, max = 16384)))]
    pub crop: [u32; 2],
}

impl SdxlSampling {
    /// Reports invalid parameters.
    pub(crate) fn errors(&self) -> Vec<NodeError> {
        let second = [("prompt_2", &self.prompt_2), ("negative_2", &self.negative_2)];
        let second = second.into_iter().filter_map(|(param, text)| Some((param, text.as_deref()?)));
        let second = second.flat_map(|(param, text)| prompt_syntax::problems(param, text));
        self.sampling.errors(self.cfg).into_iter().chain(second).collect()
    }
}

/// Returns a prompt, with the text of the second encoder.
pub(crate) fn prompt(text: &str, text_2: &Option<String>) -> Prompt {
    Prompt { text: text.into(), text_2: text_2.clone() }
}

/// Returns a negative prompt, if either text is given.
pub(crate) fn negative(text: &Option<String>, text_2: &Option<String>) -> Option<Prompt> {
    let given = text.is_some() || text_2.is_some();
    given.then(|| prompt(text.as_deref().unwrap_or_default(), text_2))
}

/// Returns SDXL's size conditioning.
pub(crate) fn sizes(original: Option<[u32; 2]>, target: Option<[u32; 2]>, crop: [u32; 2]) -> Sizes {
    let pair = |[a, b]: [u32; 2]| (a as usize, b as usize);
    Sizes { original: original.map(pair), target: target.map(pair), crop: pair(crop) }
}

/// Returns the side in pixels of the images that the model at the socket `model` was trained on, if it is known.
pub(crate) fn trained_side(links: &Links) -> Option<u32> {
    u32::try_from(links.declaration::<ModelInfo>("model")?.picture_size).ok()
}

/// Reports sides of an image that are not whole latent pixels of the model at the socket `model`.
pub(crate) fn size_errors(width: Option<u32>, height: Option<u32>, links: &Links) -> Vec<NodeError> {
    let step = links.declaration::<ModelInfo>("model").and_then(|info| u32::try_from(info.size_step).ok());
    let sides = [("width", width), ("height", height)].into_iter();
    let given = sides.filter_map(|(name, side)| Some((name, side?, step?)));
    given
        .filter(|(_, side, step)| side % step != 0)
        .map(|(name, side, step)| {
            let (below, above) = (side / step * step, side.div_ceil(step) * step);
            let choice = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
            NodeError::new(name, format!("`{name}` must be a multiple of {step} pixels, but is {side}"))
                .help(format!("write {choice}"))
        })
        .collect()
}

/// Reports a `clip_skip` that the model at the socket `model` does not have.
pub(crate) fn clip_skip_error(clip_skip: Option<u32>, links: &Links) -> Option<NodeError> {
    let (layer, info) = (clip_skip? as usize, links.declaration::<ModelInfo>("model")?);
    let own = info.family.clip_skip();
    let most = own + info.text_layers.saturating_sub(1);
    (!(own..=most).contains(&layer)).then(|| {
        NodeError::new(
            "clip_skip",
            format!("`clip_skip` must be between {own} and {most} for this model, but is {layer}"),
        )
        .help(format!("leave it out for {own}, the layer that the model was trained on"))
    })
}

impl Sampling {
    /// Reports invalid parameters, with the `cfg` of the sampling.
    pub(crate) fn errors(&self, cfg: f64) -> Vec<NodeError> {
        let mut errors = self.fresh.errors(&self.steps);
        errors.extend(self.range.warnings(self.steps.steps, self.leftover_noise));
        errors.extend(cfg_warnings(cfg, self.negative.is_some().then_some("negative")));
        errors.extend(self.cfg_options.errors(cfg));
        errors.extend(self.unet.errors());
        errors.extend(prompt_syntax::problems("prompt", &self.prompt));
        errors.extend(self.negative.iter().flat_map(|negative| prompt_syntax::problems("negative", negative)));
        errors
    }

    /// Returns the size of the image, if it is known before the run: by the parameters, or else by the guidances, or else
    /// by the model. The size of the input latent, or of the image to change, precedes that of the guidances.
    pub(crate) fn size(&self, links: &Links) -> Option<ImageSize> {
        let by_guidance = links.declared::<SamplingNeeds>("guidance").find_map(|(_, needs)| needs.size);
        let of = |socket| ImageInfo::of(links, socket).size;
        let by_input = of("latent").or_else(|| of("image")).or(by_guidance);
        // The size of an input that is not known is not that of the model.
        let own = || if links.has("latent") || links.has("image") { None } else { trained_side(links) };
        let width = self.width.or(by_input.map(|size| size.width)).or_else(own)?;
        let height = self.height.or(by_input.map(|size| size.height)).or_else(own)?;
        Some(ImageSize { width, height })
    }

    /// Returns what is known of the image before the run.
    pub(crate) fn image(&self, links: &Links) -> ImageInfo {
        let (size, count) = (self.size(links), self.batch.declared(links));
        ImageInfo { size, phrases: vec![], count, seed: Some(self.seed), noise: self.left_noise() }
    }

    /// Reports a size that the model cannot generate, and guidances whose needs this sampling does not meet. `conditioning`
    /// is that of an SDXL model.
    pub(crate) fn link_errors(&self, links: &Links, conditioning: Option<&Conditioning>) -> Vec<NodeError> {
        let mut errors = size_errors(self.width, self.height, links);
        errors.extend(self.range.errors(self.steps.steps, links.has("latent")));
        if errors.is_empty() {
            errors.extend(self.steps.errors(self.fresh, self.range.part(self.leftover_noise), links));
        }
        errors.extend(clip_skip_error(self.clip_skip, links));
        errors.extend(self.unet.link_errors(links));
        errors.extend(latent_errors(links));
        errors.extend(self.latent_size_error(links));
        errors.extend(self.leftover_warnings(links));
        errors.extend(self.batch.error(links));
        errors.extend(self.guidance_errors(links, conditioning));
        errors
    }

    /// Reports a size other than that of the input latent, and noise settings without one.
    fn latent_size_error(&self, links: &Links) -> Option<NodeError> {
        if !links.has("latent") {
            return (!self.add_noise).then(|| {
                NodeError::new("add_noise", "`add_noise: false` needs an input `latent` that has noise")
                    .help("link `latent` to the sampling that left the noise, or leave `add_noise` out")
            });
        }
        let own = ImageInfo::of(links, "latent").size?;
        let given = ImageSize { width: self.width.unwrap_or(own.width), height: self.height.unwrap_or(own.height) };
        (given != own).then(|| {
            NodeError::new("latent", format!("the latent is of an image of {own}, but this sampling generates {given}"))
                .help("leave `width` and `height` out, or resize the image before it is encoded")
        })
    }

    fn options(&self) -> anyhow::Result<SamplingOptions> {
        Ok(SamplingOptions {
            cfg_rescale: self.cfg_options.cfg_rescale,
            cfg_window: self.cfg_options.cfg_window,
            clip_skip: self.clip_skip.map(|layer| layer as usize),
            freeu: self.unet.freeu(),
            pag: self.unet.pag()?,
        })
    }

    /// Returns the settings of a sampling with `model` under these guidances.
    ///
    /// # Errors
    /// If a guidance is for images of another size.
    pub(crate) fn settings(
        &self,
        model: &Model,
        cfg: f64,
        guidance: &[Arc<Guidance>],
        latent: Option<&Latent>,
        source: SourceImage,
    ) -> anyhow::Result<SamplingSettings> {
        let info = &model.0.info;
        let latent = latent.map(|latent| latent.all_of(model)).transpose()?;
        let by_latent =
            latent.map(|z| z.dims4()).transpose()?.map(|(_, _, h, w)| (w * info.size_step, h * info.size_step));
        let by_image = source.image.as_ref().map(|x| x.dims4()).transpose()?.map(|(_, _, h, w)| (w, h));
        let by_guidance = guidance.iter().find_map(|g| g.size);
        let own = (info.picture_size, info.picture_size);
        let (default_width, default_height) = by_latent.or(by_image).or(by_guidance).unwrap_or(own);
        let width = self.width.map_or(default_width, |side| side as usize);
        let height = self.height.map_or(default_height, |side| side as usize);
        for (i, g) in guidance.iter().enumerate() {
            let Some((own_width, own_height)) = g.size else { continue };
            ensure!(
                (own_width, own_height) == (width, height),
                "guidance {} of {} is for images of {own_width}×{own_height}, but this sampling generates \
                 {width}×{height}: make them equal, or leave `width` and `height` out",
                i + 1,
                guidance.len(),
            );
        }
        Ok(SamplingSettings {
            prompt: prompt(&self.prompt, &None),
            negative: negative(&self.negative, &None),
            width,
            height,
            seed: self.seed,
            cfg,
            sampler: self.steps.settings(self.fresh, self.range.part(self.leftover_noise)),
            sizes: Sizes::default(),
            options: self.options()?,
            from: latent.map(|z| InputLatent { latent: z.clone(), add_noise: self.add_noise }),
            source,
        })
    }
}

impl SdxlSampling {
    /// Returns what the network is conditioned on.
    pub(crate) fn conditioning(&self) -> Conditioning {
        Conditioning {
            prompt: self.sampling.prompt.clone(),
            prompt_2: self.prompt_2.clone(),
            clip_skip: self.sampling.clip_skip,
            sizes: sizes(self.original_size, self.target_size, self.crop),
        }
    }

    /// Returns the settings of a sampling: see [`Sampling::settings`]. `images` are those at the sockets `image` and `mask`.
    pub(crate) fn settings(
        &self,
        model: &Model,
        guidance: &[Arc<Guidance>],
        latent: Option<&Latent>,
        images: [Option<&Image>; 2],
    ) -> anyhow::Result<SamplingSettings> {
        let source = self.image_guidance.source(images)?;
        Ok(SamplingSettings {
            prompt: prompt(&self.sampling.prompt, &self.prompt_2),
            negative: negative(&self.sampling.negative, &self.negative_2),
            sizes: sizes(self.original_size, self.target_size, self.crop),
            ..self.sampling.settings(model, self.cfg, guidance, latent, source)?
        })
    }
}
