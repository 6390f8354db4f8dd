//! Models of further families in the engine: Stable Diffusion 2 runs under every guidance, and inpainting and
//! InstructPix2Pix models run at the nodes that take an image.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lsregen_engine::{
    Cancel, Event, Executor, FileDigests, Host, Lanes, OutputRules, Plan, RunRequest, Source, Store, check,
};
use lsregen_nodes::{ComputeOptions, DtypeOption, registry};
use lsregen_tensor::candle_core::{Device, Tensor, safetensors};
use lsregen_tensor::image::{RgbImage, png};
use serde_json::{Value, json};

/// Writes a copy of the built-in GLIGEN model without its fusers, a Stable Diffusion 1 model, with other keys in the
/// configuration of its U-Net and other weights.
fn variant(to: &Path, keys: &[(&str, Value)], edit: impl Fn(&mut HashMap<String, Tensor>)) {
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/shapes/gligen"), to);
    let config = to.join("unet/config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["attention_type"] = json!("default");
    keys.iter().for_each(|(key, value)| json[*key] = value.clone());
    std::fs::write(&config, json.to_string()).unwrap();
    let weights = to.join("unet/diffusion_pytorch_model.safetensors");
    let mut tensors = safetensors::load(&weights, &Device::Cpu).unwrap();
    tensors.retain(|name, _| !name.contains(".fuser.") && !name.starts_with("position_net."));
    edit(&mut tensors);
    safetensors::save(&tensors, &weights).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { _ = std::fs::copy(&path, target).unwrap() }
    }
}

/// The projections of transformers as matrices, as in Stable Diffusion 2, in place of 1×1 convolutions.
fn linear(tensors: &mut HashMap<String, Tensor>) {
    let is_projection = |name: &str| name.ends_with("proj_in.weight") || name.ends_with("proj_out.weight");
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| is_projection(name)) {
        *tensor = tensor.squeeze(3).unwrap().squeeze(2).unwrap();
    }
}

fn host(folder: &Path) -> Host {
    let numerics = ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false);
    let host = Host::new(folder, folder).with_fingerprint(numerics.fingerprint()).with_service(numerics);
    host.with_output_rules(OutputRules { overwrite: true, ..OutputRules::default() })
}

fn graph(model: &str, nodes: &str) -> Arc<Source> {
    let head = "lsregen: 1\nnodes:\n";
    let text = format!("{head}  model: {{ type: LoadModel, model: {model} }}\n{nodes}");
    Source::new("graph.yaml", text)
}

fn errors(folder: &Path, model: &str, nodes: &str) -> Vec<String> {
    let checked = check(graph(model, nodes), &[], &registry(), &host(folder));
    checked.diagnostics.iter().filter(|d| d.is_error()).map(|d| d.message.clone()).collect()
}

