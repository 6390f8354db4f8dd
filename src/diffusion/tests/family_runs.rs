//! Whole runs of the families equal diffusers' own pipelines. `fixtures/family_runs.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the other tests of families use the rest")]
#[path = "families/files.rs"]
mod files;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, fixture, tensors};
use files::{Member, raw};
use lsregen_diffusion::denoiser::{CfgDenoiser, CfgOptions, Denoiser};
use lsregen_diffusion::models::unet::{Added, AttentionKind, Conditioning};
use lsregen_diffusion::models::{Blueprint, Model, ModelSource};
use lsregen_diffusion::sampler::{Part, Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision};
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
    assert_eq!(runs.len(), 22);
    for run in runs {
        let (unet, case) = (run["unet"].as_str().unwrap(), format!("{} {} steps", run["case"], run["steps"]));
        let folder = tempfile::tempdir().unwrap();
        let model = Member::of(unet).open(folder.path(), &run["config"], DType::F32);
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
        let rescale = run["rescale"].as_f64().unwrap();
        let denoiser = denoiser.with_options(CfgOptions { rescale, ..CfgOptions::default() });
        let denoiser = denoiser.with_parameterisation(sampler.schedule().parameterisation);
        let latents = Generator::new(5).randn(&[1, 4, 8, 8], &Device::Cpu).unwrap();
        let z = match start {
            0 => sampler.start(&latents).unwrap(),
            _ => sampler.start_from(&latents, None).unwrap(),
        };
        let quiet = |_: Step| Ok(());
        let z = sampler.run_from(0, &z, &denoiser, &[], &mut Generator::new(9).into(), &quiet).unwrap();
        assert_close(&case, &z, &io[run["name"].as_str().unwrap()], 1e-4);
    }
}

#[test]
fn states_of_earlier_layers_equal_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let io = tensors("family_runs.safetensors");
    let path = Member::of("no_mid").write_folder(&folder.path().join("model"));
    let blueprint = Blueprint::open(&ModelSource::from(ModelFiles::Folder(path))).unwrap();
    assert_eq!(blueprint.info.text_layers, 2);
    let precision = Precision::new(DType::F32, &Device::Cpu);
    let ids = [vec![7, 4, 9, 599, 301], vec![7, 7, 7, 30, 599]];
    for (encoder, part) in blueprint.encoders.iter().zip(["clip_l", "clip_g"]) {
        let encoder = encoder.load(&precision).unwrap();
        let (whole, text) = (encoder.forward(&ids).unwrap(), encoder.forward_without(1, &ids).unwrap());
        let some = |states: &Tensor| {
            let every: Vec<u32> = (0..states.dim(2).unwrap() as u32).step_by(16).collect();
            states.index_select(&Tensor::new(every, &Device::Cpu).unwrap(), 2).unwrap()
        };
        assert_close(part, &some(&text.last_hidden_state), &io[&format!("{part}.last")], 1e-4);
        assert_close(part, &some(&text.penultimate), &io[&format!("{part}.penultimate")], 1e-4);
        // The pooled text is that of the last layer.
        assert_close(part, &text.pooled, &whole.pooled, 1e-6);
        assert!(encoder.forward_without(2, &ids).err().unwrap().to_string().contains("cannot skip 2 of its 2 layers"));
    }
}

/// Outside its steps there is no guidance, and the unconditional half is not computed.
#[test]
fn classifier_free_guidance_acts_in_its_timesteps() {
    let folder = tempfile::tempdir().unwrap();
    let path = Member::of("no_mid").write_folder(&folder.path().join("model"));
    let blueprint = Blueprint::open(&ModelSource::from(ModelFiles::Folder(path))).unwrap();
    let model = Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false);
    let (prompt, negative) = (conditioning(&model, "prompt", 6.0), conditioning(&model, "negative", 2.5));
    let unet = model.unet().unwrap();
    let plain = CfgDenoiser::plain(unet.clone(), &prompt);
    let whole = CfgDenoiser::new(unet.clone(), &prompt, &negative, 4.0).unwrap();
    let windowed = CfgDenoiser::new(unet, &prompt, &negative, 4.0)
        .unwrap()
        .with_options(CfgOptions { timesteps: Some((300.0, 600.0)), ..CfgOptions::default() });
    let z = raw("z", &[1, 4, 8, 8]);
    let numbers = |denoiser: &CfgDenoiser, t: f64| {
        denoiser.predict(&z, t).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    for (t, like) in [(200.0, &plain), (300.0, &whole), (600.0, &whole), (601.0, &plain)] {
        assert_eq!(numbers(&windowed, t), numbers(like, t), "{t}");
    }
}

/// ComfyUI's networks are told the nearest whole timestep, in both halves, in one, and where attention is read.
#[test]
fn whole_timesteps_reach_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = Member::of("sd1_inpaint").write_folder(&folder.path().join("model"));
    let blueprint = Blueprint::open(&ModelSource::from(ModelFiles::Folder(path))).unwrap();
    let model = Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false);
    let channels = Some(raw("channels", &[1, 5, 8, 8]));
    let of = |name: &str| Conditioning { channels: channels.clone(), ..conditioning(&model, name, 6.0) };
    let unet = model.unet().unwrap();
    let whole = CfgOptions { whole_timesteps: true, ..CfgOptions::default() };
    let z = raw("z", &[1, 4, 8, 8]);
    let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for scale in [1.0, 4.0] {
        let denoiser = || CfgDenoiser::new(unet.clone(), &of("prompt"), &of("negative"), scale).unwrap();
        let at = |denoiser: &CfgDenoiser, t: f64| numbers(&denoiser.predict(&z, t).unwrap());
        assert_eq!(at(&denoiser().with_options(whole), 500.4), at(&denoiser(), 500.0), "{scale}");
        assert_ne!(at(&denoiser(), 500.4), at(&denoiser(), 500.0), "{scale}");
        let layers = denoiser().attention_layers();
        let maps = |denoiser: CfgDenoiser, t: f64| {
            let maps = denoiser.attention_maps(&z, t, AttentionKind::Cross, &layers).unwrap();
            maps.iter().flat_map(|map| numbers(&map.weights)).collect::<Vec<_>>()
        };
        assert_eq!(maps(denoiser().with_options(whole), 500.4), maps(denoiser(), 500.0), "{scale}");
    }
}
