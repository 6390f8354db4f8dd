//! Compares `conventions: comfyui` with ComfyUI's sampling functions. `fixtures/comfyui.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use candle_core::{Device, Tensor};
use common::{fixture, relative, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::sampler::{Conventions, Part, Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::schedule::{PredictionType, ScheduleKind, SchedulerConfig};
use lsregen_tensor::noise::Generator;
use serde::de::DeserializeOwned;
use serde_json::Value;

const SHAPE: [usize; 4] = [1, 4, 3, 5];

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn settings(sampler: SamplerKind, schedule: ScheduleKind, steps: usize) -> SamplerSettings {
    SamplerSettings { schedule, conventions: Conventions::Comfyui, ..SamplerSettings::new(sampler, steps) }
}

fn quiet(_: Step) -> Result<()> {
    Ok(())
}

/// The network of the fixture. As a model's denoiser, it is told whole timesteps, and its input is EDM's.
fn network(sampler: &Sampler) -> impl Fn(&Tensor, f64) -> Result<Tensor> + Sync {
    let sigma_data = sampler.schedule().parameterisation.sigma_data;
    move |z: &Tensor, t: f64| {
        let (scale, told) = match sigma_data {
            Some(data) => {
                let variance = (8.0 * t).exp();
                (((variance + 1.0) / (variance + data * data)).sqrt(), t)
            }
            None => (1.0, t.round()),
        };
        Ok((z * scale)?.affine(0.7, 0.3 * (told / 100.0).sin())?.tanh()?)
    }
}

fn difference(run: &Value, io: &std::collections::HashMap<String, Tensor>) -> f64 {
    let config = SchedulerConfig::parse(run["config"].to_string().as_bytes(), "scheduler_config.json").unwrap();
    let part = Part {
        denoise: read(&run["denoise"]),
        start: read(&run["start"]),
        end: read(&run["end"]),
        leftover_noise: read(&run["leftover"]),
    };
    let settings = SamplerSettings {
        part,
        ..settings(read(&run["sampler"]), read(&run["scheduler"]), run["steps"].as_u64().unwrap() as usize)
    };
    let sampler = Sampler::new(&config, &settings).unwrap_or_else(|e| panic!("{run}: {e}"));
    let seed = run["seed"].as_u64().unwrap();
    let mut generator = Generator::new(seed);
    let noise = generator.randn(&SHAPE, &Device::Cpu).unwrap();
    let mut fresh = sampler.fresh_noise(seed, noise.elem_count(), generator);
    let z = match run["latent"].as_bool().unwrap() {
        true => sampler.start_from(&io["latent"], read::<bool>(&run["noise"]).then_some(&noise)).unwrap(),
        false => sampler.start(&noise).unwrap(),
    };
    let z = sampler.run_from(0, &z, &network(&sampler), &[], &mut fresh, &quiet).unwrap();
    relative(&z, &io[run["name"].as_str().unwrap()])
}

/// All samplers that `conventions: comfyui` has, on ComfyUI's schedules, with parts, latents and leftover noise; with ε, v, zero
/// terminal SNR and EDM. Noise of a Brownian motion has torchsde's single precision.
#[test]
fn samplers_equal_comfyuis() {
    let runs: Vec<Value> = serde_json::from_slice(&std::fs::read(fixture("comfyui.json")).unwrap()).unwrap();
    let io = tensors("comfyui.safetensors");
    let mut bad = vec![];
    let (mut worst, mut worst_of_motion) = (0.0f64, 0.0f64);
    for run in &runs {
        let of_motion = run["sampler"].as_str().unwrap().contains("_sde");
        let difference = difference(run, &io);
        let (worst, most) = if of_motion { (&mut worst_of_motion, 1e-3) } else { (&mut worst, 1e-4) };
        *worst = worst.max(difference);
        if difference.is_nan() || difference > most {
            bad.push(format!("{difference:.1e} {run}"));
        }
    }
    println!("{} runs, at most {worst:.1e}, with Brownian noise {worst_of_motion:.1e}", runs.len());
    assert!(bad.is_empty(), "{} of {} runs:\n{}", bad.len(), runs.len(), bad.join("\n"));
    let names: std::collections::BTreeSet<_> = runs.iter().map(|run| run["sampler"].as_str().unwrap()).collect();
    let ours = SamplerKind::ALL.iter().filter(|kind| Conventions::Comfyui.has_sampler(**kind));
    assert_eq!(names, ours.map(|kind| kind.name()).collect(), "every sampler is compared");
}

#[test]
fn what_comfyui_does_not_have_is_refused() {
    let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
    let error =
        |sampler, schedule, steps| Sampler::new(&config, &settings(sampler, schedule, steps)).unwrap_err().to_string();
    assert!(error(SamplerKind::Tcd, ScheduleKind::Normal, 8).contains("does not support the sampler `tcd`"));
    assert!(error(SamplerKind::Auto, ScheduleKind::Normal, 8).contains("does not support the sampler `auto`"));
    assert!(error(SamplerKind::Euler, ScheduleKind::Auto, 8).contains("no scheduler `auto`"));
    assert!(error(SamplerKind::UniPc, ScheduleKind::Normal, 1).contains("two steps"));
    // Of a list, no level is left out.
    let list = ScheduleKind::Sigmas(vec![10.0, 1.0, 0.0]);
    let sampler = Sampler::new(&config, &settings(SamplerKind::Dpm2, list, 2)).unwrap();
    assert_eq!(sampler.levels().len(), 2);
    let sampler = Sampler::new(&config, &settings(SamplerKind::Dpm2, ScheduleKind::Karras, 2)).unwrap();
    assert_eq!(sampler.levels().len(), 2, "of three, the second is left out");
}
