//! Complete samplings: from a prompt and a layout to a latent, with the models and samplers of this crate.
//!
//! Each sampling logs its settings at the level `debug`. Combines the parts of a sampling. Independent of graphs.

use std::sync::Arc;

use candle_core::{D, Tensor};
use tracing::debug;

use crate::denoiser::{CfgDenoiser, CfgOptions, Denoiser, guides, noised};
use crate::guidance::attention::{self, Layers};
use crate::guidance::{BoundGuidance, GuidanceSpec, SamplingRun, StepContext, StepShare, Window};
use crate::inversion::{self, Trajectory};
use crate::layout::{self, Bounds, GroundedPhrase};
use crate::models::config::UNetInput;
use crate::models::prompt::{Prompt, Sizes};
use crate::models::unet::{Conditioning, FreeU};
use crate::models::{Family, Model, NEGATIVE_AESTHETIC_SCORE};
use crate::noise::Generator;
use crate::perturbed_attention::PerturbedAttention;
use crate::reduce::all_finite;
use crate::regions::{RegionPart, Regions};
use crate::sampler::{FreshNoise, OnStep, Sampler, SamplerSettings, Step};
use crate::source::SourceImage;
use crate::{Error, Result};

/// The settings of a sampling.
#[derive(Clone, Debug)]
pub struct SamplingSettings {
    /// The prompt.
    pub prompt: Prompt,
    /// The negative prompt; `None` is the empty text, or zeros if the configuration of an SDXL model says so.
    pub negative: Option<Prompt>,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Seed of the noise; only its low 32 bits are used.
    pub seed: u64,
    /// s, the scale of classifier-free guidance; 1 and less disable it.
    pub cfg: f64,
    /// The sampler and its steps.
    pub sampler: SamplerSettings,
    /// What the sampling starts from; by default noise alone.
    pub from: Option<InputLatent>,
    /// Further settings, which are off by default.
    pub options: SamplingOptions,
    /// The image that an inpainting or InstructPix2Pix model takes.
    pub source: SourceImage,
    /// SDXL's size conditioning; other families ignore it.
    pub sizes: Sizes,
}

/// Settings of a sampling that are off by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingOptions {
    /// φ of rescaled classifier-free guidance.
    pub cfg_rescale: f64,
    /// The steps with classifier-free guidance; by default all.
    pub cfg_window: Option<StepShare>,
    /// The layer of the text encoders, from the last one, whose states are used.
    pub clip_skip: Option<usize>,
    /// FreeU's factors.
    pub freeu: Option<FreeU>,
    /// Perturbed-attention guidance.
    pub pag: Option<PerturbedAttention>,
}

/// A latent that a sampling starts from.
#[derive(Clone, Debug)]
pub struct InputLatent {
    /// z₀ (1, C, h, w), or the noisy latent that an earlier sampling left. For a batch of n images, either that of all of them,
    /// or (n, C, h, w).
    pub latent: Tensor,
    /// Whether noise is added to it.
    pub add_noise: bool,
}

/// Called after each step of a batch, with the number of the image, from 0; an error ends the sampling.
pub type OnImageStep<'a> = &'a dyn Fn(usize, Step) -> Result<()>;

impl SamplingSettings {
    /// Returns the settings of each image of a batch: the seeds follow one another, and so do the input latents if there are
    /// several.
    fn of_images(&self, count: usize) -> Result<Vec<SamplingSettings>> {
        let latents = self.from.as_ref().map_or(Ok(1), |from| from.latent.dim(0))?;
        if latents != 1 && latents != count {
            return Err(Error::Input(format!("{latents} input latents do not fit {count} images: give one for each")));
        }
        let of_image = |image: usize| {
            let mut own = SamplingSettings { seed: self.seed.wrapping_add(image as u64), ..self.clone() };
            if let Some(from) = own.from.as_mut().filter(|_| latents > 1) {
                from.latent = from.latent.narrow(0, image, 1)?.copy()?;
            }
            Ok(own)
        };
        (0..count).map(of_image).collect()
    }

