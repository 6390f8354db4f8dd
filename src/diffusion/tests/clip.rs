//! Compares CLIP on images and texts with transformers, and its gradients with torch and finite differences.
//! `fixtures/clip_vision.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use common::{assert_close, fixture, relative, shapes, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::denoiser::CfgDenoiser;
use lsregen_diffusion::guidance::{
    BoundGuidance, ClipGoal, ClipGuidance, GuidanceSettings, GuidanceSpec, Metric, SamplingRun, StepContext,
    StyleGuidance,
};
use lsregen_diffusion::models::clip::ClipVisionModel;
use lsregen_diffusion::models::clip::{Clip, ClipBlueprint, normalise};
use lsregen_diffusion::models::config::ClipConfig;
use lsregen_diffusion::models::unet::Conditioning;
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_diffusion::reduce::scalar;
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings};
use lsregen_diffusion::schedule::PredictionType;
use lsregen_weights::{BUILTIN_CLIP, ModelFiles, Precision, TensorMap, Weights};

const TEXTS: [&str; 3] = ["a red circle and a blue star on sand", "", "white square "];

const CASES: [&str; 2] = ["plain", "odd"];

fn folder(name: &str) -> ModelFiles {
    ModelFiles::Folder(fixture(&format!("clip_vision/{name}")))
}

fn clip(name: &str, dtype: DType) -> (Clip, HashMap<String, Tensor>) {
    let io = tensors(&format!("clip_vision/{name}.io.safetensors"));
    let io = io.into_iter().map(|(k, v)| (k, v.to_dtype(dtype).unwrap())).collect();
    (Clip::open(&folder(name), &Precision::new(dtype, &Device::Cpu)).unwrap(), io)
}

