//! Parameters and the files that they name: what a check can find out about a node before it runs.

use std::path::Path;
use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Host, Node, NodeError, Payload};
use lsregen_nodes::values::Model;
use lsregen_nodes::*;
use lsregen_tensor::candle_core::Device;
use serde_json::{Value as Json, json};

fn host(folder: &Path) -> Arc<Host> {
    let numerics = ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false);
    Arc::new(Host::new(folder, folder).with_fingerprint(numerics.fingerprint()).with_service(numerics))
}

fn here() -> Context {
    Context::detached(host(Path::new(".")))
}

/// Creates a node from its parameters in a document.
fn node<N: Node>(params: Json) -> N {
    serde_json::from_value(params).unwrap()
}

fn load(name: &str) -> Arc<Model> {
    node::<LoadModel>(json!({ "model": name })).run((), &here()).unwrap().model
}

fn errors(name: &str, params: Json) -> Vec<NodeError> {
    let host = host(Path::new("."));
    let entry = registry();
    let node = (entry.get(name).unwrap().node_type.decode)(&params).unwrap();
    node.check(&CheckContext::new(&host))
}

#[test]
fn models_are_described_before_they_are_loaded() {
    let host = host(Path::new("."));
    let cx = CheckContext::new(&host);
    let model = |name: &str| node::<LoadModel>(json!({ "model": name }));
    assert_eq!(Node::variants(&model("shapes/gligen"), &cx), [("model", "gligen".to_string())]);
    assert_eq!(Node::variants(&model("shapes/xl"), &cx), [("model", "sdxl".to_string())]);
    let prints = ["shapes/gligen", "shapes/xl"].map(|name| Node::fingerprint(&model(name)).unwrap());
    assert_ne!(prints[0], prints[1]);
    assert!(Node::files(&model("shapes/xl"), &cx).is_empty());
    // The weights in f32, and little more.
    assert!((10_000_000..200_000_000).contains(&lsregen_engine::Payload::bytes(&*load("shapes/xl"))));

    // The same model from a folder: `files` lists every file that is read, and no other.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/shapes/xl");
    assert_eq!(Node::check(&model(folder), &cx), []);
    assert_eq!(Node::variants(&model(folder), &cx), [("model", "sdxl".to_string())]);
    assert_eq!(Node::fingerprint(&model(folder)), None);
    let files = Node::files(&model(folder), &cx);
    assert_eq!(files.len(), 18);
    assert!(files.iter().all(|file| file.path.is_file() && file.param == "model"));
}

#[test]
fn broken_model_folders_are_reported_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/shapes/gligen"));
    for path in ["unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"] {
        std::fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
        std::fs::copy(source.join(path), folder.path().join(path)).unwrap();
    }
    std::fs::write(folder.path().join("vae/config.json"), r#"{"act_fn": "relu"}"#).unwrap();
    std::fs::write(folder.path().join("one.safetensors"), "").unwrap();
    let report = |name: &str| {
        let errors = errors("LoadModel", json!({ "model": folder.path().join(name) }));
        assert!(errors.iter().all(|error| error.path == "model"));
        errors.iter().map(|error| format!("{} {:?}\n", error.message, error.help)).collect::<String>()
    };
    let all = report("");
    for words in ["`act_fn` is \"relu\"", "vocab.json", "merges.txt", "unet/diffusion_pytorch_model.safetensors"] {
        assert!(all.contains(words), "{words}: {all}");
    }
    assert!(report("none").contains("the built-in models are shapes/gligen and shapes/xl"));
    assert!(report("one.safetensors").contains("the file is empty"));
}

