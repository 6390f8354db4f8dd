//! Whole runs of the families equal diffusers' own pipelines. `fixtures/family_runs.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the other tests of families use the rest")]
#[path = "families/files.rs"]
mod files;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, fixture, tensors};
use files::{Member, raw};
use lsregen_diffusion::denoiser::CfgDenoiser;
use lsregen_diffusion::models::unet::{Added, Conditioning};
use lsregen_diffusion::models::{Blueprint, Model, ModelLocation, ModelSource};
use lsregen_diffusion::sampler::{Part, Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_tensor::noise::Generator;
use lsregen_weights::Precision;
use serde_json::Value;

fn conditioning(model: &Model, text: &str, score: f32) -> Conditioning {
    let config = &model.blueprint().unet.0;
    let added = config.text_time.map(|_| {
        let last: &[f32] = if config.time_ids() == 5 { &[score] } else { &[64.0, 64.0] };
        let ids = [&[64f32, 64.0, 0.0, 0.0][..], last].concat();
        let time_ids = Tensor::new(&ids[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        // The states and the pooled text of both prompts have these names in the fixture.
        let pooled = if text == "prompt" { "pooled.prompt" } else { "pooled.negative" };
        Added { text_embeds: raw(pooled, &[1, 1280]), time_ids }
    });
    let context = raw(text, &[1, 5, config.cross_attention_dim]);
    Conditioning { context, added, objs: None, guidance: None, channels: None }
}

#[test]
fn runs_equal_the_pipelines_of_diffusers() {
    let facts: Value = serde_json::from_slice(&std::fs::read(fixture("family_runs.json")).unwrap()).unwrap();
    let facts: &'static Value = Box::leak(Box::new(facts));
    let io = tensors("family_runs.safetensors");
    let runs = facts["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 20);
    for run in runs {
        let (unet, case) = (run["unet"].as_str().unwrap(), format!("{} {} steps", run["case"], run["steps"]));
        let folder = tempfile::tempdir().unwrap();
        let path = Member::of(unet).write_folder(&folder.path().join("model"));
        std::fs::write(path.join("scheduler/scheduler_config.json"), run["config"].to_string()).unwrap();
        let source = ModelSource {
            model: ModelLocation::from(path),
            vae: None,
            gligen: None,
            prediction: None,
            schedule: Default::default(),
        };
        let blueprint = Blueprint::open(&source).unwrap_or_else(|problems| panic!("{case}: {problems:#?}"));
        let model = Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false);
        let start = run["start"].as_u64().unwrap() as usize;
        let settings = SamplerSettings {
            part: Part { start, ..Part::default() },
            ..SamplerSettings::new(SamplerKind::Auto, run["steps"].as_u64().unwrap() as usize)
        };
        let sampler = Sampler::new(&model.info.scheduler, &settings).unwrap();
        let cfg = run["cfg"].as_f64().unwrap();
        let (mut prompt, negative) = (conditioning(&model, "prompt", 6.0), conditioning(&model, "negative", 2.5));
        let denoiser = if model.takes_guidance() {
            prompt.guidance = Some(Tensor::new(&[cfg as f32], &Device::Cpu).unwrap());
            CfgDenoiser::plain(model.unet().unwrap(), &prompt)
        } else {
            CfgDenoiser::new(model.unet().unwrap(), &prompt, &negative, cfg).unwrap()
        };
        let denoiser = denoiser.with_parameterisation(sampler.schedule().parameterisation);
        let latents = Generator::new(5).randn(&[1, 4, 8, 8], &Device::Cpu).unwrap();
        let z = match start {
            0 => sampler.start(&latents).unwrap(),
            _ => sampler.start_from(&latents, None).unwrap(),
        };
        let quiet = |_: Step| Ok(());
        let z = sampler.run_from(0, &z, &denoiser, &[], &mut Generator::new(9), &quiet).unwrap();
        assert_close(&case, &z, &io[run["name"].as_str().unwrap()], 1e-4);
    }
}
