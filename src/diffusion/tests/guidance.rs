//! Compares distances, extractors and whole guidances with torch and with finite differences. `fixtures/guidance.py`
//! writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use candle_core::{DType, Device, Tensor, Var};
use common::{assert_close, shapes, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::denoiser::{CfgDenoiser, Denoiser};
use lsregen_diffusion::guidance::boxdiff::BoxLoss;
use lsregen_diffusion::guidance::colour_layout::ColourLayout;
use lsregen_diffusion::guidance::segmentation::ColouredPhrase;
use lsregen_diffusion::guidance::{
    BoundGuidance, BoundedAttentionGuidance, BoxDiffGuidance, EdgesGuidance, Extractor, GuidanceSettings, GuidanceSpec,
    LayoutGuidance, LowPass, Metric, SamplingRun, SegmentationGuidance, StepContext, Until, edges,
};
use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_diffusion::models::unet::{Added, Conditioning};
use lsregen_diffusion::models::unet::{AttentionKind, AttentionLayer, AttentionMap};
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::schedule::PredictionType;
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision};

/// Largest relative error of a value or a gradient, compared with torch.
const TORCH: f64 = 1e-3;

static IO: LazyLock<HashMap<String, Tensor>> = LazyLock::new(|| tensors("guidance.safetensors"));
static SMALL: LazyLock<Model> = LazyLock::new(|| load("gligen"));
static LARGE: LazyLock<Model> = LazyLock::new(|| load("xl"));

fn load(name: &str) -> Model {
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap();
    Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false)
}

