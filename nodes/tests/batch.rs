//! Batches: each image is that of its seed alone, bit for bit, and every node takes each image of a batch or refuses it.

use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use lsregen_engine::{Cancel, Cancelled, Context, EdgeValue, Effect, Event, Host, Node, Payload};
use lsregen_nodes::values::{Guidance, Image, Latent, Layout, Model, SavedFile};
use lsregen_nodes::*;
use lsregen_tensor::candle_core::Tensor;
use lsregen_tensor::candle_core::{DType, Device};
use lsregen_tensor::image::RgbImage;
use serde_json::{Value as Json, json};

static GLIGEN: LazyLock<Arc<Model>> = LazyLock::new(|| load("shapes/gligen"));
static XL: LazyLock<Arc<Model>> = LazyLock::new(|| load("shapes/xl"));

fn host(folder: &Path) -> Host {
    let numerics = ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false);
    Host::new(folder, folder).with_fingerprint(numerics.fingerprint()).with_service(numerics)
}

fn context(folder: &Path) -> Context {
    Context::detached(Arc::new(host(folder)))
}

fn here() -> Context {
    context(Path::new("."))
}

fn load(name: &str) -> Arc<Model> {
    node::<LoadModel>(json!({ "model": name })).run((), &here()).unwrap().model
}

fn node<N: Node>(params: Json) -> N {
    serde_json::from_value(params).unwrap()
}

/// The parameters of a small sampling, with others.
fn few(params: Json) -> Json {
    let mut all = json!({ "prompt": "a red circle on sand", "steps": 2, "cfg": 2, "width": 64, "height": 64 });
    all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
    all
}

/// Runs a node of this type; returns its first output.
fn run(name: &str, params: Json, inputs: Vec<Vec<EdgeValue>>) -> anyhow::Result<EdgeValue> {
    let node =
        (registry().get(name).unwrap().node_type.decode)(&params).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(node.run(inputs, &here())?.remove(0))
}

fn link<P: Payload>(value: &Arc<P>) -> Vec<EdgeValue> {
    vec![EdgeValue::new(value.clone())]
}

/// The result of a sampling node, which may be guided and may start from a latent.
fn sampled(name: &str, params: Json, guidance: &[Arc<Guidance>], latent: Option<&Arc<Latent>>) -> Arc<Latent> {
    try_sampled(name, params, guidance, latent).unwrap()
}

