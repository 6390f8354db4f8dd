//! What samplers have in common: their parameters and their work.

use std::sync::Arc;

use anyhow::ensure;
use lsregen_diffusion::guidance::GuidanceSpec;
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::pipeline::{self, SamplingSettings};
use lsregen_diffusion::sampler::SamplerKind;
use lsregen_engine::{Context, LinkedNode, Links, NodeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::{Cancellable, raise};
use crate::defaults;
use crate::options::{eta_faults, negative, prompt, size_faults, sizes};
use crate::preview::on_step_with_previews;
use crate::values::{Guidance, Latent, Model};
use crate::{BoundedAttention, BoxDiff, GligenLayout, LayoutGuidance, Segmentation, layout};

/// The parameters of a sampling, whatever the family of its model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Sampling {
    /// What to draw, of any length. `(text:1.2)` weighs text more, `(text:0.8)` less, `(text)` as `(text:1.1)`; `\(` and
    /// `\)` are parentheses as letters.
    pub prompt: String,
    /// What not to draw, written as a prompt. Without one the model is steered away from the empty text, or from zeros
    /// where its configuration asks for that.
    #[serde(default)]
    pub negative: Option<String>,
    /// Width of the picture in pixels, a multiple of 8. By default that of the guidance, where it has one, or else the
    /// model's own.
    #[serde(default)]
    #[schemars(range(min = 8, max = 8192))]
    pub width: Option<u32>,
    /// Height of the picture in pixels, a multiple of 8. By default that of the guidance, where it has one, or else the
    /// model's own.
    #[serde(default)]
    #[schemars(range(min = 8, max = 8192))]
    pub height: Option<u32>,
    /// Seed of the noise. One seed gives one picture, on every device, and the one that diffusers gives; its low 32 bits
    /// count.
    #[serde(default)]
    pub seed: u64,
    /// Denoising steps. More is slower and finer. An inversion must have been made for as many.
    #[serde(default = "defaults::steps")]
    #[schemars(range(min = 1, max = 999))]
    pub steps: u32,
    /// How the latent is sampled.
    #[serde(default)]
    pub sampler: SamplerKind,
    /// η of DDIM: the share of fresh noise in each step. 0 is deterministic; 1 is DDPM.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
}

/// The parameters of a sampling by an SDXL model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("additionalProperties" = false))]
pub struct SdxlSampling {
    /// What every sampling is told.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// Scale of classifier-free guidance: how closely the picture follows the prompt. 1 is none, and twice as fast; large
    /// values overshoot colours. Under guidance `shapes/xl` keeps a layout best near 2; SDXL is at its best near 5.
    #[serde(default = "defaults::sdxl_cfg")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg: f64,
    /// The prompt of the second text encoder, by default the same. The text as a whole, which SDXL is told too, comes from
    /// this one.
    #[serde(default)]
    pub prompt_2: Option<String>,
    /// What not to draw, for the second text encoder; by default the same.
    #[serde(default)]
    pub negative_2: Option<String>,
    /// Width and height in pixels of the photograph that the picture is taken from, as SDXL is told; by default the
    /// picture's own. A small one gives the look of an enlarged photograph, a large one more detail.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub original_size: Option<[u32; 2]>,
    /// Width and height in pixels at which the picture is to be shown, as SDXL is told; by default the picture's own.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub target_size: Option<[u32; 2]>,
    /// How many pixels were cut off at the left and at the top, `[left, top]`, as SDXL is told. `[0, 0]` asks for a motif
    /// that is whole.
    #[serde(default)]
    #[schemars(inner(range(min = 0, max = 16384)))]
    pub crop: [u32; 2],
}

impl SdxlSampling {
    /// Samples under any number of guidances.
    pub(crate) fn run(&self, model: &Model, guidance: &[Arc<Guidance>], cx: &Context) -> anyhow::Result<Latent> {
        let mut settings = self.sampling.settings(model, self.cfg, guidance)?;
        settings.prompt = prompt(&self.sampling.prompt, &self.prompt_2);
        settings.negative = negative(&self.sampling.negative, &self.negative_2);
        settings.sizes = sizes(self.original_size, self.target_size, self.crop);
        sample(model, &settings, guidance, cx)
    }
}