    /// Returns the latent of the first step, from unit noise and the input latent.
    fn start(&self, sampler: &Sampler, noise: &Tensor) -> Result<Tensor> {
        let Some(InputLatent { latent, add_noise }) = &self.from else { return sampler.start(noise) };
        if latent.dims() != noise.dims() {
            return Err(Error::input(format!(
                "the input latent is {:?}, but this sampling's is {:?}: leave `width` and `height` out",
                latent.dims(),
                noise.dims()
            )));
        }
        let latent = latent.to_device(noise.device())?.to_dtype(noise.dtype())?;
        sampler.start_from(&latent, add_noise.then_some(noise))
    }

    fn conditional(&self, model: &Model) -> Result<Conditioning> {
        let conditioning = model.condition(
            &model.encode(&self.prompt, self.options.clip_skip)?,
            self.width,
            self.height,
            self.sizes,
        )?;
        let guidance = model.takes_guidance().then(|| Tensor::new(&[self.cfg as f32], model.device())).transpose()?;
        Ok(Conditioning { guidance, ..conditioning })
    }

    fn unconditional(&self, model: &Model) -> Result<Conditioning> {
        let text = model.encode_negative(self.negative.as_ref(), self.options.clip_skip)?;
        model.condition_scored(&text, self.width, self.height, self.sizes, NEGATIVE_AESTHETIC_SCORE)
    }

    /// How classifier-free guidance acts in the steps of this sampler.
    fn cfg_options(&self, sampler: &Sampler) -> CfgOptions {
        let timesteps = self.options.cfg_window.map(|share| {
            let steps = &sampler.timesteps()[Window::Share(share).steps(sampler.timesteps())];
            (steps.last().copied().unwrap_or(f64::INFINITY), steps.first().copied().unwrap_or(f64::INFINITY))
        });
        let whole_timesteps = sampler.schedule().has_whole_timesteps;
        CfgOptions { rescale: self.options.cfg_rescale, timesteps, whole_timesteps }
    }

    /// Whether there is classifier-free guidance. A network that takes the guidance scale has learned it instead.
    fn guides(&self, model: &Model) -> bool {
        guides(self.cfg) && !model.takes_guidance()
    }

    fn sampler(&self, model: &Model) -> Result<Sampler> {
        Sampler::new(&model.info.scheduler, &self.sampler)
    }

    /// Returns the unit noise of the sampling, (1, C, h, w), in f32: the sums of a sampler need more precision than a network.
    fn noise(&self, model: &Model, generator: &mut Generator) -> Result<Tensor> {
        let f = model.info.size_step;
        if self.width == 0 || self.height == 0 || !self.width.is_multiple_of(f) || !self.height.is_multiple_of(f) {
            return Err(Error::input(format!(
                "`width` and `height` must be multiples of {f} pixels, but are {}×{}",
                self.width, self.height
            )));
        }
        let shape = [1, model.blueprint().unet.0.out_channels, self.height / f, self.width / f];
        generator.randn(&shape, model.device())
    }
}

/// Samples `count` images of consecutive seeds from a layout with GLIGEN, one after another, as latents (n, 4, h, w). Each equals
/// the single image of its seed.
///
/// The conditional half is grounded on the boxes in `slots` slots, the unconditional half on null slots only. After the first
/// ⌊β T⌋ steps the fusers are off (the paper's scheduled sampling, β = `beta`).
///
/// # Errors
/// If the model is not of the family GLIGEN, or if the settings do not fit it.
pub fn gligen(
    model: &Model,
    settings: &SamplingSettings,
    count: usize,
    layout: &[GroundedPhrase],
    slots: usize,
    beta: f64,
    on_step: OnImageStep,
) -> Result<Tensor> {
    debug!(?settings, ?layout, slots, beta, "GLIGEN");
    if model.info.family != Family::Gligen {
        return Err(Error::input(format!(
            "a layout requires a GLIGEN model, but this one is of the family {}",
            model.info.family.name()
        )));
    }
    let sampler = settings.sampler(model)?;
    let starts = starts(model, settings, count, &sampler, &[])?;
    let (mut conditional, mut unconditional) = (settings.conditional(model)?, settings.unconditional(model)?);
    conditional.objs = Some(model.ground(layout, slots)?);
    unconditional.objs = Some(model.ground(&[], slots)?);
    let grounded = CfgDenoiser::new(model.unet()?, &conditional, &unconditional, settings.cfg)?
        .with_parameterisation(sampler.schedule().parameterisation)
        .with_options(settings.cfg_options(&sampler));
    let ungrounded = grounded.ungrounded();
    let grounded_steps = (beta * sampler.timesteps().len() as f64) as usize;
    let last_grounded = sampler.timesteps().iter().take(grounded_steps).next_back().copied();
    let denoiser = |z: &Tensor, t: f64| match last_grounded {
        Some(last) if t >= last => grounded.predict(z, t),
        _ => ungrounded.predict(z, t),
    };
    images(model, starts, |image, start| start.run(&sampler, &denoiser, &|step| on_step(image, step)))
}

