//! Runs nodes on the built-in models as the engine does, but without a graph.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use lsregen_diffusion::guidance::{self, Extractor, FeatureSpace, GuidanceSpec, Metric, SamplingRun, StepContext};
use lsregen_diffusion::models::Family;
use lsregen_engine::{Cancel, Cancelled, Context, Effect, Event, Host, Node, OutputRules, Payload};
use lsregen_nodes::values::{Guidance, Image, Latent, Layout, Model, SavedFile};
use lsregen_nodes::*;
use lsregen_tensor::candle_core::{DType, Device, Tensor};
use lsregen_tensor::image::{self, RgbImage};
use serde_json::{Value as Json, json};

static GLIGEN: LazyLock<Arc<Model>> = LazyLock::new(|| load("shapes/gligen"));
static XL: LazyLock<Arc<Model>> = LazyLock::new(|| load("shapes/xl"));

const PROMPT: &str = "a red circle and a blue square on sand";

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

/// Returns the error of a node that must fail.
fn failure<T>(result: anyhow::Result<T>) -> String {
    match result {
        Ok(_) => panic!("should fail"),
        Err(error) => format!("{error:#}"),
    }
}

fn draw(params: Json) -> GligenLayoutOutputs {
    let mut all = json!({
        "prompt": PROMPT, "steps": 2, "seed": 7, "slots": 4,
        "boxes": [
            { "phrase": "a red circle", "box": [0.08, 0.15, 0.45, 0.55] },
            { "phrase": "a blue square", "box": [0.55, 0.50, 0.92, 0.90] },
        ],
    });
    all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
    node::<GligenLayout>(all).run(GligenLayoutInputs { model: GLIGEN.clone() }, &here()).unwrap()
}

fn invert(params: Json, latent: &Arc<Latent>, layout: Option<&Arc<Layout>>) -> anyhow::Result<Arc<Guidance>> {
    let inputs = InvertInputs {
        model: XL.clone(),
        latent: latent.clone(),
        layout: layout.cloned(),
        image: None,
        image_mask: None,
    };
    node::<Invert>(params).run(inputs, &here()).map(|outputs| outputs.guidance)
}

