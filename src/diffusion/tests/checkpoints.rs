//! Checkpoints in the forms in which they are published are recognised, complete, and distinguished.
//!
//! Files of full size have real names and shapes (those of lsregen-weights) and no content: they are sparse and take no
//! space. tools/weights/full_size.py verifies the values.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};

use candle_core::safetensors::load;
use candle_core::{DType, Device, Tensor};
use common::{keys, shapes};
use lsregen_diffusion::models::config::{AttentionType, ClipActivation, MidBlock};
use lsregen_diffusion::models::unet::{Added, Conditioning};
use lsregen_diffusion::models::{Blueprint, Family, Model, ModelLocation, ModelSource, Survey};
use lsregen_weights::{ModelFiles, Precision};
use serde_json::json;

/// Name and shape of each tensor of a file in the original layout.
fn original(file: &str) -> Vec<(String, Vec<usize>)> {
    let table = std::fs::read_to_string(keys("original.tsv")).unwrap();
    let rows = table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let rows = rows.filter(|row| row[0] == file);
    rows.map(|row| (row[1].to_string(), serde_json::from_str(row[3]).unwrap())).collect()
}

/// A safetensors file of f16 zeros that takes no space.
fn sparse(path: &Path, tensors: &[(String, Vec<usize>)]) -> PathBuf {
    let mut at = 0;
    let entries = tensors.iter().map(|(name, shape)| {
        let (from, bytes) = (at, 2 * shape.iter().product::<usize>());
        at += bytes;
        (name.clone(), json!({ "dtype": "F16", "shape": shape, "data_offsets": [from, from + bytes] }))
    });
    let header = serde_json::Value::Object(entries.collect()).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len((bytes.len() + at) as u64).unwrap();
    path.into()
}

fn source(path: &Path) -> ModelSource {
    let model = match path.is_dir() {
        true => ModelLocation::Files(ModelFiles::Folder(path.into())),
        false => ModelLocation::File(path.into()),
    };
    ModelSource { model, vae: None, gligen: None, prediction: None, schedule: Default::default() }
}

fn problems(source: &ModelSource) -> Vec<(&'static str, String)> {
    let problems = Blueprint::open(source).err().expect("problems");
    problems.into_iter().map(|p| (p.part, p.error.to_string())).collect()
}

#[test]
fn files_in_the_original_layout_are_whole_models() {
    let folder = tempfile::tempdir().unwrap();
    let sd1 = sparse(&folder.path().join("a"), &original("sd1"));
    let model = Blueprint::open(&source(&sd1)).unwrap();
    assert_eq!((model.info.family, model.info.picture_size), (Family::Sd1, 512));
    assert_eq!((model.unet.0.heads.clone(), model.unet.0.use_linear_projection), (vec![8; 4], false));
    assert_eq!(model.vae.0.scaling_factor, 0.18215);
    assert_eq!(model.files().collect::<Vec<_>>(), [sd1.as_path()]);

    let sdxl = sparse(&folder.path().join("b"), &original("sdxl"));
    let model = Blueprint::open(&source(&sdxl)).unwrap();
    assert_eq!((model.info.family, model.info.picture_size), (Family::Sdxl, 1024));
    let unet = &model.unet.0;
    assert_eq!((unet.heads.clone(), unet.text_time), (vec![5, 10, 20], Some((256, 2816))));
    let (down, up) = (vec![vec![], vec![2; 2], vec![10; 2]], vec![vec![10; 3], vec![2; 3], vec![]]);
    assert_eq!((&unet.transformer_layers, &unet.up_transformer_layers), (&down, &up));
    assert_eq!(unet.mid, MidBlock::Transformer(10));
    assert_eq!((model.vae.0.scaling_factor, model.vae.0.force_upcast), (0.13025, true));
    assert!(model.force_zeros && model.unknown.is_empty());
    let numbers = Precision { device: Device::Cpu, compute: DType::F32, weights: None };
    let gigabytes = |n: &Precision| model.bytes(n) as f64 / 1e9;
    assert!((6.9..7.2).contains(&gigabytes(&numbers)), "{}", gigabytes(&numbers));
    assert!((13.8..14.0).contains(&gigabytes(&Precision::new(DType::F32, &Device::Cpu))));

    let gligen = sparse(&folder.path().join("c"), &original("gligen"));
    let both = ModelSource { gligen: Some(gligen.clone()), ..source(&sd1) };
    let model = Blueprint::open(&both).unwrap();
    assert_eq!((model.info.family, model.unet.0.attention_type), (Family::Gligen, AttentionType::Gated));
    assert_eq!(model.files().count(), 2);

    // The autoencoder of another file.
    let replaced = ModelSource { vae: Some(sd1.clone()), ..source(&sdxl) };
    assert_eq!(Blueprint::open(&replaced).unwrap().vae.0.scaling_factor, 0.13025);

    let survey = Survey::of(ModelLocation::File(gligen.clone()));
    assert_eq!((survey.networks[0].name, survey.networks[0].parameters), ("GLIGEN's fusers", 209_102_240));
    assert!(survey.problems.is_empty() && survey.form.contains("`gligen`"));
}

