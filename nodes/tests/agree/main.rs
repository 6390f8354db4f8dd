//! `check` and a run agree: random parameters of every node type, in a graph that uses the node. What has no errors runs to
//! its end.
//!
//! `LSREGEN_AGREE=1000` draws so many graphs for each type; `LSREGEN_SEED` begins elsewhere; `LSREGEN_TYPES` names the
//! types, with commas between. See docs/performance.md.

#[path = "../../../tests/fuzz/documents/dice.rs"]
mod dice;
mod graphs;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dice::Dice;
use lsregen_engine::{
    Cancel, Event, Executor, FileDigests, Host, Lanes, Outcome, Plan, Registry, RunRequest, Source, Store, check,
};
use lsregen_nodes::{Blueprints, ComputeOptions, DtypeOption, LayoutFiles, registry};
use lsregen_tensor::candle_core::{DType, Device, Tensor, safetensors};
use lsregen_tensor::image::{RgbImage, png};

/// What depends on the content of files, which the check does not read.
const OUTSIDE: [&str; 1] = ["the map has no pixel of #"];

/// How many graphs are drawn for each type without `LSREGEN_AGREE`.
const COUNT: u64 = 6;

struct Bench {
    folder: tempfile::TempDir,
    registry: Registry,
    host: Arc<Host>,
    store: Arc<Store>,
    executor: Executor,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    /// Loaded models stay in memory from graph to graph.
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path());
        let options = ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false);
        let host = Host::new(folder.path(), folder.path().join("made")).with_fingerprint(options.fingerprint());
        let host = host.with_service(options).with_service(Blueprints::default()).with_service(LayoutFiles::default());
        let store = Arc::new(Store::in_memory(2 << 30));
        let executor = Executor::new(Lanes::NARROW, store.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Bench { folder, registry: registry(), host: Arc::new(host), store, executor, runtime }
    }

    /// Checks a graph and, if it has no errors, runs it. Returns whether it ran.
    ///
    /// # Errors
    /// Returns why the run failed.
    fn agrees(&self, graph: &str) -> Result<bool, String> {
        let checked = check(Source::new("graph.yaml", graph), &[], &self.registry, &self.host);
        let Some(graph) = checked.graph else { return Ok(false) };
        let graph = Arc::new(graph);
        let plan = Plan::new(&graph, &self.host, &self.store, &FileDigests::new()).map_err(|e| format!("{e:?}"))?;
        let subscriber = Arc::new(|_: &Event| {});
        let host = self.host.clone();
        let request = RunRequest { graph, plan, host, subscriber, cancel: Cancel::new(), fail_fast: false };
        let summary = self.runtime.block_on(async { self.executor.start(request).finished().await });
        let _ = fs::remove_dir_all(self.folder.path().join("made"));
        let failed = summary.nodes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed { .. }));
        let failed: Vec<_> = failed.map(|(name, outcome)| format!("{name}: {outcome:?}\n")).collect();
        let is_outside = |failure: &String| OUTSIDE.iter().any(|text| failure.contains(text));
        if summary.succeeded() || (!failed.is_empty() && failed.iter().all(is_outside)) {
            return Ok(true);
        }
        Err(failed.concat())
    }
}

/// Writes the files that random graphs name.
fn write_files(folder: &Path) {
    let at = |name: &str| folder.join(name);
    for (name, width, height) in [("a.png", 64, 64), ("b.png", 96, 64), ("c.png", 50, 37)] {
        let image = RgbImage::from_fn(width, height, |x, y| [x as u8, y as u8, 128].into());
        fs::write(at(name), png(&image, &[]).unwrap()).unwrap();
    }
    let flat = [[255, 0, 0], [10, 11, 12], [0, 0, 255]];
    let map = RgbImage::from_fn(48, 32, |x, _| flat[x as usize / 16].into());
    fs::write(at("map.png"), png(&map, &[]).unwrap()).unwrap();
    for (name, shape) in [("a.safetensors", (1, 4, 8, 8)), ("b.safetensors", (2, 4, 8, 12))] {
        let latent = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        safetensors::save(&[("latent", latent)].into(), at(name)).unwrap();
    }
    let layout = r#"{"boxes": [{"phrase": "a blue square", "box": [0.5, 0.25, 0.75, 1.1]}]}"#;
    fs::write(at("layout.json"), layout).unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/shapes");
    fs::copy(models.join("onnx/look.onnx"), at("look.onnx")).unwrap();
}

