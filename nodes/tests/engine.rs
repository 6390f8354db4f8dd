//! Runs the nodes in the engine: the graphs of this repository have no errors, and cached results are not computed
//! again.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use lsregen_engine::{
    Cancel, Diagnostic, Event, Executor, FileDigests, Host, Lanes, Outcome, OutputRules, Override, Plan, Registry,
    RunRequest, Source, Store, check,
};
use lsregen_nodes::metadata::{Carried, carried};
use lsregen_nodes::{ComputeOptions, DtypeOption, Metadata, registry};
use lsregen_tensor::candle_core::Device;

fn host(graphs: &Path, outputs: &Path) -> Host {
    let numerics = ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false);
    let rules = OutputRules { overwrite: true, ..OutputRules::default() };
    let host = Host::new(graphs, outputs).with_fingerprint(numerics.fingerprint()).with_service(numerics);
    host.with_output_rules(rules)
}

fn told(diagnostics: &[Diagnostic]) -> Vec<&str> {
    diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect()
}

#[test]
fn every_graph_has_no_diagnostics() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graphs");
    let mut graphs = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let source = Source::new(path.display().to_string(), std::fs::read_to_string(&path).unwrap());
            let checked = check(source, &[], &registry(), &host(&folder, Path::new(".")));
            assert_eq!(told(&checked.diagnostics), [""; 0], "{path:?}");
            graphs += 1;
        }
    }
    assert!(graphs >= 17, "{graphs} graphs");
}

/// A model of the wrong family is reported before anything runs.
#[test]
fn families_are_checked() {
    let text = "\
lsregen: 1
nodes:
  model:  { type: LoadModel, model: shapes/gligen }
  sample: { type: SDXLSample, model: model, prompt: sand }
  image:  { type: Decode, model: model, latent: sample }
  save:   { type: SaveImage, image: image, path: x.png }
";
    let here = Path::new(".");
    let checked = check(Source::new("graph.yaml", text), &[], &registry(), &host(here, here));
    let told = told(&checked.diagnostics);
    assert!(told.len() == 1 && told[0].contains("gligen") && told[0].contains("sdxl"), "{told:?}");
}

const GRAPH: &str = "\
lsregen: 1
params: { path: a.png }
nodes:
  small:  { type: LoadModel, model: shapes/gligen }
  large:  { type: LoadModel, model: shapes/xl }
  layout:
    type: GLIGENLayout
    model: small
    prompt: a red circle on sand
    boxes: [{ phrase: a red circle, box: [0, 0, 0.5, 0.5] }]
    width: 64
    height: 64
    steps: 1
  z0:     { type: VAEEncode, model: large, image: layout.image }
  invert: { type: Invert, model: large, latent: z0, prompt: a red circle on sand, steps: 1 }
  sample: { type: GuidedSDXLSample, model: large, guidance: [invert], prompt: a red circle on sand, steps: 1 }
  image:  { type: Decode, model: large, latent: sample }
  save:   { type: SaveImage, image: image, path: \"${path}\" }
";

/// Runs `GRAPH` and returns the names of the nodes that ran.
fn run(host: Host, registry: &Registry, store: &Arc<Store>, set: &[&str]) -> Vec<String> {
    let host = Arc::new(host);
    let overrides: Vec<_> =
        set.iter().map(|arg| Override::parse(arg).map_err(|fault| fault.message).unwrap()).collect();
    let checked = check(Source::new("graph.yaml", GRAPH), &overrides, registry, &host);
    let errors: Vec<_> = checked.diagnostics.iter().filter(|d| d.is_error()).cloned().collect();
    assert_eq!(told(&errors), [""; 0]);
    let graph = Arc::new(checked.graph.unwrap());
    let plan = Plan::new(&graph, &host, store, &FileDigests::new()).unwrap();
    let subscriber = Arc::new(|_: &Event| {});
    let order = RunRequest { graph, plan, host, subscriber, cancel: Cancel::new(), fail_fast: false };
    let executor = Executor::new(Lanes::NARROW, store.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let summary = runtime.block_on(async { executor.start(order).finished().await });
    assert!(summary.succeeded(), "{:?}", summary.nodes);
    let ran = summary.nodes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Ran { .. }));
    ran.map(|(name, _)| name.to_string()).collect()
}

