//! Measures how far guided samplings drift in half precision, and whether that is precision or chaos.
//!
//!     cargo run --release --example half -p lsregen-diffusion [-- STEPS [SIDE [WORD]]]
//!
//! Samples with the built-in `shapes/xl` on the CPU, for each guidance (or those whose name contains WORD): in f32; with U-Net,
//! decoder and CLIP each in f16 or f32; and in f32 with relative noise on each of the U-Net's predictions, or on the first
//! latent. Prints the mean difference of the final image from that in f32, in levels of 255. All images are decoded in f32. A
//! guidance that drifts as far under noise of the size of half precision's rounding (2⁻¹¹ for f16, 2⁻⁸ for bf16) is chaotic;
//! one that drifts further in half precision has a part that needs f32. With 0 STEPS it prints the relative error of
//! the gradient at the first of 12 steps instead, where nothing is amplified yet.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use lsregen_diffusion::Result;
use lsregen_diffusion::denoiser::{CfgDenoiser, Denoiser};
use lsregen_diffusion::guidance::edges::Drawing;
use lsregen_diffusion::guidance::segmentation::ColouredPhrase;
use lsregen_diffusion::guidance::{
    BoundedAttentionGuidance, BoxDiffGuidance, ClipGoal, ClipGuidance, ColourLayoutGuidance, EdgesGuidance,
    FeatureSpace, GuidanceSettings, GuidanceSpec, LayoutGuidance, LowPassGuidance, Metric, Normalise, SamplingRun,
    SegmentationGuidance, StepContext, StyleGuidance, Window,
};
use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_diffusion::models::clip::Clip;
use lsregen_diffusion::models::prompt::{Prompt, Sizes};
use lsregen_diffusion::models::unet::{AttentionKind, AttentionLayer, AttentionMap};
use lsregen_diffusion::models::vae::AutoencoderKl;
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings};
use lsregen_diffusion::schedule::Level;
use lsregen_tensor::image;
use lsregen_tensor::noise::Generator;
use lsregen_weights::{BUILTIN, BUILTIN_CLIP, Precision, Weights};

/// The steps of a run whose first gradient is compared.
const STEPS: usize = 12;

const PROMPT: &str = "a red circle and a blue square on sand";

/// The dtypes of a run, and relative noise on predictions and on the first latent.
#[derive(Clone, Copy)]
struct Run {
    unet: DType,
    decoder: DType,
    clip: DType,
    predictions: f64,
    start: f64,
}

const PLAIN: Run = Run { unet: DType::F32, decoder: DType::F32, clip: DType::F32, predictions: 0.0, start: 0.0 };

struct Models {
    wide: Model,
    half: Model,
    clips: [Arc<Clip>; 2],
    /// Both decoders; f16 although the configuration of XL asks for f32.
    decoders: [Arc<AutoencoderKl>; 2],
}

/// A denoiser with relative noise on its predictions.
struct Noisy<'a> {
    denoiser: &'a CfgDenoiser,
    size: f64,
}

impl Denoiser for Noisy<'_> {
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        let e = self.denoiser.predict(z, t)?;
        if self.size == 0.0 {
            return Ok(e);
        }
        let noise = Generator::new(t as u64 + 77).randn(e.dims(), e.device())?;
        Ok((&e * (noise * self.size)?.affine(1.0, 1.0)?)?)
    }

    fn attention_layers(&self) -> Vec<AttentionLayer> {
        self.denoiser.attention_layers()
    }

    fn attention_maps(
        &self,
        z: &Tensor,
        t: f64,
        kind: AttentionKind,
        places: &[AttentionLayer],
    ) -> Result<Vec<AttentionMap>> {
        self.denoiser.attention_maps(z, t, kind, places)
    }
}

