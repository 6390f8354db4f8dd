//! Compares every network with diffusers and transformers. `fixtures/networks.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use common::{assert_close, fixture, keys, shapes, tensors};
use lsregen_diffusion::models::clip::ClipTextModel;
use lsregen_diffusion::models::clip::ClipTokenizer;
use lsregen_diffusion::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use lsregen_diffusion::models::gligen::Grounding;
use lsregen_diffusion::models::unet::{Added, Conditioning, UNet};
use lsregen_diffusion::models::vae::AutoencoderKl;
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_weights::{ModelFiles, Precision, TensorMap, Weights};

/// Largest relative error of a network in f32.
const NETWORK: f64 = 1e-4;

fn config(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("networks/{name}.json"))).unwrap()
}

fn f32s() -> Precision {
    Precision::new(DType::F32, &Device::Cpu)
}

/// A built-in model, read from its folder.
fn built_in(name: &str) -> Model {
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap();
    Model::new(blueprint, f32s(), false)
}

fn weights(name: &str, dtype: DType) -> Weights {
    let files = ModelFiles::Folder(fixture("networks"));
    Weights::open(&files, &format!("{name}.safetensors"), &Precision::new(dtype, &Device::Cpu)).unwrap()
}

fn unet(name: &str, dtype: DType) -> UNet {
    let w = weights(name, dtype);
    let net = UNet::new(UNetConfig::parse(&config(name), name).unwrap(), &w).unwrap();
    w.finish().unwrap();
    net
}

fn conditioning(io: &HashMap<String, Tensor>) -> Conditioning {
    let added = io.get("text_embeds").map(|t| Added { text_embeds: t.clone(), time_ids: io["time_ids"].clone() });
    Conditioning { context: io["context"].clone(), added, objs: None, guidance: None, channels: None }
}

fn grounding(io: &HashMap<String, Tensor>) -> Grounding {
    Grounding { boxes: io["boxes"].clone(), embeddings: io["embeddings"].clone(), masks: io["masks"].clone() }
}

#[test]
fn unets_of_other_shapes_equal_diffusers() {
    for name in ["unet_sd1", "unet_odd", "unet_xl"] {
        let io = tensors(&format!("networks/{name}.io.safetensors"));
        let out = unet(name, DType::F32).forward_each(&io["z"], &io["t"], &conditioning(&io)).unwrap();
        assert_close(name, &out, &io["out"], NETWORK);
    }
}

#[test]
fn gligen_unets_equal_diffusers_grounded_and_not() {
    for name in ["unet_gligen", "unet_gligen_image"] {
        let io = tensors(&format!("networks/{name}.io.safetensors"));
        let net = unet(name, DType::F32);
        let mut c = conditioning(&io);
        let off = net.forward_each(&io["z"], &io["t"], &c).unwrap();
        assert_close(&format!("{name}, fusers off"), &off, &io["ungrounded"], NETWORK);
        c.objs = Some(net.grounding_tokens(&grounding(&io)).unwrap());
        assert_close(&format!("{name}, tokens"), c.objs.as_ref().unwrap(), &io["objs"], NETWORK);
        let out = net.forward_each(&io["z"], &io["t"], &c).unwrap();
        assert_close(name, &out, &io["out"], NETWORK);
    }
}

#[test]
fn autoencoder_of_another_shape_equals_diffusers() {
    let (w, io) = (weights("vae", DType::F32), tensors("networks/vae.io.safetensors"));
    let vae = AutoencoderKl::new(VaeConfig::parse(&config("vae"), "vae").unwrap(), &w).unwrap();
    w.finish().unwrap();
    assert_close("encode", &vae.encode(&io["picture"]).unwrap(), &io["encoded"], NETWORK);
    assert_close("decode", &vae.decode(&io["z"]).unwrap(), &io["decoded"], NETWORK);
    let odd = Tensor::zeros((1, 3, 42, 24), DType::F32, &Device::Cpu).unwrap();
    assert!(vae.encode(&odd).unwrap_err().to_string().contains("multiples of 4"));
}

