//! Steps of a sampling read nothing from the device: each read waits for all work that was submitted to it.
//!
//! The first test counts the reads of each guidance's update and of each sampler's steps; the second finds reads in the sources
//! that the count would not see.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use lsregen_diffusion::denoiser::{CfgDenoiser, CfgOptions};
use lsregen_diffusion::guidance::edges::Drawing;
use lsregen_diffusion::guidance::segmentation::ColouredPhrase;
use lsregen_diffusion::guidance::{
    BoundGuidance, BoundedAttentionGuidance, BoxDiffGuidance, ClipGoal, ClipGuidance, ColourLayoutGuidance,
    EdgesGuidance, Extractor, GuidanceSettings, GuidanceSpec, LayoutGuidance, LowPassGuidance, Metric, Normalise,
    ReferenceGuidance, SamplingRun, SegmentationGuidance, StepContext, StyleGuidance,
};
use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_diffusion::models::clip::Clip;
use lsregen_diffusion::models::prompt::{Prompt, Sizes};
use lsregen_diffusion::models::unet::FreeU;
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_diffusion::reduce::{readings, scalar};
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings};
use lsregen_diffusion::{Result, guidance};
use lsregen_tensor::noise::Generator;
use lsregen_weights::{BUILTIN, BUILTIN_CLIP, Precision};

/// Runs `f` and returns how often it read.
fn counted<T>(f: impl FnOnce() -> Result<T>) -> (T, u64) {
    let before = readings();
    let result = f().unwrap();
    (result, readings() - before)
}

fn specs(clip: Arc<Clip>, settings: &GuidanceSettings) -> Vec<Box<dyn GuidanceSpec>> {
    let object = |phrase: &str, bounds| GroundedPhrase { phrase: phrase.into(), bounds };
    let layout = vec![object("a red circle", [0.1, 0.1, 0.5, 0.5]), object("a blue square", [0.5, 0.5, 0.9, 0.9])];
    let picture = Tensor::zeros((1, 3, 40, 48), DType::F32, &Device::Cpu).unwrap();
    let (metric, settings) = (Metric::L2, settings.clone());
    let regions = vec![ColouredPhrase { phrase: "a red circle".into(), colour: [0.5; 3] }];
    vec![
        Box::new(LayoutGuidance { layout: layout.clone(), settings: settings.clone() }),
        Box::new(BoxDiffGuidance {
            layout: layout.clone(),
            downscale: None,
            refined: vec![],
            refinements: 1,
            settings: settings.clone(),
        }),
        Box::new(SegmentationGuidance {
            map: picture.clone(),
            regions,
            tolerance: 0.1,
            downscale: None,
            settings: settings.clone(),
        }),
        Box::new(BoundedAttentionGuidance { layout, downscale: None, settings: settings.clone() }),
        Box::new(LowPassGuidance { picture: picture.clone(), factor: 2, metric, settings: settings.clone() }),
        Box::new(ReferenceGuidance { picture: picture.clone(), shared_noise: true, settings: settings.clone() }),
        Box::new(ColourLayoutGuidance {
            colours: vec![([0.1, 0.1, 0.5, 0.5], [1.0, 0.0, 0.0])],
            metric,
            settings: settings.clone(),
        }),
        Box::new(EdgesGuidance {
            picture: picture.clone(),
            drawing: Drawing::Picture,
            metric,
            settings: settings.clone(),
        }),
        Box::new(ClipGuidance {
            clip: clip.clone(),
            goal: ClipGoal::Picture(picture.clone()),
            metric,
            settings: settings.clone(),
        }),
        Box::new(StyleGuidance { clip, layer: StyleGuidance::LAYER, picture, settings }),
    ]
}

/// A feature that reads what it should not.
struct Reader;

impl Extractor for Reader {
    fn name(&self) -> &str {
        "reader"
    }

    fn feat(&self, z: &Tensor, _: &StepContext) -> Result<Tensor> {
        Ok((z * scalar(&z.max_all()?)?)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?)
    }
}

