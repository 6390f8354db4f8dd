//! Tests that guidance specs and the pipeline use each of their parameters, on the built-in models at their smallest
//! size.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use candle_core::{DType, Device, Tensor};
use common::{assert_close, relative, shapes};
use lsregen_diffusion::guidance::colour_layout::ColourLayout;
use lsregen_diffusion::guidance::edges::{Drawing, sobel};
use lsregen_diffusion::guidance::onnx::{Look, Verdicts};
use lsregen_diffusion::guidance::segmentation::ColouredPhrase;
use lsregen_diffusion::guidance::{
    Auto, BoundGuidance, BoundedAttentionGuidance, BoxDiffGuidance, ClipGoal, ClipGuidance, ColourLayoutGuidance,
    EdgesGuidance, Extractor, FeatureSpace, GuidanceSettings, GuidanceSpec, InversionGuidance, LayoutGuidance, LowPass,
    LowPassGuidance, Metric, OnnxGoal, OnnxGuidance, ReferenceGuidance, Region, SamplingRun, Schedule,
    SegmentationGuidance, StepContext, StyleGuidance, Until, Window,
};
use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_diffusion::models::clip::Clip;
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_diffusion::pipeline::{
    InversionMode, RegionPrompts, SamplingSettings, attention_map, invert, sample, sample_regions,
};
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::schedule::PredictionType;
use lsregen_diffusion::source::SourceImage;
use lsregen_diffusion::{Result, inversion};
use lsregen_onnx::{Normalisation, OnnxNetwork};
use lsregen_tensor::image::{decode, load as load_image};
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision};

static XL: LazyLock<Model> = LazyLock::new(|| {
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes("xl")).into()).unwrap();
    Model::new(blueprint, numbers_of(), false)
});

fn numbers_of() -> Precision {
    Precision::new(DType::F32, &Device::Cpu)
}

const PROMPT: &str = "a red circle and a blue square on sand";
const SIDE: usize = 64;

