//! Whole runs: a prompt and a layout to a latent, by the models and samplers of this crate.
//!
//! Each run logs what it is asked for, at the level `debug`. Knows what a run is made of and how its parts fit. Knows no
//! graph.

use std::sync::Arc;

use candle_core::{D, Tensor};
use tracing::debug;

use crate::denoiser::{CfgDenoiser, Denoiser};
use crate::guidance::attention::{self, Layers};
use crate::guidance::{BoundGuidance, GuidanceSpec, SamplingRun, StepContext, Window};
use crate::inversion::{self, Trajectory};
use crate::layout::{self, Bounds, GroundedPhrase};
use crate::models::prompt::{Prompt, Sizes};
use crate::models::unet::Conditioning;
use crate::models::{Family, Model};
use crate::noise::Generator;
use crate::regions::{Part, Regions};
use crate::sampler::{OnStep, Sampler, SamplerKind};
use crate::{Error, Result};

/// What every run is told.
#[derive(Clone, Debug)]
pub struct SamplingSettings {
    /// What to draw.
    pub prompt: Prompt,
    /// What not to draw; without one SDXL's may be zero, as the model's configuration says.
    pub negative: Option<Prompt>,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Of the noise; its low 32 bits count.
    pub seed: u64,
    /// T.
    pub steps: usize,
    /// Scale of classifier-free guidance; 1 is none.
    pub cfg: f64,
    /// Sampler.
    pub sampler: SamplerKind,
    /// η of DDIM.
    pub eta: f64,
    /// What SDXL is told of sizes; other families have no use for it.
    pub sizes: Sizes,
}

impl SamplingSettings {
    fn conditional(&self, model: &Model) -> Result<Conditioning> {
        model.condition(&model.encode_prompt(&self.prompt)?, self.width, self.height, self.sizes)
    }

    fn unconditional(&self, model: &Model) -> Result<Conditioning> {
        model.condition(&model.encode_negative(self.negative.as_ref())?, self.width, self.height, self.sizes)
    }

    fn sampler(&self, model: &Model) -> Result<Sampler> {
        Sampler::new(self.sampler, &model.scheduler, self.steps, self.eta)
    }

    /// The unit noise of the run, (1, C, h, w), in f32: a sampler's sums want more digits than a network needs.
    fn noise(&self, model: &Model, generator: &mut Generator) -> Result<Tensor> {
        let f = model.info.size_step;
        if self.width == 0 || self.height == 0 || !self.width.is_multiple_of(f) || !self.height.is_multiple_of(f) {
            return Err(Error::input(format!(
                "width and height must be multiples of {f} pixels, not {}×{}",
                self.width, self.height
            )));
        }
        let shape = [1, model.blueprint().unet.0.in_channels, self.height / f, self.width / f];
        generator.randn(&shape, model.device())
    }
}

/// GLIGEN: a picture of a layout, as a latent (1, 4, h, w).
///
/// The conditional half sees the boxes in `slots` slots, the unconditional half only null slots. After the first ⌊β T⌋
/// steps the fusers are off (the paper's scheduled sampling, β = `beta`).
pub fn gligen(
    model: &Model,
    settings: &SamplingSettings,
    layout: &[GroundedPhrase],
    slots: usize,
    beta: f64,
    on_step: OnStep,
) -> Result<Tensor> {
    debug!(?settings, ?layout, slots, beta, "GLIGEN");
    if model.info.family != Family::Gligen {
        return Err(Error::input(format!(
            "a layout needs a GLIGEN model, and this one is of the family {}",
            model.info.family.name()
        )));
    }
    let sampler = settings.sampler(model)?;
    let mut generator = Generator::new(settings.seed);
    let noise = settings.noise(model, &mut generator)?;
    let (mut conditional, mut unconditional) = (settings.conditional(model)?, settings.unconditional(model)?);
    conditional.objs = Some(model.ground(layout, slots)?);
    unconditional.objs = Some(model.ground(&[], slots)?);
    let grounded = CfgDenoiser::new(model.unet()?, &conditional, &unconditional, settings.cfg)?;
    let ungrounded = grounded.ungrounded();
    let grounded_steps = (beta * settings.steps as f64) as usize;
    let last_grounded = sampler.timesteps().iter().take(grounded_steps).next_back().copied();
    let denoiser = |z: &Tensor, t: f64| match last_grounded {
        Some(last) if t >= last => grounded.predict(z, t),
        _ => ungrounded.predict(z, t),
    };
    sampler.run(&noise, &denoiser, &[], &mut generator, on_step)
}