fn scalar(x: &Tensor) -> f64 {
    x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

/// Returns the value of `f` at `x`, and its gradient by autodiff.
fn gradient(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> (f64, Tensor) {
    let var = Var::from_tensor(x).unwrap();
    let y = f(&var).unwrap();
    (scalar(&y), y.backward().unwrap().remove(&var).unwrap())
}

/// Compares a gradient with central differences of `f`, along the gradient and along a random direction.
#[track_caller]
fn assert_numeric(name: &str, x: &Tensor, g: &Tensor, step: f64, f: impl Fn(&Tensor) -> f64) {
    for seed in [None, Some(3)] {
        let direction = match seed {
            None => g.clone(),
            Some(seed) => {
                let noise = Generator::new(seed).randn(x.dims(), &Device::Cpu).unwrap().to_dtype(x.dtype()).unwrap();
                // Adds the gradient, because the differences along a direction orthogonal to it would be zero.
                (noise * (scalar(&g.sqr().unwrap()) / x.elem_count() as f64).sqrt()).unwrap().add(g).unwrap()
            }
        };
        let size = scalar(&direction.sqr().unwrap()).sqrt();
        let direction = (direction / size).unwrap();
        let at = |h: f64| f(&(x + (&direction * h).unwrap()).unwrap());
        let numeric = (at(step) - at(-step)) / (2.0 * step);
        let exact = scalar(&(g * &direction).unwrap());
        let error = (numeric - exact).abs() / exact.abs();
        println!("{name}: finite differences apart by {error:.1e}");
        assert!(error < 1e-3, "{name}: {numeric} by finite differences, {exact} by autodiff");
    }
}

const METRICS: [(&str, Metric); 7] = [
    ("squared_l2", Metric::L2),
    ("squared_l2_mean", Metric::L2Mean),
    ("l1", Metric::L1),
    ("huber", Metric::Huber),
    ("cosine", Metric::Cosine),
    ("gram", Metric::Gram),
    ("cross_entropy_mean", Metric::CrossEntropy),
];

#[test]
fn distances_equal_torch_and_finite_differences() {
    for (name, metric) in METRICS {
        let io = |part: &str| IO[&format!("distance.{name}/{part}")].clone();
        let (distance, mut feature, mut target) = (metric.distance(), io("feature"), io("target"));
        let expected = io("gradient");
        if metric == Metric::Gram {
            // Positions are one dimension here.
            (feature, target) = (feature.flatten_from(2).unwrap(), target.flatten_from(2).unwrap());
        }
        let value = distance.value(&feature, &target).unwrap().reshape(1).unwrap();
        // The fixture has the sum of the norms for each sample; our distance takes one norm over all samples.
        let ours = match metric {
            Metric::Gram => {
                let each = |i: usize| {
                    let (f, t) = (feature.narrow(0, i, 1).unwrap(), target.narrow(0, i, 1).unwrap());
                    (distance.value(&f, &t).unwrap(), distance.gradient(&f, &t).unwrap())
                };
                let ((a, ga), (b, gb)) = (each(0), each(1));
                assert_close(name, &(a + b).unwrap().reshape(1).unwrap(), &io("value"), 1e-5);
                Tensor::cat(&[ga, gb], 0).unwrap()
            }
            _ => {
                assert_close(name, &value, &io("value"), 1e-5);
                distance.gradient(&feature, &target).unwrap()
            }
        };
        assert_close(name, &ours.reshape(expected.shape()).unwrap(), &expected, 1e-5);
        // Compares in f64, with autodiff through the value as well.
        let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
        let (feature, target) = (wide(&feature), wide(&target));
        let g = distance.gradient(&feature, &target).unwrap();
        let (_, by_value) = gradient(&feature, |f| distance.value(f, &target));
        assert_close(name, &g, &by_value, 1e-9);
        assert_numeric(name, &feature, &g, 1e-6, |f| scalar(&distance.value(f, &target).unwrap()));
    }
}

/// If a feature equals its target, the gradient is zero and not NaN.
#[test]
fn gradients_vanish_at_the_target() {
    let x = IO["distance.squared_l2/feature"].clone();
    for (name, metric) in METRICS {
        if metric == Metric::CrossEntropy {
            continue;
        }
        let g = metric.distance().gradient(&x, &x).unwrap();
        assert!(scalar(&g.abs().unwrap()) < 1e-3, "{name}: {g}");
    }
}

fn no_network(_: &Tensor, _: f64) -> Result<Tensor> {
    panic!("this feature needs no network")
}

fn moment(denoiser: &dyn Denoiser, t: f64) -> StepContext<'_> {
    StepContext { step: 0, steps: 20, t, alpha_bar: 0.1, parameterisation: PredictionType::Epsilon.into(), denoiser }
}

#[test]
fn edges_and_colours_equal_torch_and_finite_differences() {
    let at = moment(&no_network, 500.0);
    // The fixture's images are in [0, 1], ours in [-1, 1].
    let ours = |x: &Tensor| x.affine(2.0, -1.0).unwrap();
    let boxes = [[0.08, 0.15, 0.45, 0.55], [0.55, 0.5, 0.92, 0.9]];
    let wanted: Vec<Vec<f32>> = IO["colours/target"].to_vec2().unwrap();
    let colours: Vec<_> = boxes.iter().zip(&wanted).map(|(b, c)| (*b, [c[0], c[1], c[2]])).collect();
    let edges: Arc<dyn Extractor> = Arc::new(edges::Edges { target: IO["edges.quarter/target"].clone() });
    let colours: Arc<dyn Extractor> = Arc::new(ColourLayout::new(&colours, 14, 18, &Device::Cpu).unwrap());
    for (name, extractor, metric) in [("edges.quarter", edges, Metric::L2Mean), ("colours", colours, Metric::L2)] {
        let io = |part: &str| IO[&format!("{name}/{part}")].clone();
        let x = ours(&io("input"));
        let target = extractor.target(&at).unwrap();
        assert_close(name, &target, &io("target"), 1e-6);
        assert_close(name, &extractor.feat(&x, &at).unwrap(), &io("output"), 1e-5);
        let value = |x: &Tensor| metric.distance().value(&extractor.feat(x, &at)?, &target.to_dtype(x.dtype())?);
        let (d, g) = gradient(&x, value);
        assert!((d - scalar(&io("value"))).abs() < 1e-5 * d.abs());
        assert_close(name, &(&g * 2.0).unwrap(), &io("gradient"), 1e-4);
        let wide = x.to_dtype(DType::F64).unwrap();
        let (_, g) = gradient(&wide, value);
        assert_numeric(name, &wide, &g, 1e-6, |x| scalar(&value(x).unwrap()));
    }
}

#[test]
fn the_low_pass_equals_torch_and_is_a_projection() {
    let io = |part: &str| IO[&format!("lowpass.area/{part}")].clone();
    let (x, reference) = (io("input"), io("reference"));
    let filter = |x: &Tensor| LowPass::filter(x, 4);
    let low = filter(&x).unwrap();
    assert_close("φ(z)", &low, &io("output"), 1e-5);
    assert_close("φ(φ(z))", &filter(&low).unwrap(), &low, 1e-6);
    let target = filter(&reference).unwrap();
    let (_, g) = gradient(&x, |x| Metric::L2.distance().value(&filter(x)?, &target));
    assert_close("∇", &g, &io("gradient"), 1e-5);
    // ILVR's z − φ(z) + φ(z̄) is the update with γ = ½.
    let ilvr = ((&x - &low).unwrap() + &target).unwrap();
    assert_close("ILVR", &(&x - (g * 0.5).unwrap()).unwrap(), &ilvr, 1e-5);
    // Sides that are no multiple of the factor.
    let odd = x.narrow(2, 0, 7).unwrap().narrow(3, 0, 10).unwrap();
    let low = filter(&odd).unwrap();
    assert_close("odd", &filter(&low).unwrap(), &low, 1e-6);
    assert!((scalar(&low) - scalar(&odd)).abs() < 1e-3);
}

const PROMPT: &str = "a red circle and a blue square on sand";

fn layout(phrases: [&str; 2]) -> Vec<GroundedPhrase> {
    let boxes = [[0.08, 0.15, 0.45, 0.55], [0.55, 0.5, 0.92, 0.9]];
    let objects = phrases.into_iter().zip(boxes);
    objects.map(|(phrase, bounds)| GroundedPhrase { phrase: phrase.into(), bounds }).collect()
}

fn boxdiff(phrases: [&str; 2], refined: &[(f64, f64)], refinements: usize) -> BoxDiffGuidance {
    let refined = refined.to_vec();
    BoxDiffGuidance {
        layout: layout(phrases),
        downscale: Some(2),
        refined,
        refinements,
        settings: BoxDiffGuidance::defaults(),
    }
}

fn layout_guidance(phrases: [&str; 2], enough: f64) -> LayoutGuidance {
    let settings = GuidanceSettings { until: Until::Settled(enough), ..LayoutGuidance::defaults() };
    LayoutGuidance { layout: layout(phrases), settings }
}

/// Returns the network of the fixtures, conditioned on the empty text and on the prompt.
fn denoiser(model: &Model, name: &str, cfg: f64) -> CfgDenoiser {
    let half = |i: usize| {
        let part = |t: &str| IO.get(&format!("{name}/{t}")).map(|t| t.narrow(0, i, 1).unwrap());
        let added = part("text_embeds").map(|text_embeds| Added { text_embeds, time_ids: part("time_ids").unwrap() });
        Conditioning { context: part("context").unwrap(), added, objs: None, guidance: None, channels: None }
    };
    CfgDenoiser::new(model.unet().unwrap(), &half(1), &half(0), cfg).unwrap()
}

fn prepared(spec: &dyn GuidanceSpec, model: &Model, side: usize) -> Vec<BoundGuidance> {
    let sampler = Sampler::new(&model.info.scheduler, &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let prompt = PROMPT.into();
    let run = SamplingRun { model, prompt: &prompt, sampler: &sampler, width: side, height: side, seed: 0 };
    spec.bind(&run).unwrap()
}

/// Losses and gradients of BoxDiff and of layout-guidance at the first step, on both models.
#[test]
fn attention_losses_equal_torch_and_finite_differences() {
    let words = ["circle", "square"];
    let phrases = ["a red circle", "a blue square"];
    for (case, name, spec) in [
        ("boxdiff", "gligen", Box::new(boxdiff(words, &[], 0)) as Box<dyn GuidanceSpec>),
        ("boxdiff.phrases", "gligen", Box::new(boxdiff(phrases, &[], 0))),
        ("boxdiff.xl", "xl", Box::new(boxdiff(phrases, &[], 0))),
        ("layout", "gligen", Box::new(layout_guidance(words, 0.2))),
        ("layout.phrases", "gligen", Box::new(layout_guidance(phrases, 0.2))),
        ("layout.xl", "xl", Box::new(layout_guidance(phrases, 0.2))),
    ] {
        let model = if name == "xl" { &*LARGE } else { &*SMALL };
        let denoiser = denoiser(model, name, 4.0);
        let at = moment(&denoiser, 951.0);
        let z = &IO[&format!("{name}/z")];
        let side = 8 * z.dim(2).unwrap();
        let [guidance] = prepared(&*spec, model, side).try_into().unwrap_or_else(|_| panic!("one guidance"));
        let (value, g) = guidance.gradient(z, &at, true).unwrap();
        let value = scalar(&value.unwrap());
        let told: serde_json::Value =
            serde_json::from_slice(&std::fs::read(common::fixture("guidance.json")).unwrap()).unwrap();
        let key = if case.starts_with("layout") { "energy" } else { "loss" };
        let expected = told[case]["values"][key].as_f64().unwrap();
        let error = (value - expected).abs() / expected;
        println!("{case}: loss apart by {error:.1e}");
        assert!(error < 1e-4, "{case}: {value:?}, expected {expected}");
        // The fixture has the gradient of 30 E for layout-guidance.
        let g30 = if key == "energy" { (&g * 30.0).unwrap() } else { g.clone() };
        assert_close(case, &g30, &IO[&format!("{case}/gradient")], TORCH);
        if let Some(smoothed) = IO.get(&format!("{case}/smoothed")) {
            assert_close(case, &guidance.extractor.feat(z, &at).unwrap(), smoothed, 1e-4);
        }
        // The step is large enough for the rounding of f32.
        let step = if case.starts_with("layout") { 3e-2 } else { 1e-2 };
        assert_numeric(case, z, &g, step, |z| guidance.value(z, &at).unwrap());
    }
}

/// Returns the colour-coded map of the fixtures' boxes, one pixel for each cell of the attention map: red and blue on
/// black.
fn flat_map() -> Tensor {
    let cells = [(1..4, 1..4), (4..7, 4..7)];
    let colour = |channel: usize, y: usize, x: usize| {
        let inside = |i: usize| cells[i].0.contains(&y) && cells[i].1.contains(&x);
        let (red, blue) = (channel == 0 && inside(0), channel == 2 && inside(1));
        if red || blue { 1f32 } else { -1.0 }
    };
    let pixels = (0..3).flat_map(|c| (0..8).flat_map(move |y| (0..8).map(move |x| (c, y, x))));
    let pixels: Vec<f32> = pixels.map(|(c, y, x)| colour(c, y, x)).collect();
    Tensor::from_vec(pixels, (1, 3, 8, 8), &Device::Cpu).unwrap()
}

/// Segmentation and bounded attention on z_t, and edges of the decoded image under classifier-free guidance.
#[test]
fn other_extractors_equal_torch_and_finite_differences() {
    let phrase = |phrase: &str, colour| ColouredPhrase { phrase: phrase.into(), colour };
    let phrases = ["a red circle", "a blue square"];
    let settings = GuidanceSettings { scale: 1.0, ..GuidanceSettings::default() };
    let segmentation = SegmentationGuidance {
        map: flat_map(),
        regions: vec![phrase(phrases[0], [1.0, 0.0, 0.0]), phrase(phrases[1], [0.0, 0.0, 1.0])],
        tolerance: 0.1,
        downscale: Some(2),
        settings: settings.clone(),
    };
    let bounded = BoundedAttentionGuidance { layout: layout(phrases), downscale: Some(2), settings: settings.clone() };
    let drawing = IO["picture/drawing"].affine(2.0, -1.0).unwrap();
    let picture = EdgesGuidance {
        picture: drawing.broadcast_as((1, 3, 128, 128)).unwrap().contiguous().unwrap(),
        drawing: edges::Drawing::LightLines,
        metric: Metric::L2Mean,
        settings,
    };
    let told: serde_json::Value =
        serde_json::from_slice(&std::fs::read(common::fixture("guidance.json")).unwrap()).unwrap();
    for (case, spec, step) in [
        ("segmentation", Box::new(segmentation) as Box<dyn GuidanceSpec>, 3e-2),
        ("bounded", Box::new(bounded), 3e-2),
        ("picture", Box::new(picture), 1e-2),
    ] {
        let denoiser = denoiser(&SMALL, "gligen", 4.0);
        let alpha_bar = Sampler::new(&SMALL.info.scheduler, &SamplerSettings::new(SamplerKind::Ddim, 20))
            .unwrap()
            .schedule()
            .alpha_bar(951.0);
        let at = StepContext { alpha_bar, ..moment(&denoiser, 951.0) };
        let z = &IO["gligen/z"];
        let [guidance] = prepared(&*spec, &SMALL, 128).try_into().unwrap_or_else(|_| panic!("one guidance"));
        let (value, g) = guidance.gradient(z, &at, true).unwrap();
        let value = scalar(&value.unwrap());
        let expected = told[case]["values"]["loss"].as_f64().unwrap();
        let error = (value - expected).abs() / expected;
        assert!(error < 1e-4, "{case}: {value:?}, expected {expected}");
        assert_close(case, &g, &IO[&format!("{case}/gradient")], TORCH);
        assert_numeric(case, z, &g, step, |z| guidance.value(z, &at).unwrap());
    }
}

/// Records the latents that the network receives during a run.
struct Seen<'a>(&'a CfgDenoiser, Mutex<Vec<Tensor>>);

impl Denoiser for Seen<'_> {
    fn predict(&self, z: &Tensor, t: f64) -> Result<Tensor> {
        self.1.lock().unwrap().push(z.clone());
        self.0.predict(z, t)
    }
    fn attention_layers(&self) -> Vec<AttentionLayer> {
        self.0.attention_layers()
    }
    fn attention_maps(
        &self,
        z: &Tensor,
        t: f64,
        kind: AttentionKind,
        places: &[AttentionLayer],
    ) -> Result<Vec<AttentionMap>> {
        self.0.attention_maps(z, t, kind, places)
    }
}

