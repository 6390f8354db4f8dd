//! Compares guidance settings with numbers that were computed by hand: schedules of γ, windows, the end of repeats,
//! renoising, masks, normalisation, and the error on divergence. Also tests the distances on small numbers.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use lsregen_diffusion::Result;
use lsregen_diffusion::guidance::{
    Auto, BoundGuidance, Extractor, FeatureSpace, GuidanceSettings, Metric, Normalise, Region, Schedule, Session,
    StepContext, Until, Window,
};
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::schedule::{PredictionType, SchedulerConfig};
use lsregen_tensor::noise::Generator;

/// Predicts 3 everywhere.
fn threes(z: &Tensor, _: f64) -> Result<Tensor> {
    Ok(z.zeros_like()?.affine(1.0, 3.0)?)
}

fn moment(step: usize, t: f64, alpha_bar: f64) -> StepContext<'static> {
    StepContext { step, steps: 10, t, alpha_bar, parameterisation: PredictionType::Epsilon.into(), denoiser: &threes }
}

/// Three steps of a run of ten.
fn moments() -> [StepContext<'static>; 3] {
    [moment(2, 800.0, 0.04), moment(4, 500.0, 0.25), moment(7, 200.0, 0.81)]
}

#[track_caller]
fn assert_near(what: &str, ours: &[f64], expected: &[f64]) {
    let near = ours.len() == expected.len() && ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near, "{what}: {ours:?}, not {expected:?}");
}

/// The windows hold steps 2 to 7, that is timesteps 800 to 200.
#[test]
fn schedules_of_gamma() {
    let window = Window::between(0.2, 0.8);
    for (schedule, schedule_end, window, expected) in [
        (Schedule::Constant, 0.0, window, [2.0, 2.0, 2.0]),
        // 2 (1 − ½ s) at s = 0, 2/5 and 1.
        (Schedule::Linear, 0.5, window, [2.0, 1.6, 1.0]),
        // 2 (1 + 2 s).
        (Schedule::Linear, 3.0, window, [2.0, 3.6, 6.0]),
        // The same at s = 0, 1/2 and 1, for a window of timesteps.
        (Schedule::Linear, 0.5, Window::Timesteps(200.0, 800.0), [2.0, 1.5, 1.0]),
        // Without a highest timestep the window begins at 1000.
        (Schedule::Linear, 0.0, Window::from_timestep(200.0), [1.5, 0.75, 0.0]),
        // 2 · ½ (1 + cos πs).
        (Schedule::Cosine, 0.0, window, [2.0, 1.309_016_994, 0.0]),
        (Schedule::Cosine, 0.0, Window::Timesteps(200.0, 800.0), [2.0, 1.0, 0.0]),
        // 2 (1 − ᾱ).
        (Schedule::Noise, 0.0, window, [1.92, 1.5, 0.38]),
        // 2 √ᾱ.
        (Schedule::Signal, 0.0, window, [0.4, 1.0, 1.8]),
        // 2 √(1 − i/18): over the whole run, whatever the window.
        (Schedule::BoxDiff, 0.0, window, [1.885_618_083, 1.763_834_207, 1.563_471_920]),
        // 2 [½ (1 + cos π(1 − t/1000))]³.
        (Schedule::DemoFusion, 0.0, window, [1.480_021_243, 0.25, 0.001_741_503]),
    ] {
        let settings = GuidanceSettings { scale: 2.0, schedule, schedule_end, window, ..GuidanceSettings::default() };
        assert_near(&format!("{schedule:?} {window:?}"), &moments().map(|at| settings.scale_at(&at)), &expected);
    }
}