#[test]
fn clips_are_described_before_they_are_loaded() {
    let host = host(Path::new("."));
    let cx = CheckContext::new(&host);
    let clip = |name: &str| node::<AsNode<ClipText>>(json!({ "clip": name, "text": "a red circle" }));
    assert_eq!((Node::check(&clip("shapes/clip"), &cx), Node::files(&clip("shapes/clip"), &cx)), (vec![], vec![]));
    assert!(Node::fingerprint(&clip("shapes/clip")).is_some());
    // The same from a folder: `files` lists every file that is read.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/shapes/clip");
    assert_eq!((Node::check(&clip(folder), &cx), Node::fingerprint(&clip(folder))), (vec![], None));
    assert_eq!(Node::files(&clip(folder), &cx).len(), 7);
    let guidance = clip(folder).run(ClipTextInputs { layout: None }, &here()).unwrap().guidance;
    // The weights in f32, and little more.
    assert!((1_900_000..2_100_000).contains(&Payload::bytes(&*guidance)), "{}", Payload::bytes(&*guidance));

    let broken = tempfile::tempdir().unwrap();
    let name = |name: &str| broken.path().join(name).to_str().unwrap().to_string();
    std::fs::write(name("one.safetensors"), "").unwrap();
    std::fs::create_dir(name("cut")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), broken.path().join("cut").join(entry.unwrap().file_name()));
        let bytes = std::fs::read(&from).unwrap();
        let whole = if from.ends_with("model.safetensors") { bytes.len() - 2 } else { bytes.len() };
        std::fs::write(to, &bytes[..whole]).unwrap();
    }
    for (clip, layer, path, words) in [
        (name("one.safetensors"), 3, "clip", "a CLIP is a folder, not a file"),
        (name("cut"), 3, "clip", "model.safetensors"),
        (name("none"), 3, "clip", "there is no CLIP"),
        ("shapes/xl".into(), 3, "clip", "there is no CLIP `shapes/xl`"),
        ("shapes/clip".into(), 5, "layer", "has 4 layers, but `layer` is 5"),
    ] {
        let [error] = &errors("Style", json!({ "clip": clip, "layer": layer }))[..] else {
            panic!("one error: {clip}")
        };
        assert_eq!(error.path, path, "{clip}");
        assert!(error.message.contains(words), "{clip}: {}", error.message);
    }
    let error = &errors("ClipText", json!({ "clip": name("none"), "text": "a" }))[0];
    assert!(error.help.as_ref().unwrap().contains("the built-in CLIP is shapes/clip"), "{error:?}");
}

/// Every error of a node's own check has the path of its parameter.
#[test]
fn errors_have_their_place() {
    let object = |bounds: Json| json!({ "phrase": "a red circle", "box": bounds });
    let good = object(json!([0, 0, 1, 1]));
    for (name, params, path, words) in [
        ("GLIGENLayout", json!({ "prompt": "" }), "", "layout is missing"),
        ("GLIGENLayout", json!({ "prompt": "", "boxes": [], "layout_file": "x.json" }), "layout_file", "twice"),
        (
            "GLIGENLayout",
            json!({ "prompt": "a red circle", "boxes": [good, object(json!([0.5, 0, 0.2, 1]))] }),
            "boxes/1/box",
            "x1 = 0.2",
        ),
        ("GLIGENLayout", json!({ "prompt": "red circle", "boxes": [good, good], "slots": 1 }), "boxes", "1 slot"),
        ("GLIGENLayout", json!({ "prompt": "", "boxes": [], "sampler": "euler", "eta": 0.5 }), "eta", "ddim"),
        ("GLIGENLayout", json!({ "prompt": "", "layout_file": "Cargo.toml" }), "layout_file", "Cargo.toml"),
        ("SDXLSample", json!({ "prompt": "", "sampler": "dpmpp_2m", "eta": 1 }), "eta", "ddim"),
        ("SDXLSample", json!({ "prompt": "", "pag": { "scale": 0 } }), "pag/scale", "its scale is 0"),
        (
            "SDXLSample",
            json!({ "prompt": "", "pag": { "scale": 3, "adaptive_scale": 3 } }),
            "pag/adaptive_scale",
            "falls to 0",
        ),
        (
            "GuidedSDSample",
            json!({ "prompt": "", "pag": { "scale": 3, "layers": ["mid", "left.block_1"] } }),
            "pag/layers/1",
            "`left.block_1` is not the name",
        ),
        (
            "MultiDiffusionSample",
            json!({ "prompt": "", "freeu": { "b1": 1, "b2": 1, "s1": 1, "s2": 1 } }),
            "freeu",
            "all its factors are 1",
        ),
        ("Invert", json!({ "window": 0.2, "from_timestep": 900 }), "from_timestep", "twice"),
        ("Invert", json!({ "mask": [[0, 0, 1, 1], [0, 0, 0, 1]] }), "mask/1", "right"),
        ("Invert", json!({ "from_timestep": 900, "to_timestep": 100 }), "to_timestep", "between 900 and 100"),
        ("Invert", json!({ "window": [0.5, 0.5] }), "window", "[0.5, 0.5]"),
        ("Invert", json!({ "schedule": "cosine", "schedule_end": 0.5 }), "schedule_end", "linear"),
        ("Upsample", json!({ "width": 8 }), "width", "without `height`"),
        ("Upsample", json!({ "height": 8 }), "height", "without `width`"),
        ("Upsample", json!({ "factor": 2, "width": 8, "height": 8 }), "factor", "twice"),
        ("SaveImage", json!({ "path": "out/picture.jpg" }), "path", ".png"),
        ("SaveLatent", json!({ "path": "out" }), "path", ".safetensors"),
    ] {
        let found = errors(name, params.clone());
        let [error] = found.as_slice() else { panic!("{name} {params}: {found:?}") };
        assert_eq!(error.path, path, "{name} {params}");
        assert!(format!("{error:?}").contains(words), "{error:?}");
    }
    // One timestep is a window, and so is one between two shares.
    for params in [json!({ "from_timestep": 500, "to_timestep": 500 }), json!({ "window": [0.5, 0.6] })] {
        assert!(errors("Invert", params.clone()).is_empty(), "{params}");
    }
}