/// Samples under backward guidance, to a latent (1, 4, h, w). Without specs this is plain sampling.
pub fn sample(
    model: &Model,
    settings: &SamplingSettings,
    specs: &[Arc<dyn GuidanceSpec>],
    on_step: OnStep,
) -> Result<Tensor> {
    sample_batch(model, settings, 1, specs, &|_, step| on_step(step))
}

/// [Samples](sample) `count` images of consecutive seeds, one after another, as latents (n, 4, h, w). Each equals the single
/// image of its seed. The text is encoded once, and memory holds the activations of one image at a time.
pub fn sample_batch(
    model: &Model,
    settings: &SamplingSettings,
    count: usize,
    specs: &[Arc<dyn GuidanceSpec>],
    on_step: OnImageStep,
) -> Result<Tensor> {
    debug!(?settings, ?specs, "sampling");
    let sampler = settings.sampler(model)?;
    let starts = starts(model, settings, count, &sampler, specs)?;
    let denoiser = denoiser(model, settings, &sampler)?;
    images(model, starts, |image, start| start.run(&sampler, &denoiser, &|step| on_step(image, step)))
}

/// An image of a batch before its first step.
struct Start {
    seed: u64,
    z: Tensor,
    guidance: Vec<BoundGuidance>,
    fresh: FreshNoise,
}

impl Start {
    fn run(mut self, sampler: &Sampler, denoiser: &dyn Denoiser, on_step: OnStep) -> Result<Tensor> {
        sampler.run_from(0, &self.z, denoiser, &self.guidance, &mut self.fresh, on_step)
    }
}

/// Prepares each image of a batch: what needs other networks than the U-Net comes before its first step, so that a model with
/// offloading loads each network once.
fn starts(
    model: &Model,
    settings: &SamplingSettings,
    count: usize,
    sampler: &Sampler,
    specs: &[Arc<dyn GuidanceSpec>],
) -> Result<Vec<Start>> {
    let start = |(image, own): (usize, SamplingSettings)| {
        if count > 1 {
            debug!(image = image + 1, of = count, seed = own.seed);
        }
        let mut generator = Generator::new(own.seed);
        let noise = own.noise(model, &mut generator)?;
        let guidance = bound(model, &own, sampler, specs)?;
        let fresh = sampler.fresh_noise(own.seed, noise.elem_count(), generator);
        Ok(Start { seed: own.seed, z: own.start(sampler, &noise)?, guidance, fresh })
    };
    settings.of_images(count)?.into_iter().enumerate().map(start).collect()
}

/// Samples the images of a batch, and joins their latents.
fn images<T>(model: &Model, starts: Vec<T>, mut run: impl FnMut(usize, T) -> Result<Tensor>) -> Result<Tensor> {
    let count = starts.len();
    let image = |(image, start)| {
        let z = run(image, start)?;
        // Before `finite`, which waits for the device.
        if image + 1 == count {
            model.prefetch_vae();
        }
        finite(&z)?;
        Ok(z)
    };
    let mut latents = starts.into_iter().enumerate().map(image).collect::<Result<Vec<_>>>()?;
    if latents.len() == 1 { Ok(latents.remove(0)) } else { Ok(Tensor::cat(&latents, 0)?) }
}

