//! Compares whole runs on the built-in models with diffusers' pipelines. `fixtures/runs.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use candle_core::{DType, Device, Tensor};
use common::{assert_close, fixture, relative, shapes, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::denoiser::{CfgDenoiser, Denoiser};
use lsregen_diffusion::guidance::{GuidanceSettings, GuidanceSpec, InversionGuidance, Window};
use lsregen_diffusion::inversion::Trajectory;
use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_diffusion::models::config::UNetConfig;
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::models::unet::{Added, Conditioning, UNet};
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_diffusion::pipeline::{InversionMode, SamplingSettings, gligen, invert, sample};
use lsregen_diffusion::reduce::scalar;
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::source::SourceImage;
use lsregen_tensor::image::{Resampling, resize};
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision, Weights};

/// Largest relative error of the latents after a whole run in f32.
const RUN: f64 = 1e-3;

static SMALL: LazyLock<Model> = LazyLock::new(|| load("gligen"));
static LARGE: LazyLock<Model> = LazyLock::new(|| load("xl"));
static REFERENCE: LazyLock<HashMap<String, Tensor>> = LazyLock::new(|| tensors("runs.safetensors"));

fn load(name: &str) -> Model {
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap();
    Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false)
}

/// Computes everything in f16, by the code paths of a GPU: no operation mixes dtypes, and the results equal those of
/// f32 within 11 bits. (candle has no bf16 matrix product on the CPU.)
#[test]
fn networks_in_half_precision_give_nearly_the_same() {
    let half = |name: &str| {
        let blueprint = Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap();
        Model::new(blueprint, Precision::new(DType::F16, &Device::Cpu), true)
    };
    let (small, large) = (half("gligen"), half("xl"));
    let few = |cfg, side| SamplingSettings { sampler: ddim(4), width: side, height: side, ..settings(cfg) };
    let objects = [GroundedPhrase { phrase: "a red circle".into(), bounds: [0.1, 0.1, 0.5, 0.5] }];
    let drawn = |model: &Model| gligen(model, &few(3.0, 128), 1, &objects, 30, 0.5, &|_, step| quiet(step)).unwrap();
    let guided = |model: &Model, z0: &Tensor| {
        let window = Window::first(0.5);
        let trajectory = invert(model, z0, &few(1.0, 256), InversionMode::Ddim, window, &quiet).unwrap();
        let guidance = [lsregen(trajectory, window)];
        sample(model, &few(4.0, 256), &guidance, &quiet).unwrap()
    };
    let z0 = &REFERENCE["encoded"];
    for (name, a, b) in [("gligen", drawn(&small), drawn(&SMALL)), ("xl", guided(&large, z0), guided(&LARGE, z0))] {
        assert_eq!(a.dtype(), DType::F32);
        assert_close(name, &a, &b, 1e-2);
        let picture = |model: &Model, z: &Tensor| model.vae().unwrap().decode(z).unwrap();
        let (half, wide) = if name == "gligen" { (&small, &*SMALL) } else { (&large, &*LARGE) };
        assert_close(name, &picture(half, &b), &picture(wide, &b), 1e-2);
        // 136 × 72 pixels: sides that 16 does not divide.
        let uneven = Generator::new(1).randn(&[1, 4, 9, 17], &Device::Cpu).unwrap();
        let (image, other) = (picture(half, &uneven), picture(wide, &uneven));
        assert_close(name, &image, &other, 1e-2);
        let encoded = |model: &Model| model.vae().unwrap().encode(&other).unwrap();
        assert_close(name, &encoded(half), &encoded(wide), 1e-2);
    }
}

fn lsregen(trajectory: Arc<Trajectory>, window: Window) -> Arc<dyn GuidanceSpec> {
    Arc::new(InversionGuidance { trajectory, settings: GuidanceSettings { window, ..GuidanceSettings::default() } })
}

fn quiet(_: Step) -> Result<()> {
    Ok(())
}

fn ddim(steps: usize) -> SamplerSettings {
    SamplerSettings::new(SamplerKind::Ddim, steps)
}

fn settings(cfg: f64) -> SamplingSettings {
    SamplingSettings {
        prompt: "a red circle and a blue square on sand".into(),
        negative: None,
        width: 256,
        height: 256,
        seed: 7,
        cfg,
        sampler: SamplerSettings::new(SamplerKind::Ddim, 20),
        sizes: Sizes::default(),
        from: None,
        options: Default::default(),
        source: SourceImage::default(),
    }
}

#[test]
fn gligen_equals_the_pipeline() {
    let object = |phrase: &str, bounds| GroundedPhrase { phrase: phrase.into(), bounds };
    let layout = [object("a red circle", [0.08, 0.15, 0.45, 0.55]), object("a blue square", [0.55, 0.5, 0.92, 0.9])];
    let settings = SamplingSettings { width: 128, height: 128, ..settings(3.0) };
    for (name, beta) in [("gligen", 1.0), ("gligen.beta", 0.3)] {
        let z = gligen(&SMALL, &settings, 1, &layout, 30, beta, &|_, step| quiet(step)).unwrap();
        assert_close(name, &z, &REFERENCE[name], RUN);
    }
}