/// Sampling under backward guidance, as a latent (1, 4, h, w). Without guidance: plain sampling.
pub fn sample(
    model: &Model,
    settings: &SamplingSettings,
    specs: &[Arc<dyn GuidanceSpec>],
    on_step: OnStep,
) -> Result<Tensor> {
    debug!(?settings, ?specs, "sampling");
    let sampler = settings.sampler(model)?;
    let mut generator = Generator::new(settings.seed);
    let noise = settings.noise(model, &mut generator)?;
    let guidance = prepared(model, settings, &sampler, specs)?;
    let denoiser = denoiser(model, settings)?;
    sampler.run(&noise, &denoiser, &guidance, &mut generator, on_step)
}

/// How the regions of a picture get their own prompts.
#[derive(Clone, Debug)]
pub struct RegionPrompts {
    /// Each region's prompt and its box.
    pub regions: Vec<(Prompt, Bounds)>,
    /// Share of the steps, from the first on, in which a region sees a plain ground around it.
    pub bootstrap: f64,
}

/// Grounds that bootstrapping takes turns with.
const GROUNDS: usize = 4;

/// MultiDiffusion: [`sample`] with a prompt for each region, that of `settings` for what is in none.
pub fn sample_regions(
    model: &Model,
    settings: &SamplingSettings,
    prompts: &RegionPrompts,
    specs: &[Arc<dyn GuidanceSpec>],
    on_step: OnStep,
) -> Result<Tensor> {
    debug!(?settings, ?prompts, ?specs, "sampling by regions");
    let sampler = settings.sampler(model)?;
    let mut generator = Generator::new(settings.seed);
    let noise = settings.noise(model, &mut generator)?;
    let guidance = prepared(model, settings, &sampler, specs)?;
    let bootstrapped = Window::first(prompts.bootstrap).steps(sampler.timesteps()).end;
    let bootstrap = bootstrapped.checked_sub(1).map_or(f64::INFINITY, |last| sampler.timesteps()[last]);
    let grounds = match bootstrapped {
        0 => vec![],
        _ => plain_grounds(model, settings, &mut Generator::new(settings.seed.wrapping_add(1)))?,
    };

    let text = |prompt: &Prompt| SamplingSettings { prompt: prompt.clone(), ..settings.clone() }.conditional(model);
    let whole = [&settings.prompt].into_iter().chain(prompts.regions.iter().map(|(prompt, _)| prompt));
    let denoisers = denoisers(model, settings, whole.map(text).collect::<Result<_>>()?)?;
    let (_, _, h, w) = noise.dims4()?;
    let mask = |boxes: &[Bounds]| Tensor::from_vec(layout::mask(boxes, h, w, 0.0), (1, 1, h, w), noise.device());
    let boxes: Vec<Bounds> = prompts.regions.iter().map(|(_, bounds)| *bounds).collect();
    let mut masks = vec![mask(&boxes)?.affine(-1.0, 1.0)?];
    for bounds in &boxes {
        masks.push(mask(&[*bounds])?);
    }
    let cover = masks[1..].iter().try_fold(masks[0].clone(), |sum, mask| sum + mask)?;
    let part = |(i, (denoiser, mask))| Part { denoiser, mask, is_object: i > 0 };
    let parts = denoisers.into_iter().zip(masks).enumerate().map(part).collect();
    let schedule = sampler.schedule().clone();
    let regions = Regions { parts, cover, grounds, bootstrap, schedule, seed: settings.seed };
    sampler.run(&noise, &regions, &guidance, &mut generator, on_step)
}

/// The latents of pictures of one colour each, chosen by chance.
fn plain_grounds(model: &Model, settings: &SamplingSettings, generator: &mut Generator) -> Result<Vec<Tensor>> {
    let vae = model.vae()?;
    let ground = |_| {
        let colour = generator.randn(&[1, 3, 1, 1], model.device())?.tanh()?;
        vae.encode(&colour.broadcast_as((1, 3, settings.height, settings.width))?.contiguous()?)
    };
    (0..GROUNDS).map(ground).collect()
}

/// The guidances of this run.
fn prepared(
    model: &Model,
    settings: &SamplingSettings,
    sampler: &Sampler,
    specs: &[Arc<dyn GuidanceSpec>],
) -> Result<Vec<BoundGuidance>> {
    let SamplingSettings { width, height, seed, .. } = *settings;
    let run = SamplingRun { model, prompt: &settings.prompt, sampler, width, height, seed };
    let guidance: Vec<_> = specs.iter().map(|spec| spec.bind(&run)).collect::<Result<_>>()?;
    Ok(guidance.concat())
}

/// Slots of a GLIGEN model that is given no layout: as many as it was trained with, all null.
const NULL_SLOTS: usize = 30;