/// What is off by default is no part of a memo key.
#[test]
fn changes_of_the_network_are_serialised_only_if_given() {
    let params = |more: Json| {
        let mut given = json!({ "prompt": "sand" });
        given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (registry().get("SDXLSample").unwrap().node_type.decode)(&given).unwrap().params().unwrap()
    };
    let plain = params(json!({}));
    assert!(plain.get("pag").is_none() && plain.get("freeu").is_none());
    assert_eq!(params(json!({ "pag": null, "freeu": null })), plain);
    let given = params(json!({ "pag": { "scale": 2 } }));
    assert_eq!(given["pag"], json!({ "scale": 2.0, "adaptive_scale": 0.0, "layers": ["mid"] }));
}

/// Every node type can be created from its required parameters, and its parameters survive serialisation.
#[test]
fn every_type_is_complete() {
    let registry = registry();
    for entry in registry.iter() {
        let name = entry.node_type.name;
        assert!(!entry.doc().is_empty(), "{name} has no documentation");
        for param in entry.params() {
            assert!(param.doc.len() > 10, "{name}.{} has no documentation", param.name);
            assert!(param.required || param.default.is_some(), "{name}.{} has no default", param.name);
        }
        for socket in entry.node_type.inputs.iter().chain(entry.node_type.outputs) {
            assert!(!socket.doc().is_empty(), "{name}.{} has no documentation", socket.name);
        }
        let some = |param: &str| match &entry.schema().as_value()["properties"][param]["type"] {
            kind if kind == "array" => json!([]),
            _ => json!("x.png"),
        };
        let required =
            entry.params().iter().filter(|param| param.required).map(|param| (param.name.clone(), some(&param.name)));
        let given = Json::Object(required.collect());
        let node = (entry.node_type.decode)(&given).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let params = node.params().unwrap();
        assert_eq!((entry.node_type.decode)(&params).unwrap().params().unwrap(), params, "{name}");
        let mut unknown = given.clone();
        unknown["no_such_key"] = json!(1);
        // With shared parameters (`flatten`) serde accepts any key, and only the schema rejects it.
        let closed = entry.schema().get("additionalProperties") == Some(&json!(false));
        assert!(closed || (entry.node_type.decode)(&unknown).is_err(), "{name} takes unknown keys");
    }
    assert!(
        registry
            .get("SDXLSample")
            .unwrap()
            .doc()
            .starts_with("Generates an image from a prompt with an SDXL model: Guided")
    );
}