/// Samples under any number of guidances.
pub(crate) fn sample(
    model: &Model,
    settings: &SamplingSettings,
    guidance: &[Arc<Guidance>],
    cx: &Context,
) -> anyhow::Result<Latent> {
    cx.cancel().check()?;
    let on_step = on_step_with_previews(cx, model);
    let specs = specs(guidance, cx);
    let z = pipeline::sample(&model.0, settings, &specs, &on_step).map_err(raise)?;
    Ok(Latent { z, family: Some(model.0.info.family) })
}

/// What guides a run, until that is cancelled.
pub(crate) fn specs(guidance: &[Arc<Guidance>], cx: &Context) -> Vec<Arc<dyn GuidanceSpec>> {
    let spec = |g: &Arc<Guidance>| -> Arc<dyn GuidanceSpec> {
        Arc::new(Cancellable { spec: g.spec.clone(), cancel: cx.cancel().clone() })
    };
    guidance.iter().map(spec).collect()
}

/// Faults of guidances that move words which the prompt does not have.
pub(crate) fn phrase_faults(prompt: &str, links: &Links) -> Vec<NodeError> {
    let mut faults = Vec::new();
    let mut judge = |link: &LinkedNode, phrase: &str| {
        if !has_words(prompt, phrase) {
            let message = format!("`{}` guides the words `{phrase}`, and the prompt does not have them", link.name);
            let help = "say them in the prompt as the layout says them: attention can only move words that are there";
            faults.push(NodeError::new(format!("guidance/{}", link.index), message).help(help));
        }
    };
    for (link, guidance) in links.to::<Segmentation>("guidance") {
        guidance.regions.iter().for_each(|region| judge(link, &region.phrase));
    }
    let by_layout = links.to::<BoxDiff>("guidance").map(|(link, _)| link);
    let by_layout = by_layout.chain(links.to::<LayoutGuidance>("guidance").map(|(link, _)| link));
    let by_layout = by_layout.chain(links.to::<BoundedAttention>("guidance").map(|(link, _)| link));
    for link in by_layout {
        let further = (link.upstream)();
        let boxes = further.to::<GligenLayout>("layout").map(|(_, node)| &node.boxes);
        let boxes = boxes.chain(further.to::<layout::Layout>("layout").map(|(_, node)| &node.boxes));
        boxes.flatten().flatten().for_each(|object| judge(link, &object.phrase));
    }
    faults
}

/// Whether a prompt has a phrase's words, one after another, but for a leading article.
fn has_words(prompt: &str, phrase: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    };
    let (prompt, phrase) = (words(prompt), words(phrase));
    let phrase = match phrase.as_slice() {
        [article, rest @ ..] if !rest.is_empty() && ["a", "an", "the"].contains(&article.as_str()) => rest,
        all => all,
    };
    // What has no letters is for the tokenizer to judge.
    phrase.is_empty() || prompt.windows(phrase.len()).any(|words| words == phrase)
}

impl Sampling {
    pub(crate) fn faults(&self) -> Vec<NodeError> {
        let mut faults = size_faults(self.width, self.height);
        faults.extend(eta_faults(self.sampler, self.eta));
        faults
    }

    /// The settings of a sampling by `model` under these guidances.
    ///
    /// # Errors
    /// When guidances are for pictures of another size than is drawn.
    pub(crate) fn settings(
        &self,
        model: &Model,
        cfg: f64,
        guidance: &[Arc<Guidance>],
    ) -> anyhow::Result<SamplingSettings> {
        let own = model.0.info.picture_size;
        let (usual_width, usual_height) = guidance.iter().find_map(|g| g.size).unwrap_or((own, own));
        let width = self.width.map_or(usual_width, |side| side as usize);
        let height = self.height.map_or(usual_height, |side| side as usize);
        for (i, g) in guidance.iter().enumerate() {
            let Some((own_width, own_height)) = g.size else { continue };
            ensure!(
                (own_width, own_height) == (width, height),
                "guidance number {} of {} is for pictures of {own_width}×{own_height}, and this sampling draws \
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
            steps: self.steps as usize,
            cfg,
            sampler: self.sampler,
            eta: self.eta,
            sizes: Sizes::default(),
        })
    }
}
