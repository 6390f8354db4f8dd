//! The members of the families: small networks equal diffusers in folder and single-file form, and networks of full size
//! have the published names and shapes. `fixtures/families.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the other tests of families use the rest")]
#[path = "families/files.rs"]
mod files;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, tensors};
use files::{Edit, Member, full, raw};
use lsregen_diffusion::models::clip::ClipTextModel;
use lsregen_diffusion::models::config::{ClipTextConfig, UNetConfig, UNetInput};
use lsregen_diffusion::models::prompt::{Prompt, Sizes};
use lsregen_diffusion::models::unet::{Added, AttentionKind, Conditioning, PassOptions, UNet, UNetBlock};
use lsregen_diffusion::models::{
    AESTHETIC_SCORE, Blueprint, EdmLatents, Family, Model, ModelLocation, ModelSource, Survey,
};
use lsregen_diffusion::schedule::PredictionType;
use lsregen_weights::{Precision, TensorMap, Weights};

/// Largest relative error of a network in f32.
const NETWORK: f64 = 1e-4;

fn f32s() -> Precision {
    Precision::new(DType::F32, &Device::Cpu)
}

fn source(path: &Path) -> ModelSource {
    ModelSource {
        model: ModelLocation::from(path.to_path_buf()),
        vae: None,
        gligen: None,
        prediction: None,
        schedule: Default::default(),
    }
}

#[track_caller]
fn open(path: &Path) -> Blueprint {
    Blueprint::open(&source(path)).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn problems(path: &Path) -> String {
    let problems = Blueprint::open(&source(path)).err().expect("problems");
    problems.into_iter().map(|problem| problem.error.to_string()).collect::<Vec<_>>().join("\n")
}

/// The numbers of all tensors.
fn numbers(map: &TensorMap) -> BTreeMap<String, Vec<f32>> {
    let weights = Weights::new(map.clone(), &f32s());
    let read = |name: &str| {
        let tensor = weights.get(&map.shape(name).unwrap()[..], name).unwrap();
        (name.to_string(), tensor.flatten_all().unwrap().to_vec1().unwrap())
    };
    map.names().map(read).collect()
}

/// Every 16th number of each state, as the fixtures have them.
fn some(states: &Tensor) -> Tensor {
    let last = states.dim(2).unwrap();
    let every: Vec<u32> = (0..last as u32).step_by(16).collect();
    states.index_select(&Tensor::new(every, &Device::Cpu).unwrap(), 2).unwrap()
}

fn predicted(unet: &UNet, io: &BTreeMap<&str, Tensor>, guidance: Option<Tensor>) -> Tensor {
    let added =
        unet.config().text_time.map(|_| Added { text_embeds: io["pooled"].clone(), time_ids: io["ids"].clone() });
    let conditioning = Conditioning { context: io["context"].clone(), added, objs: None, guidance, channels: None };
    unet.forward_each(&io["z"], &io["t"], &conditioning).unwrap()
}

/// The inputs of the fixtures for a network.
fn inputs(config: &UNetConfig) -> BTreeMap<&'static str, Tensor> {
    let ids = [[64f32, 48.0, 0.0, 8.0, 6.0, 48.0], [32.0, 32.0, 4.0, 0.0, 2.5, 32.0]];
    let ids = Tensor::new(&ids, &Device::Cpu).unwrap().narrow(1, 0, config.time_ids()).unwrap();
    BTreeMap::from([
        ("z", raw("z", &[2, config.in_channels, 8, 8])),
        ("context", raw("context", &[2, 5, config.cross_attention_dim])),
        ("pooled", raw("pooled", &[2, 1280])),
        ("t", Tensor::new(&[601f32, 41.0], &Device::Cpu).unwrap()),
        ("ids", ids),
    ])
}