fn try_sampled(
    name: &str,
    params: Json,
    guidance: &[Arc<Guidance>],
    latent: Option<&Arc<Latent>>,
) -> anyhow::Result<Arc<Latent>> {
    let entry = registry().get(name).unwrap().node_type;
    let layout = Arc::new(Layout(vec![lsregen_diffusion::layout::GroundedPhrase {
        phrase: "a red circle".into(),
        bounds: [0.1, 0.1, 0.6, 0.7],
    }]));
    let inputs = entry.inputs.iter().map(|socket| match socket.name {
        "model" if socket.variants.contains(&"sdxl") || name == "MultiDiffusionSample" => link(&XL),
        "model" => link(&GLIGEN),
        "guidance" => guidance.iter().map(|guidance| EdgeValue::new(guidance.clone())).collect(),
        "layout" => link(&layout),
        "latent" => latent.into_iter().flat_map(link).collect(),
        _ => vec![],
    });
    let node = (entry.decode)(&few(params)).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let outputs = node.run(inputs.collect(), &here())?;
    Ok(outputs.iter().find_map(EdgeValue::get::<Latent>).unwrap())
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn images(image: &Image) -> Vec<Vec<u32>> {
    image.images().iter().map(|image| bits(&image.tensor().unwrap())).collect()
}

/// A batch of images of one colour each.
fn colours(count: u8) -> Arc<Image> {
    let image = |i: u8| Image::Rgb(RgbImage::from_pixel(24, 16, [40 * i, 90, 200].into()));
    let seeds = (0..u64::from(count)).map(|i| 7 + i).collect();
    Arc::new(Image::batch((0..count).map(image).collect(), seeds).unwrap())
}

fn reference() -> Arc<Guidance> {
    run("ReferenceImage", json!({ "window": 0.5 }), vec![link(&colours(1)), vec![]]).unwrap().get().unwrap()
}

fn coloured() -> Arc<Guidance> {
    let colours = json!([{ "colour": "#ff0000", "box": [0, 0, 0.5, 0.5] }]);
    let params = json!({ "colours": colours, "repeats": 2, "renoise": true, "window": [0, 1] });
    run("ColourLayout", params, vec![vec![]]).unwrap().get().unwrap()
}

/// Every image of a batch has the bits of the image that its seed gives alone, also if the seed wraps.
fn assert_equals_singles(name: &str, params: Json, guidance: &[Arc<Guidance>], seed: u64) {
    const COUNT: u64 = 3;
    let with = |seed: u64, count: Option<u64>| {
        let mut params = params.clone();
        params["seed"] = seed.into();
        params.as_object_mut().unwrap().extend(count.map(|count| ("count".to_string(), count.into())));
        sampled(name, params, guidance, None)
    };
    let batch = with(seed, Some(COUNT));
    let seeds: Vec<u64> = (0..COUNT).map(|i| seed.wrapping_add(i)).collect();
    assert_eq!((batch.count(), &batch.seeds), (3, &seeds));
    let mut seen = vec![];
    for (i, own) in seeds.into_iter().enumerate() {
        let alone = with(own, (i == 1).then_some(1));
        assert_eq!((alone.count(), &*alone.seeds), (1, &[][..]));
        let one = bits(&batch.z.narrow(0, i, 1).unwrap());
        assert!(one == bits(&alone.z), "{name} {params}: image {i} differs from that of its seed");
        assert!(!seen.contains(&one), "{name}: two images are equal");
        seen.push(one);
    }
}

#[test]
fn images_of_a_batch_are_those_of_their_seeds_under_every_kind_of_sampler() {
    for sampler in
        ["ddim", "euler", "euler_ancestral", "lcm", "dpmpp_2m", "dpmpp_sde", "dpmpp_2m_sde", "heun", "uni_pc"]
    {
        assert_equals_singles("SDXLSample", json!({ "sampler": sampler }), &[], 7);
    }
    assert_equals_singles("SDXLSample", json!({ "sampler": "ddim", "eta": 1 }), &[], u64::from(u32::MAX) - 1);
    assert_equals_singles("SDXLSample", json!({ "cfg": 1 }), &[], u64::MAX - 1);
}

#[test]
fn images_of_a_batch_are_those_of_their_seeds_under_guidance() {
    for guidance in [&[reference()][..], &[coloured()], &[reference(), coloured()]] {
        assert_equals_singles("GuidedSDXLSample", json!({}), guidance, 3);
    }
    assert_equals_singles("GuidedSDSample", json!({ "sampler": "euler_ancestral" }), &[coloured()], 3);
    assert_equals_singles("MultiDiffusionSample", json!({ "bootstrap": 1, "sampler": "lcm" }), &[reference()], 3);
    let boxes = json!([{ "phrase": "a red circle", "box": [0.1, 0.1, 0.6, 0.6] }]);
    assert_equals_singles("GLIGENLayout", json!({ "boxes": boxes, "beta": 0.5, "sampler": "ddpm" }), &[], 3);
}

/// With several input latents, each has its own seed; with one, each seed starts from it.
#[test]
fn batches_start_from_latents() {
    let latents = sampled("SDXLSample", json!({ "count": 2, "seed": 20 }), &[], None);
    let one =
        |i: usize| Arc::new(Latent { z: latents.z.narrow(0, i, 1).unwrap(), family: latents.family, seeds: vec![] });
    let params = |seed: u64| json!({ "seed": seed, "denoise": 0.5, "width": null, "height": null });
    let counted = |seed: u64| json!({ "seed": seed, "denoise": 0.5, "count": 2, "width": null, "height": null });
    let alone = |seed: u64, i: usize| bits(&sampled("SDXLSample", params(seed), &[], Some(&one(i))).z);
    for params in [params(5), counted(5)] {
        let batch = sampled("SDXLSample", params, &[], Some(&latents));
        assert_eq!(batch.seeds, [5, 6]);
        assert_eq!(bits(&batch.z), [alone(5, 0), alone(6, 1)].concat());
    }
    let batch = sampled("SDXLSample", counted(5), &[], Some(&one(1)));
    assert_eq!(bits(&batch.z), [alone(5, 1), alone(6, 1)].concat());
    for count in [1, 3] {
        let error =
            try_sampled("SDXLSample", json!({ "count": count }), &[], Some(&latents)).err().unwrap().to_string();
        assert!(error.contains(&format!("`count` is {count}, but `latent` is a batch of 2")), "{error}");
    }
}

/// A node without `count`, and with `count: 1`, has the parameters of its memo key that it had before.
#[test]
fn one_image_has_the_key_that_it_had() {
    for name in ["SDXLSample", "GuidedSDXLSample", "GuidedSDSample", "MultiDiffusionSample", "GLIGENLayout"] {
        let params = |count: Json| {
            let mut all = json!({ "prompt": "sand", "count": count });
            if name == "GLIGENLayout" {
                all["boxes"] = json!([]);
            }
            (registry().get(name).unwrap().node_type.decode)(&all).unwrap().params().unwrap()
        };
        assert_eq!(params(json!(1)), params(Json::Null), "{name}");
        assert_eq!(params(json!(1)).get("count"), None, "{name}");
        assert_eq!(params(json!(2))["count"], 2, "{name}");
    }
    // A batch has other files under these two names.
    let key = |path: &str| serde_json::to_value(node::<SaveImage>(json!({ "path": path }))).unwrap();
    assert_ne!(key("{seed=7}/x.png"), key("7/x.png"));
}

#[test]
fn nodes_of_images_and_latents_take_each_of_a_batch() {
    let latents = sampled("SDXLSample", json!({ "count": 2, "seed": 20 }), &[], None);
    let image: Arc<Image> = run("Decode", json!({}), vec![link(&XL), link(&latents)]).unwrap().get().unwrap();
    assert_eq!((image.count(), image.seeds(), image.size().unwrap()), (2, &[20, 21][..], (64, 64)));
    let layout = Arc::new(Layout(vec![lsregen_diffusion::layout::GroundedPhrase {
        phrase: "a red circle".into(),
        bounds: [0.1, 0.1, 0.6, 0.7],
    }]));
    let encoded: Arc<Latent> = run("VAEEncode", json!({}), vec![link(&XL), link(&image)]).unwrap().get().unwrap();
    assert_eq!((encoded.count(), &*encoded.seeds), (2, &[20, 21][..]));
    let changed = |name: &str, params: Json, inputs: Vec<Vec<EdgeValue>>| -> Arc<Image> {
        run(name, params, inputs).unwrap().get().unwrap()
    };
    let up = |image: &Arc<Image>| changed("Upsample", json!({ "factor": 1.5 }), vec![link(image)]);
    let drawn = |image: &Arc<Image>| changed("DrawLayout", json!({}), vec![link(image), link(&layout)]);
    assert_eq!((up(&image).seeds(), drawn(&image).seeds()), (&[20, 21][..], &[20, 21][..]));
    for i in 0..2 {
        let z = Arc::new(Latent { z: latents.z.narrow(0, i, 1).unwrap(), family: latents.family, seeds: vec![] });
        let one = changed("Decode", json!({}), vec![link(&XL), link(&z)]);
        assert!(images(&one)[0] == images(&image)[i]);
        assert!(images(&up(&one))[0] == images(&up(&image))[i]);
        assert!(images(&drawn(&one))[0] == images(&drawn(&image))[i]);
        let z: Arc<Latent> = run("VAEEncode", json!({}), vec![link(&XL), link(&one)]).unwrap().get().unwrap();
        assert!(bits(&z.z) == bits(&encoded.z.narrow(0, i, 1).unwrap()));
    }
}

/// What takes a single image refuses a batch that the check did not know of.
#[test]
fn nodes_of_a_single_image_refuse_a_batch() {
    let latents = sampled("SDXLSample", json!({ "count": 2, "steps": 1, "cfg": 1 }), &[], None);
    let (batch, one) = (colours(2), colours(1));
    let map = json!({ "prompt": "sand", "phrase": "sand" });
    let single = Arc::new(Latent { z: latents.z.narrow(0, 0, 1).unwrap(), family: latents.family, seeds: vec![] });
    let clip = json!({ "clip": "shapes/clip" });
    for (name, params, inputs) in [
        ("ReferenceImage", json!({}), vec![link(&batch), vec![]]),
        ("LowPass", json!({}), vec![link(&batch), vec![]]),
        ("Edges", json!({}), vec![link(&batch), vec![]]),
        ("ClipImage", clip.clone(), vec![link(&batch), vec![]]),
        ("Style", clip, vec![link(&batch), vec![]]),
        ("Segmentation", json!({ "regions": [{ "phrase": "sand", "colour": "#ff0000" }] }), vec![link(&batch), vec![]]),
        ("Invert", json!({}), vec![link(&XL), link(&latents), vec![]]),
        ("SDXLSample", few(json!({})), vec![link(&XL), vec![], link(&batch), vec![]]),
        ("SDXLSample", few(json!({})), vec![link(&XL), vec![], link(&one), link(&batch)]),
        ("AttentionMap", map.clone(), vec![link(&XL), link(&latents), vec![]]),
        ("AttentionMap", map, vec![link(&XL), link(&single), link(&batch)]),
    ] {
        let error = run(name, params, inputs).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("a single image is needed, but this is a batch"), "{name}: {error}");
    }
}

