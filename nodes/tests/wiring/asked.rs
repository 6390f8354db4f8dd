//! Records the calls to the diffusion library when a node runs.
//!
//! The library's pipeline logs its settings, and a guidance, a model or a small image shows its parameters. The results
//! of networks are compared, but not shown, because their last digits depend on the machine.

use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use lsregen_engine::{CheckContext, Context, EdgeValue, FileRef, Host, Lane, NodeError, RegistryEntry, SocketSpec};
use lsregen_nodes::values::{Guidance, Image, Latent, Layout, Model};
use lsregen_nodes::{ComputeOptions, DtypeOption};
use lsregen_tensor::candle_core::{DType, Device, Tensor, safetensors};
use lsregen_tensor::image::{RgbImage, png};
use serde_json::Value as Json;
use tracing::field::{Field, Visit};
use tracing::span;

use crate::Params;

/// The calls of one run, as text.
pub struct Asked {
    pub text: String,
    /// The bytes of its outputs; `None` for a type without a format on disk.
    pub outputs: Vec<Option<Vec<u8>>>,
    /// Whether its parameters are invalid or the run failed; then `text` is the error.
    pub failed: bool,
}

impl Asked {
    fn failed(text: String) -> Asked {
        Asked { text, outputs: vec![], failed: true }
    }
}

/// A folder with the files that the rows of the table name.
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/shapes");
        copy(&models.join("clip"), &at("clip"));
        for name in ["look.onnx", "look_2.onnx"] {
            std::fs::copy(models.join("onnx/look.onnx"), at(name)).unwrap();
        }
        // Another autoencoder: it scales latents differently.
        copy(&models.join("xl/vae"), &at("vae"));
        replace(&at("vae/config.json"), r#""scaling_factor": "#, r#""scaling_factor": 2"#);
        without_fusers(&models.join("gligen"), &at("sd1"), &at("fusers.safetensors"));
        let layout = r#"{"boxes": [{"phrase": "a blue square", "box": [0.5, 0.25, 0.75, 1.0]}]}"#;
        std::fs::write(at("layout.json"), layout).unwrap();
        let coco = r#"{"images": [{"id": 4, "width": 8, "height": 8}, {"id": 5, "width": 8, "height": 8}], "categories": [{"id":
            1, "name": "a blue square"}], "annotations": [{"image_id": 5, "category_id": 1, "bbox": [4, 2, 2, 6]}]}"#;
        std::fs::write(at("coco.json"), coco).unwrap();
        for (name, width) in [("a", 2), ("b", 1)] {
            let image = RgbImage::from_fn(width, 1, |x, _| [255, 127 * x as u8, 0].into());
            std::fs::write(at(&format!("{name}.png")), png(&image, &[]).unwrap()).unwrap();
            let latent = Tensor::zeros((1, 4, 1, width as usize), DType::F32, &Device::Cpu);
            safetensors::save(&[("latent", latent.unwrap())].into(), at(&format!("{name}.safetensors"))).unwrap();
        }
        let target = Tensor::zeros((3, 4, 4), DType::F32, &Device::Cpu).unwrap();
        safetensors::save(&[("target", target)].into(), at("target.safetensors")).unwrap();
        Bench { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a node of this type as the engine does.
    pub fn ask(&self, entry: &RegistryEntry, params: &Params, inputs: Vec<Vec<EdgeValue>>) -> Asked {
        let written = tempfile::tempdir().unwrap();
        let host = Host::new(self.folder.path(), written.path());
        let host = host.with_service(ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false));
        let given = params.clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        let node = match (entry.node_type.decode)(&Json::Object(given)) {
            Ok(node) => node,
            Err(fault) => return Asked::failed(fault.message),
        };
        let cx = CheckContext::new(&host);
        if let Some(fault) = node.check(&cx).into_iter().find(NodeError::is_error) {
            return Asked::failed(fault.message.replace(&*self.folder.path().to_string_lossy(), "."));
        }
        let mut text = String::new();
        for (what, files) in [("reads", node.files(&cx)), ("writes", node.writes(&cx))] {
            files
                .iter()
                .for_each(|FileRef { param, path, .. }| writeln!(text, "{what} {param}: {}", path.display()).unwrap());
        }
        let log = Log::default();
        let cx = Context::detached(Arc::new(host));
        let outputs = tracing::subscriber::with_default(log.clone(), || node.run(inputs, &cx));
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return Asked::failed(format!("{error:#}")),
        };
        text += &log.0.lock().unwrap();
        for (socket, value) in entry.node_type.outputs.iter().zip(&outputs) {
            writeln!(text, "gives {}: {}", socket.name, shown(value, entry.node_type.lane)).unwrap();
        }
        files_in(written.path(), &mut |path| writeln!(text, "wrote {}", path.display()).unwrap());
        for (folder, name) in [(self.folder.path(), "."), (written.path(), "out")] {
            text = text.replace(&*folder.to_string_lossy(), name);
        }
        let bytes = |(socket, value): (&SocketSpec, &EdgeValue)| socket.codec?.encode(value).unwrap();
        Asked { text, outputs: entry.node_type.outputs.iter().zip(&outputs).map(bytes).collect(), failed: false }
    }
}