/// Checks a member in both forms, and returns the two blueprints.
fn check(member: &Member, folder: &Path) -> [Blueprint; 2] {
    let [of_folder, of_file] =
        [member.write_folder(&folder.join("model")), member.write_file(&folder.join("file"), &[])];
    let both = [open(&of_folder), open(&of_file)];
    let expected = tensors("families/outputs.safetensors");
    let name = member.name;
    for blueprint in &both {
        assert_eq!(blueprint.info.family, member.family, "{name}");
        let unet = blueprint.load_unet(&f32s()).unwrap();
        let io = inputs(unet.config());
        let scales = (name == "lcm").then(|| Tensor::new(&[8.5f32, 3.0], &Device::Cpu).unwrap());
        assert_close(name, &predicted(&unet, &io, scales), &expected[&format!("{name}.out")], NETWORK);
        if name == "lcm" {
            assert_close(name, &predicted(&unet, &io, None), &expected["lcm.default"], NETWORK);
        }
        let ids = [vec![7, 4, 9, 599, 301], vec![7, 7, 7, 30, 599]];
        for (encoder, part) in blueprint.encoders.iter().zip(member.encoders) {
            let text = encoder.load(&f32s()).unwrap().forward(&ids).unwrap();
            let is = |what: &str| &expected[&format!("{part}.{what}")];
            assert_close(part, &some(&text.last_hidden_state), is("last"), NETWORK);
            assert_close(part, &some(&text.penultimate), is("penultimate"), NETWORK);
            assert_eq!(text.text_embeds.is_some(), *part == "clip_g");
            if let Some(embeds) = &text.text_embeds {
                assert_close(part, embeds, is("text_embeds"), NETWORK);
            }
        }
    }
    let [a, b] = &both;
    let maps = |x: &Blueprint| {
        [&x.unet.1, &x.vae.1].into_iter().chain(x.encoders.iter().map(|e| &e.tensors)).map(numbers).collect::<Vec<_>>()
    };
    assert!(maps(a) == maps(b), "{name}: folder and file differ");
    assert!(a.unknown.is_empty() && b.unknown.is_empty(), "{name}: {:?} {:?}", a.unknown, b.unknown);
    assert_eq!(a.member(), b.member(), "{name}");
    both
}

#[test]
fn stable_diffusion_2_equals_diffusers_in_both_forms() {
    let folder = tempfile::tempdir().unwrap();
    let [_, file] = check(&Member::of("sd2"), folder.path());
    assert_eq!(file.member(), "Stable Diffusion 2.x, ε-prediction (as 2-base)");
    assert_eq!((file.info.picture_size, file.unet.0.heads.clone()), (512, vec![1, 2]));
    let told = file.told.last().unwrap();
    assert!(told.contains("`up_blocks.1.attentions.1.transformer_blocks.0.norm1.bias` deviates by 0.0"), "{told}");
    // OpenCLIP pads with `!`, which is token 0.
    let ids = file.encoders[0].tokenizer().unwrap().encode("a cat").unwrap();
    assert_eq!(ids[..6], [49406, 320, 2368, 49407, 0, 0]);

    // Biases that deviate by more.
    let wide: Edit = ("up_blocks.1.attentions.1.transformer_blocks.0.norm1.bias", |x| *x *= 2.0);
    let path = Member::of("sd2").edited(wide).write_file(&folder.path().join("v"), &[]);
    let v = open(&path);
    assert_eq!(v.member(), "Stable Diffusion 2.x, v-prediction (as 768-v)");
    assert_eq!((v.info.scheduler.prediction_type, v.info.picture_size), (PredictionType::VPrediction, 768));
    assert!(v.told.last().unwrap().contains("above 0.09"), "{:?}", v.told);
    let overridden = ModelSource { prediction: Some(PredictionType::Epsilon), ..source(&path) };
    let overridden = Blueprint::open(&overridden).unwrap();
    assert_eq!(overridden.told.last().unwrap(), "predicts epsilon: the parameter `prediction`");
    assert_eq!(overridden.info.scheduler.prediction_type, PredictionType::Epsilon);
    // What the file states precedes the guess.
    let stated = Member::of("sd2")
        .edited(wide)
        .write_file(&folder.path().join("e"), &[("modelspec.prediction_type", "epsilon")]);
    assert_eq!(open(&stated).info.scheduler.prediction_type, PredictionType::Epsilon);
    let architecture = [("modelspec.architecture", "stable-diffusion-v2-768-v")];
    let stated = open(&Member::of("sd2").write_file(&folder.path().join("a"), &architecture));
    assert_eq!(stated.info.scheduler.prediction_type, PredictionType::VPrediction);
    assert!(stated.told.last().unwrap().contains("`modelspec.architecture: stable-diffusion-v2-768-v`"));
}

