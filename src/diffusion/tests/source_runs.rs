//! Runs of inpainting and InstructPix2Pix models equal diffusers' own pipelines. `fixtures/source_runs.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the other tests of families use the rest")]
#[path = "families/files.rs"]
mod files;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, fixture, tensors};
use files::{Member, raw};
use lsregen_diffusion::denoiser::CfgDenoiser;
use lsregen_diffusion::models::config::UNetInput;
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::models::unet::Conditioning;
use lsregen_diffusion::models::{Model, Text};
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::source::SourceImage;
use lsregen_tensor::noise::Generator;
use serde_json::Value;

const SIZE: (usize, usize) = (64, 48);

fn half(model: &Model, text: &str, channels: &Tensor) -> Conditioning {
    let config = &model.blueprint().unet.0;
    let pooled = config.text_time.map(|_| raw(&format!("pooled.{text}"), &[1, 1280]));
    let text = Text { context: raw(text, &[1, 5, config.cross_attention_dim]), pooled };
    let conditioning = model.condition(&text, SIZE.0, SIZE.1, Sizes::default()).unwrap();
    Conditioning { channels: Some(channels.clone()), ..conditioning }
}

fn source(model: &Model, cfg: f64) -> SourceImage {
    let (width, height) = SIZE;
    let mask = raw("mask", &[1, 1, height, width]).repeat((1, 3, 1, 1)).unwrap();
    let mask = (model.info.input == UNetInput::Inpainting).then_some(mask);
    SourceImage { image: Some(raw("image", &[1, 3, height, width])), mask, cfg }
}

#[test]
fn runs_equal_the_pipelines_of_diffusers() {
    let facts: Value = serde_json::from_slice(&std::fs::read(fixture("source_runs.json")).unwrap()).unwrap();
    let io = tensors("source_runs.safetensors");
    let facts: &'static Value = Box::leak(Box::new(facts));
    let runs = facts["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 11);
    for run in runs {
        let number = |key: &str| run[key].as_f64().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let model = Member::of(run["unet"].as_str().unwrap()).open(folder.path(), &run["config"], DType::F32);
        let source = source(&model, number("image_cfg"));
        let channels = source.channels(&model, SIZE.0, SIZE.1).unwrap().unwrap();
        let [prompt, negative] = ["prompt", "negative"].map(|text| half(&model, text, &channels));
        let unet = model.unet().unwrap();
        let denoiser = match model.info.input {
            UNetInput::Edit => CfgDenoiser::editing(unet, &prompt, &negative, number("cfg"), source.cfg),
            _ => CfgDenoiser::new(unet, &prompt, &negative, number("cfg")),
        };
        let sampler = Sampler::new(&model.info.scheduler, &SamplerSettings::new(SamplerKind::Auto, 5)).unwrap();
        let noise = Generator::new(5).randn(&[1, 4, 6, 8], &Device::Cpu).unwrap();
        let (z, quiet) = (sampler.start(&noise).unwrap(), |_: Step| Ok(()));
        let z = sampler.run_from(0, &z, &denoiser.unwrap(), &[], &mut Generator::new(9).into(), &quiet).unwrap();
        let case = format!("{} {} {}", run["unet"], run["cfg"], run["image_cfg"]);
        assert_close(&case, &z, &io[run["name"].as_str().unwrap()], 1e-4);
    }
}

#[test]
fn images_that_a_model_lacks_or_does_not_take_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({ "beta_schedule": "scaled_linear" });
    let error = |unet: &'static str, edit: fn(SourceImage) -> SourceImage, width: usize| {
        let model = Member::of(unet).open(folder.path(), &config, DType::F32);
        let source = SourceImage { mask: Some(raw("mask", &[1, 3, 48, 64])), ..source(&model, 1.5) };
        edit(source).channels(&model, width, 48).unwrap_err().to_string()
    };
    let same: fn(SourceImage) -> SourceImage = |source| source;
    assert!(error("sd2", same, 64).contains("takes neither an image nor a mask"));
    assert!(error("pix2pix", same, 64).contains("takes no mask"));
    assert!(
        error("sd1_inpaint", same, 72).contains("the image is [1, 3, 48, 64], but this sampling needs [1, 3, 48, 72]")
    );
    for lacking in [|s| SourceImage { mask: None, ..s }, |s| SourceImage { image: None, ..s }] {
        assert!(error("sd1_inpaint", lacking, 64).contains("needs an image and a mask"));
    }
}