fn main() -> Result<()> {
    lsregen_tensor::ops::keep_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (steps, side, word) = (number(0, 20), number(1, 128), arguments.get(2).cloned().unwrap_or_default());
    let precision = |dtype| Precision::new(dtype, &Device::Cpu);
    let blueprint = Blueprint::open(&BUILTIN[1].clone().into()).map_err(|mut problems| problems.remove(0).error)?;
    let blueprint = Arc::new(blueprint);
    let decoder = |dtype| {
        let weights = Weights::new(blueprint.vae.1.clone(), &precision(dtype));
        AutoencoderKl::build(blueprint.vae.0.clone(), &weights).map(Arc::new)
    };
    let clip = |dtype| Clip::open(&BUILTIN_CLIP, &precision(dtype)).map(Arc::new);
    let models = Models {
        decoders: [decoder(DType::F32)?, decoder(DType::F16)?],
        clips: [clip(DType::F32)?, clip(DType::F16)?],
        wide: Model::new(blueprint.clone(), precision(DType::F32), false),
        half: Model::new(blueprint, precision(DType::F16), false),
    };
    let f16 = DType::F16;
    let runs = [
        ("all f16", Run { unet: f16, decoder: f16, clip: f16, ..PLAIN }),
        ("U-Net f16", Run { unet: f16, ..PLAIN }),
        ("decoder f16", Run { decoder: f16, ..PLAIN }),
        ("CLIP f16", Run { clip: f16, ..PLAIN }),
        ("start 1e-4", Run { start: 1e-4, ..PLAIN }),
        ("start 1e-3", Run { start: 1e-3, ..PLAIN }),
        ("noise 1e-4", Run { predictions: 1e-4, ..PLAIN }),
        ("noise 1e-3", Run { predictions: 1e-3, ..PLAIN }),
        ("noise 4e-3", Run { predictions: 4e-3, ..PLAIN }),
    ];
    print!("{:16}", "");
    runs.iter().for_each(|(name, _)| print!("{name:>13}"));
    println!();
    for name in NAMES.iter().filter(|name| name.contains(word.as_str())) {
        let reference = sampled(&models, name, PLAIN, steps, side)?;
        print!("{name:16}");
        for (_, run) in &runs {
            let uses_decoder = !["none", "layout", "boxdiff", "segmentation", "bounded", "low pass"].contains(name);
            let uses_clip = name.starts_with("clip") || *name == "style";
            if (run.unet == DType::F32 && run.decoder == f16 && !uses_decoder)
                || (run.unet == DType::F32 && run.clip == f16 && !uses_clip)
            {
                print!("{:>13}", "-");
                continue;
            }
            match sampled(&models, name, *run, steps, side) {
                Ok(image) => {
                    let size = |x: &Tensor| x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
                    let apart = (image - &reference)?;
                    match steps {
                        0 => print!("{:>13.1e}", size(&apart)? / size(&reference)?),
                        _ => print!("{:>13.2}", apart.abs()?.mean_all()?.to_scalar::<f32>()? * 127.5),
                    }
                }
                Err(error) => {
                    eprintln!("{name}: {error}");
                    print!("{:>13}", "error");
                }
            }
            use std::io::Write as _;
            std::io::stdout().flush().ok();
        }
        println!();
    }
    Ok(())
}

const NAMES: [&str; 13] = [
    "none",
    "low pass",
    "colours",
    "edges",
    "edges plain",
    "clip text",
    "clip image",
    "clip plain",
    "style",
    "layout",
    "boxdiff",
    "segmentation",
    "bounded",
];

fn layout() -> Vec<GroundedPhrase> {
    let object = |phrase: &str, bounds| GroundedPhrase { phrase: phrase.into(), bounds };
    vec![object("a red circle", [0.1, 0.1, 0.5, 0.5]), object("a blue square", [0.5, 0.5, 0.9, 0.9])]
}

/// A red disc and a blue square on sand.
fn picture(side: usize) -> Result<Tensor> {
    let colour = |y: usize, x: usize| {
        let (v, u) = ((y as f32 + 0.5) / side as f32, (x as f32 + 0.5) / side as f32);
        match () {
            () if (u - 0.3).hypot(v - 0.3) < 0.2 => [0.9, -0.8, -0.8],
            () if (0.55..0.85).contains(&u) && (0.55..0.85).contains(&v) => [-0.8, -0.7, 0.9],
            () => [0.7, 0.5, 0.1],
        }
    };
    let pixels = (0..3).flat_map(|c| (0..side).flat_map(move |y| (0..side).map(move |x| colour(y, x)[c])));
    Ok(Tensor::from_vec(pixels.collect::<Vec<f32>>(), (1, 3, side, side), &Device::Cpu)?)
}