fn denoiser(model: &Model, settings: &SamplingSettings) -> Result<CfgDenoiser> {
    let conditional = settings.conditional(model)?;
    Ok(denoisers(model, settings, vec![conditional])?.remove(0))
}

/// A denoiser for each of these texts, away from the same one. The network is wanted last, and once, so that a model that
/// makes room for it does not load it again.
fn denoisers(model: &Model, settings: &SamplingSettings, conditional: Vec<Conditioning>) -> Result<Vec<CfgDenoiser>> {
    let unconditional = (settings.cfg != 1.0).then(|| settings.unconditional(model)).transpose()?;
    let objs = (model.info.family == Family::Gligen).then(|| model.ground(&[], NULL_SLOTS)).transpose()?;
    let grounded = |conditioning: Conditioning| Conditioning { objs: objs.clone(), ..conditioning };
    let unconditional = unconditional.map(grounded);
    let unet = model.unet()?;
    let guided = |conditional| match &unconditional {
        Some(unconditional) => CfgDenoiser::new(unet.clone(), &grounded(conditional), unconditional, settings.cfg),
        None => Ok(CfgDenoiser::plain(unet.clone(), &grounded(conditional))),
    };
    conditional.into_iter().map(guided).collect()
}

/// Where the words `phrase` of the prompt look in a picture, at timestep t: the mean cross-attention of all layers of one
/// resolution, (1, 1, h, w), between 0 and 1.
///
/// `z0` is the picture's latent, which is noised to t by the noise of the settings' seed. A map has one pixel for
/// `downscale` latent pixels a side. Width and height are those of `z0`; no guidance has a part in it.
pub fn attention_map(
    model: &Model,
    z0: &Tensor,
    settings: &SamplingSettings,
    phrase: &str,
    t: f64,
    downscale: usize,
) -> Result<Tensor> {
    debug!(latent = ?z0, ?settings, phrase, timestep = t, downscale, "attention map");
    let sampler = settings.sampler(model)?;
    let positions = model.positions(&settings.prompt, phrase)?;
    let denoiser = denoiser(model, &SamplingSettings { cfg: 1.0, ..settings.clone() })?;
    let a = sampler.schedule().alpha_bar(t);
    let epsilon = Generator::new(settings.seed).randn(z0.dims(), z0.device())?.to_dtype(z0.dtype())?;
    let z = ((z0 * a.sqrt())? + (epsilon * (1.0 - a).sqrt())?)?;
    let kind = sampler.schedule().config.prediction_type;
    let at = StepContext { step: 0, steps: 1, t, alpha_bar: a, prediction_type: kind, denoiser: &denoiser };
    let maps = Layers::Downscale(downscale).maps(&z, &at)?;
    let (h, w) = maps.first().map_or((0, 0), |map| map.size);
    let map = attention::columns(&attention::mean_map(&maps)?, &positions)?.mean(D::Minus1)?;
    let low = map.broadcast_sub(&map.min(0)?)?;
    Ok(low.broadcast_div(&(low.max(0)? + 1e-12)?)?.reshape((1, 1, h, w))?)
}

/// How the noisy latents of a reference are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InversionMode {
    /// DDIM inversion, the paper's.
    Ddim,
    /// Noising with one ε for all timesteps.
    Noise {
        /// Whether ε is the noise that a sampling of the same seed starts from; else it is the generator's next.
        shared: bool,
    },
}

/// z̄_t of the reference latent `z0` at the timesteps of the run that `settings` describes, within `window`.
///
/// Width and height are those of `z0`. The prompt is the sampling's; `settings.cfg` is that of the inversion, 1 in the
/// paper's mode.
pub fn invert(
    model: &Model,
    z0: &Tensor,
    settings: &SamplingSettings,
    mode: InversionMode,
    window: Window,
    on_step: OnStep,
) -> Result<Arc<Trajectory>> {
    debug!(latent = ?z0, ?settings, ?mode, ?window, "inversion");
    let sampler = settings.sampler(model)?;
    let keep = window.steps(sampler.timesteps()).end;
    let trajectory = match mode {
        InversionMode::Ddim => inversion::ddim(z0, &sampler, &denoiser(model, settings)?, keep, on_step)?,
        InversionMode::Noise { shared } => {
            let mut generator = Generator::new(settings.seed);
            let mut epsilon = generator.randn(z0.dims(), z0.device())?;
            if !shared {
                epsilon = generator.randn(z0.dims(), z0.device())?;
            }
            inversion::noise(z0, &sampler, &epsilon.to_dtype(z0.dtype())?, keep)?
        }
    };
    Ok(Arc::new(trajectory))
}