#[test]
fn windows() {
    let timesteps: Vec<f64> = (0..10).map(|i| 900.0 - 100.0 * f64::from(i)).collect();
    for (window, expected) in [
        (Window::between(0.2, 0.8), 2..8),
        (Window::between(0.0, 1.0), 0..10),
        (Window::first(0.3), 0..3),
        (Window::first(0.01), 0..1),
        (Window::first(0.0), 0..0),
        (Window::between(0.5, 0.5), 0..0),
        (Window::between(0.99, 1.0), 9..10),
        (Window::between(0.4, 0.41), 4..5),
        (Window::step(0.4), 4..5),
        // Both ends are included.
        (Window::Timesteps(200.0, 800.0), 1..8),
        (Window::Timesteps(201.0, 799.0), 2..7),
        (Window::from_timestep(700.0), 0..3),
        (Window::Timesteps(0.0, 200.0), 7..10),
    ] {
        assert_eq!(window.steps(&timesteps), expected, "{window:?}");
        let held = (0..10).filter(|&i| window.contains(&moment(i, timesteps[i], 0.5)));
        assert_eq!(held.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{window:?}");
    }
    let acts = |settings: GuidanceSettings| moments().map(|at| settings.acts(&at));
    let whole = GuidanceSettings { window: Window::first(1.0), ..GuidanceSettings::default() };
    assert_eq!(acts(GuidanceSettings { window: Window::between(0.3, 0.6), ..whole.clone() }), [false, true, false]);
    assert_eq!(acts(whole.clone()), [true; 3]);
    assert_eq!(acts(GuidanceSettings { scale: 0.0, ..whole.clone() }), [false; 3]);
    assert_eq!(acts(GuidanceSettings { repeats: 0, ..whole }), [false; 3]);
}

/// An extractor of the latent times a number, with the target 0. The flag is what `is_identity` returns, which selects
/// the gradient in closed form.
struct Still(f64, bool);

impl Extractor for Still {
    fn name(&self) -> &str {
        "still"
    }

    fn feat(&self, x: &Tensor, _: &StepContext) -> Result<Tensor> {
        Ok((x * self.0)?)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(Tensor::zeros((1, 1, 1, 4), candle_core::DType::F32, &Device::Cpu)?)
    }

    fn is_identity(&self) -> bool {
        self.1
    }
}

/// ∇D = 2z: with γ = ¼ each update halves the latent.
fn halving(settings: GuidanceSettings) -> BoundGuidance {
    let settings = GuidanceSettings { window: Window::first(1.0), ..settings };
    BoundGuidance {
        extractor: Arc::new(Still(1.0, false)),
        distance: Metric::L2.distance(),
        space: FeatureSpace::Latent,
        settings,
        mask: None,
    }
}

fn latent(values: [f32; 4]) -> Tensor {
    Tensor::from_slice(&values, (1, 1, 1, 4), &Device::Cpu).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// Returns the first number of the latent [from, 0, 0, 0] after a step. D is its square.
fn updated(session: &mut Session, from: f32, pass: usize) -> f64 {
    numbers(&session.update(&latent([from, 0.0, 0.0, 0.0]), &moments()[0], pass).unwrap())[0]
}

#[test]
fn repeats_and_what_ends_them() {
    [false, true].into_iter().for_each(repeats_of);
}

/// Tests repeats by automatic differentiation, or in closed form if `is_identity`.
fn repeats_of(is_identity: bool) {
    let three = GuidanceSettings { repeats: 3, ..GuidanceSettings::default() };
    let run = |settings: &GuidanceSettings, from: &[f32]| -> Vec<f64> {
        let guidance = [BoundGuidance { extractor: Arc::new(Still(1.0, is_identity)), ..halving(settings.clone()) }];
        let mut session = Session::new(&guidance);
        from.iter().map(|from| updated(&mut session, *from, 0)).collect()
    };
    assert_eq!(run(&GuidanceSettings::default(), &[4.0]), [2.0]);
    assert_eq!(run(&three, &[4.0, 4.0]), [0.5, 0.5]);
    // D is 16, then 4, where the next update is skipped. The next step starts again.
    let reached = GuidanceSettings { until: Until::Reached(4.0), ..three.clone() };
    assert_eq!(run(&reached, &[4.0, 2.0, 4.0]), [2.0, 2.0, 2.0]);
    // The update from D = 4 is applied, and is the last one of the run.
    let settled = GuidanceSettings { until: Until::Settled(4.0), ..three };
    assert_eq!(run(&settled, &[4.0, 4.0]), [1.0, 4.0]);
}

/// With `renoise` the sampler takes the step once for each repeat, with one update before each.
#[test]
fn renoising_takes_the_step_again() {
    let settings = GuidanceSettings { repeats: 2, renoise: true, ..GuidanceSettings::default() };
    let guidance = [halving(settings.clone()), halving(GuidanceSettings { repeats: 5, ..GuidanceSettings::default() })];
    assert_eq!(Session::new(&guidance[..1]).passes(&moments()[0]), 2);
    assert_eq!(Session::new(&guidance).passes(&moments()[0]), 2);
    assert_eq!(Session::new(&guidance[1..]).passes(&moments()[0]), 1);
    // There are no more passes after the window, or once the guidance has settled.
    let early = [BoundGuidance {
        settings: GuidanceSettings { window: Window::first(0.3), until: Until::Settled(100.0), ..settings.clone() },
        ..halving(GuidanceSettings::default())
    }];
    let mut session = Session::new(&early);
    assert_eq!([0, 1].map(|i| session.passes(&moments()[i])), [2, 1]);
    updated(&mut session, 4.0, 0);
    assert_eq!(session.passes(&moments()[0]), 1);
    let mut session = Session::new(&guidance[..1]);
    assert_eq!([0, 1, 2].map(|pass| updated(&mut session, 4.0, pass)), [2.0, 2.0, 4.0]);

    // With a network that predicts 0 the step is z' = √(ᾱ'/ᾱ) z. So the step goes from z to ½z by the update, takes and
    // undoes the step, which gives ½z + √(1 − ᾱ/ᾱ') n, and halves that again.
    let config: SchedulerConfig = serde_json::from_str(r#"{"clip_sample": false, "set_alpha_to_one": false}"#).unwrap();
    let sampler = Sampler::new(&config, &SamplerSettings::new(SamplerKind::Ddim, 2)).unwrap();
    let zero = |z: &Tensor, _: f64| Ok(z.zeros_like()?);
    let quiet = |_: Step| Ok(());
    let guidance = [BoundGuidance {
        settings: GuidanceSettings { window: Window::first(0.5), ..settings },
        ..halving(GuidanceSettings::default())
    }];
    let ours =
        sampler.run(&latent([4.0, 8.0, -4.0, 1.0]), &zero, &guidance, &mut Generator::new(9).into(), &quiet).unwrap();
    let [a, b] = [500.0, 0.0].map(|t| sampler.schedule().alpha_bar(t));
    let noise = numbers(&Generator::new(9).randn(&[1, 1, 1, 4], &Device::Cpu).unwrap());
    let expected = [4.0, 8.0, -4.0, 1.0].iter().zip(noise);
    let expected: Vec<_> = expected.map(|(z, n)| (z / 2.0 + (1.0 - a / b).sqrt() * n) / 2.0 * (b / a).sqrt()).collect();
    let scale = expected.iter().fold(1.0, |most: f64, v| most.max(v.abs()));
    let [ours, expected] = [numbers(&ours), expected].map(|x| x.into_iter().map(|v| v / scale).collect::<Vec<_>>());
    assert_near("time travel", &ours, &expected);
}

/// γ · s · RMS of the prediction, over the RMS of the gradient: 4 − ¼ · 3 · 2.
#[test]
fn gradients_are_scaled_to_the_correction() {
    let mut guidance = halving(GuidanceSettings { normalise: Normalise::Freedom, ..GuidanceSettings::default() });
    let step = |guidance: &BoundGuidance, z: [f32; 4]| numbers(&guidance.step(&latent(z), &moments()[0]).unwrap().1);
    assert_near("spread", &step(&guidance, [4.0, 0.0, 0.0, 0.0]), &[2.5, 0.0, 0.0, 0.0]);
    assert_near("even", &step(&guidance, [4.0, -4.0, 4.0, 4.0]), &[3.25, -3.25, 3.25, 3.25]);
    assert_near("no gradient", &step(&guidance, [0.0; 4]), &[0.0; 4]);
    guidance.settings.normalise = Normalise::None;
    assert_near("as it is", &step(&guidance, [4.0, 0.0, 0.0, 0.0]), &[2.0, 0.0, 0.0, 0.0]);
    // With a mask, the part of the gradient inside it is scaled to the same size.
    guidance.settings.normalise = Normalise::Freedom;
    guidance.mask = Some(latent([1.0, 0.0, 0.0, 0.0]));
    assert_near("masked", &step(&guidance, [4.0, 4.0, 4.0, 4.0]), &[2.5, 4.0, 4.0, 4.0]);
}

#[test]
fn masks_weigh_the_gradient() {
    let mut guidance = halving(GuidanceSettings::default());
    guidance.mask = Some(latent([1.0, 0.5, 0.0, 2.0]));
    let ours = guidance.step(&latent([4.0; 4]), &moments()[0]).unwrap().1;
    assert_eq!(numbers(&ours), [2.0, 3.0, 4.0, 0.0]);
}

/// W = max_b f_b m_b + (1 − max_b m_b) outside, for a row of eight cells.
#[test]
fn weights_of_a_region() {
    let half = Region { boxes: Some(vec![[0.0, 0.0, 0.5, 1.0]]), ..Region::default() };
    let weights =
        |region: &Region, most: f32| region.weights(1, 8, most, &Device::Cpu).unwrap().map(|weights| numbers(&weights));
    let all = f32::INFINITY;
    assert_eq!(weights(&Region::default(), all), None, "everywhere");
    assert_eq!(weights(&Region { boxes: Some(vec![]), ..Region::default() }, all), Some(vec![0.0; 8]));
    let near = |region: Region, most: f32, expected: [f64; 8]| {
        assert_near(&format!("{region:?}"), &weights(&region, most).unwrap(), &expected);
    };
    near(half.clone(), all, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let feathered = Region { feather: 0.25, ..half.clone() };
    near(feathered.clone(), all, [1.0, 1.0, 1.0, 1.0, 0.75, 0.25, 0.0, 0.0]);
    let left = Region { outside: 0.5, ..feathered };
    near(left.clone(), all, [1.0, 1.0, 1.0, 1.0, 0.875, 0.625, 0.5, 0.5]);
    near(left, 0.75, [0.75, 0.75, 0.75, 0.75, 0.75, 0.625, 0.5, 0.5]);
    // Boxes with an eighth and a half of the image; the factor is 1 for a quarter, so theirs are √2 and 1/√2.
    let auto = Auto { area: 0.25, power: 0.5, limit: 2.0 };
    let (small, large) = ([0.0, 0.0, 0.125, 1.0], [0.5, 0.0, 1.0, 1.0]);
    let two = Region { boxes: Some(vec![small, large]), auto: Some(auto), outside: 0.25, ..Region::default() };
    let (more, less) = (2f64.sqrt(), 0.5f64.sqrt());
    near(two, all, [more, 0.25, 0.25, 0.25, less, less, less, less]);
    assert_eq!(auto.factor([0.0, 0.0, 0.1, 0.1]), 2.0, "at most the limit");
    assert_eq!(Auto { limit: 1.25, ..auto }.factor([0.0, 0.0, 1.0, 1.0]), 0.8, "at least its inverse");
}

/// A latent that grows more than a hundredfold or becomes NaN is an error, which names the settings to lower.
#[test]
fn divergence_is_an_error() {
    // z − γ 2z = (1 − 2γ) z.
    let step = |scale: f64| {
        halving(GuidanceSettings { scale, ..GuidanceSettings::default() }).step(&latent([4.0; 4]), &moments()[1])
    };
    assert_eq!(numbers(&step(50.0).unwrap().1), [-396.0; 4]);
    let grown = step(51.0).err().unwrap().to_string();
    // For a latent smaller than 1 the limit is 100, not 100 times the latent.
    let small = halving(GuidanceSettings { scale: 1000.0, ..GuidanceSettings::default() })
        .step(&latent([0.01; 4]), &moments()[1]);
    assert!(small.is_ok());
    let nan = BoundGuidance { extractor: Arc::new(Still(f64::NAN, false)), ..halving(GuidanceSettings::default()) };
    let nan = nan.step(&latent([4.0; 4]), &moments()[1]).err().unwrap().to_string();
    for (error, what) in [(&grown, "grew to 4.0e2"), (&nan, "not finite")] {
        for word in
            ["`still`", "step 5 of 10", "500", what, "`scale`", "`strength`", "`window`", "`repeats`", "`normalise"]
        {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    assert!(grown.contains("5.100e1"), "{grown}");
}

#[test]
fn distances_on_small_numbers() {
    let rows = |values: [f32; 4]| Tensor::from_slice(&values, (1, 2, 2), &Device::Cpu).unwrap();
    let (feature, target) = (rows([1.0, 2.0, -1.0, 0.0]), rows([0.0, 0.0, 1.0, 0.0]));
    for (metric, expected) in [
        // Differences of 1, 2, −2 and 0.
        (Metric::L2, 9.0),
        (Metric::L2Mean, 2.25),
        (Metric::L1, 5.0),
        (Metric::Huber, 0.5 + 1.5 + 1.5),
        // 1 + 1/√6.
        (Metric::Cosine, 1.408_248_290),
        // ½ [[5, −1], [−1, 1]] − ½ [[0, 0], [0, 1]]: √(6¼ + ¼ + ¼).
        (Metric::Gram, 2.598_076_211),
    ] {
        let value = metric.distance().value(&feature, &target).unwrap();
        assert_near(&format!("{metric:?}"), &numbers(&value), &[expected]);
    }
    // Logits ln 1 and ln 3 are the probabilities ¼ and ¾.
    let logits = Tensor::new(&[[0f32, 3f32.ln()]], &Device::Cpu).unwrap();
    let classes = Tensor::new(&[[0.25f32, 0.75]], &Device::Cpu).unwrap();
    let value = Metric::CrossEntropy.distance().value(&logits, &classes).unwrap();
    assert_near("CrossEntropy", &numbers(&value), &[0.562_335_145]);
}