#[test]
fn every_image_of_a_batch_has_a_cell() {
    let grid = |params: Json, images: &[Arc<Image>]| {
        let inputs = ImageGridInputs { images: images.to_vec() };
        node::<ImageGrid>(params).run(inputs, &here()).map(|outputs| outputs.image)
    };
    let side = |cells: usize, cell: usize| cells * (cell + 4) + 4;
    let size = |images: &[Arc<Image>]| grid(json!({ "cell": 24 }), images).unwrap().size().unwrap();
    assert_eq!(size(&[colours(3)]), (side(3, 24), side(1, 16)));
    assert_eq!(size(&[colours(5), colours(5)]), (side(5, 24), side(2, 16)), "a row for each batch");
    assert_eq!(size(&[colours(2), colours(1)]), (side(3, 24), side(1, 16)));
    assert_eq!(size(&[colours(2), colours(4)]), (side(4, 24), side(2, 16)));
    let labels = json!({ "cell": 24, "labels": ["a", "b", "c"] });
    assert!(grid(labels.clone(), &[colours(3)]).is_ok() && grid(labels, &[colours(2)]).is_err());
    let sheet = grid(json!({ "cell": 24 }), &[colours(3)]).unwrap();
    let sheet = sheet.to_rgb().unwrap();
    for i in 0..3 {
        assert!(sheet.pixels().any(|pixel| pixel.0 == [40 * i, 90, 200]), "image {i} is on the sheet");
    }
}

fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

#[test]
fn a_batch_is_written_as_several_files_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let saved = Arc::new(Mutex::new(vec![]));
    let seen = saved.clone();
    let listen = move |event: &Event| {
        if let Event::Saved { path, new, .. } = event {
            seen.lock().unwrap().push((path.file_name().unwrap().to_str().unwrap().to_string(), *new));
        }
    };
    let cx = Context::new(Arc::new(host(folder.path())), "save".into(), Cancel::new(), Arc::new(listen));
    let events = || std::mem::take(&mut *saved.lock().unwrap());
    let save = |path: &str| node::<SaveImage>(json!({ "path": path }));
    let three = |path: &str| save(path).run(SaveImageInputs { image: colours(3) }, &cx).unwrap();
    let outputs = three("out/a.png");
    let names = ["a-1.png", "a-2.png", "a-3.png"];
    assert_eq!(files_in(&folder.path().join("out")), names);
    assert_eq!(events(), names.map(|name| (name.to_string(), true)));
    for (i, name) in names.iter().enumerate() {
        let image = lsregen_tensor::image::load(&folder.path().join("out").join(name)).unwrap();
        assert_eq!(image, *colours(3).images()[i].to_rgb().unwrap());
    }
    // From the cache: only the missing one is written again.
    let codec = SavedFile::CODEC.unwrap();
    let kept = (codec.decode)(&(codec.encode)(&outputs.file).unwrap().unwrap()).unwrap();
    let outputs = SaveImageOutputs { file: Arc::new(kept) };
    assert_eq!(save("out/a.png").effect(&outputs, &cx), Effect::Intact);
    assert_eq!(events(), names.map(|name| (name.to_string(), false)));
    std::fs::remove_file(folder.path().join("out/a-2.png")).unwrap();
    assert_eq!(save("out/a.png").effect(&outputs, &cx), Effect::Restorable);
    events();
    save("out/a.png").restore(&outputs, &cx).unwrap();
    assert_eq!(events(), [("a-1.png".into(), false), ("a-2.png".into(), true), ("a-3.png".into(), false)]);
    // By number, and by the seeds of the images.
    three("counted/x-{counter}.png");
    assert_eq!(files_in(&folder.path().join("counted")), ["x-0001.png", "x-0002.png", "x-0003.png"]);
    three("seeds/{seed=99}.png");
    assert_eq!(files_in(&folder.path().join("seeds")), ["7.png", "8.png", "9.png"]);
    save("one/{seed=99}.png").run(SaveImageInputs { image: colours(1) }, &cx).unwrap();
    assert_eq!(files_in(&folder.path().join("one")), ["99.png"]);
    // An image that cannot be written is named, and those before it are whole.
    std::fs::create_dir_all(folder.path().join("cut/a-2.png")).unwrap();
    let error = save("cut/a.png").run(SaveImageInputs { image: colours(3) }, &cx).err().unwrap();
    let error = format!("{error:#}");
    assert!(error.contains("image 2 of 3 was not written") && error.contains("a-2.png"), "{error}");
    assert_eq!(files_in(&folder.path().join("cut")), ["a-1.png", "a-2.png"]);
}