fn spec(name: &str, clip: Arc<Clip>, side: usize) -> Result<Option<Box<dyn GuidanceSpec>>> {
    let picture = picture(side)?;
    let edges = GuidanceSettings {
        scale: 1.0,
        window: Window::first(0.5),
        repeats: 3,
        renoise: true,
        normalise: Normalise::Freedom,
        ..GuidanceSettings::default()
    };
    let plain = |settings: GuidanceSettings| GuidanceSettings { renoise: false, repeats: 1, ..settings };
    let clip_guidance = |goal, settings| ClipGuidance { clip: clip.clone(), goal, metric: Metric::L2, settings };
    let text = || ClipGoal::Text("a red circle on sand".into());
    Ok(Some(match name {
        "low pass" => Box::new(LowPassGuidance {
            picture,
            factor: 4,
            metric: Metric::L2,
            settings: GuidanceSettings { scale: 0.5, window: Window::first(0.5), ..GuidanceSettings::default() },
        }),
        "colours" => Box::new(ColourLayoutGuidance {
            colours: vec![([0.1, 0.1, 0.5, 0.5], [1.0, 0.0, 0.0])],
            metric: Metric::L2,
            settings: GuidanceSettings { normalise: Normalise::Freedom, ..GuidanceSettings::default() },
        }),
        "edges" | "edges plain" => Box::new(EdgesGuidance {
            picture,
            drawing: Drawing::Picture,
            metric: Metric::L2Mean,
            settings: if name == "edges" { edges } else { plain(edges) },
        }),
        "clip text" => Box::new(clip_guidance(text(), ClipGuidance::defaults())),
        "clip image" => Box::new(clip_guidance(ClipGoal::Picture(picture), ClipGuidance::defaults())),
        "clip plain" => {
            let settings = GuidanceSettings { normalise: Normalise::None, scale: 3.0, ..ClipGuidance::defaults() };
            Box::new(clip_guidance(text(), settings))
        }
        "style" => {
            Box::new(StyleGuidance { layer: StyleGuidance::LAYER, picture, settings: StyleGuidance::defaults(), clip })
        }
        "layout" => Box::new(LayoutGuidance { layout: layout(), settings: LayoutGuidance::defaults() }),
        "boxdiff" => Box::new(BoxDiffGuidance {
            layout: layout(),
            downscale: None,
            refined: BoxDiffGuidance::REFINED.to_vec(),
            refinements: 5,
            settings: BoxDiffGuidance::defaults(),
        }),
        "segmentation" => Box::new(SegmentationGuidance {
            map: picture,
            regions: vec![
                ColouredPhrase { phrase: "a red circle".into(), colour: [0.95, 0.1, 0.1] },
                ColouredPhrase { phrase: "a blue square".into(), colour: [0.1, 0.15, 0.95] },
            ],
            tolerance: 0.1,
            downscale: None,
            settings: SegmentationGuidance::defaults(),
        }),
        "bounded" => Box::new(BoundedAttentionGuidance {
            layout: layout(),
            downscale: None,
            settings: BoundedAttentionGuidance::defaults(),
        }),
        _ => return Ok(None),
    }))
}

fn sampled(models: &Models, name: &str, run: Run, steps: usize, side: usize) -> Result<Tensor> {
    let which = |dtype: DType| usize::from(dtype != DType::F32);
    let model = if run.unet == DType::F32 { &models.wide } else { &models.half };
    let sampler = Sampler::new(
        &model.info.scheduler,
        &SamplerSettings::new(SamplerKind::Ddim, if steps == 0 { STEPS } else { steps }),
    )?;
    let prompt: Prompt = PROMPT.into();
    let condition = |text| model.condition(&text, side, side, Sizes::default());
    let conditional = condition(model.encode_prompt(&prompt)?)?;
    let unconditional = condition(model.encode_negative(None, None)?)?;
    let denoiser = CfgDenoiser::new(model.unet()?, &conditional, &unconditional, 5.0)?
        .with_parameterisation(sampler.schedule().parameterisation);
    let of = SamplingRun { model, prompt: &prompt, sampler: &sampler, width: side, height: side, seed: 3 };
    let mut guidance = match spec(name, models.clips[which(run.clip)].clone(), side)? {
        Some(spec) => spec.bind(&of)?,
        None => vec![],
    };
    for bound in &mut guidance {
        if matches!(bound.space, FeatureSpace::Image(_)) {
            bound.space = FeatureSpace::Image(models.decoders[which(run.decoder)].clone());
        }
    }
    let mut generator = Generator::new(3);
    let noise = generator.randn(&[1, 4, side / 8, side / 8], &Device::Cpu)?;
    let other = Generator::new(1234).randn(noise.dims(), &Device::Cpu)?;
    let noise = (noise + (other * run.start)?)?;
    let noisy = Noisy { denoiser: &denoiser, size: run.predictions };
    if steps == 0 {
        let Some(first) = guidance.first() else { return Ok(noise) };
        let Level { t, alpha_bar } = sampler.levels()[0];
        let parameterisation = sampler.schedule().parameterisation;
        let at = StepContext { step: 0, steps: STEPS, t, alpha_bar, parameterisation, denoiser: &noisy };
        return Ok(first.gradient(&noise, &at, false)?.1);
    }
    let z = sampler.run(&noise, &noisy, &guidance, &mut generator.into(), &|_| Ok(()))?;
    let decoded = models.decoders[0].decode(&z)?;
    image::to_tensor(&image::from_tensor(&decoded)?, DType::F32, &Device::Cpu)
}