/// The gradient of the sum of `f` with respect to the image.
fn gradient(picture: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Tensor {
    let x = Var::from_tensor(picture).unwrap();
    f(x.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap().remove(x.as_tensor()).unwrap()
}

fn cosine(clip: &Clip, picture: &Tensor, text: &Tensor) -> Result<Tensor> {
    let image = normalise(&clip.image_embeds(picture)?)?;
    Ok(image.broadcast_mul(&normalise(text)?)?.sum_all()?)
}

/// Gram matrices of the patches after the third layer.
fn gram(clip: &Clip, picture: &Tensor) -> Result<Tensor> {
    let h = clip.hidden_state(picture, 3)?;
    let patches = h.narrow(1, 1, h.dim(1)? - 1)?.contiguous()?;
    Ok(patches.t()?.contiguous()?.matmul(&patches)?)
}

#[test]
fn embeddings_and_hidden_states_equal_transformers() {
    for name in CASES {
        let (clip, io) = clip(name, DType::F32);
        let texts = TEXTS.map(|t| clip.text_embeds(&t.repeat(if t.ends_with(' ') { 20 } else { 1 })).unwrap());
        assert_close(&format!("{name} texts"), &Tensor::cat(&texts, 0).unwrap(), &io["texts"], 1e-4);
        assert_close(&format!("{name} prepared"), &clip.prepare(&io["picture"]).unwrap(), &io["pixels"], 1e-5);
        assert_close(&format!("{name} picture"), &clip.image_embeds(&io["picture"]).unwrap(), &io["embeds"], 1e-4);
        for layer in 0..=clip.layers() {
            let state = clip.hidden_state(&io["picture"], layer).unwrap();
            assert_close(&format!("{name} layer {layer}"), &state, &io[&format!("hidden.{layer}")], 1e-4);
        }
        let both = Tensor::cat(&[&io["picture"], &io["other"]], 0).unwrap();
        let first = clip.image_embeds(&both).unwrap().narrow(0, 0, 1).unwrap();
        assert_close(&format!("{name} of two"), &first, &io["embeds"], 1e-4);
    }
}

/// transformers' processor resizes 8-bit images, and rounds after each of the two directions.
#[test]
fn pictures_are_prepared_as_by_transformers_but_for_its_rounding() {
    for name in CASES {
        let (clip, io) = clip(name, DType::F32);
        let difference = (clip.prepare(&io["picture"]).unwrap() - &io["rounded"]).unwrap().abs().unwrap();
        // Two steps of 8 bits, divided by the smallest standard deviation of the fixtures.
        let most = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(most < 2.0 / 255.0 / 0.25, "{name}: {most}");
    }
}

#[test]
fn gradients_equal_torch() {
    for name in CASES {
        let (clip, io) = clip(name, DType::F32);
        let text = io["texts"].narrow(0, 0, 1).unwrap();
        let d = gradient(&io["picture"], |x| cosine(&clip, x, &text));
        assert_close(&format!("{name}: gradient of the cosine"), &d, &io["d_cos"], 1e-3);
        let target = gram(&clip, &io["other"]).unwrap();
        let distance = |x: &Tensor| Ok((gram(&clip, x)? - &target)?.sqr()?.sum_all()?.sqrt()?);
        assert_close(
            &format!("{name}: Gram"),
            &distance(&io["picture"]).unwrap().reshape(1).unwrap(),
            &io["gram"],
            1e-4,
        );
        let d = gradient(&io["picture"], distance);
        assert_close(&format!("{name}: gradient of the Gram distance"), &d, &io["d_gram"], 1e-3);
    }
}

/// Compares in f64, along random directions.
#[test]
fn gradients_equal_finite_differences() {
    for name in CASES {
        let (clip, io) = clip(name, DType::F64);
        let (picture, text) = (&io["picture"], io["texts"].narrow(0, 1, 1).unwrap());
        let target = gram(&clip, &io["other"]).unwrap();
        type Loss<'a> = Box<dyn Fn(&Tensor) -> Result<Tensor> + 'a>;
        let losses: [(&str, Loss); 2] = [
            ("cosine", Box::new(|x| cosine(&clip, x, &text))),
            ("Gram", Box::new(|x| Ok((gram(&clip, x)? - &target)?.sqr()?.sum_all()?))),
        ];
        for (what, loss) in &losses {
            let d = gradient(picture, loss);
            for seed in 0..3 {
                let step = (picture.ones_like().unwrap() * (seed as f64 + 1.3)).unwrap();
                let step = (step * picture).unwrap().sin().unwrap();
                let at = |h: f64| {
                    let moved = (picture + (&step * h).unwrap()).unwrap();
                    loss(&moved).unwrap().to_scalar::<f64>().unwrap()
                };
                let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                let analytic = (&d * &step).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
                let error = (numeric - analytic).abs() / numeric.abs();
                assert!(error < 1e-5, "{name} {what}: {analytic} where differences give {numeric}");
            }
        }
    }
}

#[test]
fn half_precision_is_near() {
    for dtype in [DType::F16, DType::BF16] {
        let (clip, io) = clip("plain", dtype);
        let image = clip.image_embeds(&io["picture"]).unwrap();
        let error = relative(&image, &io["embeds"]);
        assert!(error < 0.05, "{dtype:?}: {error}");
    }
}

/// Names and shapes of OpenAI's ViT-B/32 in transformers, derived from its published configuration.
#[test]
fn the_published_names_are_known() {
    let config = ClipConfig::parse(br#"{"text_config": {}, "vision_config": {}, "projection_dim": 512}"#, "c").unwrap();
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("visual_projection.weight".into(), vec![512, 768]),
        ("vision_model.embeddings.class_embedding".into(), vec![768]),
        ("vision_model.embeddings.patch_embedding.weight".into(), vec![768, 3, 32, 32]),
        ("vision_model.embeddings.position_embedding.weight".into(), vec![50, 768]),
    ];
    let mut norm = |name: &str| {
        for part in ["weight", "bias"] {
            shapes.push((format!("vision_model.{name}.{part}"), vec![768]));
        }
    };
    norm("pre_layrnorm");
    norm("post_layernorm");
    for i in 0..12 {
        let layer = format!("encoder.layers.{i}");
        norm(&format!("{layer}.layer_norm1"));
        norm(&format!("{layer}.layer_norm2"));
    }
    for i in 0..12 {
        let layer = format!("vision_model.encoder.layers.{i}");
        let linears = ["q", "k", "v", "out"].map(|p| (format!("self_attn.{p}_proj"), 768, 768));
        let linears = linears.into_iter().chain([("mlp.fc1".into(), 3072, 768), ("mlp.fc2".into(), 768, 3072)]);
        for (name, to, from) in linears {
            shapes.push((format!("{layer}.{name}.weight"), vec![to, from]));
            shapes.push((format!("{layer}.{name}.bias"), vec![to]));
        }
    }
    let w = Weights::new(
        TensorMap::declared("b32", shapes.into_iter().collect()),
        &Precision::new(DType::F32, &Device::Cpu),
    );
    ClipVisionModel::new(&config, &w).unwrap();
    w.finish().unwrap();
}

/// Returns the error of a damaged folder: `change` damages a copy of the fixture.
fn told(name: &str, change: impl FnOnce(&Path)) -> String {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(&format!("clip_vision/{name}"))).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    change(copy.path());
    let files = ModelFiles::Folder(copy.path().into());
    let error = ClipBlueprint::open(&files).and_then(|b| b.load(&Precision::new(DType::F32, &Device::Cpu))).err();
    error.expect("an error").to_string()
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {}", file.display());
    std::fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn errors_are_reported_before_weights_are_loaded() {
    let config = |from: &'static str, to: &'static str| move |f: &Path| edit(&f.join("config.json"), from, to);
    let processor =
        |from: &'static str, to: &'static str| move |f: &Path| edit(&f.join("preprocessor_config.json"), from, to);
    let cut = |f: &Path| {
        let bytes = std::fs::read(f.join("model.safetensors")).unwrap();
        std::fs::write(f.join("model.safetensors"), &bytes[..bytes.len() - 100]).unwrap();
    };
    let gone = |name: &'static str| move |f: &Path| std::fs::remove_file(f.join(name)).unwrap();
    for (error, words) in [
        (told("plain", cut), "model.safetensors"),
        (told("plain", gone("config.json")), "config.json"),
        (told("plain", gone("model.safetensors")), "model.safetensors: no such file"),
        (told("plain", gone("tokenizer.json")), "a tokenizer is in vocab.json"),
        (told("plain", config("\"text_config\"", "\"text\"")), "`text_config` and `vision_config` are missing"),
        (told("plain", config("\"patch_size\": 8", "\"patch_size\": 0")), "patches of 0"),
        (told("plain", config("\"patch_size\": 8", "\"patch_size\": 4")), "patch_embedding.weight` has shape"),
        (told("plain", config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5")), "layers.4.layer_norm1.weight"),
        (told("plain", config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3")), "does not use"),
        (told("plain", config("\"num_attention_heads\": 4", "\"num_attention_heads\": 5")), "into 5 heads"),
        (told("plain", config("\"projection_dim\": 24", "\"projection_dim\": 25")), "projection.weight` has shape"),
        (told("plain", config("quick_gelu", "swish")), "swish"),
        (told("plain", processor("\"shortest_edge\": 32", "\"shortest_edge\": 31")), "do not make every image 32×32"),
        (told("plain", processor("\"resample\": 3", "\"resample\": 9")), "`resample` is 9"),
        (told("plain", processor("0.26862954", "0.0")), "`image_std` must be between 0.001"),
        (told("odd", gone("pytorch_model.bin")), "nor its fp16 variant"),
        (told("odd", config("\"eos_token_id\": 2", "\"eos_token_id\": -1")), "config.json"),
    ] {
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
}

#[test]
fn a_tokenizer_of_another_model_is_an_error() {
    let error = told("plain", |f| edit(&f.join("tokenizer.json"), "\"clay</w>\": 583", "\"clay</w>\": 5850"));
    assert!(error.contains("has 5851 tokens, but its text encoder has 586"), "{error}");
}

#[test]
fn files_are_those_that_are_read() {
    let names = |name: &str| {
        let files = ClipBlueprint::open(&folder(name)).unwrap().files();
        files.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let common = ["preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names("plain"), [["config.json", "model.safetensors"].as_slice(), &common].concat());
    assert_eq!(names("odd"), [&["config.json"], &common[..1], &["pytorch_model.bin"], &common[1..]].concat());
}

#[test]
fn the_built_in_clip_equals_transformers() {
    let io = tensors("clip_vision/builtin.io.safetensors");
    let clip = Clip::open(&BUILTIN_CLIP, &Precision::new(DType::F32, &Device::Cpu)).unwrap();
    let text = clip.text_embeds(TEXTS[0]).unwrap();
    assert_close("text", &text, &io["texts"].narrow(0, 0, 1).unwrap(), 1e-4);
    assert_close("picture", &clip.image_embeds(&io["picture"]).unwrap(), &io["embeds"], 1e-4);
    assert_close("third layer", &clip.hidden_state(&io["picture"], 3).unwrap(), &io["hidden.3"], 1e-4);
    let d = gradient(&io["picture"], |x| cosine(&clip, x, &text));
    assert_close("gradient", &d, &io["d_cos"], 1e-3);
}

/// The built-in GLIGEN model in a dtype, and the CLIP guidances bound to a run of 128×96 pixels, each with its name in
/// the fixtures.
fn guidances(dtype: DType, io: &HashMap<String, Tensor>) -> (Model, Vec<(&'static str, BoundGuidance)>) {
    let numbers = Precision::new(dtype, &Device::Cpu);
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes("gligen")).into()).unwrap();
    let model = Model::new(blueprint, numbers.clone(), false);
    let clip = Arc::new(Clip::open(&BUILTIN_CLIP, &numbers).unwrap());
    let (settings, picture) = (GuidanceSettings::default(), io["other"].to_dtype(dtype).unwrap());
    let by_clip = |goal, metric| ClipGuidance { clip: clip.clone(), goal, metric, settings: settings.clone() };
    let specs: [(&str, Box<dyn GuidanceSpec>); 4] = [
        ("cos", Box::new(by_clip(ClipGoal::Text(TEXTS[0].into()), Metric::Cosine))),
        ("l2", Box::new(by_clip(ClipGoal::Text(TEXTS[0].into()), Metric::L2))),
        ("image", Box::new(by_clip(ClipGoal::Picture(picture.clone()), Metric::Cosine))),
        ("gram", Box::new(StyleGuidance { clip: clip.clone(), layer: 3, picture, settings: settings.clone() })),
    ];
    let sampler = Sampler::new(&model.info.scheduler, &SamplerSettings::new(SamplerKind::Ddim, 20)).unwrap();
    let prompt = "a white square on moss".into();
    let run = SamplingRun { model: &model, prompt: &prompt, sampler: &sampler, width: 128, height: 96, seed: 0 };
    let one = |spec: &dyn GuidanceSpec| spec.bind(&run).unwrap().remove(0);
    let guidances = specs.iter().map(|(name, spec)| (*name, one(&**spec))).collect();
    (model, guidances)
}

fn with_moment<R>(model: &Model, context: &Tensor, f: impl FnOnce(&StepContext) -> R) -> R {
    let c = Conditioning { context: context.clone(), added: None, objs: None, guidance: None, channels: None };
    let denoiser = CfgDenoiser::new(model.unet().unwrap(), &c, &c, 1.0).unwrap();
    let kind = PredictionType::Epsilon.into();
    f(&StepContext { step: 0, steps: 20, t: 501.0, alpha_bar: 0.3, parameterisation: kind, denoiser: &denoiser })
}

/// Compares gradients through CLIP, the decoder and the U-Net.
#[test]
fn gradients_of_the_latent_equal_torch() {
    let io = tensors("clip_vision/builtin.io.safetensors");
    let (model, guidances) = guidances(DType::F32, &io);
    with_moment(&model, &io["z.context"], |at| {
        for (name, guidance) in &guidances {
            // ‖f̄ − f‖² = 2 (1 − cos) for features of length 1.
            let (key, factor) = if *name == "l2" { ("cos", 0.5) } else { (*name, 1.0) };
            let Some(expected) = io.get(&format!("z.{key}")) else { continue };
            let (value, d) = guidance.gradient(&io["z"], at, true).unwrap();
            let value = Tensor::new(&[(scalar(&value.unwrap()).unwrap() * factor) as f32], &Device::Cpu).unwrap();
            assert_close(&format!("{name}: distance"), &value, expected, 1e-4);
            let d = (d * factor).unwrap();
            assert_close(&format!("{name}: gradient"), &d, &io[&format!("z.d_{key}")], 1e-3);
        }
    });
}

#[test]
fn gradients_of_the_latent_equal_finite_differences() {
    let io = tensors("clip_vision/builtin.io.safetensors");
    let (model, guidances) = guidances(DType::F64, &io);
    let z = io["z"].to_dtype(DType::F64).unwrap().narrow(3, 0, 8).unwrap().contiguous().unwrap();
    let context = io["z.context"].to_dtype(DType::F64).unwrap();
    with_moment(&model, &context, |at| {
        for (name, guidance) in &guidances {
            let (_, d) = guidance.gradient(&z, at, false).unwrap();
            let step = ((&z * 3.7).unwrap().sin().unwrap()
                * d.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap())
            .unwrap();
            let step = (step + &d).unwrap();
            let step =
                (&step / step.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f64>().unwrap()).unwrap();
            let value = |h: f64| guidance.value(&(&z + (&step * h).unwrap()).unwrap(), at).unwrap();
            let numeric = (value(1e-5) - value(-1e-5)) / 2e-5;
            let exact = (&d * &step).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            let error = (numeric - exact).abs() / exact.abs();
            println!("{name}: finite differences apart by {error:.1e}");
            assert!(error < 1e-5, "{name}: {numeric} by finite differences, {exact} by autodiff");
        }
    });
}

#[test]
fn a_missing_layer_is_an_error() {
    let io = tensors("clip_vision/builtin.io.safetensors");
    let clip = Clip::open(&BUILTIN_CLIP, &Precision::new(DType::F32, &Device::Cpu)).unwrap();
    let error = clip.hidden_state(&io["picture"], clip.layers() + 1).unwrap_err().to_string();
    assert!(error.contains("has 4 layers, but the requested layer is 5"), "{error}");
}