/// Files that are not a supported model, and words of their errors.
#[test]
fn unsupported_files_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    type Tensors = Vec<(String, Vec<usize>)>;
    type Case = (Tensors, fn(&mut Tensors), &'static str, &'static [&'static str]);
    let without = |file: &str, part: &str| -> Vec<_> {
        original(file).into_iter().filter(|(name, _)| !name.contains(part)).collect()
    };
    let cases: Vec<Case> = vec![
        (original("gligen"), |_| {}, "model", &["only GLIGEN's fusers", "`gligen`"]),
        (
            original("sd1"),
            |t| t.retain(|(n, _)| !n.ends_with("input_blocks.1.0.in_layers.2.bias")),
            "model",
            &["`down_blocks.0.resnets.0.conv1.bias` is missing"],
        ),
        (original("sd1"), |t| t[0].1 = vec![320, 5, 3, 3], "model", &["takes 5 channels", "depth"]),
        (original("sd1"), |t| t[0].1 = vec![320, 7, 3, 3], "model", &["takes 7 channels", "upscaler"]),
        (original("sdxl"), |t| t.retain(|(n, _)| !n.contains("embedders.1")), "model", &["no second text encoder"]),
        (
            original("sdxl"),
            |t| t.iter_mut().filter(|(n, _)| n.contains("attn2.to_k")).for_each(|(_, s)| s[1] = 1280),
            "model",
            &["takes text states of width 1280", "return 2048"],
        ),
        (
            original("sdxl"),
            |t| t.iter_mut().filter(|(n, _)| n.contains("attn2.to_k")).for_each(|(_, s)| s[1] = 1024),
            "model",
            &["unCLIP"],
        ),
        (
            original("sd1"),
            |t| t.iter_mut().filter(|(n, _)| n.contains("attn2.to_k")).for_each(|(_, s)| s[1] = 512),
            "model",
            &["text states of width 512"],
        ),
        (without("sd1", "diffusion_model"), |_| {}, "model", &["no U-Net", "`vae`"]),
        (without("sd1", "first_stage_model"), |_| {}, "model", &["no autoencoder", "`vae`"]),
        (vec![("lora_unet.alpha".into(), vec![1])], |_| {}, "model", &["no U-Net", "lora_unet.alpha"]),
        (vec![], |_| {}, "model", &["no U-Net", "no tensors"]),
    ];
    for (mut tensors, edit, part, words) in cases {
        edit(&mut tensors);
        let found = problems(&source(&sparse(&path, &tensors)));
        let hit = found.iter().any(|(p, text)| *p == part && words.iter().all(|w| text.contains(w)));
        assert!(hit && found.iter().all(|(_, text)| text.contains("model.safetensors")), "{words:?}: {found:?}");
    }
    for (bytes, words) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"", "the file is empty"),
        (b"PK\x03\x04", "zip"),
        (b"\x10\0\0\0\0\0\0\0{\"a\"", "incomplete or corrupt safetensors file"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let found = problems(&source(&path));
        assert!(found[0].1.contains(words) && found[0].1.contains("model.safetensors"), "{words}: {found:?}");
    }
    let fusers = sparse(&folder.path().join("fusers"), &original("gligen"));
    let sdxl = sparse(&path, &original("sdxl"));
    let found = problems(&ModelSource { gligen: Some(fusers), ..source(&sdxl) });
    assert!(found[0].0 == "gligen" && found[0].1.contains("sdxl"), "{found:?}");
    let found = problems(&ModelSource { gligen: Some(sdxl.clone()), ..source(&sdxl) });
    assert!(found[0].0 == "gligen", "{found:?}");
}

/// A copy of a built-in model's folder.
fn copy(model: &str, to: &Path) {
    fn walk(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() { walk(&path, &target) } else { _ = std::fs::copy(&path, target).unwrap() }
        }
    }
    walk(&shapes(model), to);
}