/// Checks a sampled latent; waits for the device.
fn finite(z: &Tensor) -> Result<()> {
    if all_finite(z)? {
        return Ok(());
    }
    Err(Error::input(
        "the sampling diverged: its latent has NaN or infinity. Lower `cfg` or the guidance, or choose another `sampler` or \
         `scheduler`",
    ))
}

/// The prompts of the regions of an image.
#[derive(Clone, Debug)]
pub struct RegionPrompts {
    /// The prompt and the box of each region.
    pub regions: Vec<(Prompt, Bounds)>,
    /// Share of the steps, from the first on, in which a region has a plain background.
    pub bootstrap: f64,
}

/// Number of backgrounds among which bootstrapping alternates.
const GROUNDS: usize = 4;

/// Samples `count` images as [`sample_batch`] does, with a prompt for each region (MultiDiffusion); the prompt of `settings` is
/// that of the background.
pub fn sample_regions(
    model: &Model,
    settings: &SamplingSettings,
    count: usize,
    prompts: &RegionPrompts,
    specs: &[Arc<dyn GuidanceSpec>],
    on_step: OnImageStep,
) -> Result<Tensor> {
    debug!(?settings, ?prompts, ?specs, "sampling by regions");
    let sampler = settings.sampler(model)?;
    let starts = starts(model, settings, count, &sampler, specs)?;
    let bootstrapped = Window::first(prompts.bootstrap).steps(sampler.timesteps()).end;
    let bootstrap = bootstrapped.checked_sub(1).map_or(f64::INFINITY, |last| sampler.timesteps()[last]);
    let grounds = |start: Start| {
        let grounds = match bootstrapped {
            0 => vec![],
            _ => plain_grounds(model, settings, &mut Generator::new(start.seed.wrapping_add(1)))?,
        };
        Ok((start, grounds))
    };
    let starts = starts.into_iter().map(grounds).collect::<Result<Vec<_>>>()?;

    let text = |prompt: &Prompt| SamplingSettings { prompt: prompt.clone(), ..settings.clone() }.conditional(model);
    let whole = [&settings.prompt].into_iter().chain(prompts.regions.iter().map(|(prompt, _)| prompt));
    let denoisers = denoisers(model, settings, &sampler, whole.map(text).collect::<Result<_>>()?)?;
    let (h, w) = (settings.height / model.info.size_step, settings.width / model.info.size_step);
    let mask = |boxes: &[Bounds]| Tensor::from_vec(layout::mask(boxes, h, w, 0.0), (1, 1, h, w), model.device());
    let boxes: Vec<Bounds> = prompts.regions.iter().map(|(_, bounds)| *bounds).collect();
    let mut masks = vec![mask(&boxes)?.affine(-1.0, 1.0)?];
    for bounds in &boxes {
        masks.push(mask(&[*bounds])?);
    }
    let cover = masks[1..].iter().try_fold(masks[0].clone(), |sum, mask| sum + mask)?;
    let part = |(i, (denoiser, mask))| RegionPart { denoiser, mask, is_object: i > 0 };
    let parts = denoisers.into_iter().zip(masks).enumerate().map(part).collect();
    let schedule = sampler.schedule().clone();
    let mut regions = Regions { parts, cover, grounds: vec![], bootstrap, schedule, seed: settings.seed };
    images(model, starts, |image, (start, grounds)| {
        (regions.grounds, regions.seed) = (grounds, start.seed);
        start.run(&sampler, &regions, &|step| on_step(image, step))
    })
}

/// Encodes images of one random colour each.
fn plain_grounds(model: &Model, settings: &SamplingSettings, generator: &mut Generator) -> Result<Vec<Tensor>> {
    let vae = model.vae()?;
    let ground = |_| {
        let colour = generator.randn(&[1, 3, 1, 1], model.device())?.tanh()?;
        vae.encode(&colour.broadcast_as((1, 3, settings.height, settings.width))?.contiguous()?)
    };
    (0..GROUNDS).map(ground).collect()
}