#[test]
fn updates_and_steps_do_not_read() {
    let precision = Precision::new(DType::F32, &Device::Cpu);
    let model = Model::new(Blueprint::open(&BUILTIN[1].clone().into()).ok().unwrap(), precision.clone(), false);
    let clip = Arc::new(Clip::open(&BUILTIN_CLIP, &precision).unwrap());
    let sampler = |kind| Sampler::new(&model.info.scheduler, &SamplerSettings::new(kind, 4)).unwrap();
    let (prompt, ddim): (Prompt, _) = ("a red circle and a blue square".into(), sampler(SamplerKind::Ddim));
    let run = SamplingRun { model: &model, prompt: &prompt, sampler: &ddim, width: 64, height: 64, seed: 1 };
    let condition = |text| model.condition(&text, 64, 64, Sizes::default()).unwrap();
    let conditional = condition(model.encode_prompt(&prompt).unwrap());
    let unconditional = condition(model.encode_negative(None, None).unwrap());
    let freeu = FreeU { b1: 1.1, b2: 1.2, s1: 0.9, s2: 0.2 };
    let denoiser = CfgDenoiser::new(model.unet().unwrap(), &conditional, &unconditional, 3.0).unwrap();
    let denoiser = denoiser.with_freeu(Some(freeu)).with_options(CfgOptions { rescale: 0.5, ..CfgOptions::default() });
    let noise = Generator::new(1).randn(&[1, 4, 8, 8], &Device::Cpu).unwrap();
    let level = ddim.levels()[0];
    let at = StepContext {
        step: 0,
        steps: 4,
        t: level.t,
        alpha_bar: level.alpha_bar,
        parameterisation: ddim.schedule().parameterisation,
        denoiser: &denoiser,
    };

    for normalise in [Normalise::None, Normalise::Freedom] {
        let settings = GuidanceSettings { normalise, ..GuidanceSettings::default() };
        for spec in specs(clip.clone(), &settings) {
            for bound in spec.bind(&run).unwrap() {
                let (_, reads) = counted(|| bound.update(&noise, &at));
                assert_eq!(reads, 0, "{}", bound.extractor.name());
                // The check, and the distance with it.
                assert_eq!(counted(|| bound.step(&noise, &at)).1, 1, "{}", bound.extractor.name());
            }
        }
    }
    for kind in SamplerKind::ALL {
        let run = || sampler(kind).run(&noise, &denoiser, &[], &mut Generator::new(2).into(), &|_| Ok(()));
        assert_eq!(counted(run).1, 0, "{kind:?}");
    }
    // A read that is planted is seen.
    let settings = GuidanceSettings::default();
    let distance = Arc::new(guidance::SquaredL2);
    let space = guidance::FeatureSpace::Latent;
    let planted = BoundGuidance { extractor: Arc::new(Reader), distance, space, settings, mask: None };
    let target = |z: &Tensor| planted.extractor.feat(z, &at);
    assert_eq!(counted(|| target(&noise)).1, 1);
}

/// What reads numbers from a device.
const READS: [&str; 7] = [
    ".to_scalar",
    ".to_vec0",
    ".to_vec1",
    ".to_vec2",
    ".to_vec3",
    "to_device(&Device::Cpu)",
    "to_device(&candle_core::Device::Cpu)",
];

/// Files with reads outside of steps, and their number.
const ALLOWED: [(&str, usize); 5] = [
    // The counted ones.
    ("reduce.rs", 2),
    // Files of latents, a map that is read when a guidance is bound, weights that are loaded.
    ("latent.rs", 1),
    ("guidance/segmentation.rs", 2),
    ("models/gligen.rs", 2),
    // Thresholds by a sort, on the CPU only.
    ("sampler/threshold.rs", 1),
];

/// The number of reads in a source, without its tests.
fn reads(source: &str) -> usize {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.map(|line| READS.iter().map(|read| line.matches(read).count()).sum::<usize>()).sum()
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["tests", "examples", "benches"].contains(&name) {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn other_sources_do_not_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![];
    sources(root, &mut found);
    assert!(found.len() > 50);
    for path in found {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
        let allowed = ALLOWED.iter().find(|(file, _)| *file == name).map_or(0, |(_, n)| *n);
        let reads = reads(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(reads, allowed, "{name}: a read waits for the device; read by `reduce`, outside of steps");
    }
    assert_eq!(reads("let x = y.to_scalar::<f32>()?;\n// y.to_vec1()\n#[cfg(test)]\nmod tests { z.to_vec2() }"), 1);
}