#[test]
fn cached_results_are_not_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, store) = (registry(), Arc::new(Store::in_memory(1 << 30)));
    let place = || host(folder.path(), folder.path());
    let again = |set: &[&str]| run(place(), &registry, &store, set);
    assert_eq!(again(&[]).len(), 8, "all of them");
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let first = read("a.png");
    assert_eq!(again(&[]), [""; 0]);

    std::fs::remove_file(folder.path().join("a.png")).unwrap();
    assert_eq!(again(&[]), [""; 0], "the file is gone: it is written again");
    assert_eq!(read("a.png"), first);
    std::fs::write(folder.path().join("a.png"), "other").unwrap();
    assert_eq!(again(&[]), [""; 0], "the file is another");
    assert_eq!(read("a.png"), first);
    assert_eq!(run(host(folder.path(), &folder.path().join("new")), &registry, &store, &[]), [""; 0], "elsewhere");
    assert_eq!(read("new/a.png"), first);

    assert_eq!(again(&["path=b.png"]), ["save"]);
    let pixels = |name: &str| lsregen_tensor::image::load(&folder.path().join(name)).unwrap();
    assert_eq!(pixels("b.png"), pixels("a.png"));
    assert_ne!(read("b.png"), first, "it carries another graph");

    let bare = || run(place().with_service(Metadata(false)), &registry, &store, &[]);
    assert_eq!((bare(), bare()), (vec!["save".to_string()], vec![]));
    assert_eq!(carried(&read("a.png")).unwrap(), Carried::Nothing);
    assert_eq!((again(&[]), again(&[])), (vec!["save".to_string()], vec![]));
    assert_eq!(read("a.png"), first);
}

const ON_DISK: &str = "\
lsregen: 1
nodes:
  model:  { type: LoadModel, model: ./model }
  sample: { type: GuidedSDSample, model: model, guidance: [], prompt: sand, width: 64, height: 64, steps: 1 }
  image:  { type: Decode, model: model, latent: sample }
  save:   { type: SaveImage, image: image, path: a.png }
";

/// Runs `ON_DISK`; calls `after_load` when LoadModel has ended. Returns the errors of its nodes.
fn run_on_disk(
    folder: &Path,
    store: &Arc<Store>,
    offload: bool,
    after_load: impl Fn() + Send + Sync + 'static,
) -> Vec<(String, String)> {
    let numerics = ComputeOptions::new(Device::Cpu, DtypeOption::Auto, offload);
    let host = Arc::new(host(folder, folder).with_service(numerics));
    let checked = check(Source::new("graph.yaml", ON_DISK), &[], &registry(), &host);
    assert_eq!(told(&checked.diagnostics), [""; 0]);
    let graph = Arc::new(checked.graph.unwrap());
    let plan = Plan::new(&graph, &host, store, &FileDigests::new()).unwrap();
    let subscriber = Arc::new(move |event: &Event| match event {
        Event::NodeFinished { node, .. } if &**node == "model" => after_load(),
        _ => {}
    });
    let request = RunRequest { graph, plan, host, subscriber, cancel: Cancel::new(), fail_fast: false };
    let executor = Executor::new(Lanes::NARROW, store.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let summary = runtime.block_on(async { executor.start(request).finished().await });
    let failed = summary.nodes.into_iter().filter_map(|(node, outcome)| match outcome {
        Outcome::Failed { error } => Some((node.to_string(), error)),
        _ => None,
    });
    failed.collect()
}

/// LoadModel ends before its networks are read. The nodes that read them notice a change of their files: nothing is stored
/// under the key of other weights, and a file that becomes shorter is an error.
#[test]
fn weights_that_change_during_a_run_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/shapes/gligen");
    for part in ["", "unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        let to = folder.path().join("model").join(part);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(model.join(part)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file())
        {
            fs::write(to.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
        }
    }
    let image = || fs::read(folder.path().join("a.png")).unwrap();
    assert_eq!(run_on_disk(folder.path(), &Arc::new(Store::in_memory(1 << 30)), false, || ()), []);
    let expected = image();

    /// Changes the last numbers in place.
    fn change(path: &Path) {
        let mut file = File::options().read(true).write(true).open(path).unwrap();
        let mut end = [0; 64];
        file.seek(SeekFrom::End(-64)).unwrap();
        file.read_exact(&mut end).unwrap();
        file.seek(SeekFrom::End(-64)).unwrap();
        file.write_all(&end.map(|byte| byte ^ 0x11)).unwrap();
    }
    fn shorten(path: &Path) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }
    for offload in [false, true] {
        for (act, network, words) in [
            (change as fn(&Path), "vae", "changed after the run was planned"),
            (change, "unet", "changed after the run was planned"),
            (shorten, "unet", "has become shorter"),
        ] {
            let store = Arc::new(Store::in_memory(1 << 30));
            let weights = folder.path().join("model").join(network).join("diffusion_pytorch_model.safetensors");
            let (whole, path) = (fs::read(&weights).unwrap(), weights.clone());
            let failed = run_on_disk(folder.path(), &store, offload, move || act(&path));
            assert!(!failed.is_empty() && failed.iter().any(|(_, error)| error.contains(words)), "{failed:?}");
            assert!(failed.iter().all(|(node, _)| ["sample", "image"].contains(&&**node)), "{failed:?}");
            fs::write(&weights, &whole).unwrap();
            let _ = fs::remove_file(folder.path().join("a.png"));
            // The same weights again, and the same store.
            assert_eq!(run_on_disk(folder.path(), &store, offload, || ()), []);
            assert!(image() == expected, "a result of other weights was kept");
        }
    }
}
