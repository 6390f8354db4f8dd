//! Compares samplers and schedules with diffusers, k-diffusion and ComfyUI's numbers. `fixtures/samplers.py` writes the
//! fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use candle_core::{Device, Tensor};
use common::{fixture, relative, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::sampler::{Part, Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::schedule::{PredictionType, ScheduleKind, SchedulerConfig};
use lsregen_tensor::noise::Generator;
use serde::de::DeserializeOwned;
use serde_json::Value;

const SHAPE: [usize; 4] = [1, 4, 3, 5];

fn runs() -> Vec<Value> {
    let facts: Value = serde_json::from_slice(&std::fs::read(fixture("samplers.json")).unwrap()).unwrap();
    facts["runs"].as_array().unwrap().clone()
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn denoiser(z: &Tensor, t: f64) -> Result<Tensor> {
    Ok(z.affine(0.7, 0.3 * (t / 100.0).sin())?.tanh()?)
}

fn quiet(_: Step) -> Result<()> {
    Ok(())
}

/// EDM's input is not z: the reference scales it, and the denoiser of a model does.
fn scaled(sampler: &Sampler) -> impl Fn(&Tensor, f64) -> Result<Tensor> + Sync {
    let sigma_data = sampler.schedule().parameterisation.sigma_data;
    move |z: &Tensor, t: f64| match sigma_data {
        Some(data) => {
            let variance = (8.0 * t).exp();
            denoiser(&(z * ((variance + 1.0) / (variance + data * data)).sqrt())?, t)
        }
        None => denoiser(z, t),
    }
}

fn sampler(run: &Value) -> Sampler {
    let config = SchedulerConfig::parse(run["config"].to_string().as_bytes(), "scheduler_config.json").unwrap();
    let schedule = run.get("schedule").map_or(ScheduleKind::Auto, read);
    let settings = SamplerSettings {
        schedule,
        eta: run["eta"].as_f64(),
        s_noise: run["s_noise"].as_f64().unwrap_or(1.0),
        ..SamplerSettings::new(read(&run["sampler"]), run["steps"].as_u64().unwrap() as usize)
    };
    Sampler::new(&config, &settings).unwrap_or_else(|e| panic!("{run}: {e}"))
}

fn errors_of(kinds: &[&str]) -> Vec<(f64, String)> {
    let io = tensors("samplers.safetensors");
    let mut errors = vec![];
    for run in runs().iter().filter(|run| kinds.contains(&run["kind"].as_str().unwrap())) {
        let sampler = sampler(run);
        let class = run["config"]["_class_name"].as_str().unwrap_or_default();
        // Two-call samplers of diffusers list the timesteps of both calls.
        let calls_twice = ["KDPM2", "SDE"].iter().any(|part| class.contains(part));
        if let Some(expected) = run["timesteps"].as_array().filter(|_| !calls_twice) {
            // The fixture has each timestep once.
            let mut own = sampler.timesteps().to_vec();
            own.dedup();
            let expected: Vec<f64> = expected.iter().map(read).collect();
            let same = own.len() == expected.len() && own.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 2e-3);
            if !same {
                println!("{run}: {own:?}");
                errors.push((f64::INFINITY, run.to_string()));
                continue;
            }
        }
        if let Some(sigmas) = run["sigmas"].as_array() {
            for (level, sigma) in sampler.levels().iter().zip(sigmas) {
                let sigma: f64 = read(sigma);
                assert!((level.sigma() - sigma).abs() < 3e-6 * sigma, "{run}: {} {sigma}", level.sigma());
            }
        }
        let steps = run["steps"].as_u64().unwrap();
        let noise = Generator::new(steps).randn(&SHAPE, &Device::Cpu).unwrap();
        let start = match run["kind"].as_str() {
            // k-diffusion starts at σ ε.
            Some("k") => (noise * (1.0 - sampler.levels()[0].alpha_bar).sqrt()).unwrap(),
            _ => sampler.start(&noise).unwrap(),
        };
        let denoiser = scaled(&sampler);
        let z = sampler.run_from(0, &start, &denoiser, &[], &mut Generator::new(99).into(), &quiet).unwrap();
        let error = relative(&z, &io[run["name"].as_str().unwrap()]);
        // The reference itself loses digits in Karras's space, x = σ ε, where σ is large.
        let lost = (sampler.levels()[0].sigma() / 100.0).clamp(1.0, 10.0);
        errors.push((error / lost, run.to_string()));
    }
    errors
}

fn check(kinds: &[&str], most: f64) {
    let errors = errors_of(kinds);
    assert!(errors.len() >= 10, "{}", errors.len());
    let mut bad: Vec<_> = errors.iter().filter(|(error, _)| error.is_nan() || *error > most).collect();
    bad.sort_by(|a, b| b.0.total_cmp(&a.0));
    let shown: Vec<_> = bad.iter().take(40).map(|(error, run)| format!("{error:.1e} {run}")).collect();
    assert!(bad.is_empty(), "{} of {} runs:\n{}", bad.len(), errors.len(), shown.join("\n"));
}

#[test]
fn files_are_sampled_as_their_classes_do() {
    check(&["class"], 1e-5);
}

#[test]
fn explicit_lists_equal_diffusers() {
    check(&["list"], 1e-5);
}

#[test]
fn lists_that_are_no_levels_are_refused() {
    let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
    let error = |steps, schedule, part| {
        let settings = SamplerSettings { schedule, part, ..SamplerSettings::new(SamplerKind::Euler, steps) };
        Sampler::new(&config, &settings).unwrap_err().to_string()
    };
    let sigmas = |list: &[f64]| ScheduleKind::Sigmas(list.to_vec());
    let timesteps = |list: &[f64]| ScheduleKind::Timesteps(list.to_vec());
    let part = Part::default();
    for (steps, schedule, message) in [
        (2, sigmas(&[3.0, 0.0]), "has 1 steps, but `steps` is 2"),
        (3, sigmas(&[3.0, 2.0, 1.0]), "must end with 0"),
        (2, sigmas(&[3.0, f64::NAN, 0.0]), "NaN, which is no σ"),
        (2, sigmas(&[f64::INFINITY, 1.0, 0.0]), "inf, which is no σ"),
        (2, sigmas(&[3.0, 3.0, 0.0]), "must descend, but 3 is followed by 3"),
        (1, sigmas(&[0.0, 0.0]), "0, which is no σ"),
        (1, sigmas(&[]), "has 0 steps, but `steps` is 1"),
        (1, timesteps(&[]), "has 0 steps, but `steps` is 1"),
        (2, timesteps(&[1000.0, 1.0]), "1000, which is no timestep"),
        (2, timesteps(&[10.0, -1.0]), "-1, which is no timestep"),
        (2, timesteps(&[10.0, 10.0]), "must descend"),
    ] {
        let error = error(steps, schedule, part);
        assert!(error.contains(message), "{error}: {message}");
    }
    let half = Part { denoise: 0.5, ..part };
    assert!(error(2, timesteps(&[10.0, 1.0]), half).contains("an explicit `scheduler` has no more"));
}

#[test]
fn a_named_sampler_reads_the_file_as_from_config_does() {
    check(&["file"], 1e-5);
}

#[test]
fn samplers_on_named_schedules_equal_k_diffusion() {
    check(&["k"], 2e-5);
}

/// ComfyUI's nine schedules, for the β of Stable Diffusion, computed in f32.
#[test]
fn schedules_equal_comfyuis() {
    let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
    let numbers: Value = serde_json::from_slice(&std::fs::read(fixture("comfyui_sigmas.json")).unwrap()).unwrap();
    let mut seen = 0;
    for (name, sigmas) in numbers.as_object().unwrap() {
        let parts: Vec<&str> = name.split('/').collect();
        let denoise = parts.get(2).map_or(1.0, |part| part.trim_start_matches("denoise=").parse().unwrap());
        let settings = SamplerSettings {
            schedule: read(&parts[0].into()),
            part: Part { denoise, ..Part::default() },
            ..SamplerSettings::new(SamplerKind::Euler, parts[1].parse().unwrap())
        };
        let sampler = Sampler::new(&config, &settings).unwrap();
        let expected: Vec<f64> = sigmas.as_array().unwrap().iter().map(read).collect();
        assert_eq!(sampler.levels().len() + 1, expected.len(), "{name}");
        for (level, sigma) in sampler.levels().iter().zip(&expected) {
            assert!((level.sigma() - sigma).abs() < 1e-5 * sigma, "{name}: {} {sigma}", level.sigma());
        }
        seen += 1;
    }
    assert_eq!(seen, 63);
}

#[test]
fn images_to_images_equal_diffusers() {
    let io = tensors("samplers.safetensors");
    for run in runs().iter().filter(|run| run["kind"] == "image") {
        let config = SchedulerConfig::parse(run["config"].to_string().as_bytes(), "scheduler_config.json").unwrap();
        let part = Part { start: run["start"].as_u64().unwrap() as usize, ..Part::default() };
        let settings = SamplerSettings { part, ..SamplerSettings::new(read(&run["sampler"]), 20) };
        let sampler = Sampler::new(&config, &settings).unwrap();
        let [noise, z0] = [20, 7].map(|seed| Generator::new(seed).randn(&SHAPE, &Device::Cpu).unwrap());
        let start = sampler.start_from(&z0, Some(&noise)).unwrap();
        let z = sampler.run_from(0, &start, &denoiser, &[], &mut Generator::new(99).into(), &quiet).unwrap();
        let error = relative(&z, &io[run["name"].as_str().unwrap()]);
        assert!(error < 1e-5, "{error:.1e} {run}");
    }
}

/// Two samplings, of which the first leaves its noise, are one.
#[test]
fn leftover_noise_is_handed_on() {
    let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
    let noise = Generator::new(1).randn(&SHAPE, &Device::Cpu).unwrap();
    let sampler =
        |kind, part| Sampler::new(&config, &SamplerSettings { part, ..SamplerSettings::new(kind, 10) }).unwrap();
    let run = |sampler: &Sampler, z: &Tensor| {
        sampler.run_from(0, z, &denoiser, &[], &mut Generator::new(9).into(), &quiet).unwrap()
    };
    for kind in [SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::Heun, SamplerKind::Dpm2] {
        let whole = sampler(kind, Part::default());
        let all = run(&whole, &whole.start(&noise).unwrap());
        let first = sampler(kind, Part { end: Some(6), leftover_noise: true, ..Part::default() });
        let left = run(&first, &first.start(&noise).unwrap());
        let second = sampler(kind, Part { start: 6, ..Part::default() });
        let both = run(&second, &second.start_from(&left, None).unwrap());
        assert!(relative(&both, &all) < 1e-5, "{kind:?}");
        // Without it, the last step ends without noise.
        let early = sampler(kind, Part { end: Some(6), ..Part::default() });
        let early = run(&early, &early.start(&noise).unwrap());
        assert!(relative(&early, &left) > 1e-2, "{kind:?}");
    }
    let none =
        SamplerSettings { part: Part { start: 10, ..Part::default() }, ..SamplerSettings::new(SamplerKind::Ddim, 10) };
    assert!(Sampler::new(&config, &none).unwrap_err().to_string().contains("no step is between the first, 10"));
}

/// Files at whose levels a formula would divide by zero are refused.
#[test]
fn files_that_cannot_be_sampled_are_refused() {
    let sampler = |file: &str, kind| {
        let file = format!(r#"{{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", {file}}}"#);
        let config = SchedulerConfig::parse(file.as_bytes(), "scheduler_config.json").unwrap();
        Sampler::new(&config, &SamplerSettings::new(kind, 4))
    };
    let error = |file: &str, kind| sampler(file, kind).unwrap_err().to_string();
    let uni_pc = r#""_class_name": "UniPCMultistepScheduler", "predict_x0": false"#;
    assert!(error(uni_pc, SamplerKind::Auto).contains("`predict_x0: false`"));
    assert!(error(uni_pc, SamplerKind::UniPc).contains("`predict_x0: false`"));
    sampler(&format!(r#"{uni_pc}, "final_sigmas_type": "sigma_min""#), SamplerKind::Auto).unwrap();
    let zero = r#""_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing""#;
    assert!(error(zero, SamplerKind::Auto).contains("`rescale_betas_zero_snr`"));
    sampler(&format!(r#"{zero}, "prediction_type": "v_prediction""#), SamplerKind::Auto).unwrap();
    // PNDM does not read the key: its own file is sampled without it, with a warning, another sampler follows it.
    let pndm = r#""_class_name": "PNDMScheduler", "skip_prk_steps": true, "rescale_betas_zero_snr": true,
        "prediction_type": "v_prediction", "timestep_spacing": "trailing""#;
    let own = sampler(pndm, SamplerKind::Auto).unwrap();
    assert!(own.levels()[0].alpha_bar > 1e-3 && own.ignored() == ["rescale_betas_zero_snr"]);
    let euler = sampler(pndm, SamplerKind::Euler).unwrap();
    assert!(euler.levels()[0].alpha_bar < 1e-6 && euler.ignored().is_empty(), "{:?}", euler.ignored());
}
