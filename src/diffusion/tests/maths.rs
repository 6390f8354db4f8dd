//! Compares schedules, samplers, inversion, noise, guidance and resizing with diffusers, torch and PIL, and tests the
//! exact identities of the guidance framework. `fixtures/maths.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, fixture, relative, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::guidance::{
    BoundGuidance, Distance, Extractor, FeatureSpace, GuidanceSettings, Inversion, SquaredL2, StepContext, Window,
};
use lsregen_diffusion::inversion;
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::schedule::{NoiseSchedule, PredictionType, SchedulerConfig};
use lsregen_tensor::image::{Resampling, resize};
use lsregen_tensor::noise::Generator;
use serde_json::Value;

fn facts() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("maths.json")).unwrap()).unwrap()
}

fn denoiser(z: &Tensor, t: f64) -> Result<Tensor> {
    Ok(z.affine(0.7, 0.3 * (t / 100.0).sin())?.tanh()?)
}

fn quiet(_: Step) -> Result<()> {
    Ok(())
}

fn stable_diffusion() -> SchedulerConfig {
    serde_json::from_str(
        r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": false,
            "set_alpha_to_one": false, "steps_offset": 1}"#,
    )
    .unwrap()
}

/// diffusers' `betas_for_alpha_bar` caps β at 0.999: the last timestep keeps a thousandth of the signal of the one
/// before.
#[test]
fn the_cosine_schedule_caps_beta() {
    let config: SchedulerConfig = serde_json::from_str(r#"{"beta_schedule": "squaredcos_cap_v2"}"#).unwrap();
    let schedule = NoiseSchedule::new(&config).unwrap();
    let share = schedule.alpha_bar(999.0) / schedule.alpha_bar(998.0);
    assert!((share - 0.001).abs() < 1e-6, "{share}");
}

/// ᾱ = 0.9, 0.9 · 0.8, 0.9 · 0.8 · 0.7.
#[test]
fn trained_betas_take_the_place_of_a_schedule() {
    let config = r#"{"num_train_timesteps": 3, "trained_betas": [0.1, 0.2, 0.3]}"#;
    let schedule = NoiseSchedule::new(&serde_json::from_str(config).unwrap()).unwrap();
    for (t, expected) in [(0.0, 0.9), (1.0, 0.72), (2.0, 0.504)] {
        assert!((schedule.alpha_bar(t) - expected).abs() < 1e-6, "{t}: {}", schedule.alpha_bar(t));
    }
}

/// One step to ᾱ = 1 gives x̂₀ itself, clamped.
#[test]
fn ddim_clamps_the_predicted_latent_on_both_sides() {
    let config: SchedulerConfig = serde_json::from_str(r#"{"clip_sample": true, "clip_sample_range": 0.5}"#).unwrap();
    let sampler = Sampler::new(&config, &SamplerSettings::new(SamplerKind::Ddim, 1)).unwrap();
    let zeros = |z: &Tensor, _: f64| -> Result<Tensor> { Ok(z.zeros_like()?) };
    let z = Tensor::new(&[[[[-3f32, -0.25, 0.25, 3.0]]]], &Device::Cpu).unwrap();
    let z = sampler.run(&z, &zeros, &[], &mut Generator::new(0).into(), &quiet).unwrap();
    let expected = Tensor::new(&[[[[-0.5f32, -0.25, 0.25, 0.5]]]], &Device::Cpu).unwrap();
    assert_close("clamped", &z, &expected, 1e-3);
}

/// The schedulers of diffusers that latent models are saved with do not write `clip_sample`.
#[test]
fn without_clip_sample_nothing_is_clamped() {
    for config in [r#"{"_class_name": "EulerDiscreteScheduler"}"#, r#"{"clip_sample": null}"#] {
        let config = SchedulerConfig::parse(config.as_bytes(), "scheduler_config.json").unwrap();
        let sampler = Sampler::new(&config, &SamplerSettings::new(SamplerKind::Ddim, 1)).unwrap();
        let zeros = |z: &Tensor, _: f64| -> Result<Tensor> { Ok(z.zeros_like()?) };
        let z = Tensor::new(&[[[[-3f32, 0.25, 3.0]]]], &Device::Cpu).unwrap();
        let end = sampler.run(&z, &zeros, &[], &mut Generator::new(0).into(), &quiet).unwrap();
        assert_close("not clamped", &end, &(z / sampler.schedule().alpha_bar(0.0).sqrt()).unwrap(), 1e-5);
    }
}

fn randn(shape: &[usize], seed: u64) -> Tensor {
    Generator::new(seed).randn(shape, &Device::Cpu).unwrap()
}

const SHAPE: [usize; 4] = [1, 4, 3, 5];

/// Each step reports its x̂₀. Together with the predicted ε it reproduces the latent of that step.
#[test]
fn every_sampler_reports_the_clean_latent_of_each_step() {
    for method in [SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::Dpmpp2M] {
        let sampler = Sampler::new(&stable_diffusion(), &SamplerSettings::new(method, 6)).unwrap();
        let seen = std::sync::Mutex::new(vec![]);
        let seeing = |z: &Tensor, t: f64| {
            let e = denoiser(z, t)?;
            seen.lock().unwrap().push((z.clone(), e.clone(), sampler.schedule().alpha_bar(t)));
            Ok(e)
        };
        let told = std::cell::RefCell::new(vec![]);
        let tell = |step: Step| {
            assert_eq!((step.done, step.of), (told.borrow().len() + 1, 6));
            told.borrow_mut().push(step.predicted_x0.clone());
            Ok(())
        };
        let z = sampler.run(&randn(&SHAPE, 1), &seeing, &[], &mut Generator::new(0).into(), &tell).unwrap();
        let quietly = sampler.run(&randn(&SHAPE, 1), &denoiser, &[], &mut Generator::new(0).into(), &quiet).unwrap();
        let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(numbers(&z), numbers(&quietly));
        for (x0, (z, e, a)) in told.borrow().iter().zip(seen.lock().unwrap().iter()) {
            let back = ((x0 * a.sqrt()).unwrap() + (e * (1.0 - a).sqrt()).unwrap()).unwrap();
            assert!(numbers(&back).iter().zip(numbers(z)).all(|(a, b)| (a - b).abs() < 1e-4), "{method:?}");
        }
    }
}

#[test]
fn samplers_equal_diffusers() {
    let io = tensors("maths.safetensors");
    for run in facts()["runs"].as_array().unwrap() {
        let method: SamplerKind = serde_json::from_value(run["method"].clone()).unwrap();
        let config: SchedulerConfig = serde_json::from_value(run["config"].clone()).unwrap();
        let steps = run["steps"].as_u64().unwrap() as usize;
        let sampler = {
            let settings = SamplerSettings { eta: run["eta"].as_f64(), ..SamplerSettings::new(method, steps) };
            Sampler::new(&config, &settings).unwrap()
        };
        let expected: Vec<f64> = serde_json::from_value(run["timesteps"].clone()).unwrap();
        for (a, b) in sampler.timesteps().iter().zip(&expected) {
            assert!((a - b).abs() < 1e-3, "{run}: {:?}", sampler.timesteps());
        }
        assert_eq!(sampler.timesteps().len(), expected.len());
        let noise = randn(&SHAPE, steps as u64);
        let z = sampler.run(&noise, &denoiser, &[], &mut Generator::new(99).into(), &quiet).unwrap();
        let reference = &io[run["name"].as_str().unwrap()];
        let error = relative(&z, reference);
        assert!(error < 2e-5, "{run}: relative error {error:.2e}");
    }
}

#[test]
fn noise_equals_torch_bit_for_bit() {
    let (io, facts) = (tensors("maths.safetensors"), facts());
    let mut generator = Generator::new(0);
    let mut seed = String::new();
    for row in facts["noise"].as_array().unwrap() {
        if row["seed"] != seed {
            seed = row["seed"].as_str().unwrap().to_string();
            generator = Generator::new(seed.parse().unwrap());
        }
        let shape: Vec<usize> = serde_json::from_value(row["shape"].clone()).unwrap();
        let bits = |t: &Tensor| -> Vec<u32> {
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
        };
        let ours = bits(&generator.randn(&shape, &Device::Cpu).unwrap());
        assert_eq!(ours, bits(&io[row["name"].as_str().unwrap()]), "{row}");
    }
    let checksum = Generator::new(3)
        .normals(4 * 128 * 128)
        .iter()
        .enumerate()
        .fold(0u64, |sum, (i, x)| (sum + u64::from(x.to_bits()) * (i as u64 % 65521 + 1)) % ((1 << 31) - 1));
    assert_eq!(checksum, facts["checksum"].as_u64().unwrap());
}

#[test]
fn inversion_equals_diffusers() {
    let io = tensors("maths.safetensors");
    let sampler = Sampler::new(&stable_diffusion(), &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let trajectory = inversion::ddim(&io["inverse.z0"], &sampler, &denoiser, 20, &quiet).unwrap();
    let timesteps: Vec<f64> = trajectory.timesteps().collect();
    assert_eq!(timesteps, sampler.timesteps());
    for t in timesteps {
        assert_close(&format!("z̄ at {t}"), trajectory.at(t).unwrap(), &io[&format!("inverse.{t}")], 2e-5);
    }
    assert!(trajectory.at(950.0).unwrap_err().to_string().contains("950"));
}

#[test]
fn inversion_and_sampling_are_inverse_in_the_limit() {
    let z0 = randn(&SHAPE, 1);
    let mut errors = Vec::new();
    for steps in [50, 500] {
        let sampler = Sampler::new(&stable_diffusion(), &SamplerSettings::new(SamplerKind::Ddim, steps)).unwrap();
        let trajectory = inversion::ddim(&z0, &sampler, &denoiser, 1, &quiet).unwrap();
        let z_t = trajectory.at(sampler.timesteps()[0]).unwrap();
        let back = sampler.run(z_t, &denoiser, &[], &mut Generator::new(0).into(), &quiet).unwrap();
        errors.push(relative(&back, &z0));
    }
    assert!(errors[1] < errors[0] / 4.0, "{errors:?}");
}

/// LSReGen's guidance towards the noised latent of seed 2, over all steps of `sampler`.
fn guidance(sampler: &Sampler, w: f64, window: Window, mask: Option<Tensor>) -> BoundGuidance {
    let trajectory = inversion::noise(&randn(&SHAPE, 2), sampler, &randn(&SHAPE, 3), sampler.timesteps().len());
    Inversion::bound(
        Arc::new(trajectory.unwrap()),
        GuidanceSettings { scale: w / 2.0, window, ..GuidanceSettings::default() },
        mask,
    )
}

fn moment(step: usize, steps: usize, t: f64) -> StepContext<'static> {
    StepContext {
        step,
        steps,
        t,
        alpha_bar: 0.01,
        parameterisation: PredictionType::Epsilon.into(),
        denoiser: &denoiser,
    }
}

#[test]
fn identities_of_the_guidance_hold_under_every_sampler() {
    for method in [SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::Dpmpp2M] {
        let sampler = Sampler::new(&stable_diffusion(), &SamplerSettings::new(method, 20)).unwrap();
        let noise = randn(&SHAPE, 1);
        let run =
            |g: &[BoundGuidance]| sampler.run(&noise, &denoiser, g, &mut Generator::new(0).into(), &quiet).unwrap();
        // w = 0 is plain sampling; so is a window without steps, or a mask of zeros.
        let plain = run(&[]);
        let zero = Tensor::zeros((1, 1, 3, 5), DType::F32, &Device::Cpu).unwrap();
        for g in [
            guidance(&sampler, 0.0, Window::first(1.0), None),
            guidance(&sampler, 0.5, Window::first(0.0), None),
            guidance(&sampler, 0.5, Window::first(1.0), Some(zero)),
        ] {
            assert_eq!(relative(&run(&[g]), &plain), 0.0);
        }
        // w = 1 up to the k-th step is image-to-image started from z̄ there. (DPM-Solver++ uses the previous step too,
        // so there it holds only if the guided steps are the first one.)
        let k = if method == SamplerKind::Dpmpp2M { 1 } else { 5 };
        let guided = run(&[guidance(&sampler, 1.0, Window::first(k as f64 / 20.0), None)]);
        let g = guidance(&sampler, 1.0, Window::default(), None);
        let at = moment(k - 1, 20, sampler.timesteps()[k - 1]);
        let start = g.extractor.target(&at).unwrap();
        let from = sampler.run_from(k - 1, &start, &denoiser, &[], &mut Generator::new(0).into(), &quiet).unwrap();
        assert!(relative(&guided, &from) < 1e-6);
        assert!(relative(&guided, &plain) > 1e-2);
    }
}

#[test]
fn repeated_updates_contract_by_one_minus_w() {
    let sampler = Sampler::new(&stable_diffusion(), &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let at = moment(0, 20, sampler.timesteps()[0]);
    for w in [0.1, 0.5, 0.75] {
        let g = guidance(&sampler, w, Window::default(), None);
        let target = g.extractor.target(&at).unwrap();
        let first = randn(&SHAPE, 4);
        let mut z = first.clone();
        for _ in 0..3 {
            z = g.step(&z, &at).unwrap().1;
        }
        let expected = ((&first - &target).unwrap() * (1.0f64 - w).powi(3)).unwrap();
        assert!(relative(&(&z - &target).unwrap(), &expected) < 1e-5);
    }
}

/// The same extractor without its closed form.
struct Differentiated(Inversion);

impl Extractor for Differentiated {
    fn name(&self) -> &str {
        "differentiated"
    }
    fn feat(&self, z: &Tensor, at: &StepContext) -> Result<Tensor> {
        self.0.feat(z, at)
    }
    fn target(&self, at: &StepContext) -> Result<Tensor> {
        self.0.target(at)
    }
}

#[test]
fn closed_form_equals_automatic_differentiation() {
    let sampler = Sampler::new(&stable_diffusion(), &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let trajectory = Arc::new(inversion::noise(&randn(&SHAPE, 2), &sampler, &randn(&SHAPE, 3), 20).unwrap());
    let at = moment(0, 20, sampler.timesteps()[0]);
    let mask = randn(&[1, 1, 3, 5], 9).abs().unwrap().clamp(0.0, 1.0).unwrap();
    for mask in [None, Some(mask)] {
        let closed = Inversion::bound(trajectory.clone(), GuidanceSettings::default(), mask);
        let by_autodiff = BoundGuidance {
            extractor: Arc::new(Differentiated(Inversion { trajectory: trajectory.clone() })),
            distance: Arc::new(SquaredL2),
            space: FeatureSpace::Latent,
            settings: GuidanceSettings { scale: 0.25, ..GuidanceSettings::default() },
            mask: closed.mask.clone(),
        };
        let z = randn(&SHAPE, 4);
        let (a, b) = (closed.step(&z, &at).unwrap().1, by_autodiff.step(&z, &at).unwrap().1);
        assert!(relative(&a, &b) < 1e-6);
    }
    // Compares the distance's own gradient with finite differences, in f64.
    let wide = |seed| randn(&SHAPE, seed).to_dtype(DType::F64).unwrap();
    let (f, target, d) = (wide(1), wide(2), wide(3));
    let value =
        |s: f64| SquaredL2.value(&(&f + (&d * s).unwrap()).unwrap(), &target).unwrap().to_scalar::<f64>().unwrap();
    let numeric = (value(1e-4) - value(-1e-4)) / 2e-4;
    let exact = (SquaredL2.gradient(&f, &target).unwrap() * &d).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    assert!((numeric - exact).abs() / exact.abs() < 1e-6);
}

#[test]
fn windows_cover_the_first_steps() {
    let at = |step, steps| moment(step, steps, 0.0);
    let count = |w: Window, steps| (0..steps).filter(|&i| w.contains(&at(i, steps))).count();
    assert_eq!(count(Window::default(), 20), 2);
    assert_eq!(count(Window::default(), 50), 5);
    assert_eq!(count(Window::default(), 3), 1);
    assert_eq!(count(Window::first(1.0), 7), 7);
    assert_eq!(Window::from_timestep(900.0).steps(&[951.0, 901.0, 851.0]), 0..2);
}

#[test]
fn diverging_guidance_is_named() {
    let sampler = Sampler::new(&stable_diffusion(), &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let g = guidance(&sampler, 1e9, Window::first(1.0), None);
    let error =
        sampler.run(&randn(&SHAPE, 1), &denoiser, &[g], &mut Generator::new(0).into(), &quiet).unwrap_err().to_string();
    assert!(error.contains("`inversion` diverged at step 1 of 20") && error.contains("Lower"), "{error}");
}

#[test]
fn a_run_ends_at_the_step_whose_callback_fails() {
    let sampler = Sampler::new(&stable_diffusion(), &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let seen = std::cell::RefCell::new(Vec::new());
    let stop = |Step { done: i, of: n, .. }: Step| {
        seen.borrow_mut().push((i, n));
        if i == 3 { Err(lsregen_diffusion::Error::Cancelled) } else { Ok(()) }
    };
    let result = sampler.run(&randn(&SHAPE, 1), &denoiser, &[], &mut Generator::new(0).into(), &stop);
    assert!(matches!(result, Err(lsregen_diffusion::Error::Cancelled)));
    assert_eq!(*seen.borrow(), [(1, 20), (2, 20), (3, 20)]);
}

#[test]
fn steps_out_of_range_are_refused() {
    for steps in [0, 1000, 5000] {
        assert!(Sampler::new(&stable_diffusion(), &SamplerSettings::new(SamplerKind::Ddim, steps)).is_err());
    }
    let settings = SamplerSettings { eta: Some(0.5), ..SamplerSettings::new(SamplerKind::Euler, 5) };
    assert!(Sampler::new(&stable_diffusion(), &settings).unwrap_err().to_string().contains("has no `eta`"));
    let settings = SamplerSettings { s_noise: 1.1, ..SamplerSettings::new(SamplerKind::Euler, 5) };
    assert!(Sampler::new(&stable_diffusion(), &settings).unwrap_err().to_string().contains("adds none"));
}

#[test]
fn resizing_equals_torch_and_pil() {
    let io = tensors("maths.safetensors");
    for (name, how) in [
        ("nearest", Resampling::Nearest),
        ("bilinear", Resampling::Bilinear),
        ("bicubic", Resampling::Bicubic),
        ("lanczos", Resampling::Lanczos),
    ] {
        for (h, w) in [(26, 34), (29, 20), (7, 9), (13, 40)] {
            let ours = resize(&io["image"], h, w, how).unwrap();
            assert_close(&format!("{name} {h}×{w}"), &ours, &io[&format!("{name}.{h}x{w}")], 1e-5);
        }
    }
    assert!(resize(&io["image"], 0, 3, Resampling::Nearest).is_err());
}