#[test]
fn what_check_passes_runs() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (count, first) = (number("LSREGEN_AGREE").unwrap_or(COUNT), number("LSREGEN_SEED").unwrap_or(0));
    let bench = Bench::new();
    let mut failures = vec![];
    let only = std::env::var("LSREGEN_TYPES").ok();
    for entry in bench.registry.iter() {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|name| name == entry.node_type.name)) {
            continue;
        }
        let mut ran = 0;
        for seed in first..first + count {
            let graph = graphs::random(entry, &mut Dice::new(seed));
            match bench.agrees(&graph) {
                Ok(true) => ran += 1,
                Ok(false) => {}
                Err(error) => {
                    println!("{}, seed {seed}: {error}", entry.node_type.name);
                    failures.push(format!("{}, seed {seed}:\n{error}{graph}", entry.node_type.name));
                }
            }
        }
        println!("{}: {ran} of {count} passed the check and ran", entry.node_type.name);
        // With few graphs, all of a type may be refused.
        assert!(ran > 0 || count < 100, "no graph of {} passes the check", entry.node_type.name);
    }
    assert!(failures.is_empty(), "{} runs failed:\n\n{}", failures.len(), failures.join("\n"));
}

/// Graphs at the edge of what is allowed: whether they pass the check, and run.
#[test]
fn edges_of_what_is_allowed() {
    let bench = Bench::new();
    let guided = |kind: &str, boxes: &str| {
        format!(
            "lsregen: 1\nnodes:\n  xl: {{ type: LoadModel, model: shapes/xl }}\n  layout: {{ type: Layout, boxes: {boxes} \
             }}\n  guide: {{ type: {kind}, layout: layout }}\n  sample: {{ type: GuidedSDXLSample, model: xl, guidance: \
             [guide], prompt: a red circle, steps: 2, width: 64, height: 64 }}\n  image: {{ type: Decode, model: xl, \
             latent: sample }}\n  save: {{ type: SaveImage, image: image, path: x.png }}\n"
        )
    };
    let enlarged = |size: &str| {
        format!(
            "lsregen: 1\nnodes:\n  xl: {{ type: LoadModel, model: shapes/xl }}\n  image: {{ type: LoadImage, path: a.png }}\n  \
             up: {{ type: Upsample, image: image, {size} }}\n  z: {{ type: VAEEncode, model: xl, image: up }}\n  save: {{ \
             type: SaveLatent, latent: z, path: x.safetensors }}\n"
        )
    };
    let attended = ["BoxDiff", "LayoutGuidance", "BoundedAttention"].into_iter().flat_map(|kind| {
        [
            ("[{ phrase: a red circle, box: [0, 0, 1, 1] }]", true),
            ("[{ phrase: a red circle, box: [0, 0, 1.0000001, 1] }]", true),
            ("[{ phrase: \" \", box: [0, 0, 0.5, 0.5] }]", false),
            ("[]", false),
        ]
        .map(|(boxes, runs)| (guided(kind, boxes), runs))
    });
    let sizes = [
        ("width: 136, height: 64", true),
        ("width: 250, height: 250", false),
        ("width: 1922, height: 1441", false),
        ("factor: 1.55", false),
    ];
    // The check opens pictures.
    let no_picture = enlarged("factor: 1").replace("a.png", "layout.json");
    let sizes = sizes.map(|(size, runs)| (enlarged(size), runs));
    let targets = [
        ("output: colours, class: 2", true),
        ("output: colours, class: 99", false),
        ("output: colours, target_file: a.safetensors", false),
        ("output: edges, image: image0, distance: gram", true),
    ];
    let targets = targets.map(|(target, runs)| {
        let feature = format!("OnnxFeature, path: look.onnx, {target}");
        let graph = guided(&feature, "[]")
            .replace(", layout: layout", "")
            .replace("  sample:", "  image0: { type: LoadImage, path: a.png }\n  sample:");
        (graph, runs)
    });
    for (graph, runs) in attended.chain(sizes).chain(targets).chain([(no_picture, false)]) {
        assert_eq!(bench.agrees(&graph), Ok(runs), "{graph}");
    }
}