/// The first five guided latents of a run of 20 steps.
#[test]
fn guided_latents_equal_torch() {
    let words = ["circle", "square"];
    let phrases = ["a red circle", "a blue square"];
    let share = |i: f64, thresholds: [f64; 2]| [(0.0, thresholds[0]), (i / 20.0, thresholds[1])];
    for (case, spec) in [
        ("boxdiff", Box::new(boxdiff(words, &BoxDiffGuidance::REFINED, 20)) as Box<dyn GuidanceSpec>),
        ("boxdiff.refined", Box::new(boxdiff(words, &share(4.0, [0.7, 0.9]), 20))),
        ("boxdiff.phrases", Box::new(boxdiff(phrases, &share(4.0, [0.6, 0.8]), 20))),
        ("layout", Box::new(layout_guidance(words, 0.2))),
        ("layout.rests", Box::new(layout_guidance(words, 0.74))),
        ("layout.phrases", Box::new(layout_guidance(phrases, 0.2))),
    ] {
        let sampler = Sampler::new(&SMALL.info.scheduler, &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
        let denoiser = denoiser(&SMALL, "gligen", 4.0);
        let seen = Seen(&denoiser, Mutex::default());
        let guidance = prepared(&*spec, &SMALL, 128);
        let stop = |step: Step| if step.done == 5 { Err(lsregen_diffusion::Error::Cancelled) } else { Ok(()) };
        let end = sampler.run_from(0, &IO["gligen/z"], &seen, &guidance, &mut Generator::new(0).into(), &stop);
        assert!(matches!(end, Err(lsregen_diffusion::Error::Cancelled)), "{case}: {:?}", end.err());
        let seen = seen.1.into_inner().unwrap();
        assert_eq!(seen.len(), 5);
        for (i, z) in seen.iter().enumerate() {
            assert_close(&format!("{case} {i}"), z, &IO[&format!("{case}/guided.{i}")], TORCH);
        }
    }
}

/// A box that covers the centre of no cell gets one cell, and a share of less than one cell counts as one.
#[test]
fn tiny_boxes_have_a_cell() {
    let mut spec = boxdiff(["circle", "square"], &[], 0);
    spec.layout[0].bounds = [0.99, 0.99, 1.0, 1.0];
    spec.layout[1].bounds = [0.0, 0.0, 0.01, 0.01];
    let denoiser = denoiser(&SMALL, "gligen", 4.0);
    let at = moment(&denoiser, 951.0);
    let guidance = prepared(&spec, &SMALL, 128);
    let (value, g) = guidance[0].gradient(&IO["gligen/z"], &at, true).unwrap();
    assert!(scalar(&value.unwrap()).is_finite() && scalar(&g.sqr().unwrap()).is_finite());
    assert_eq!((BoxLoss::SHARE, BoxLoss::REACH), (0.2, 1));
}

#[test]
fn phrases_that_the_prompt_lacks_are_errors() {
    let mut spec = boxdiff(["circle", "square"], &[], 0);
    spec.layout[1].phrase = "a green star".into();
    let sampler = Sampler::new(&SMALL.info.scheduler, &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let prompt = PROMPT.into();
    let run = SamplingRun { model: &SMALL, prompt: &prompt, sampler: &sampler, width: 128, height: 128, seed: 0 };
    let error = spec.bind(&run).err().unwrap().to_string();
    assert!(error.contains("green star") && error.contains(PROMPT), "{error}");
    spec.layout[1].phrase = "a blue square".into();
    spec.downscale = Some(8);
    let error = spec.bind(&run).err().unwrap().to_string();
    assert!(error.contains("downscale 1, 2, 4"), "{error}");
    // By default it uses the maps that are nearest to 16 × 16.
    spec.downscale = None;
    let cells = |side: usize| {
        let denoiser = denoiser(&SMALL, "gligen", 4.0);
        let at = moment(&denoiser, 951.0);
        let guidance = spec.bind(&SamplingRun { width: side, height: side, ..run }).unwrap();
        guidance[0].extractor.target(&at).unwrap().dims().to_vec()
    };
    assert_eq!(cells(128), [2, 16, 16]);
    assert_eq!(cells(256), [2, 16, 16]);
    assert_eq!(cells(512), [2, 16, 16]);
    assert_eq!(cells(1024), [2, 32, 32]);
}