fn sampler() -> Sampler {
    Sampler::new(&XL.info.scheduler, &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap()
}

fn prepared(spec: &dyn GuidanceSpec, seed: u64) -> Vec<BoundGuidance> {
    let (prompt, sampler) = (PROMPT.into(), sampler());
    let run = SamplingRun { model: &XL, prompt: &prompt, sampler: &sampler, width: SIDE, height: SIDE, seed };
    spec.bind(&run).unwrap()
}

fn never(_: &Tensor, _: f64) -> Result<Tensor> {
    panic!("no network is needed")
}

/// The first step.
fn first() -> StepContext<'static> {
    let sampler = sampler();
    let t = sampler.timesteps()[0];
    let alpha_bar = sampler.schedule().alpha_bar(t);
    StepContext { step: 0, steps: 20, t, alpha_bar, parameterisation: PredictionType::Epsilon.into(), denoiser: &never }
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// (1, 3, side, side): red on the left, blue on the right.
fn halves(side: usize) -> Tensor {
    let value = |c: usize, x: usize| if c == 2 * usize::from(x >= side / 2) { 1f32 } else { -1.0 };
    let values = (0..3 * side * side).map(|i| value(i / (side * side), i % side));
    Tensor::from_vec(values.collect::<Vec<_>>(), (1, 3, side, side), &Device::Cpu).unwrap()
}

fn layout() -> Vec<GroundedPhrase> {
    let object = |phrase: &str, bounds| GroundedPhrase { phrase: phrase.into(), bounds };
    vec![object("a red circle", [0.0, 0.0, 0.5, 0.5]), object("a blue square", [0.5, 0.5, 1.0, 1.0])]
}

/// Settings whose fields all differ from the defaults.
fn settings() -> GuidanceSettings {
    let boxes = Some(vec![[0.0, 0.0, 0.5, 1.0]]);
    GuidanceSettings {
        scale: 0.25,
        schedule: Schedule::Linear,
        schedule_end: 0.5,
        window: Window::between(0.1, 0.6),
        repeats: 2,
        renoise: true,
        until: Until::Reached(0.125),
        region: Region { boxes, feather: 0.25, outside: 0.5, auto: None },
        ..GuidanceSettings::default()
    }
}

fn look() -> Arc<Look> {
    let network = OnnxNetwork::open(&shapes("onnx/look.onnx"), &Device::Cpu).unwrap();
    Arc::new(Look::new(Arc::new(network), Some("colours"), Some((32, 32)), Normalisation::default(), None).unwrap())
}

/// The name of an extractor, its feature space, its distance on small numbers, and the guidance spec.
type ExpectedSpec = (&'static str, &'static str, Option<f64>, Box<dyn GuidanceSpec>);

fn specs() -> Vec<ExpectedSpec> {
    let clip = Arc::new(Clip::open(&ModelFiles::Folder(shapes("clip")), &numbers_of()).unwrap());
    let (picture, settings, metric) = (halves(SIDE), settings(), Metric::L1);
    let z0 = Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu).unwrap();
    let trajectory = Arc::new(inversion::noise(&z0, &sampler(), &z0, 20).unwrap());
    let region = |phrase: &str, colour| ColouredPhrase { phrase: phrase.into(), colour };
    let regions = vec![region("a red circle", [1.0, 0.0, 0.0]), region("a blue square", [0.0, 0.0, 1.0])];
    let goal = ClipGoal::Text("a red circle".into());
    let colours = vec![([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0])];
    let (l1, gram) = (Some(5.0), Some(6.75f64.sqrt()));
    vec![
        ("inversion", "latent", Some(9.0), Box::new(InversionGuidance { trajectory, settings: settings.clone() })),
        (
            "inversion",
            "latent",
            Some(9.0),
            Box::new(ReferenceGuidance { picture: picture.clone(), shared_noise: true, settings: settings.clone() }),
        ),
        ("low pass", "latent", l1, {
            Box::new(LowPassGuidance { picture: picture.clone(), factor: 2, metric, settings: settings.clone() })
        }),
        ("edges", "picture", l1, {
            let drawing = Drawing::Picture;
            Box::new(EdgesGuidance { picture: picture.clone(), drawing, metric, settings: settings.clone() })
        }),
        (
            "colour layout",
            "picture",
            l1,
            Box::new(ColourLayoutGuidance { colours, metric, settings: settings.clone() }),
        ),
        (
            "CLIP text",
            "picture",
            l1,
            Box::new(ClipGuidance { clip: clip.clone(), goal, metric, settings: settings.clone() }),
        ),
        ("CLIP image", "picture", l1, {
            let goal = ClipGoal::Picture(picture.clone());
            Box::new(ClipGuidance { clip: clip.clone(), goal, metric, settings: settings.clone() })
        }),
        ("style", "picture", gram, {
            Box::new(StyleGuidance { clip, layer: 2, picture: picture.clone(), settings: settings.clone() })
        }),
        ("ONNX feature", "picture", l1, {
            Box::new(OnnxGuidance { look: look(), goal: OnnxGoal::Class(1), metric, settings: settings.clone() })
        }),
        ("BoxDiff", "latent", None, {
            let (refined, refinements) = (vec![(0.5, 0.75)], 7);
            Box::new(BoxDiffGuidance {
                layout: layout(),
                downscale: None,
                refined,
                refinements,
                settings: settings.clone(),
            })
        }),
        ("layout-guidance", "latent", None, Box::new(LayoutGuidance { layout: layout(), settings: settings.clone() })),
        ("bounded attention", "latent", None, {
            Box::new(BoundedAttentionGuidance { layout: layout(), downscale: None, settings: settings.clone() })
        }),
        ("segmentation", "latent", None, {
            Box::new(SegmentationGuidance { map: picture, regions, tolerance: 0.1, downscale: None, settings })
        }),
    ]
}