fn guided(params: Json, guidance: &[&Arc<Guidance>]) -> anyhow::Result<Arc<Latent>> {
    let guidance = guidance.iter().map(|g| Arc::clone(g)).collect();
    let inputs = GuidedSdxlSampleInputs { model: XL.clone(), guidance, latent: None, image: None, mask: None };
    node::<GuidedSdxlSample>(params).run(inputs, &here()).map(|outputs| outputs.latent)
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// An image of a colour gradient.
fn picture(width: u32, height: u32) -> Arc<Image> {
    let pixel = |x: u32, y: u32| [x * 255 / width, y * 255 / height, 128].map(|v| v as u8);
    let picture = RgbImage::from_fn(width, height, |x, y| pixel(x, y).into());
    Arc::new(Image::Rgb(picture))
}

fn latent(side: usize) -> Arc<Latent> {
    let z = (0..4 * side * side).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
    let z = Tensor::from_vec(z, (1, 4, side, side), XL.0.device()).unwrap();
    Arc::new(Latent { z, family: Some(Family::Sdxl), seeds: vec![] })
}

/// Runs LSReGen node by node, at half the default size: types and sizes fit, and the image is written.
#[test]
fn from_layout_to_file() {
    let folder = tempfile::tempdir().unwrap();
    let layout = draw(json!({}));
    assert_eq!(layout.image.size().unwrap(), (128, 128), "the model's own size");
    assert_eq!(layout.layout.0.len(), 2);

    let up = node::<Upsample>(json!({ "width": 128, "height": 128, "method": "lanczos" }));
    let up = up.run(UpsampleInputs { image: layout.image.clone(), model: None }, &here()).unwrap().image;
    let encode = node::<VaeEncode>(json!({}));
    let z0 = encode.run(VaeEncodeInputs { model: XL.clone(), image: up }, &here()).unwrap().latent;
    assert_eq!(z0.z.dims(), [1, 4, 16, 16]);

    let guidance = invert(json!({ "prompt": PROMPT, "steps": 2 }), &z0, None).unwrap();
    let run = json!({ "prompt": PROMPT, "steps": 2, "seed": 7 });
    let sample = guided(run.clone(), &[&guidance]).unwrap();
    assert_eq!(sample.z.dims(), z0.z.dims(), "the guidance's size");
    let plain = guided(json!({ "prompt": PROMPT, "steps": 2, "seed": 7, "width": 128, "height": 128 }), &[]).unwrap();
    assert_ne!(numbers(&sample.z), numbers(&plain.z), "guidance acts");

    let image =
        node::<Decode>(json!({})).run(DecodeInputs { model: XL.clone(), latent: sample }, &here()).unwrap().image;
    let context = Context::detached(host(folder.path()));
    let save = node::<SaveImage>(json!({ "path": "new/folder/picture.png" }));
    let saved = save.run(SaveImageInputs { image: image.clone() }, &context).unwrap();
    assert_eq!(save.effect(&saved, &context), Effect::Intact);

    let read = node::<LoadImage>(json!({ "path": "new/folder/picture.png" })).run((), &context).unwrap();
    assert_eq!(read.image.to_rgb().unwrap(), image.to_rgb().unwrap());

    std::fs::write(folder.path().join("new/folder/picture.png"), "changed").unwrap();
    assert_eq!(save.effect(&saved, &context), Effect::Restorable, "another hand has changed the file");
    let error = save.restore(&saved, &context).unwrap_err().to_string();
    assert!(error.contains("--overwrite"), "{error}");
    let rules = OutputRules { overwrite: true, ..OutputRules::default() };
    let context = Context::detached(Arc::new(Arc::unwrap_or_clone(host(folder.path())).with_output_rules(rules)));
    save.restore(&saved, &context).unwrap();
    assert_eq!(save.effect(&saved, &context), Effect::Intact);
}

/// An intact file stays as it is, and a missing one is restored. A file with its graph does not count as one without.
#[test]
fn written_files_are_restored() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here, there) = (Context::detached(host(folder.path())), Context::detached(host(elsewhere.path())));
    let save = node::<SaveImage>(json!({ "path": "a/picture.png" }));
    let saved = save.run(SaveImageInputs { image: picture(24, 16) }, &here).unwrap();
    let read = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
    assert_eq!(read(folder.path(), "a/picture.png"), *saved.file.files[0]);
    // Encodes and decodes the file, as the cache on disk does.
    let codec = SavedFile::CODEC.unwrap();
    let kept = (codec.encode)(&saved.file).unwrap().unwrap();
    let saved = SaveImageOutputs { file: Arc::new((codec.decode)(&kept).unwrap()) };
    assert_eq!(save.effect(&saved, &here), Effect::Intact);
    assert_eq!(save.effect(&saved, &there), Effect::Restorable);
    save.restore(&saved, &there).unwrap();
    assert_eq!(read(elsewhere.path(), "a/picture.png"), *saved.file.files[0]);

    let bare = |wanted: bool| {
        let host = Arc::unwrap_or_clone(host(folder.path())).with_service(Metadata(!wanted));
        Context::detached(Arc::new(host))
    };
    assert_eq!(save.effect(&saved, &bare(false)), Effect::Intact);
    assert_eq!(save.effect(&saved, &bare(true)), Effect::Gone);
    let without = save.run(SaveImageInputs { image: picture(24, 16) }, &bare(true)).unwrap();
    assert!(without.file.files[0].len() < saved.file.files[0].len());
    assert_eq!(save.effect(&without, &bare(true)), Effect::Intact);
    assert_eq!(save.effect(&without, &here), Effect::Gone);

    let save = node::<SaveLatent>(json!({ "path": "z.safetensors" }));
    let saved = save.run(SaveLatentInputs { latent: latent(3) }, &here).unwrap();
    assert_eq!(save.effect(&saved, &bare(true)), Effect::Intact, "a latent carries no graph");
    assert_eq!(save.effect(&saved, &there), Effect::Restorable);
    save.restore(&saved, &there).unwrap();
    assert_eq!(read(elsewhere.path(), "z.safetensors"), read(folder.path(), "z.safetensors"));
}

/// A sampling reports at most ten small previews and that of the last step, only if the host enables them, and they do
/// not change the result.
#[test]
fn samplings_report_previews() {
    let run = |previews: bool| {
        let shown = Arc::new(Mutex::new(vec![]));
        let events = shown.clone();
        let listen = move |event: &Event| {
            if let Event::Preview { done, of, png, .. } = event {
                let picture = image::decode(png).unwrap();
                events.lock().unwrap().push((*done, *of, picture.dimensions()));
            }
        };
        let host = Arc::unwrap_or_clone(host(Path::new("."))).with_previews(previews);
        let cx = Context::new(Arc::new(host), "sample".into(), Cancel::new(), Arc::new(listen));
        let sample = node::<SdxlSample>(json!({ "prompt": "sand", "steps": 11, "width": 320, "height": 64, "cfg": 1 }));
        let z = sample
            .run(SdxlSampleInputs { model: XL.clone(), latent: None, image: None, mask: None }, &cx)
            .unwrap()
            .latent;
        let shown = shown.lock().unwrap().clone();
        (numbers(&z.z), shown)
    };
    let (with, shown) = run(true);
    let expected: Vec<_> = [2, 4, 6, 8, 10, 11].map(|done| (done, 11, (160, 32))).to_vec();
    assert_eq!(shown, expected);
    assert_eq!(run(false), (with, vec![]));
}