#[test]
fn a_batch_of_latents_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let cx = context(folder.path());
    let z = Tensor::arange(0f32, 2.0 * 4.0 * 6.0, &Device::Cpu).unwrap().reshape((2, 4, 2, 3)).unwrap();
    let latent = Arc::new(Latent { z, family: None, seeds: vec![7, 8] });
    let save = node::<SaveLatent>(json!({ "path": "z.safetensors" }));
    let saved = save.run(SaveLatentInputs { latent: latent.clone() }, &cx).unwrap();
    assert_eq!((files_in(folder.path()), save.effect(&saved, &cx)), (vec!["z.safetensors".into()], Effect::Intact));
    let back = node::<LoadLatent>(json!({ "path": "z.safetensors" })).run((), &cx).unwrap().latent;
    assert_eq!((bits(&back.z), back.z.dims(), &back.seeds), (bits(&latent.z), latent.z.dims(), &latent.seeds));
    assert_eq!(back.z.dtype(), DType::F32);
}

/// A batch has previews of the last step of each image, and at most ten others.
#[test]
fn batches_have_previews() {
    let shown = Arc::new(Mutex::new(vec![]));
    let seen = shown.clone();
    let listen = move |event: &Event| {
        if let Event::Preview { done, of, .. } = event {
            seen.lock().unwrap().push((*done, *of));
        }
    };
    let host = Arc::new(host(Path::new(".")).with_previews(true));
    let cx = Context::new(host, "sample".into(), Cancel::new(), Arc::new(listen));
    let inputs = SdxlSampleInputs { model: XL.clone(), latent: None, image: None, mask: None };
    node::<SdxlSample>(few(json!({ "count": 2, "cfg": 1, "steps": 11 }))).run(inputs, &cx).unwrap();
    assert_eq!(*shown.lock().unwrap(), [3, 6, 9, 11, 12, 15, 18, 21, 22].map(|done| (done, 22)));
}

/// Steps count those of all images and name the image; a cancelled batch ends between two of them.
#[test]
fn progress_names_the_image_of_a_batch() {
    let sample = |stop_at: usize| {
        let (cancel, steps) = (Cancel::new(), Arc::new(Mutex::new(vec![])));
        let (stop, seen) = (cancel.clone(), steps.clone());
        let listen = move |event: &Event| {
            if let Event::Step { done, of, part, .. } = event {
                seen.lock().unwrap().push((*done, *of, *part));
                if *done == stop_at {
                    stop.cancel();
                }
            }
        };
        let cx = Context::new(Arc::new(host(Path::new("."))), "sample".into(), cancel, Arc::new(listen));
        let inputs = SdxlSampleInputs { model: XL.clone(), latent: None, image: None, mask: None };
        let result = node::<SdxlSample>(few(json!({ "count": 3, "cfg": 1 }))).run(inputs, &cx);
        let steps = steps.lock().unwrap().clone();
        (result.map(|outputs| outputs.latent.count()), steps)
    };
    let all: Vec<_> = (0..6).map(|step| (step + 1, 6, Some((step / 2 + 1, 3)))).collect();
    let (count, steps) = sample(100);
    assert_eq!((count.unwrap(), steps), (3, all.clone()));
    let (result, steps) = sample(2);
    assert!(result.unwrap_err().is::<Cancelled>());
    assert_eq!(steps, all[..2]);
}