/// A bound guidance has the settings, the mask, the feature space and the distance of its spec.
#[test]
fn bound_guidances_have_the_settings_of_their_specs() {
    let rows = |values: [f32; 4]| Tensor::from_slice(&values, (1, 2, 2), &Device::Cpu).unwrap();
    let (feature, target) = (rows([1.0, 2.0, -1.0, 0.0]), rows([0.0, 0.0, 1.0, 0.0]));
    let mask = settings().region.weights(8, 8, f32::INFINITY, &Device::Cpu).unwrap().unwrap();
    for (name, view, distance, spec) in specs() {
        let guidance = prepared(&*spec, 7);
        let last = guidance.last().unwrap();
        assert_eq!((last.extractor.name(), &last.settings), (name, &settings()), "{spec:?}");
        assert_eq!(numbers(last.mask.as_ref().unwrap()), numbers(&mask), "{name}");
        let ours = match last.space {
            FeatureSpace::Latent => "latent",
            FeatureSpace::PredictedX0 => "clean",
            FeatureSpace::Image(_) => "picture",
        };
        assert_eq!(ours, view, "{name}");
        if let Some(distance) = distance {
            let value = numbers(&last.distance.value(&feature, &target).unwrap());
            assert!((f64::from(value[0]) - distance).abs() < 1e-6, "{name}: {value:?}");
        }
        let others: Vec<_> = guidance.iter().map(|g| g.settings.clone()).take(guidance.len() - 1).collect();
        let refinement =
            GuidanceSettings { window: Window::step(0.5), repeats: 7, until: Until::Reached(0.25), ..settings() };
        assert_eq!(others, if name == "BoxDiff" { vec![refinement] } else { vec![] }, "{name}");
    }
}

/// If `auto` or a strength above 1 would move a cell past its target, the cell gets the target's value.
#[test]
fn no_cell_is_moved_past_its_reference() {
    let z0 = Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu).unwrap();
    let trajectory = Arc::new(inversion::noise(&z0, &sampler(), &z0, 20).unwrap());
    let region = Region {
        boxes: Some(vec![[0.0, 0.0, 0.25, 0.25]]),
        auto: Some(Auto { area: 1.0, power: 0.5, limit: 8.0 }),
        ..Region::default()
    };
    for (scale, most) in [(0.05, 4.0), (0.25, 2.0), (0.5, 1.0)] {
        let settings = GuidanceSettings { scale, region: region.clone(), ..GuidanceSettings::default() };
        let guidance = prepared(&InversionGuidance { trajectory: trajectory.clone(), settings }, 7);
        assert_eq!(numbers(guidance[0].mask.as_ref().unwrap())[0], most, "γ = {scale}");
    }
}

#[test]
fn edges_of_pictures_and_drawings() {
    let picture = halves(SIDE);
    let luma = [0.299, 0.114].map(|v: f32| v);
    let target = |drawing| {
        let spec = EdgesGuidance { picture: picture.clone(), drawing, metric: Metric::L2, settings: settings() };
        prepared(&spec, 7)[0].extractor.target(&first()).unwrap()
    };
    let ends = |x: &Tensor| [numbers(x)[0], numbers(x)[SIDE - 1]];
    let near = |a: [f32; 2], b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-3);
    let light = target(Drawing::LightLines);
    assert!(near(ends(&light), luma), "{:?}", ends(&light));
    assert!(near(ends(&target(Drawing::DarkLines)), luma.map(|v| 1.0 - v)));
    let edges = target(Drawing::Picture);
    assert_close("edges", &edges, &sobel(&light).unwrap(), 1e-6);
    // The only edge is in the middle, and as strong as the difference of the two lumas.
    assert!(near(ends(&edges), [0.0; 2]));
    assert!((numbers(&edges)[SIDE / 2] - (luma[0] - luma[1])).abs() < 1e-3);
}