#[test]
fn sdxl_sample_is_guided_sample_without_guidance() {
    let run = json!({ "prompt": PROMPT, "steps": 1, "seed": 3, "width": 64, "height": 96 });
    let plain = node::<SdxlSample>(run.clone())
        .run(SdxlSampleInputs { model: XL.clone(), latent: None, image: None, mask: None }, &here())
        .unwrap()
        .latent;
    assert_eq!(plain.z.dims(), [1, 4, 12, 8]);
    assert_eq!(numbers(&plain.z), numbers(&guided(run, &[]).unwrap().z));
}

/// A guidance that counts its updates, and cancels its run at the third.
struct Counted {
    cancel: Cancel,
    updates: Arc<Mutex<usize>>,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl Extractor for Counted {
    fn name(&self) -> &str {
        "counted"
    }

    fn feat(&self, z: &Tensor, _: &StepContext) -> lsregen_tensor::Result<Tensor> {
        let mut updates = self.updates.lock().unwrap();
        *updates += 1;
        if *updates == 3 {
            self.cancel.cancel();
        }
        Ok(z.clone())
    }

    fn target(&self, _: &StepContext) -> lsregen_tensor::Result<Tensor> {
        Ok(Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu)?)
    }
}

impl GuidanceSpec for Counted {
    fn bind(&self, run: &SamplingRun) -> lsregen_tensor::Result<Vec<guidance::BoundGuidance>> {
        let counted = Counted { cancel: self.cancel.clone(), updates: self.updates.clone() };
        let settings =
            guidance::GuidanceSettings { repeats: 1000, scale: 1e-6, ..guidance::GuidanceSettings::default() };
        Ok(vec![run.bound(counted, Metric::L2.distance(), FeatureSpace::Latent, &settings)?])
    }
}

/// One step may have many updates, each through a network: cancellation does not wait for the end of the step.
#[test]
fn cancellation_takes_effect_within_a_step() {
    let (cancel, updates) = (Cancel::new(), Arc::new(Mutex::new(0)));
    let cx = Context::new(host(Path::new(".")), "sample".into(), cancel.clone(), Arc::new(|_: &Event| {}));
    let guidance = Guidance::new(Counted { cancel, updates: updates.clone() });
    let inputs = GuidedSdxlSampleInputs {
        model: XL.clone(),
        guidance: vec![Arc::new(guidance)],
        latent: None,
        image: None,
        mask: None,
    };
    let sample = node::<GuidedSdxlSample>(json!({ "prompt": PROMPT, "steps": 2, "width": 64, "height": 64, "cfg": 1 }));
    let error = sample.run(inputs, &cx).err().unwrap();
    assert!(error.is::<Cancelled>(), "{error:#}");
    assert_eq!(*updates.lock().unwrap(), 3);
}

#[test]
fn strength_and_mask_set_how_much_and_where() {
    let z0 = latent(8);
    let run = json!({ "prompt": PROMPT, "steps": 2, "seed": 1, "cfg": 1, "width": 64, "height": 64 });
    let with = |params: Json, layout| {
        let mut all = json!({ "mode": "noise", "steps": 2, "seed": 5 });
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        numbers(&guided(run.clone(), &[&invert(all, &z0, layout).unwrap()]).unwrap().z)
    };
    let plain = numbers(&guided(run.clone(), &[]).unwrap().z);
    assert_eq!(with(json!({ "strength": 0 }), None), plain);
    assert_eq!(with(json!({ "window": 0 }), None), plain);
    assert_eq!(with(json!({ "mask": [] }), None), plain, "a mask without boxes is nowhere");
    let everywhere = with(json!({}), None);
    assert_ne!(everywhere, plain);
    assert_eq!(with(json!({ "mask": [[0, 0, 1, 1]] }), None), everywhere);
    let left = with(json!({ "mask": [[0, 0, 0.5, 1]] }), None);
    assert!(left != plain && left != everywhere);
    assert_ne!(with(json!({ "mask": [[0, 0, 0.5, 1]], "feather": 0.3 }), None), left);
    let half = lsregen_diffusion::layout::GroundedPhrase { phrase: "left".into(), bounds: [0.0, 0.0, 0.5, 1.0] };
    assert_eq!(with(json!({}), Some(&Arc::new(Layout(vec![half])))), left, "a linked layout is a mask too");
}