#[test]
fn distilled_xl_networks_equal_diffusers_in_both_forms() {
    for (name, member) in [
        ("ssd1b", "SSD-1B"),
        ("vega", "Segmind Vega"),
        ("no_mid", "SDXL with fewer blocks"),
        ("refiner", "SDXL's refiner"),
        ("lcm", "Stable Diffusion 1.x, LCM with an embedded guidance scale"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for blueprint in check(&Member::of(name), folder.path()) {
            assert_eq!(blueprint.member(), member);
            assert_eq!(blueprint.info.limits, []);
        }
    }
}

#[test]
fn networks_with_other_inputs_equal_diffusers() {
    for (name, member, input) in [
        ("sd1_inpaint", "Stable Diffusion 1.x, inpainting", UNetInput::Inpainting),
        ("sd2_inpaint", "Stable Diffusion 2.x, ε-prediction (as 2-base), inpainting", UNetInput::Inpainting),
        ("sdxl_inpaint", "SDXL, inpainting", UNetInput::Inpainting),
        ("pix2pix", "Stable Diffusion 1.x, InstructPix2Pix", UNetInput::Edit),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for blueprint in check(&Member::of(name), folder.path()) {
            assert_eq!(blueprint.member(), member);
            assert_eq!((blueprint.info.input, &blueprint.info.limits[..]), (input, &[][..]));
            channels_of_the_conditioning(&blueprint.load_unet(&f32s()).unwrap());
        }
    }
}

/// The channels after the latent may come from the conditioning, in both halves of classifier-free guidance.
fn channels_of_the_conditioning(unet: &UNet) {
    let io = inputs(unet.config());
    let (z, extra) = (&io["z"], unet.config().in_channels - 4);
    if extra == 0 || unet.config().text_time.is_some() {
        return;
    }
    let half = |row| Conditioning {
        context: io["context"].narrow(0, row, 1).unwrap(),
        added: None,
        objs: None,
        guidance: None,
        channels: Some(z.narrow(0, row, 1).unwrap().narrow(1, 4, extra).unwrap()),
    };
    let both = half(0).stack(&half(1)).unwrap();
    let latent = z.narrow(1, 0, 4).unwrap();
    let apart = unet.forward_each(&latent, &io["t"], &both).unwrap();
    assert_close("channels", &apart, &predicted(unet, &io, None), 1e-6);
    let refused =
        unet.forward_each(&latent, &io["t"], &Conditioning { channels: None, ..both }).unwrap_err().to_string();
    assert!(refused.contains(&format!("takes {} channels", 4 + extra)) && refused.contains("but got 4"), "{refused}");
}

/// The attention maps of networks whose levels have different depths, or no middle transformer.
#[test]
fn attention_maps_are_those_of_the_layers_that_exist() {
    for (name, count, middle) in
        [("ssd1b", 2 * 2 + 2 * 4 + 18 + 4, false), ("no_mid", 1 + 2 + 2 * 2 + 2, false), ("sd2", 4, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let unet = open(&Member::of(name).write_folder(folder.path())).load_unet(&f32s()).unwrap();
        let layers = unet.attention_layers();
        assert_eq!(layers.len(), count, "{name}");
        assert_eq!(layers.iter().any(|layer| layer.unet_block == UNetBlock::Mid), middle, "{name}");
        let io = inputs(unet.config());
        let added =
            unet.config().text_time.map(|_| Added { text_embeds: io["pooled"].clone(), time_ids: io["ids"].clone() });
        let c = Conditioning { context: io["context"].clone(), added, objs: None, guidance: None, channels: None };
        let maps =
            unet.attention_maps(&io["z"], 601.0, &c, AttentionKind::Cross, &|_| true, &PassOptions::default()).unwrap();
        assert_eq!(maps.iter().map(|map| map.place).collect::<Vec<_>>(), layers, "{name}");
        for map in maps {
            assert_eq!(map.weights.dims()[..2], [2, map.place.heads(unet.config())]);
            let sums = map.weights.sum(3).unwrap();
            assert_close(name, &sums, &sums.ones_like().unwrap(), 1e-5);
        }
    }
}

/// Central differences in f64 along a direction.
#[test]
fn gradients_of_new_blocks_equal_finite_differences() {
    for name in ["vega", "no_mid", "lcm", "sd2"] {
        let folder = tempfile::tempdir().unwrap();
        let blueprint = open(&Member::of(name).write_folder(folder.path()));
        let unet = blueprint.load_unet(&Precision::new(DType::F64, &Device::Cpu)).unwrap();
        let io: BTreeMap<_, _> =
            inputs(unet.config()).into_iter().map(|(k, x)| (k, x.to_dtype(DType::F64).unwrap())).collect();
        let weight = raw("weight", &[2, 4, 8, 8]).to_dtype(DType::F64).unwrap();
        let scalar = |z: &Tensor| {
            let io = io.iter().map(|(k, x)| (*k, if *k == "z" { z.clone() } else { x.clone() })).collect();
            (predicted(&unet, &io, None) * &weight).unwrap().sum_all().unwrap()
        };
        let var = candle_core::Var::from_tensor(&io["z"]).unwrap();
        let gradient = scalar(var.as_tensor()).backward().unwrap().get(var.as_tensor()).unwrap().clone();
        let direction = raw("direction", &[2, 4, 8, 8]).to_dtype(DType::F64).unwrap();
        let at = |h: f64| scalar(&(&io["z"] + (&direction * h).unwrap()).unwrap()).to_scalar::<f64>().unwrap();
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        let exact = (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((numeric - exact).abs() < 1e-5 * exact.abs().max(1.0), "{name}: {exact}, {numeric}");
    }
}

/// diffusers' `_get_add_time_ids` with `requires_aesthetics_score`.
#[test]
fn the_refiner_is_conditioned_on_its_encoder_and_an_aesthetic_score() {
    let folder = tempfile::tempdir().unwrap();
    let path = Member::of("refiner").write_folder(&folder.path().join("model"));
    let model = Model::new(open(&path), f32s(), false);
    let text = model.encode_prompt(&Prompt::from("a red circle on sand")).unwrap();
    assert_eq!(text.pooled.as_ref().unwrap().dims(), [1, 1280]);
    let sizes = Sizes { original: Some((64, 48)), target: None, crop: (8, 2) };
    let c = model.condition_scored(&text, 32, 32, sizes, AESTHETIC_SCORE).unwrap();
    assert_eq!(c.added.as_ref().unwrap().time_ids.to_vec2::<f32>().unwrap(), [[48.0, 64.0, 2.0, 8.0, 6.0]]);
    let z = raw("z", &[1, 4, 8, 8]);
    assert_eq!(model.unet().unwrap().forward(&z, 41.0, &c).unwrap().dims(), z.dims());
    // An SDXL network takes six.
    let mut six = c.clone();
    six.added.as_mut().unwrap().time_ids = Tensor::zeros((1, 6), DType::F32, &Device::Cpu).unwrap();
    let refused = model.unet().unwrap().forward(&z, 41.0, &six).unwrap_err().to_string();
    assert!(refused.contains("conditioned on 5 sizes, but got 6"), "{refused}");
}

/// Playground v2.5 in both forms: diffusers scales its latents by their mean and deviation.
#[test]
fn normalised_latents_equal_diffusers_in_both_forms() {
    let folder = tempfile::tempdir().unwrap();
    let (mean, std) = ([-1.5f32, 0.25, 0.0, 1.0], [8.0f32, 5.5, 5.0, 4.0]);
    let member = Member::of("no_mid").with_key(("edm_mean", &mean)).with_key(("edm_std", &std));
    let of_file = member.write_file(&folder.path().join("file"), &[]);
    let of_folder = member.write_folder(&folder.path().join("model"));
    let config = of_folder.join("vae/config.json");
    let change = |keys: &[(&str, serde_json::Value)]| {
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        keys.iter().for_each(|(key, value)| json[*key] = value.clone());
        std::fs::write(&config, json.to_string()).unwrap();
    };
    change(&[
        ("latents_mean", mean.to_vec().into()),
        ("latents_std", std.to_vec().into()),
        ("scaling_factor", 0.5.into()),
    ]);
    let expected = tensors("families/outputs.safetensors");
    // The autoencoder of another model does not change what the U-Net takes.
    let plain = Member::of("ssd1b").write_folder(&folder.path().join("plain"));
    let replaced = ModelSource { vae: Some(plain.join("vae")), ..source(&of_folder) };
    let all = [open(&of_folder), open(&of_file), Blueprint::open(&replaced).unwrap()];
    for blueprint in all {
        assert_eq!(blueprint.info.family, Family::Playground);
        assert_eq!(blueprint.member(), "SDXL on normalised latents (as Playground v2.5)");
        assert_eq!(blueprint.info.limits, []);
        let vae = blueprint.load_vae(&f32s()).unwrap();
        let encoded = vae.encode(&raw("picture", &[1, 3, 16, 16])).unwrap();
        assert_close("encoded", &encoded, &expected["playground.encoded"], NETWORK);
        let decoded = vae.decode(&raw("latent", &[1, 4, 2, 2])).unwrap();
        assert_close("decoded", &decoded, &expected["playground.decoded"], NETWORK);
    }
    assert_eq!(open(&of_file).markers.edm_latents, Some(EdmLatents { mean: mean.to_vec(), std: std.to_vec() }));
    for (family, shares) in [(Family::Playground, true), (Family::Sdxl, false), (Family::Sd1, false)] {
        assert_eq!(Family::Playground.shares_latents(family), shares);
    }
    let short = Member::of("no_mid").with_key(("edm_mean", &mean[..3])).with_key(("edm_std", &std));
    let found = problems(&short.write_file(&folder.path().join("short"), &[]));
    assert!(found.contains("`edm_mean` has 3 entries for latents of 4 channels"), "{found}");
    let found =
        problems(&Member::of("no_mid").with_key(("edm_std", &std)).write_file(&folder.path().join("half"), &[]));
    assert!(found.contains("`edm_mean` has 0 entries"), "{found}");
    change(&[("latents_std", serde_json::Value::Null)]);
    assert!(problems(&of_folder).contains("`latents_mean` is given, and `latents_std` is missing"));
    change(&[("latents_std", vec![1.0, 0.0, 1.0, 1.0].into())]);
    assert!(problems(&of_folder).contains("`latents_std` must be above 0, but is 0"));
}

#[test]
fn inspect_names_the_member_and_what_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        Member::of("ssd1b").write_folder(&folder.path().join("model")),
        Member::of("ssd1b").write_file(&folder.path().join("file"), &[]),
    ] {
        let file = path.is_file();
        let survey = Survey::of(ModelLocation::from(path));
        assert_eq!((survey.family, survey.member.as_deref()), (Some("sdxl"), Some("SSD-1B")));
        let told = survey.told.join("\n");
        let words = if file { "the numbers of `transformer_blocks`" } else { "`mid_block_type` of unet/config.json" };
        assert!(told.contains("[[4, 4, 10], [2, 1, 1]]") && told.contains(words), "{told}");
        assert!(survey.limits.is_empty());
    }
}

#[test]
fn other_architectures_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    for (class, words) in [
        ("KolorsPipeline", &["Kolors", "ChatGLM"][..]),
        ("StableDiffusion3Pipeline", &["Stable Diffusion 3", "transformer"]),
        ("FluxPipeline", &["Flux", "transformer"]),
        ("WuerstchenDecoderPipeline", &["Würstchen", "cascade"]),
        ("StableCascadeCombinedPipeline", &["Stable Cascade"]),
        ("StableDiffusionUpscalePipeline", &["upscaler"]),
        ("IFPipeline", &["DeepFloyd IF"]),
    ] {
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(model.join("model_index.json"), format!("{{\"_class_name\": \"{class}\"}}")).unwrap();
        let found = problems(&model);
        assert!(words.iter().all(|word| found.contains(word)) && found.contains(class), "{found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
    for (tensor, words) in [
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
        ("down_blocks.1.0.channelwise.0.weight", "Stable Cascade"),
        ("encoder_hid_proj.weight", "Kolors"),
        ("control_model.zero_convs.0.0.weight", "ControlNet"),
    ] {
        let path = folder.path().join("other");
        files::save(&path, &[(tensor.to_string(), vec![1], vec![0.0])], &[]);
        let found = problems(&path);
        assert!(found.contains(words) && found.contains(tensor) && found.lines().count() == 1, "{found}");
    }
}

#[test]
fn depths_that_do_not_fit_are_named() {
    let base = r#""block_out_channels": [32, 64], "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]"#;
    for (keys, words) in [
        (r#""transformer_layers_per_block": [1, [2, 1]]"#, "which needs `reverse_transformer_layers_per_block` too"),
        (
            r#""transformer_layers_per_block": [1, [2, 1, 3]], "reverse_transformer_layers_per_block": [1, 1]"#,
            "`transformer_layers_per_block` has 3 entries for the 2 layers of a level",
        ),
        (
            r#""reverse_transformer_layers_per_block": [1, [1, 1]]"#,
            "`reverse_transformer_layers_per_block` has 2 entries for the 3 layers of a level",
        ),
        (
            r#""mid_block_type": "UNetMidBlock2DSimpleCrossAttn""#,
            "`mid_block_type` is \"UNetMidBlock2DSimpleCrossAttn\"",
        ),
        (r#""layers_per_block": 16777216"#, "`layers_per_block` must be between 0 and 256, but is 16777216"),
        (r#""transformer_layers_per_block": 16777216"#, "a transformer has at most 256 blocks"),
        (r#""time_cond_proj_dim": 3"#, "`time_cond_proj_dim` is 3"),
        (r#""in_channels": 7"#, "`in_channels` is 7 and `out_channels` 4"),
        (r#""encoder_hid_dim_type": "text_proj""#, "`encoder_hid_dim_type` is \"text_proj\""),
    ] {
        let error = UNetConfig::parse(format!("{{{base}, {keys}}}").as_bytes(), "config.json").unwrap_err().to_string();
        assert!(error.starts_with("config.json: ") && error.contains(words), "{keys}: {error}");
    }
}

#[test]
fn networks_of_full_size_have_the_published_names_and_shapes() {
    for name in ["sd2", "refiner", "ssd1b", "vega"] {
        let (config, rows) = full(name);
        let w = Weights::new(TensorMap::declared(name, files::declared(&rows)), &f32s());
        UNet::new(UNetConfig::parse(config.as_bytes(), name).unwrap(), &w).unwrap();
        w.finish().unwrap();
    }
    let (config, rows) = full("clip_h");
    let w = Weights::new(TensorMap::declared("clip_h", files::declared(&rows)), &f32s());
    ClipTextModel::new(&ClipTextConfig::parse(config.as_bytes(), "clip_h", false).unwrap(), &w).unwrap();
    w.finish().unwrap();
}

/// The whole file has the autoencoder and the other text encoders of the public files beside the network.
#[test]
fn single_files_of_full_size_are_whole_models() {
    let folder = tempfile::tempdir().unwrap();
    for (name, family, member, side) in [
        ("sd2", Family::Sd2, "Stable Diffusion 2.x, ε-prediction (as 2-base)", 512),
        ("refiner", Family::SdxlRefiner, "SDXL's refiner", 1024),
        ("ssd1b", Family::Sdxl, "SSD-1B", 1024),
        ("vega", Family::Sdxl, "Segmind Vega", 1024),
    ] {
        let path = files::sparse_model(&folder.path().join(name), name);
        let blueprint = open(&path);
        assert_eq!((blueprint.info.family, blueprint.info.picture_size), (family, side), "{name}");
        assert_eq!(blueprint.member(), member);
        assert!(blueprint.unknown.is_empty(), "{name}: {:?}", blueprint.unknown);
        let (config, rows) = full(name);
        let map = &blueprint.unet.1;
        let found: BTreeMap<_, _> = map.names().map(|n| (n.to_string(), map.shape(n).unwrap().into_owned())).collect();
        assert!(found == files::declared(&rows), "{name}: names or shapes differ");
        // The inferred configuration is that of the folder, except for what no tensor shows.
        let mut folder = UNetConfig::parse(config.as_bytes(), name).unwrap();
        (folder.sample_size, folder.upcast_attention) = (blueprint.unet.0.sample_size, false);
        assert_eq!(format!("{folder:?}"), format!("{:?}", blueprint.unet.0));
        if name == "sd2" {
            let map = &blueprint.encoders[0].tensors;
            let found: BTreeMap<_, _> =
                map.names().map(|n| (n.to_string(), map.shape(n).unwrap().into_owned())).collect();
            assert!(found == files::declared(&full("clip_h").1));
        }
    }
}