#[test]
fn colours_of_boxes() {
    let colours = vec![([0.0, 0.0, 0.5, 1.0], [0.1, 0.2, 0.3]), ([0.25, 0.0, 1.0, 1.0], [0.4, 0.5, 0.6])];
    let spec = ColourLayoutGuidance { colours, metric: Metric::L2, settings: settings() };
    let guidance = prepared(&spec, 7);
    assert_eq!(numbers(&guidance[0].extractor.target(&first()).unwrap()), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
    // The second box is a third red and two thirds blue.
    let seen = numbers(&guidance[0].extractor.feat(&halves(SIDE), &first()).unwrap());
    let expected = [1.0, 0.0, 0.0, 1.0 / 3.0, 0.0, 2.0 / 3.0];
    assert!(seen.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{seen:?}");
    // In an image that is twice as high as wide, the upper half is red and blue, and the lower half is white.
    let (height, width) = (2 * SIDE, SIDE);
    let boxes = [([0.0, 0.0, 1.0, 0.5], [0.0; 3]), ([0.0, 0.5, 1.0, 1.0], [0.0; 3])];
    let oblong = ColourLayout::new(&boxes, height, width, &Device::Cpu).unwrap();
    let picture = Tensor::cat(&[halves(SIDE), Tensor::ones((1, 3, SIDE, SIDE), DType::F32, &Device::Cpu).unwrap()], 2);
    let seen = numbers(&oblong.feat(&picture.unwrap(), &first()).unwrap());
    let expected = [0.5, 0.0, 0.5, 1.0, 1.0, 1.0];
    assert!(seen.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{seen:?}");
}

/// z̄_t has the first noise of the run's seed, or the second.
#[test]
fn references_are_noised_by_the_runs_seed() {
    let picture = halves(SIDE);
    let z0 = XL.vae().unwrap().encode(&picture).unwrap();
    let noised = |seed: u64, first_noise: bool| {
        let mut generator = Generator::new(seed);
        let noises = [(); 2].map(|()| generator.randn(&[1, 4, 8, 8], &Device::Cpu).unwrap());
        let noise = &noises[usize::from(!first_noise)];
        let a = first().alpha_bar;
        ((&z0 * a.sqrt()).unwrap() + (noise * (1.0 - a).sqrt()).unwrap()).unwrap()
    };
    for seed in [7, 8] {
        for shared_noise in [true, false] {
            let spec = ReferenceGuidance { picture: picture.clone(), shared_noise, settings: settings() };
            let target = prepared(&spec, seed)[0].extractor.target(&first()).unwrap();
            assert_close("reference", &target, &noised(seed, shared_noise), 1e-5);
            let settings = SamplingSettings { seed, ..sampling() };
            let mode = InversionMode::Noise { shared: shared_noise };
            let inverted = invert(&XL, &z0, &settings, mode, Window::between(0.1, 0.2), &quiet).unwrap();
            assert_close("inversion", inverted.at(first().t).unwrap(), &noised(seed, shared_noise), 1e-5);
            // The trajectory has all steps up to the end of the window.
            assert_eq!(inverted.timesteps().count(), 4);
        }
        for factor in [2, 4] {
            let spec = LowPassGuidance { picture: picture.clone(), factor, metric: Metric::L2, settings: settings() };
            let target = prepared(&spec, seed)[0].extractor.target(&first()).unwrap();
            let expected = LowPass::filter(&noised(seed, false), factor).unwrap();
            assert_close("low pass", &target, &expected, 1e-5);
        }
    }
}

/// Images of another size are resized to that of the run.
#[test]
fn pictures_of_any_size_guide() {
    let target = |side| {
        let spec = EdgesGuidance {
            picture: halves(side),
            drawing: Drawing::LightLines,
            metric: Metric::L2,
            settings: settings(),
        };
        prepared(&spec, 7)[0].extractor.target(&first()).unwrap()
    };
    assert_eq!(target(SIDE / 2).dims(), [1, 1, SIDE, SIDE]);
    assert!(relative(&target(SIDE / 2), &target(SIDE)) < 0.1);
}

/// A pixel belongs to the region with the nearest colour, if that is within the tolerance.
#[test]
fn regions_of_a_map() {
    // Red, nearly red, blue, and green, side by side.
    let pixels = [[1.0, 0.0, 0.0], [0.8, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]];
    let map = Tensor::new(&pixels, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    let map = map.t().unwrap().reshape((1, 3, 1, 4)).unwrap().affine(2.0, -1.0).unwrap();
    let shares = |colours: &[[f32; 3]], tolerance| {
        let regions = colours.iter().map(|colour| ColouredPhrase { phrase: "a word".into(), colour: *colour });
        let regions = regions.collect();
        let spec = SegmentationGuidance { map: map.clone(), regions, tolerance, downscale: None, settings: settings() };
        spec.shares(1, 4).map(|shares| numbers(&shares))
    };
    let (red, blue) = ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]);
    let rows = |rows: [[f32; 4]; 3]| rows.concat();
    assert_eq!(shares(&[red, blue], 0.1).unwrap(), rows([[1., 0., 0., 0.], [0., 0., 1., 0.], [0., 1., 0., 1.]]));
    assert_eq!(shares(&[red, blue], 0.3).unwrap(), rows([[1., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]]));
    assert_eq!(
        shares(&[red, [0.75, 0.0, 0.0]], 0.3).unwrap(),
        rows([[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 1.]])
    );
    assert!(shares(&[[1.0, 1.0, 1.0]], 0.1).unwrap_err().to_string().contains("#ffffff"));
}

fn sampling() -> SamplingSettings {
    SamplingSettings {
        prompt: PROMPT.into(),
        negative: None,
        width: SIDE,
        height: SIDE,
        seed: 7,
        cfg: 1.0,
        sampler: SamplerSettings::new(SamplerKind::Ddim, 20),
        sizes: Sizes::default(),
        from: None,
        options: Default::default(),
        source: SourceImage::default(),
    }
}

fn quiet(_: Step) -> Result<()> {
    Ok(())
}

/// A region that covers the image gives the image of its prompt. Without regions the image is that of the run's prompt.
#[test]
fn regions_have_their_own_prompts() {
    let settings = SamplingSettings { sampler: SamplerSettings::new(SamplerKind::Ddim, 2), cfg: 2.0, ..sampling() };
    let plain = |prompt: &str| {
        sample(&XL, &SamplingSettings { prompt: prompt.into(), ..settings.clone() }, &[], &quiet).unwrap()
    };
    let regions = |boxes: &[[f32; 4]], bootstrap| {
        let regions = boxes.iter().map(|bounds| ("a green star".into(), *bounds)).collect();
        sample_regions(&XL, &settings, 1, &RegionPrompts { regions, bootstrap }, &[], &|_, step| quiet(step)).unwrap()
    };
    assert_close("none", &regions(&[], 0.5), &plain(PROMPT), 1e-5);
    let star = regions(&[[0.0, 0.0, 1.0, 1.0]], 0.0);
    assert_close("whole", &star, &plain("a green star"), 1e-5);
    assert_close("twice", &regions(&[[0.0, 0.0, 1.0, 1.0]; 2], 0.0), &star, 1e-5);
    let half = regions(&[[0.0, 0.0, 0.5, 1.0]], 0.0);
    assert!(relative(&half, &star) > 1e-2 && relative(&half, &plain(PROMPT)) > 1e-2);
    // A plain background around the region in the first step changes the image.
    let [half_of_two, all_of_two] = [0.5, 1.0].map(|share| regions(&[[0.0, 0.0, 0.5, 1.0]], share));
    assert!(relative(&half_of_two, &half) > 1e-3 && relative(&all_of_two, &half_of_two) > 1e-4);
}

#[test]
fn inversions_have_their_own_cfg() {
    let z0 = XL.vae().unwrap().encode(&halves(SIDE)).unwrap();
    let inverted = |cfg| {
        let settings = SamplingSettings { sampler: SamplerSettings::new(SamplerKind::Ddim, 4), cfg, ..sampling() };
        let trajectory = invert(&XL, &z0, &settings, InversionMode::Ddim, Window::first(0.25), &quiet).unwrap();
        let t = trajectory.timesteps().next().unwrap();
        trajectory.at(t).unwrap().clone()
    };
    assert!(relative(&inverted(3.0), &inverted(1.0)) > 1e-3);
}

#[test]
fn attention_maps_depend_on_every_argument() {
    let z0 = XL.vae().unwrap().encode(&halves(SIDE)).unwrap();
    let map = |seed, phrase: &str, t, downscale| {
        attention_map(&XL, &z0, &SamplingSettings { seed, ..sampling() }, phrase, t, downscale).unwrap()
    };
    let usual = map(7, "red circle", 501.0, 2);
    assert_eq!(usual.dims(), [1, 1, 4, 4]);
    assert_eq!(map(7, "red circle", 501.0, 4).dims(), [1, 1, 2, 2]);
    let values = numbers(&usual);
    let most = values.iter().fold(0f32, |a, b| a.max(*b));
    assert!(values.contains(&0.0) && (most - 1.0).abs() < 1e-5, "{values:?}");
    for other in [map(8, "red circle", 501.0, 2), map(7, "blue square", 501.0, 2), map(7, "red circle", 251.0, 2)] {
        assert!(relative(&other, &usual) > 1e-4);
    }
}

/// The result is c a + 255 (1 − a), with a = 128/255 for the second pixel.
#[test]
fn transparency_is_laid_over_white() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let pixels = [[10, 20, 30, 255], [10, 20, 30, 128], [10, 20, 30, 0]];
    image::RgbaImage::from_fn(3, 1, |x, _| image::Rgba(pixels[x as usize])).save(&path).unwrap();
    let expected = [[10, 20, 30], [132, 137, 142], [255, 255, 255]];
    for picture in [load_image(&path).unwrap(), decode(&std::fs::read(&path).unwrap()).unwrap()] {
        assert_eq!(picture.pixels().map(|pixel| pixel.0).collect::<Vec<_>>(), expected);
    }
    let grey = image::GrayAlphaImage::from_fn(2, 1, |x, _| image::LumaA([100, [255, 0][x as usize]]));
    grey.save(&path).unwrap();
    let picture = load_image(&path).unwrap();
    assert_eq!(picture.pixels().map(|pixel| pixel.0).collect::<Vec<_>>(), [[100; 3], [255; 3]]);
}

/// Verdicts in memory, by output and shape.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Deviations>>);

type Deviations = HashMap<(String, Vec<usize>), f64>;

impl Verdicts for Kept {
    fn recall(&self, output: &str, shape: &[usize]) -> Option<f64> {
        self.0.lock().unwrap().get(&(output.into(), shape.to_vec())).copied()
    }

    fn keep(&self, output: &str, shape: &[usize], deviation: f64) {
        self.0.lock().unwrap().insert((output.into(), shape.to_vec()), deviation);
    }
}

#[test]
fn a_network_is_tested_when_it_is_bound_unless_a_verdict_is_known() {
    let bound = |path: &Path, verdicts: &Kept| -> Result<usize> {
        let network = OnnxNetwork::open(path, &Device::Cpu)?;
        let verdicts = Some(Box::new(verdicts.clone()) as Box<dyn Verdicts>);
        let look = Arc::new(Look::new(Arc::new(network), None, None, Normalisation::default(), verdicts)?);
        let (prompt, sampler, goal) = (PROMPT.into(), sampler(), OnnxGoal::Picture(halves(SIDE)));
        let run = SamplingRun { model: &XL, prompt: &prompt, sampler: &sampler, width: SIDE, height: SIDE, seed: 1 };
        let spec = OnnxGuidance { look, goal, metric: Metric::L1, settings: GuidanceSettings::default() };
        Ok(spec.bind(&run)?.len())
    };
    let nets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/tests/fixtures/onnx_nets");
    let (sound, stairs) = (nets.join("residual.onnx"), nets.join("bad_stairs.onnx"));
    // The size is that of the sampling, so that the test waits for it.
    let error = bound(&stairs, &Kept::default()).unwrap_err().to_string();
    assert!(error.contains("bad_stairs.onnx") && error.contains("deviates from finite differences"), "{error}");
    let kept = Kept::default();
    assert_eq!(bound(&sound, &kept).unwrap(), 1);
    let ((output, shape), deviation) = kept.0.lock().unwrap().drain().next().unwrap();
    assert_eq!((output.as_str(), shape.as_slice()), ("feature", &[1, 3, SIDE, SIDE][..]));
    assert!(deviation < 1e-2, "{deviation}");
    // A verdict about this output and shape stands for the test, and no other does.
    kept.keep("feature", &[1, 3, SIDE, SIDE], 0.001);
    assert_eq!(bound(&stairs, &kept).unwrap(), 1);
    assert_eq!(kept.0.lock().unwrap().len(), 1);
    let other = Kept::default();
    other.keep("feature", &[1, 3, SIDE, SIDE + 8], 0.001);
    other.keep("other", &[1, 3, SIDE, SIDE], 0.001);
    bound(&stairs, &other).unwrap_err();
}