#[test]
fn guidance_for_another_sampling_is_an_error_with_help() {
    let guidance = invert(json!({ "mode": "noise" }), &latent(8), None).unwrap();
    for (run, words) in [
        (json!({ "prompt": "", "width": 128 }), "for images of 64×64, but this sampling generates 128×64"),
        (json!({ "prompt": "", "steps": 3 }), "invert with the steps"),
    ] {
        let error = failure(guided(run, &[&guidance]));
        assert!(error.contains(words), "{error}");
    }
    let error = failure(invert(json!({ "mode": "noise", "from_timestep": 999 }), &latent(8), None));
    assert!(error.contains("lower `from_timestep`"), "{error}");
}

#[test]
fn latents_of_another_family_are_refused() {
    let foreign = Arc::new(Latent { z: latent(4).z.clone(), family: Some(Family::Gligen), seeds: vec![] });
    let error = failure(invert(json!({}), &foreign, None));
    assert!(error.contains("gligen's autoencoder") && error.contains("encode the image"), "{error}");
    let decode = node::<Decode>(json!({}));
    assert!(decode.run(DecodeInputs { model: XL.clone(), latent: foreign.clone() }, &here()).is_err());
    assert!(decode.run(DecodeInputs { model: GLIGEN.clone(), latent: foreign.clone() }, &here()).is_ok());
    let unknown = Arc::new(Latent { z: foreign.z.clone(), family: None, seeds: vec![] });
    assert!(decode.run(DecodeInputs { model: XL.clone(), latent: unknown }, &here()).is_ok());
}

#[test]
fn a_latent_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::detached(host(folder.path()));
    let z = latent(5);
    let save = node::<SaveLatent>(json!({ "path": "z.safetensors" }));
    let saved = save.run(SaveLatentInputs { latent: z.clone() }, &context).unwrap();
    assert_eq!(save.effect(&saved, &context), Effect::Intact);
    let back = node::<LoadLatent>(json!({ "path": "z.safetensors" })).run((), &context).unwrap().latent;
    assert_eq!(back.family, Some(Family::Sdxl));
    let bits = |z: &Tensor| numbers(z).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!((bits(&back.z), back.z.dims()), (bits(&z.z), z.z.dims()));
}

#[test]
fn broken_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::detached(host(folder.path()));
    let save = node::<SaveImage>(json!({ "path": "whole.png" }));
    save.run(SaveImageInputs { image: picture(40, 30) }, &context).unwrap();
    let whole = std::fs::read(folder.path().join("whole.png")).unwrap();
    std::fs::write(folder.path().join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(folder.path().join("text.png"), "no picture").unwrap();
    for (name, words) in [("cut.png", "incomplete image"), ("text.png", "PNG, JPEG, WebP"), ("none.png", "No such")] {
        let error = failure(node::<LoadImage>(json!({ "path": name })).run((), &context));
        assert!(error.contains(words) && error.contains(name), "{error}");
        let error = failure(node::<LoadLatent>(json!({ "path": name })).run((), &context));
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn failed_writes_leave_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::detached(host(folder.path()));
    // The path of the file is a folder, or a folder on its path is a file.
    std::fs::create_dir(folder.path().join("folder.png")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    for path in ["folder.png", "file/picture.png"] {
        let save = node::<SaveImage>(json!({ "path": path }));
        let error = failure(save.run(SaveImageInputs { image: picture(8, 8) }, &context));
        assert!(
            error.contains("choose another `path`") && error.contains("file") | error.contains("folder"),
            "{error}"
        );
    }
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["file", "folder.png"]);
}

#[test]
fn resizing_by_size_or_factor_stays_in_range() {
    let resize = |params: Json| {
        let image = picture(40, 30);
        node::<Upsample>(params).run(UpsampleInputs { image, model: None }, &here()).map(|outputs| outputs.image)
    };
    for method in ["nearest", "bilinear", "bicubic", "lanczos"] {
        let image = resize(json!({ "factor": 2.5, "method": method })).unwrap();
        assert_eq!(image.size().unwrap(), (100, 75));
        assert!(numbers(&image.tensor().unwrap()).iter().all(|v| (-1.0..=1.0).contains(v)), "{method}");
    }
    assert_eq!(resize(json!({ "width": 7, "height": 90 })).unwrap().size().unwrap(), (7, 90));
    let huge = node::<Upsample>(json!({ "factor": 64 }));
    let error = failure(huge.run(UpsampleInputs { image: picture(300, 1), model: None }, &here()));
    assert!(error.contains("lower `factor`"), "{error}");
    let odd = VaeEncodeInputs { model: XL.clone(), image: picture(12, 16) };
    let error = failure(node::<VaeEncode>(json!({})).run(odd, &here()));
    assert!(error.contains("multiples of 8") && error.contains("Upsample"), "{error}");
}

/// A layout in a file equals the same layout in the graph.
#[test]
fn layouts_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let coco = json!({ "width": 100, "height": 50, "boxes": [{ "phrase": "a red circle", "bbox": [25, 10, 50, 20] }] });
    std::fs::write(folder.path().join("layout.json"), coco.to_string()).unwrap();
    let context = Context::detached(host(folder.path()));
    let run = |params: Json| {
        let inputs = GligenLayoutInputs { model: GLIGEN.clone() };
        node::<GligenLayout>(params).run(inputs, &context).unwrap()
    };
    let common = json!({ "prompt": "", "steps": 1, "slots": 1, "cfg": 1, "width": 64, "height": 64 });
    let with = |key: &str, value: Json| {
        let mut all = common.clone();
        all[key] = value;
        run(all)
    };
    let file = with("layout_file", json!("layout.json"));
    let boxes = with("boxes", json!([{ "phrase": "a red circle", "box": [0.25, 0.2, 0.75, 0.6] }]));
    assert_eq!(file.layout.0, boxes.layout.0);
    assert_eq!(numbers(&file.latent.z), numbers(&boxes.latent.z));
}

