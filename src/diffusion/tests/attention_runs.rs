//! Runs with FreeU and perturbed-attention guidance equal diffusers' own pipelines. `fixtures/attention_runs.py` writes the
//! fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the other tests of families use the rest")]
#[path = "families/files.rs"]
mod files;

use candle_core::{DType, Device, Tensor, Var};
use common::{assert_close, fixture, tensors};
use files::{Member, raw};
use lsregen_diffusion::denoiser::{CfgDenoiser, CfgOptions, Denoiser};
use lsregen_diffusion::models::config::UNetInput;
use lsregen_diffusion::models::prompt::Sizes;
use lsregen_diffusion::models::unet::{AttentionKind, Conditioning, FreeU, UNet};
use lsregen_diffusion::models::{Model, Text};
use lsregen_diffusion::perturbed_attention::PerturbedAttention;
use lsregen_diffusion::reduce::scalar;
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::source::SourceImage;
use lsregen_tensor::noise::Generator;
use lsregen_weights::Precision;
use serde_json::{Value, json};

/// Opens a small member of a family with this configuration of the scheduler.
fn model(unet: &'static str, config: &Value, dtype: DType) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let model = Member::of(unet).open(folder.path(), config, dtype);
    // The networks are loaded while their files are there.
    model.unet().unwrap();
    if model.info.input == UNetInput::Inpainting {
        model.vae().unwrap();
    }
    model
}

fn half(model: &Model, text: &str, (width, height): (usize, usize)) -> Conditioning {
    let config = &model.blueprint().unet.0;
    let pooled = config.text_time.map(|_| raw(&format!("pooled.{text}"), &[1, 1280]));
    let text = Text { context: raw(text, &[1, 5, config.cross_attention_dim]), pooled };
    let conditioning = model.condition(&text, width, height, Sizes::default()).unwrap();
    let inpaints = model.info.input == UNetInput::Inpainting;
    let source = SourceImage {
        image: inpaints.then(|| raw("image", &[1, 3, height, width])),
        mask: inpaints.then(|| raw("mask", &[1, 1, height, width]).repeat((1, 3, 1, 1)).unwrap()),
        ..SourceImage::default()
    };
    Conditioning { channels: source.channels(model, width, height).unwrap(), ..conditioning }
}

fn freeu(run: &Value) -> Option<FreeU> {
    let factors: Vec<f64> = run["freeu"].as_array()?.iter().map(|v| v.as_f64().unwrap()).collect();
    let [b1, b2, s1, s2] = factors[..] else { panic!("{run}") };
    Some(FreeU { b1, b2, s1, s2 })
}