/// Runs a graph and returns the image that it writes.
fn image(folder: &Path, model: &str, nodes: &str) -> Vec<u8> {
    let (host, store) = (Arc::new(host(folder)), Arc::new(Store::in_memory(1 << 30)));
    let checked = check(graph(model, nodes), &[], &registry(), &host);
    let found: Vec<_> = checked.diagnostics.iter().filter(|d| d.is_error()).map(|d| &d.message).collect();
    assert!(found.is_empty(), "{model}: {found:?}");
    let graph = Arc::new(checked.graph.unwrap());
    let plan = Plan::new(&graph, &host, &store, &FileDigests::new()).unwrap();
    let subscriber = Arc::new(|_: &Event| {});
    let order = RunRequest { graph, plan, host, subscriber, cancel: Cancel::new(), fail_fast: false };
    let executor = Executor::new(Lanes::NARROW, store.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let summary = runtime.block_on(async { executor.start(order).finished().await });
    assert!(summary.succeeded(), "{:?}", summary.nodes);
    lsregen_tensor::image::load(&folder.join("x.png")).unwrap().into_raw()
}

const LAYOUT: &str = "  layout: { type: Layout, boxes: [{ phrase: a red circle, box: [0, 0, 0.5, 0.5] }] }\n";

/// A sampling of two steps with these guidances, decoded and saved.
fn sampling(node: &str, guidances: &str) -> String {
    let sample = match node {
        "MultiDiffusionSample" => "layout: layout, guidance: []",
        _ => guidances,
    };
    format!(
        "{LAYOUT}  boxdiff: {{ type: BoxDiff, layout: layout }}\n  energy: {{ type: LayoutGuidance, layout: layout }}\n  \
         bounded: {{ type: BoundedAttention, layout: layout }}\n  sample: {{ type: {node}, model: model, {sample}, prompt: a \
         red circle on sand, steps: 2, cfg: 3, width: 64, height: 64 }}\n  image: {{ type: Decode, model: model, latent: \
         sample }}\n  save: {{ type: SaveImage, image: image, path: x.png }}\n"
    )
}

/// LSReGen: the plain image is inverted and guides a second sampling, together with LowPass.
const INVERTED: &str =
    "  first: { type: GuidedSDSample, model: model, guidance: [], prompt: sand, steps: 2, width: 64, height: 64 }
  invert: { type: Invert, model: model, latent: first, prompt: moss, steps: 2 }
  picture: { type: Decode, model: model, latent: first }
  low: { type: LowPass, image: picture }
  sample: { type: GuidedSDSample, model: model, guidance: [invert, low], prompt: moss, steps: 2, width: 64, height: 64 }
  image: { type: Decode, model: model, latent: sample }
  save: { type: SaveImage, image: image, path: x.png }
";

/// Matrices compute what 1×1 convolutions do, so that both models generate the same images.
#[test]
fn stable_diffusion_2_runs_under_the_guidances() {
    let folder = tempfile::tempdir().unwrap();
    variant(&folder.path().join("sd1"), &[], |_| {});
    let keys = [("use_linear_projection", json!(true)), ("upcast_attention", json!(true))];
    variant(&folder.path().join("sd2"), &keys, linear);
    for nodes in [
        sampling("GuidedSDSample", "guidance: [boxdiff]"),
        sampling("GuidedSDSample", "guidance: [energy, bounded]"),
        sampling("MultiDiffusionSample", ""),
        INVERTED.to_string(),
    ] {
        let images = ["./sd1", "./sd2"].map(|model| image(folder.path(), model, &nodes));
        assert!(images[0] == images[1], "{nodes}");
    }
    let wide = INVERTED.replace("prompt: moss, steps: 2 }\n  picture", "steps: 2, crop: [8, 0] }\n  picture");
    let checked = check(graph("./sd2", &wide), &[], &registry(), &host(folder.path()));
    let found: Vec<_> = checked.diagnostics.iter().filter(|d| d.code == "no-effect").map(|d| &d.message).collect();
    assert!(
        found.len() == 1 && found[0].contains("`crop` has no effect with a model of the family `sd2`"),
        "{found:?}"
    );
    for (node, family) in [("SDXLSample", "sdxl"), ("GLIGENLayout", "gligen")] {
        let boxes = if node == "GLIGENLayout" { ", boxes: []" } else { "" };
        let nodes = format!("  sample: {{ type: {node}, model: model, prompt: x{boxes} }}\n");
        let found = errors(folder.path(), "./sd2", &nodes).join("\n");
        assert!(found.contains(family) && found.contains("`model` is of the family `sd2`"), "{found}");
    }
}

/// Other numbers for the channels after the latent, so that they count.
fn mixed(tensors: &mut HashMap<String, Tensor>, channels: usize) {
    let conv = tensors.get_mut("conv_in.weight").unwrap();
    *conv = Tensor::cat(&[&*conv, &conv.repeat((1, 2, 1, 1)).unwrap().narrow(1, 0, channels).unwrap()], 1).unwrap();
}

/// Writes an inpainting and an InstructPix2Pix model, `picture.png`, another of the same size, and `tall.png`.
fn models_with_images(folder: &Path) {
    variant(&folder.join("plain"), &[], |_| {});
    variant(&folder.join("inpaint"), &[("in_channels", json!(9))], |t| mixed(t, 5));
    variant(&folder.join("edit"), &[("in_channels", json!(8))], |t| mixed(t, 4));
    for (name, height, blue) in [("picture", 48, 0), ("other", 48, 255), ("tall", 72, 0)] {
        let image = RgbImage::from_fn(64, height, |x, y| [4 * x as u8, if y < 24 { 127 } else { 128 }, blue].into());
        std::fs::write(folder.join(format!("{name}.png")), png(&image, &[]).unwrap()).unwrap();
    }
    let mask = RgbImage::from_fn(64, 48, |x, _| if x < 32 { [127; 3] } else { [128; 3] }.into());
    std::fs::write(folder.join("mask.png"), png(&mask, &[]).unwrap()).unwrap();
}

/// A sampling with these links and parameters, and all images that it may link.
fn changed(more: &str) -> String {
    let images =
        ["picture", "other", "tall", "mask"].map(|name| format!("  {name}: {{ type: LoadImage, path: {name}.png }}\n"));
    let sample = format!("{{ type: GuidedSDSample, model: model, prompt: a red circle, steps: 2, cfg: 3, {more} }}");
    let save = "  image: { type: Decode, model: model, latent: sample }\n  save: { type: SaveImage, image: image, path: x.png }\n";
    format!("{}  layout: {{ type: Layout, boxes: [] }}\n  sample: {sample}\n{save}", images.concat())
}

#[test]
fn inpainting_and_editing_depend_on_their_images() {
    let folder = tempfile::tempdir().unwrap();
    models_with_images(folder.path());
    let at = |model: &str, more: &str| image(folder.path(), model, &changed(more));
    let filled = at("./inpaint", "guidance: [], image: picture, mask: mask");
    // The size is that of the image.
    assert_eq!(filled.len(), 64 * 48 * 3);
    assert!(at("./inpaint", "guidance: [], image: other, mask: mask") != filled);
    assert!(at("./inpaint", "guidance: [], image: picture, mask: picture") != filled);
    let edited = at("./edit", "guidance: [], image: picture");
    assert_eq!(edited.len(), 64 * 48 * 3);
    assert!(at("./edit", "guidance: [], image: other") != edited);
    assert!(at("./edit", "guidance: [], image: picture, image_cfg: 2") != edited);
    // Guidance by attention runs with both.
    for (model, images) in [("./inpaint", "image: picture, mask: mask"), ("./edit", "image: picture")] {
        let nodes = sampling("GuidedSDSample", &format!("guidance: [boxdiff, energy, bounded], {images}"));
        let loads = "  picture: { type: LoadImage, path: picture.png }\n  mask: { type: LoadImage, path: mask.png }\n";
        let nodes = nodes.replace(", width: 64, height: 64", "");
        assert_eq!(image(folder.path(), model, &format!("{loads}{nodes}")).len(), 64 * 48 * 3);
    }
}

#[test]
fn images_that_do_not_fit_the_model_are_errors_of_the_check() {
    let folder = tempfile::tempdir().unwrap();
    models_with_images(folder.path());
    for (model, more, words) in [
        ("./inpaint", "", "the model is an inpainting model, but `image` is missing"),
        ("./inpaint", "image: picture", "the model is an inpainting model, but `mask` is missing"),
        ("./inpaint", "image: picture, mask: tall", "`mask` has 64×72 pixels, but this sampling generates 64×48"),
        ("./inpaint", "image: tall, mask: tall, width: 64, height: 48", "`image` has 64×72 pixels, but"),
        ("./edit", "", "the model is an InstructPix2Pix model, but `image` is missing"),
        ("./edit", "image: picture, mask: mask", "the model takes no `mask`: it is an InstructPix2Pix model"),
        ("./plain", "image: picture", "the model takes no `image`: it is neither an inpainting nor"),
        ("./plain", "mask: mask", "the model takes no `mask`: it is not an inpainting model"),
        ("./inpaint", "image: shots, mask: mask", "`image` takes a single image, but `shots` is a batch of 2"),
        ("./inpaint", "image: picture, mask: shots", "`mask` takes a single image, but `shots` is a batch of 2"),
    ] {
        let batch = "  many: { type: GuidedSDSample, model: model, guidance: [], prompt: x, count: 2, width: 64, height: 48 }\n  \
                     shots: { type: Decode, model: model, latent: many }\n";
        let nodes = changed(&format!("guidance: [], {more}"));
        let found = errors(folder.path(), model, &format!("{batch}{nodes}"));
        assert!(found.iter().any(|error| error.contains(words)), "{model} {more}: {found:?}");
    }
    let checked =
        check(graph("./plain", &changed("guidance: [], image_cfg: 2")), &[], &registry(), &host(folder.path()));
    assert!(checked.diagnostics.iter().any(|d| d.code == "no-effect" && d.message.starts_with("`image_cfg`")));
}

#[test]
fn nodes_without_an_image_refuse_models_that_take_one() {
    let folder = tempfile::tempdir().unwrap();
    models_with_images(folder.path());
    let attention = "  z: { type: VAEEncode, model: model, image: picture }\n  picture: { type: LoadImage, path: x.png }\n  \
                     map: { type: AttentionMap, model: model, latent: z, prompt: a circle, phrase: circle }\n";
    for (model, words) in [("./inpaint", "it is an inpainting model"), ("./edit", "it is an InstructPix2Pix model")] {
        let found = errors(folder.path(), model, attention);
        let refused =
            |error: &&String| error.starts_with("`model` cannot be used by this node: ") && error.contains(words);
        assert_eq!(found.iter().filter(refused).count(), 1, "{found:?}");
    }
}

/// LSReGen and MultiDiffusion on models that take an image: it reaches the inversion and each region.
#[test]
fn inversions_and_regions_have_the_image() {
    let folder = tempfile::tempdir().unwrap();
    models_with_images(folder.path());
    let inverted = |images: &str, of_inversion: &str| {
        let nodes = changed(&format!("guidance: [invert], {images}"));
        let z = "  z: { type: VAEEncode, model: model, image: other }\n";
        let invert = format!(
            "  invert: {{ type: Invert, model: model, latent: z, prompt: a red circle, steps: 2, {of_inversion} }}\n"
        );
        format!("{z}{invert}{nodes}")
    };
    let regions = |images: &str| {
        let nodes = changed(&format!("guidance: [], {images}")).replace("GuidedSDSample", "MultiDiffusionSample");
        let layout = "layout: { type: Layout, boxes: [{ phrase: moss, box: [0, 0, 0.5, 0.5] }] }";
        nodes
            .replace("layout: { type: Layout, boxes: [] }", layout)
            .replace("guidance: []", "guidance: [], layout: layout")
    };
    let at = |model: &str, nodes: &str| image(folder.path(), model, nodes);
    for (model, mask, other_mask) in [("./inpaint", ", image_mask: mask", ", image_mask: picture"), ("./edit", "", "")]
    {
        let own = if mask.is_empty() { "image: picture" } else { "image: picture, mask: mask" };
        let guided = at(model, &inverted(own, &format!("image: picture{mask}")));
        assert!(at(model, &inverted(own, &format!("image: other{mask}"))) != guided, "{model}");
        if !mask.is_empty() {
            assert!(at(model, &inverted(own, &format!("image: picture{other_mask}"))) != guided, "{model}");
        }
        let noised = at(model, &inverted(own, "mode: noise"));
        assert!(noised != guided, "{model}: the noise needs no image");
        let sampled = at(model, &regions(own));
        assert!(at(model, &regions(&own.replace("image: picture", "image: other"))) != sampled, "{model}");
        let found = errors(folder.path(), model, &inverted(own, ""));
        assert!(found.iter().any(|error| error.contains("but `image` is missing")), "{found:?}");
        let found = errors(folder.path(), model, &regions(""));
        assert!(found.iter().any(|error| error.contains("but `image` is missing")), "{found:?}");
    }
    let found = errors(folder.path(), "./plain", &inverted("", "image: picture, image_mask: mask"));
    for socket in ["image", "image_mask"] {
        assert!(found.iter().any(|error| error.starts_with(&format!("the model takes no `{socket}`"))), "{found:?}");
    }
    let scale =
        |cfg: &str| at("./edit", &inverted("image: picture", &format!("image: picture, cfg: 3, image_cfg: {cfg}")));
    assert!(scale("2") != scale("1.5"), "the scale reaches the inversion");
}

/// A latent consistency model takes the guidance scale as an input, so that the unconditional half is never computed.
#[test]
fn a_latent_consistency_model_runs_with_its_guidance_scale() {
    let folder = tempfile::tempdir().unwrap();
    variant(&folder.path().join("lcm"), &[("time_cond_proj_dim", json!(16))], |tensors| {
        let (from, _) = tensors["time_embedding.linear_1.weight"].t().unwrap().dims2().unwrap();
        let projection = Tensor::full(0.1f32, (from, 16), &Device::Cpu).unwrap();
        tensors.insert("time_embedding.cond_proj.weight".into(), projection);
    });
    let at = |more: &str| {
        let nodes =
            sampling("GuidedSDSample", "guidance: [], sampler: lcm").replace(", cfg: 3,", &format!(", {more},"));
        image(folder.path(), "./lcm", &nodes)
    };
    assert!(at("cfg: 8") != at("cfg: 2"));
    assert!(at("cfg: 8, negative: a blue square") == at("cfg: 8"));
}

#[test]
fn freeu_and_perturbed_attention_run_in_every_sampling() {
    let folder = tempfile::tempdir().unwrap();
    models_with_images(folder.path());
    let (freeu, pag) = ("freeu: { b1: 1.5, b2: 1.6, s1: 0.9, s2: 0.2 }", "pag: { scale: 3 }");
    for (model, images) in [
        ("./plain", ""),
        ("./inpaint", ", image: picture, mask: mask"),
        ("./edit", ", image: picture"),
        ("shapes/gligen", ""),
    ] {
        let at = |more: &str| image(folder.path(), model, &changed(&format!("guidance: []{images}{more}")));
        let plain = at("");
        for more in [freeu, pag, "pag: { scale: 3, layers: [up.block_1, down_blocks.1.attentions.0] }"] {
            assert!(at(&format!(", {more}")) != plain, "{model} {more}");
        }
    }
    // Guidances through the network, by attention and in the image.
    let look = "  look: { type: ColourLayout, colours: [{ colour: \"#ff0000\", box: [0, 0, 0.5, 0.5] }] }\n";
    let at = |more: &str| {
        let nodes = sampling("GuidedSDSample", &format!("guidance: [boxdiff, look]{more}"));
        image(folder.path(), "./plain", &format!("{look}{nodes}"))
    };
    assert!(at("") != at(&format!(", {freeu}, {pag}")));
}

#[test]
fn layers_that_the_model_lacks_are_errors_of_the_check() {
    let folder = tempfile::tempdir().unwrap();
    variant(&folder.path().join("plain"), &[], |_| {});
    let nodes = changed("guidance: [], pag: { scale: 3, layers: [mid, up_blocks.7, down.block_1.attentions_9] }");
    let checked = check(graph("./plain", &nodes), &[], &registry(), &host(folder.path()));
    let found: Vec<_> = checked.diagnostics.iter().filter(|d| d.message.contains("no self-attention")).collect();
    assert_eq!(found.len(), 2);
    for (found, name) in found.iter().zip(["up_blocks.7", "down.block_1.attentions_9"]) {
        assert_eq!(found.message, format!("this model has no self-attention in `{name}`"));
        assert!(found.help.as_ref().unwrap().contains(", mid, up, "), "{:?}", found.help);
    }
}