#[test]
fn text_encoders_of_other_shapes_equal_transformers() {
    for name in ["clip_text", "clip_legacy"] {
        let (w, io) = (weights(name, DType::F32), tensors(&format!("networks/{name}.io.safetensors")));
        let json = config(name);
        let projects = String::from_utf8_lossy(&json).contains("WithProjection");
        let model = ClipTextModel::new(&ClipTextConfig::parse(&json, name, projects).unwrap(), &w).unwrap();
        w.finish().unwrap();
        let ids = io["ids"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
        let text = model.forward(&ids).unwrap();
        assert_close(&format!("{name} last"), &text.last_hidden_state, &io["last"], NETWORK);
        assert_close(&format!("{name} penultimate"), &text.penultimate, &io["penultimate"], NETWORK);
        assert_close(&format!("{name} pooled"), &text.pooled, &io["pooled"], NETWORK);
        assert_eq!(text.text_embeds.is_some(), io.contains_key("text_embeds"));
        if let Some(t) = text.text_embeds {
            assert_close(&format!("{name} projected"), &t, &io["text_embeds"], NETWORK);
        }
    }
}

#[test]
fn built_in_models_equal_the_reference() {
    let io = tensors("builtin.safetensors");
    let tokens = fixture_tokens();
    for (folder, n) in [("gligen/text_encoder", 0), ("xl/text_encoder", 0), ("xl/text_encoder_2", 1)] {
        let (model, _) = folder.split_once('/').unwrap();
        let model = built_in(model);
        let encoder = &model.blueprint().encoders[n];
        let (clip, tokenizer) = (encoder.load(&f32s()).unwrap(), encoder.tokenizer().unwrap());
        let ids = ["", "a red circle and a blue star on sand"].map(|t| tokenizer.encode(t).unwrap());
        let text = clip.forward(&ids).unwrap();
        assert_close(folder, &text.last_hidden_state, &io[&format!("{folder}.last")], NETWORK);
        assert_close(folder, &text.penultimate, &io[&format!("{folder}.penultimate")], NETWORK);
        if let Some(t) = text.text_embeds {
            assert_close(folder, &t, &io[&format!("{folder}.text_embeds")], NETWORK);
        }
    }
    assert!(!tokens.is_empty());

    let part = |name: &str, keys: &[&str]| -> HashMap<String, Tensor> {
        keys.iter().map(|k| (k.to_string(), io[&format!("{name}.{k}")].clone())).collect()
    };
    let gligen = built_in("gligen").unet().unwrap();
    let p = part("gligen", &["z", "context", "boxes", "embeddings", "masks", "out"]);
    let mut c = conditioning(&p);
    c.objs = Some(gligen.grounding_tokens(&grounding(&p)).unwrap());
    assert_close("gligen", &gligen.forward(&p["z"], 501.0, &c).unwrap(), &p["out"], NETWORK);

    let xl = built_in("xl").unet().unwrap();
    let p = part("xl", &["z", "context", "text_embeds", "time_ids", "out"]);
    assert_close("xl", &xl.forward(&p["z"], 901.0, &conditioning(&p)).unwrap(), &p["out"], NETWORK);

    let vae = built_in("gligen").vae().unwrap();
    assert_close("vae encode", &vae.encode(&io["vae.picture"]).unwrap(), &io["vae.encoded"], NETWORK);
    assert_close("vae decode", &vae.decode(&io["vae.z"]).unwrap(), &io["vae.decoded"], NETWORK);
}

fn fixture_tokens() -> Vec<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(fixture("tokens.json")).unwrap()).unwrap()
}