#[test]
fn a_gated_configuration_without_fusers_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    copy("gligen", folder.path());
    let path = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let mut tensors = load(&path, &Device::Cpu).unwrap();
    tensors.retain(|name, _| !name.contains(".fuser."));
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let found = problems(&source(folder.path()));
    assert!(found[0].1.contains("names GLIGEN's fusers") && found[0].1.contains("known mistake"), "{found:?}");
}

fn output(path: &Path, numbers: Precision) -> Vec<f32> {
    let model = Model::new(Blueprint::open(&source(path)).unwrap(), numbers, true);
    let ramp = |shape: &[usize]| {
        let n: usize = shape.iter().product();
        Tensor::from_vec((0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
    };
    let added = Added { text_embeds: ramp(&[1, 64]), time_ids: ramp(&[1, 6]) };
    let c =
        Conditioning { context: ramp(&[1, 32, 128]), added: Some(added), objs: None, guidance: None, channels: None };
    model.unet().unwrap().forward(&ramp(&[1, 4, 16, 16]), 501.0, &c).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn shards_and_variants_give_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    copy("xl", folder.path());
    let wide = || Precision::new(DType::F32, &Device::Cpu);
    let expected = output(folder.path(), wide());
    // In the dtype of the file, half precision included.
    let kept = Precision { device: Device::Cpu, compute: DType::F32, weights: None };
    assert_eq!(output(folder.path(), kept), expected);

    let unet = folder.path().join("unet");
    let whole = unet.join("diffusion_pytorch_model.safetensors");
    let tensors = load(&whole, &Device::Cpu).unwrap();
    let name = |i: usize| format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i + 1);
    let half = |tensor: &str| usize::from(tensor > "mid");
    for i in 0..2 {
        let part: std::collections::HashMap<_, _> =
            tensors.iter().filter(|(t, _)| half(t) == i).map(|(t, x)| (t.clone(), x.clone())).collect();
        candle_core::safetensors::save(&part, unet.join(name(i))).unwrap();
    }
    let map: serde_json::Map<_, _> = tensors.keys().map(|t| (t.clone(), json!(name(half(t))))).collect();
    let index = unet.join("diffusion_pytorch_model.safetensors.index.json");
    let write = |map: &serde_json::Map<String, serde_json::Value>| {
        std::fs::write(&index, json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    };
    write(&map);
    std::fs::rename(&whole, unet.join("diffusion_pytorch_model.fp16.safetensors")).unwrap();
    assert_eq!(output(folder.path(), wide()), expected);
    assert_eq!(Blueprint::open(&source(folder.path())).unwrap().files().filter(|f| f.starts_with(&unet)).count(), 4);

    // A tensor that is not in the shard that the index names, and a shard outside the folder.
    let edit = |value: serde_json::Value| {
        let mut map = map.clone();
        map.insert("conv_in.weight".into(), value);
        write(&map);
        problems(&source(folder.path())).remove(0).1
    };
    assert!(edit(json!(name(1))).contains("`conv_in.weight` is not in"));
    assert!(edit(json!("../unet/x.safetensors")).contains("not the name of a file beside it"));
    std::fs::write(&index, "{").unwrap();
    assert!(problems(&source(folder.path()))[0].1.contains("malformed JSON"));
    std::fs::write(&index, "{}").unwrap();
    assert!(problems(&source(folder.path()))[0].1.contains("lacks `weight_map`"));
    // Without the index only the fp16 variant is left.
    std::fs::remove_file(&index).unwrap();
    assert_eq!(output(folder.path(), wide()), expected);
}

/// The names of a model's tensors that no network needs.
fn unused(path: &Path) -> Vec<String> {
    let survey = Survey::of(path.to_path_buf().into());
    assert!(survey.problems.is_empty(), "{:?}", survey.problems);
    survey.unused
}

/// Some published files carry the projection of the CLIP that their text encoder was taken from.
#[test]
fn a_key_that_a_network_does_not_need_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spare = "cond_stage_model.transformer.text_projection.weight";
    let sd1 = sparse(&folder.path().join("a"), &[original("sd1"), vec![(spare.into(), vec![768, 768])]].concat());
    let text = &Blueprint::open(&source(&sd1)).unwrap().encoders[0].config;
    assert_eq!((text.hidden_act, text.projects), (ClipActivation::QuickGelu, false));
    assert_eq!(unused(&sd1), ["text_projection.weight"]);
    // Networks beside a whole model.
    let safety = "safety_checker.vision_model.vision_model.embeddings.patch_embedding.weight";
    let beside =
        [(safety.to_string(), vec![8, 3, 2, 2]), ("control_model.zero_convs.0.0.weight".into(), vec![8, 8, 1, 1])];
    let more = sparse(&folder.path().join("c"), &[original("sd1"), beside.to_vec()].concat());
    assert_eq!(unused(&more), ["control_model.zero_convs.0.0.weight", safety]);
    let spare = "conditioner.embedders.0.transformer.text_projection.weight";
    let sdxl = sparse(&folder.path().join("b"), &[original("sdxl"), vec![(spare.into(), vec![768, 768])]].concat());
    let encoders = &Blueprint::open(&source(&sdxl)).unwrap().encoders;
    assert_eq!(encoders[0].config.hidden_act, ClipActivation::QuickGelu);
    assert_eq!((encoders[1].config.hidden_act, encoders[1].config.projects), (ClipActivation::Gelu, true));
    assert_eq!(unused(&sdxl), ["text_projection.weight"]);

    // In a folder, with the image encoder that transformers warns of.
    let model = folder.path().join("xl");
    std::fs::create_dir(&model).unwrap();
    copy("xl", &model);
    let weights = model.join("text_encoder/model.safetensors");
    let mut tensors = load(&weights, &Device::Cpu).unwrap();
    for name in ["text_projection.weight", "vision_model.post_layernorm.bias", "logit_scale"] {
        tensors.insert(name.into(), Tensor::ones((64, 64), DType::F32, &Device::Cpu).unwrap());
    }
    candle_core::safetensors::save(&tensors, &weights).unwrap();
    assert_eq!(unused(&model), ["vision_model.post_layernorm.bias", "text_projection.weight"]);
}

#[test]
fn the_attention_of_an_autoencoder_may_be_convolutions() {
    let folder = tempfile::tempdir().unwrap();
    copy("xl", folder.path());
    let weights = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let decoded = || {
        let blueprint = Blueprint::open(&source(folder.path())).unwrap();
        let vae = blueprint.load_vae(&Precision::new(DType::F32, &Device::Cpu)).unwrap();
        vae.decode(&Tensor::ones((1, 4, 4, 4), DType::F32, &Device::Cpu).unwrap()).unwrap()
    };
    let numbers = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let before = numbers(decoded());
    let mut tensors = load(&weights, &Device::Cpu).unwrap();
    for (name, tensor) in tensors.iter_mut().filter(|(name, _)| name.contains(".attentions.0.to_")) {
        if name.ends_with(".weight") {
            *tensor = tensor.unsqueeze(2).unwrap().unsqueeze(3).unwrap();
        }
    }
    candle_core::safetensors::save(&tensors, &weights).unwrap();
    assert_eq!(numbers(decoded()), before);
}

#[test]
fn weights_that_are_not_floats_are_refused_before_they_are_loaded() {
    let folder = tempfile::tempdir().unwrap();
    copy("xl", folder.path());
    let weights = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let mut tensors = load(&weights, &Device::Cpu).unwrap();
    let bias = tensors.get_mut("decoder.conv_out.bias").unwrap();
    *bias = bias.to_dtype(DType::U8).unwrap();
    candle_core::safetensors::save(&tensors, &weights).unwrap();
    let refused = |dtype: &str| {
        let found = problems(&source(folder.path()));
        let words = format!("tensor `decoder.conv_out.bias` holds {dtype}, which is not supported");
        assert!(found[0].1.contains(&words), "{found:?}");
    };
    refused("U8");
    // A type that candle does not know.
    let bytes = std::fs::read(&weights).unwrap();
    let views = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter().map(|(name, view)| {
        let dtype = if view.dtype() == safetensors::Dtype::U8 { safetensors::Dtype::BOOL } else { view.dtype() };
        let view = safetensors::tensor::TensorView::new(dtype, view.shape().to_vec(), view.data()).unwrap();
        (name, view)
    });
    std::fs::write(&weights, safetensors::serialize(views, None).unwrap()).unwrap();
    refused("BOOL");
}

/// ComfyUI keeps the whole workflow in the metadata of what it saves.
#[test]
fn a_header_may_have_much_metadata() {
    let folder = tempfile::tempdir().unwrap();
    copy("xl", folder.path());
    let weights = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let tensors = load(&weights, &Device::Cpu).unwrap();
    let workflow = std::collections::HashMap::from([("workflow".to_string(), "x".repeat(20 << 20))]);
    safetensors::serialize_to_file(&tensors, Some(workflow), &weights).unwrap();
    Blueprint::open(&source(folder.path())).map_err(|p| p.into_iter().map(|p| p.error).collect::<Vec<_>>()).unwrap();
}