fn pag(run: &Value) -> Option<PerturbedAttention> {
    let pag = run["pag"].as_object()?;
    let layers = pag["layers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().parse().unwrap());
    let number = |key: &str| pag[key].as_f64().unwrap();
    Some(PerturbedAttention {
        scale: number("scale"),
        adaptive_scale: number("adaptive_scale"),
        layers: layers.collect(),
    })
}

fn denoiser(model: &Model, run: &Value, size: (usize, usize)) -> CfgDenoiser {
    let (mut prompt, negative) = (half(model, "prompt", size), half(model, "negative", size));
    let cfg = run["cfg"].as_f64().unwrap();
    let denoiser = if model.takes_guidance() {
        prompt.guidance = Some(Tensor::new(&[cfg as f32], &Device::Cpu).unwrap());
        CfgDenoiser::plain(model.unet().unwrap(), &prompt)
    } else {
        CfgDenoiser::new(model.unet().unwrap(), &prompt, &negative, cfg).unwrap()
    };
    let options = CfgOptions { rescale: run["rescale"].as_f64().unwrap_or(0.0), ..CfgOptions::default() };
    let denoiser = denoiser.with_options(options).with_freeu(freeu(run));
    match pag(run) {
        Some(pag) => denoiser.with_perturbed_attention(&pag).unwrap(),
        None => denoiser,
    }
}

#[test]
fn runs_equal_the_pipelines_of_diffusers() {
    let facts: Value = serde_json::from_slice(&std::fs::read(fixture("attention_runs.json")).unwrap()).unwrap();
    let io = tensors("attention_runs.safetensors");
    let facts: &'static Value = Box::leak(Box::new(facts));
    let runs = facts["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 40);
    for run in runs {
        let number = |value: &Value| value.as_u64().unwrap() as usize;
        let size = (number(&run["size"][0]), number(&run["size"][1]));
        let model = model(run["unet"].as_str().unwrap(), &run["config"], DType::F32);
        let settings = SamplerSettings::new(SamplerKind::Auto, number(&run["steps"]));
        let sampler = Sampler::new(&model.info.scheduler, &settings).unwrap();
        let noise = Generator::new(5).randn(&[1, 4, size.1 / 8, size.0 / 8], &Device::Cpu).unwrap();
        let (z, quiet) = (sampler.start(&noise).unwrap(), |_: Step| Ok(()));
        let denoiser = denoiser(&model, run, size);
        let z = sampler.run_from(0, &z, &denoiser, &[], &mut Generator::new(9).into(), &quiet).unwrap();
        let case = format!("{} {}: cfg {}, {} {}", run["name"], run["unet"], run["cfg"], run["freeu"], run["pag"]);
        let expected = &io[run["name"].as_str().unwrap()];
        assert_close(&case, &z, expected, 1e-4);
    }
}

const EPSILON: &str = r#"{ "beta_schedule": "scaled_linear", "prediction_type": "epsilon" }"#;

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Rows of a batch do not depend on each other, so the perturbed part is the same alone.
#[test]
fn both_kinds_of_guidance_add_up() {
    let model = model("sd1", &serde_json::from_str(EPSILON).unwrap(), DType::F32);
    let at = |z: &Tensor, run: Value, t: f64| {
        let denoiser = denoiser(&model, &run, (64, 64));
        let denoiser = match run["window"].as_f64() {
            Some(low) => denoiser.with_options(CfgOptions { timesteps: Some((low, 999.0)), ..CfgOptions::default() }),
            None => denoiser,
        };
        (numbers(&denoiser.predict(z, t).unwrap()), scalar(&denoiser.correction(z, t).unwrap()).unwrap())
    };
    let z = raw("z", &[1, 4, 8, 8]);
    let given = json!({ "scale": 2.0, "adaptive_scale": 0.0, "layers": ["mid", "up"] });
    let ((plain, _), (cfg, of_cfg)) = (at(&z, json!({ "cfg": 1.0 }), 500.0), at(&z, json!({ "cfg": 4.0 }), 500.0));
    let (alone, _) = at(&z, json!({ "cfg": 1.0, "pag": given }), 500.0);
    let (both, of_both) = at(&z, json!({ "cfg": 4.0, "pag": given }), 500.0);
    assert_eq!(of_cfg, of_both);
    let added = plain.iter().zip(&alone).map(|(plain, alone)| alone - plain);
    for ((both, cfg), added) in both.iter().zip(&cfg).zip(added.clone()) {
        assert!((both - cfg - added).abs() < 1e-4, "{both} {cfg} {added}");
    }
    assert!(added.map(f64::abs).fold(0.0, f64::max) > 0.1);
    // Outside the steps of classifier-free guidance, perturbed-attention guidance goes on.
    let windowed = json!({ "cfg": 4.0, "pag": given, "window": 600.0 });
    assert_eq!(at(&z, windowed.clone(), 500.0).0, alone);
    assert_ne!(at(&z, windowed, 600.0).0, at(&z, json!({ "cfg": 1.0, "pag": given }), 600.0).0);
    // Where the adaptive scale has fallen to 0, there is none.
    let fallen = json!({ "scale": 2.0, "adaptive_scale": 0.004, "layers": ["mid"] });
    assert_eq!(at(&z, json!({ "cfg": 4.0, "pag": fallen }), 500.0).0, cfg);
    // The samples of a batch are guided one by one.
    let other = raw("other", &[1, 4, 8, 8]);
    let two = Tensor::cat(&[&z, &other], 0).unwrap();
    let twice = |text: &str| {
        let c = half(&model, text, (64, 64));
        Conditioning { context: c.context.repeat((2, 1, 1)).unwrap(), ..c }
    };
    for cfg in [1.0, 4.0] {
        let run = json!({ "cfg": cfg, "pag": given });
        let batched = CfgDenoiser::new(model.unet().unwrap(), &twice("prompt"), &twice("negative"), cfg).unwrap();
        let batched = batched.with_perturbed_attention(&pag(&run).unwrap()).unwrap().predict(&two, 500.0).unwrap();
        for (i, z) in [&z, &other].into_iter().enumerate() {
            let found = numbers(&batched.narrow(0, i, 1).unwrap());
            let apart = found.iter().zip(at(z, run.clone(), 500.0).0).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-4, "sample {i}, cfg {cfg}: {apart}");
        }
    }
}

/// Gradients of the prediction, whether activations are kept or recomputed, equal finite differences.
#[test]
fn gradients_pass_through_both() {
    let config = serde_json::from_str(EPSILON).unwrap();
    for unet in ["sd1", "sdxl"] {
        let model = model(unet, &config, DType::F64);
        let half = |text: &str| {
            let c = half(&model, text, (64, 40));
            let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
            let added = c.added.map(|a| lsregen_diffusion::models::unet::Added {
                text_embeds: wide(&a.text_embeds),
                time_ids: a.time_ids,
            });
            Conditioning { context: wide(&c.context), added, ..c }
        };
        let run = json!({ "freeu": [1.5, 1.6, 0.9, 0.2], "pag": { "scale": 3.0, "adaptive_scale": 0.0, "layers": ["mid", "up"] } });
        let z = raw("z", &[1, 4, 5, 8]).to_dtype(DType::F64).unwrap();
        let wave = raw("wave", &[1, 4, 5, 8]).to_dtype(DType::F64).unwrap();
        let weights = model.blueprint();
        let gradients: Vec<Vec<f64>> = [u64::MAX, 0]
            .into_iter()
            .map(|bytes| {
                let net: UNet = weights.load_unet(&Precision::new(DType::F64, &Device::Cpu)).unwrap();
                let net = std::sync::Arc::new(net.with_gradient_memory(bytes));
                let denoiser = CfgDenoiser::new(net, &half("prompt"), &half("negative"), 4.0).unwrap();
                let denoiser = denoiser.with_freeu(freeu(&run)).with_perturbed_attention(&pag(&run).unwrap()).unwrap();
                let loss = |z: &Tensor| (denoiser.predict(z, 500.0).unwrap() * &wave).unwrap().sum_all().unwrap();
                let x = Var::from_tensor(&z).unwrap();
                let gradient = loss(x.as_tensor()).backward().unwrap().get(x.as_tensor()).unwrap().clone();
                let length = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
                let d = raw("direction", &[1, 4, 5, 8]).to_dtype(DType::F64).unwrap();
                let at = |h: f64| loss(&(&z + (&d * h).unwrap()).unwrap()).to_scalar::<f64>().unwrap();
                let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                let exact = (&gradient * &d).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
                assert!((numeric - exact).abs() < 1e-5 * length, "{unet}: {exact}, differences {numeric}");
                numbers(&gradient)
            })
            .collect();
        let apart = gradients[0].iter().zip(&gradients[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-8, "{unet}: {apart}");
    }
}

/// Guidances by attention see the network with FreeU, and the maps before the way up do not change.
#[test]
fn attention_maps_are_those_of_the_changed_network() {
    let model = model("sd1", &serde_json::from_str(EPSILON).unwrap(), DType::F32);
    let z = raw("z", &[1, 4, 8, 8]);
    let maps = |run: Value| {
        let denoiser = denoiser(&model, &run, (64, 64));
        let maps = denoiser.attention_maps(&z, 500.0, AttentionKind::Cross, &denoiser.attention_layers()).unwrap();
        maps.iter().map(|map| (map.place.to_string(), numbers(&map.weights))).collect::<Vec<_>>()
    };
    let plain = maps(json!({ "cfg": 4.0 }));
    let pag = json!({ "scale": 3.0, "adaptive_scale": 0.0, "layers": ["down", "mid", "up"] });
    assert_eq!(maps(json!({ "cfg": 4.0, "pag": pag })), plain);
    for ((place, before), (_, after)) in plain.iter().zip(maps(json!({ "cfg": 4.0, "freeu": [1.5, 1.6, 0.9, 0.2] }))) {
        assert_eq!(*before != after, place.starts_with("up_blocks"), "{place}");
    }
}

#[test]
fn layers_that_a_model_lacks_are_errors() {
    let model = model("ssd1b", &serde_json::from_str(EPSILON).unwrap(), DType::F32);
    let prompt = half(&model, "prompt", (64, 64));
    let guidance = PerturbedAttention { scale: 3.0, adaptive_scale: 0.0, layers: vec!["mid".parse().unwrap()] };
    let plain = CfgDenoiser::plain(model.unet().unwrap(), &prompt);
    let error = plain.with_perturbed_attention(&guidance).err().unwrap().to_string();
    assert!(error.contains("no self-attention in `mid`, but in down, down_blocks.1"), "{error}");
}