#[derive(serde::Deserialize)]
struct Tokens {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn the_built_in_tokenizer_is_clips() {
    let cases: Vec<Tokens> = serde_json::from_slice(&std::fs::read(fixture("clip_tokens.json")).unwrap()).unwrap();
    let tokenizer = ClipTokenizer::clip("!", 77).unwrap();
    for Tokens { text, ids } in cases {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
    let padded = ClipTokenizer::clip("<|endoftext|>", 77).unwrap().encode("a photo of a cat").unwrap();
    assert_eq!(padded[..8], [49406, 320, 1125, 539, 320, 2368, 49407, 49407]);
}

#[test]
fn tokens_equal_transformers() {
    let tokenizer = ClipTokenizer::load(&ModelFiles::Folder(shapes("gligen")), "tokenizer", 77).unwrap();
    for row in fixture_tokens() {
        let text = row["text"].as_str().unwrap();
        let ids = |key: &str| serde_json::from_value::<Vec<u32>>(row[key].clone()).unwrap();
        // transformers' two tokenizers differ on Chinese characters and on control characters; ours follows the fast one.
        assert_eq!(tokenizer.encode(text).unwrap(), ids("fast"), "{text:?}");
    }
}

/// Compares the gradient of sum(out · w) with respect to the latent with central differences along random directions,
/// in f64.
fn check_gradient(what: &str, x: &Tensor, f: impl Fn(&Tensor) -> Tensor) {
    let x = x.to_dtype(DType::F64).unwrap();
    let var = candle_core::Var::from_tensor(&x).unwrap();
    let out = f(var.as_tensor());
    let weight = Tensor::randn(0f64, 1.0, out.shape(), &Device::Cpu).unwrap();
    let scalar = |t: &Tensor| (t * &weight).unwrap().sum_all().unwrap();
    let grads = scalar(&out).backward().unwrap();
    let grad = grads.get(var.as_tensor()).unwrap_or_else(|| panic!("{what}: no gradient"));
    for _ in 0..3 {
        let d = Tensor::randn(0f64, 1.0, x.shape(), &Device::Cpu).unwrap();
        let h = 1e-5;
        let at = |s: f64| scalar(&f(&(&x + (&d * s).unwrap()).unwrap())).to_scalar::<f64>().unwrap();
        let numeric = (at(h) - at(-h)) / (2.0 * h);
        let exact = (grad * &d).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        // Relative to the gradient's norm: along a direction nearly orthogonal to the gradient, both numbers are mostly
        // rounding error.
        let length = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        let error = (numeric - exact).abs() / length.max(1e-3);
        assert!(error < 1e-5, "{what}: gradient {exact}, differences {numeric}");
    }
}

#[test]
fn gradients_through_whole_networks_equal_finite_differences() {
    let wide = |c: Conditioning| Conditioning {
        context: c.context.to_dtype(DType::F64).unwrap(),
        added: c
            .added
            .map(|a| Added { text_embeds: a.text_embeds.to_dtype(DType::F64).unwrap(), time_ids: a.time_ids.clone() }),
        objs: c.objs.map(|o| o.to_dtype(DType::F64).unwrap()),
        guidance: c.guidance,
        channels: c.channels,
    };
    for name in ["unet_sd1", "unet_odd", "unet_xl", "unet_gligen"] {
        let io = tensors(&format!("networks/{name}.io.safetensors"));
        let net = unet(name, DType::F64);
        let mut c = wide(conditioning(&io));
        c.objs = io.get("objs").map(|o| o.to_dtype(DType::F64).unwrap());
        check_gradient(name, &io["z"], |z| net.forward_each(z, &io["t"], &c).unwrap());
        let z = io["z"].to_dtype(DType::F64).unwrap();
        check_gradient(&format!("{name} context"), &c.context, |context| {
            net.forward_each(&z, &io["t"], &Conditioning { context: context.clone(), ..c.clone() }).unwrap()
        });
    }
    let (w, io) = (weights("vae", DType::F64), tensors("networks/vae.io.safetensors"));
    let vae = AutoencoderKl::new(VaeConfig::parse(&config("vae"), "vae").unwrap(), &w).unwrap();
    check_gradient("decode", &io["z"], |z| vae.decode(z).unwrap());
    let (w, io) = (weights("unet_gligen", DType::F64), tensors("networks/unet_gligen.io.safetensors"));
    let net = UNet::new(UNetConfig::parse(&config("unet_gligen"), "").unwrap(), &w).unwrap();
    let mut g = grounding(&io);
    g.embeddings = g.embeddings.to_dtype(DType::F64).unwrap();
    g.masks = g.masks.to_dtype(DType::F64).unwrap();
    check_gradient("position net", &io["boxes"], |boxes| {
        net.grounding_tokens(&Grounding { boxes: boxes.clone(), ..g.clone() }).unwrap()
    });
}

/// Name → shape of each tensor.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Names and shapes of a real checkpoint, from `fixtures/keys`.
fn real(name: &str) -> Weights {
    let text = std::fs::read_to_string(keys(&format!("{name}.json"))).unwrap();
    let shapes: Shapes = serde_json::from_str(&text).unwrap();
    Weights::new(TensorMap::declared(name, shapes), &f32s())
}

#[test]
fn real_checkpoints_load_name_by_name() {
    let sd14 = r#"{"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768"#;
    let sdxl = r#"{"sample_size": 128, "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
        "block_out_channels": [320, 640, 1280], "use_linear_projection": true, "transformer_layers_per_block": [1, 2, 10],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816}"#;
    for (name, json) in [
        ("sd14-unet", format!("{sd14}}}")),
        ("sd14-gligen-unet", format!("{sd14}, \"attention_type\": \"gated\"}}")),
        ("sd14-gligen-text-image-unet", format!("{sd14}, \"attention_type\": \"gated-text-image\"}}")),
        ("sdxl-unet", sdxl.to_string()),
    ] {
        let w = real(name);
        UNet::new(UNetConfig::parse(json.as_bytes(), name).unwrap(), &w).unwrap();
        w.finish().unwrap();
    }
    let w = real("sd-vae");
    let json = br#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}"#;
    AutoencoderKl::new(VaeConfig::parse(json, "sd-vae").unwrap(), &w).unwrap();
    w.finish().unwrap();
    for (name, json) in [
        ("clip-l-text", r#"{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}"#),
        (
            "clip-g-text",
            r#"{"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32,
                "projection_dim": 1280, "hidden_act": "gelu", "architectures": ["CLIPTextModelWithProjection"]}"#,
        ),
    ] {
        let w = real(name);
        ClipTextModel::new(&ClipTextConfig::parse(json.as_bytes(), name, json.contains("WithProjection")).unwrap(), &w)
            .unwrap();
        w.finish().unwrap();
    }
}

#[test]
fn problems_of_checkpoints_are_named() {
    let shapes = |edit: &dyn Fn(&mut Shapes)| {
        let text = std::fs::read_to_string(keys("sd14-unet.json")).unwrap();
        let mut shapes: Shapes = serde_json::from_str(&text).unwrap();
        edit(&mut shapes);
        let w = Weights::new(TensorMap::declared("unet.safetensors", shapes), &f32s());
        let config = UNetConfig::parse(br#"{"cross_attention_dim": 768}"#, "config.json").unwrap();
        UNet::new(config, &w).and_then(|_| w.finish()).unwrap_err().to_string()
    };
    let missing = shapes(&|s| {
        s.remove("conv_in.weight");
    });
    assert!(missing.contains("unet.safetensors") && missing.contains("`conv_in.weight` is missing"), "{missing}");
    let wrong = shapes(&|s| {
        s.insert("conv_out.bias".into(), vec![9]);
    });
    assert!(wrong.contains("`conv_out.bias` has shape [9]") && wrong.contains("[4]"), "{wrong}");
    let unused = shapes(&|s| {
        s.insert("extra".into(), vec![1]);
    });
    assert!(unused.contains("`extra`"), "{unused}");

    // Files that are truncated at each quarter, and random bytes.
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("networks/vae.safetensors")).unwrap();
    for part in [0, 4, 8, whole.len() / 4, whole.len() / 2, whole.len() - 1] {
        std::fs::write(folder.path().join("w.safetensors"), &whole[..part]).unwrap();
        let files = ModelFiles::Folder(folder.path().into());
        let error = Weights::open(&files, "w.safetensors", &f32s()).err().unwrap().to_string();
        assert!(error.contains("w.safetensors") && error.contains("safetensors"), "{part}: {error}");
    }
    let files = ModelFiles::Folder(folder.path().into());
    let error = Weights::open(&files, "none.safetensors", &f32s()).err().unwrap().to_string();
    assert!(error.contains("none.safetensors"), "{error}");
    for (json, word) in [
        (r#"{"act_fn": "mish"}"#, "act_fn"),
        (r#"{"class_embed_type": "timestep"}"#, "class_embed_type"),
        (r#"{"attention_head_dim": [1, 2]}"#, "attention_head_dim"),
        (r#"{"block_out_channels": []}"#, "block_out_channels"),
        (r#"{"norm_num_groups": 7}"#, "groups"),
        (r#"{"addition_embed_type": "image"}"#, "addition_embed_type"),
        ("{", "c.json"),
    ] {
        let error = UNetConfig::parse(json.as_bytes(), "c.json").unwrap_err().to_string();
        assert!(error.contains("c.json") && error.contains(word), "{json}: {error}");
    }
}