/// Binds specs to this run.
fn bound(
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

/// Null slots of a GLIGEN model without a layout: as many as in training.
const NULL_SLOTS: usize = 30;

fn denoiser(model: &Model, settings: &SamplingSettings, sampler: &Sampler) -> Result<CfgDenoiser> {
    let conditional = settings.conditional(model)?;
    Ok(denoisers(model, settings, sampler, vec![conditional])?.remove(0))
}

/// Returns a denoiser for each of these texts, all with the same unconditional half. The network is requested last, and once,
/// so that a model with offloading does not load it twice.
fn denoisers(
    model: &Model,
    settings: &SamplingSettings,
    sampler: &Sampler,
    conditional: Vec<Conditioning>,
) -> Result<Vec<CfgDenoiser>> {
    let unconditional = settings.guides(model).then(|| settings.unconditional(model)).transpose()?;
    let objs = (model.info.family == Family::Gligen).then(|| model.ground(&[], NULL_SLOTS)).transpose()?;
    let channels = settings.source.channels(model, settings.width, settings.height)?;
    let whole = |c: Conditioning| Conditioning { objs: objs.clone(), channels: channels.clone(), ..c };
    let unconditional = unconditional.map(whole);
    let unet = model.unet()?;
    let (parameterisation, options) = (model.info.scheduler.parameterisation(), settings.cfg_options(sampler));
    let edits = model.info.input == UNetInput::Edit;
    let guided = |conditional| {
        let (unet, conditional) = (unet.clone(), whole(conditional));
        let denoiser = match &unconditional {
            Some(other) if edits => CfgDenoiser::editing(unet, &conditional, other, settings.cfg, settings.source.cfg)?,
            Some(other) => CfgDenoiser::new(unet, &conditional, other, settings.cfg)?,
            None => CfgDenoiser::plain(unet, &conditional),
        };
        let denoiser = denoiser.with_parameterisation(parameterisation).with_options(options);
        let denoiser = denoiser.with_freeu(settings.options.freeu);
        match &settings.options.pag {
            Some(pag) => denoiser.with_perturbed_attention(pag),
            None => Ok(denoiser),
        }
    };
    conditional.into_iter().map(guided).collect()
}

/// Computes the attention between the words `phrase` of the prompt and an image at timestep t: the mean cross-attention of
/// all layers of one resolution, (1, 1, h, w), between 0 and 1.
///
/// `z0` is the latent of the image; it is noised to t with the noise of the settings' seed. One pixel of the map covers
/// `downscale` latent pixels along each side. Width and height of the settings are those of `z0`.
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
    let denoiser = denoiser(model, &SamplingSettings { cfg: 1.0, ..settings.clone() }, &sampler)?;
    let a = sampler.schedule().alpha_bar(t);
    let epsilon = Generator::new(settings.seed).randn(z0.dims(), z0.device())?.to_dtype(z0.dtype())?;
    let z = noised(z0, &epsilon, a)?;
    let parameterisation = sampler.schedule().parameterisation;
    let at = StepContext { step: 0, steps: 1, t, alpha_bar: a, parameterisation, denoiser: &denoiser };
    let maps = Layers::Downscale(downscale).maps(&z, &at)?;
    let (h, w) = maps.first().map_or((0, 0), |map| map.size);
    let index = attention::index(&positions, z.device())?;
    let map = attention::columns(&attention::mean_map(&maps)?, &index)?.mean(D::Minus1)?;
    let low = map.broadcast_sub(&map.min(0)?)?;
    Ok(low.broadcast_div(&(low.max(0)? + 1e-12)?)?.reshape((1, 1, h, w))?)
}

/// How the noisy latents of a reference are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InversionMode {
    /// DDIM inversion, as in the paper.
    Ddim,
    /// Noising with one ε for all timesteps.
    Noise {
        /// Whether ε is the noise from which a sampling of the same seed starts; otherwise it is the generator's next.
        shared: bool,
    },
}

/// Computes z̄_t of the reference latent `z0` at those timesteps of a sampling with `settings` that are in `window`.
///
/// Width and height of the settings are those of `z0`, and the prompt is the sampling's. `settings.cfg` is that of the
/// inversion, 1 in the paper.
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
        InversionMode::Ddim => inversion::ddim(z0, &sampler, &denoiser(model, settings, &sampler)?, keep, on_step)?,
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