/// It fails a node, and ends no run.
#[test]
fn memory_that_cannot_be_had_is_an_error() {
    let error = image::room::<f32>(1 << 60).unwrap_err().to_string();
    assert!(error.contains("not enough memory: an image needs"), "{error}");
}

#[test]
fn pictures_with_boxes_on_a_sheet() {
    let layout = Arc::new(Layout(vec![lsregen_diffusion::layout::GroundedPhrase {
        phrase: "a red circle".into(),
        bounds: [0.1, 0.1, 0.6, 0.7],
    }]));
    let draw = |labels: bool| {
        let inputs = DrawLayoutInputs { image: picture(128, 128), layout: layout.clone() };
        node::<DrawLayout>(json!({ "labels": labels })).run(inputs, &here()).unwrap().image
    };
    let (labelled, bare) = (draw(true), draw(false));
    assert_ne!(numbers(&labelled.tensor().unwrap()), numbers(&bare.tensor().unwrap()));
    assert_ne!(numbers(&bare.tensor().unwrap()), numbers(&picture(128, 128).tensor().unwrap()));

    let grid =
        |params: Json, images: Vec<Arc<Image>>| node::<ImageGrid>(params).run(ImageGridInputs { images }, &here());
    let sheet = grid(json!({ "cell": 64 }), vec![labelled.clone(); 5]).unwrap().image;
    assert_eq!(sheet.size().unwrap(), (4 * 64 + 5 * 4, 2 * 64 + 3 * 4), "at most four in a row, no room for labels");
    let error = failure(grid(json!({ "labels": ["one"] }), vec![labelled.clone(), bare]));
    assert!(error.contains("1 labels do not fit 2 images"), "{error}");
    assert!(failure(grid(json!({}), vec![])).contains("`images`"));
    // A sheet has at most the size of an image.
    let many = |cell: u32| grid(json!({ "cell": cell }), vec![picture(16, 16); 3000]);
    assert_eq!(many(16).unwrap().image.size().unwrap(), (4 * 16 + 5 * 4, 750 * 16 + 751 * 4));
    assert!(failure(many(2048)).contains("too large"));
}

#[test]
fn a_cancelled_run_stops_at_its_step() {
    let steps = Arc::new(std::sync::Mutex::new(0));
    let cancel = Cancel::new();
    let (seen, stop) = (steps.clone(), cancel.clone());
    let listen = move |event: &Event| {
        if let Event::Step { done, .. } = event {
            *seen.lock().unwrap() = *done;
            stop.cancel();
        }
    };
    let context = Context::new(host(Path::new(".")), "sample".into(), cancel, Arc::new(listen));
    let sample = node::<SdxlSample>(json!({ "prompt": "", "steps": 20, "width": 64, "height": 64 }));
    let error = sample
        .run(SdxlSampleInputs { model: XL.clone(), latent: None, image: None, mask: None }, &context)
        .err()
        .unwrap();
    assert_eq!((error.downcast_ref(), *steps.lock().unwrap()), (Some(&Cancelled), 1));
}