/// Describes an output.
fn shown(value: &EdgeValue, lane: Lane) -> String {
    if let Some(guidance) = value.get::<Guidance>() {
        return format!("{:#?} for {:?}", guidance.spec, guidance.size);
    }
    if let Some(layout) = value.get::<Layout>() {
        return format!("{:#?}", layout.0);
    }
    if let Some(latent) = value.get::<Latent>() {
        return format!("latent {:?} of {:?}", latent.z.dims(), latent.family);
    }
    if let Some(model) = value.get::<Model>() {
        let blueprint = model.0.blueprint();
        let files: Vec<_> = blueprint.files().map(|path| path.display().to_string()).collect();
        return format!("{:#?}\n{:?}\n{files:#?}", model.0.info, model.0.info.scheduler.prediction_type);
    }
    if let Some(image) = value.get::<Image>() {
        let (width, height) = image.size().unwrap();
        if image.count() > 1 {
            return format!("{} images {width}×{height} of the seeds {:?}", image.count(), image.seeds());
        }
        // The results of networks are not in snapshots.
        let few = lane != Lane::Device && width * height <= 8;
        let numbers = few.then(|| image.tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let numbers = numbers.iter().flatten().map(|v| format!(" {v:.2}"));
        return format!("image {width}×{height}{}", numbers.collect::<String>());
    }
    value.type_name().into()
}

/// Returns the lines of `before` that are missing in `after` (`-`), and the lines of `after` that are missing in
/// `before` (`+`).
pub fn difference(before: &str, after: &str) -> Vec<String> {
    let (a, b): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    // The length of the longest common subsequence of a[i..] and b[j..].
    let mut common = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = match a[i] == b[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, vec![]);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(format!("- {}", a[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    lines
}

/// Collects what the pipeline logs in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata) -> bool {
        metadata.is_event() && metadata.target() == "lsregen_diffusion::pipeline"
    }

    fn event(&self, event: &tracing::Event) {
        event.record(&mut Fields(&mut self.0.lock().unwrap()));
    }

    fn new_span(&self, _: &span::Attributes) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0, "{}: {value:#?}", field.name()).unwrap();
    }
}

/// Splits a GLIGEN model into a Stable Diffusion 1 model and a file of fusers.
fn without_fusers(gligen: &Path, sd1: &Path, fusers: &Path) {
    copy(gligen, sd1);
    replace(&sd1.join("unet/config.json"), r#""attention_type": "gated""#, r#""attention_type": "default""#);
    let weights = sd1.join("unet/diffusion_pytorch_model.safetensors");
    let tensors = safetensors::load(&weights, &Device::Cpu).unwrap();
    let is_fuser = |name: &str| name.contains(".fuser.") || name.starts_with("position_net.");
    let (own, plain): (std::collections::HashMap<_, _>, _) = tensors.into_iter().partition(|(name, _)| is_fuser(name));
    safetensors::save(&plain, &weights).unwrap();
    safetensors::save(&own, fusers).unwrap();
}

/// Changes a text file.
fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{}: has no {from}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    files_in(from, &mut |path| {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    });
}

/// Calls `f` with every file in a folder and its subfolders.
fn files_in(folder: &Path, f: &mut dyn FnMut(&Path)) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files_in(&path, f) } else { f(&path) }
    }
}