#[test]
fn plain_sampling_equals_the_pipeline() {
    let plain = settings(4.0);
    for (name, settings) in [
        ("xl", plain.clone()),
        ("xl.tall", SamplingSettings { width: 192, height: 320, seed: 8, ..plain.clone() }),
        ("xl.eta", SamplingSettings { sampler: SamplerSettings { eta: Some(0.5), ..ddim(20) }, ..plain.clone() }),
        ("xl.negative", SamplingSettings { negative: Some("a green star".into()), ..plain.clone() }),
        ("xl.euler", SamplingSettings { sampler: SamplerSettings::new(SamplerKind::Euler, 20), ..plain.clone() }),
        ("xl.dpmpp_2m", SamplingSettings { sampler: SamplerSettings::new(SamplerKind::Dpmpp2M, 20), ..plain }),
    ] {
        let z = sample(&LARGE, &settings, &[], &quiet).unwrap();
        assert_close(name, &z, &REFERENCE[name], RUN);
    }
}

#[test]
fn the_whole_of_lsregen_equals_the_reference() {
    let picture = SMALL.vae().unwrap().decode(&REFERENCE["gligen"]).unwrap().clamp(-1f32, 1f32).unwrap();
    let picture = resize(&picture, 256, 256, Resampling::Bicubic).unwrap().clamp(-1f32, 1f32).unwrap();
    let z0 = LARGE.vae().unwrap().encode(&picture).unwrap();
    assert_close("encoded", &z0, &REFERENCE["encoded"], RUN);
    let window = Window::default();
    let trajectory = invert(&LARGE, &z0, &settings(1.0), InversionMode::Ddim, window, &quiet).unwrap();
    assert_close("inverted", trajectory.at(951.0).unwrap(), &REFERENCE["inverted"], RUN);
    let guidance = [lsregen(trajectory, window)];
    let z = sample(&LARGE, &settings(4.0), &guidance, &quiet).unwrap();
    assert_close("lsregen", &z, &REFERENCE["lsregen"], RUN);
}

/// Batch 2, non-square latents, several heads and depths, v-prediction.
#[test]
fn a_run_of_a_fresh_network_equals_the_reference() {
    let files = ModelFiles::Folder(fixture("networks"));
    let weights = Weights::open(&files, "unet_xl.safetensors", &Precision::new(DType::F32, &Device::Cpu)).unwrap();
    let config = UNetConfig::parse(&std::fs::read(fixture("networks/unet_xl.json")).unwrap(), "unet_xl").unwrap();
    let net = Arc::new(UNet::new(config, &weights).unwrap());
    let io = tensors("networks/unet_xl.io.safetensors");
    let conditional = Conditioning {
        context: io["context"].clone(),
        added: Some(Added { text_embeds: io["text_embeds"].clone(), time_ids: io["time_ids"].clone() }),
        objs: None,
        guidance: None,
        channels: None,
    };
    let unconditional = Conditioning {
        context: io["context"].zeros_like().unwrap(),
        added: Some(Added { text_embeds: io["text_embeds"].zeros_like().unwrap(), time_ids: io["time_ids"].clone() }),
        objs: None,
        guidance: None,
        channels: None,
    };
    let scheduler = serde_json::from_str(
        r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": false,
            "set_alpha_to_one": false, "steps_offset": 1, "prediction_type": "v_prediction",
            "timestep_spacing": "trailing"}"#,
    );
    let sampler = Sampler::new(&scheduler.unwrap(), &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let mut generator = Generator::new(7);
    let noise = generator.randn(&[2, 4, 10, 14], &Device::Cpu).unwrap();
    let denoiser = CfgDenoiser::new(net.clone(), &conditional, &unconditional, 3.0).unwrap();
    // 3 RMS(ε_c − ε_u), where ε_u + s (ε_c − ε_u) differs by ε_c − ε_u between s = 3 and s = 2.
    let less = CfgDenoiser::new(net, &conditional, &unconditional, 2.0).unwrap();
    let difference = (denoiser.predict(&noise, 501.0).unwrap() - less.predict(&noise, 501.0).unwrap()).unwrap();
    let size = difference.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let correction = scalar(&denoiser.correction(&noise, 501.0).unwrap()).unwrap();
    assert!((correction / (3.0 * f64::from(size)) - 1.0).abs() < 1e-3, "{correction}, not 3 · {size}");
    let z = sampler.run(&noise, &denoiser, &[], &mut generator.into(), &quiet).unwrap();
    assert_close("fresh.v", &z, &REFERENCE["fresh.v"], RUN);
}

/// At a scale of 1 and below, the prompt alone counts: the image is not that of the negative prompt.
#[test]
fn a_scale_of_one_or_less_disables_classifier_free_guidance() {
    let large = |prompt: &str, cfg| {
        let settings =
            SamplingSettings { prompt: prompt.into(), sampler: ddim(2), width: 64, height: 64, ..settings(cfg) };
        sample(&LARGE, &settings, &[], &quiet).unwrap()
    };
    let small = |prompt: &str, cfg| {
        let settings =
            SamplingSettings { prompt: prompt.into(), sampler: ddim(2), width: 64, height: 64, ..settings(cfg) };
        gligen(&SMALL, &settings, 1, &[], 30, 1.0, &|_, step| quiet(step)).unwrap()
    };
    for run in [&large as &dyn Fn(&str, f64) -> Tensor, &small] {
        let one = run("a red circle", 1.0);
        for cfg in [0.0, 0.5] {
            assert_eq!(values(&run("a red circle", cfg)), values(&one), "{cfg}");
        }
        assert!(relative(&run("a green star", 0.0), &one) > 1e-3);
        assert!(relative(&run("a red circle", 1.5), &one) > 1e-3);
    }
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}
