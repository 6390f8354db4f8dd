//! LSReGen, BoxDiff, layout-guidance and LowPass run under every sampler of both conventions, and change its image; and
//! GLIGENLayout follows the conventions.

use std::path::Path;
use std::sync::Arc;

use lsregen_diffusion::sampler::{Conventions, SamplerKind};
use lsregen_engine::{Cancel, Event, Executor, FileDigests, Host, Lanes, Plan, RunRequest, Source, Store, check};
use lsregen_nodes::{ComputeOptions, DtypeOption, registry};
use lsregen_tensor::candle_core::{Device, safetensors};

/// Checks and runs a graph; every error and warning fails.
fn run(folder: &Path, store: &Arc<Store>, graph: &str) {
    let numerics = ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false);
    let host = Host::new(folder, folder).with_fingerprint(numerics.fingerprint()).with_service(numerics);
    let checked = check(Source::new("graph.yaml", graph.to_string()), &[], &registry(), &host);
    let found: Vec<_> = checked.diagnostics.iter().map(|d| &d.message).collect();
    assert!(found.is_empty(), "{found:?} in {graph}");
    let (graph_, host) = (Arc::new(checked.graph.unwrap()), Arc::new(host));
    let plan = Plan::new(&graph_, &host, store, &FileDigests::new()).unwrap();
    let subscriber = Arc::new(|_: &Event| {});
    let request = RunRequest { graph: graph_, plan, host, subscriber, cancel: Cancel::new(), fail_fast: false };
    let executor = Executor::new(Lanes::NARROW, store.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let summary = runtime.block_on(async { executor.start(request).finished().await });
    assert!(summary.succeeded(), "{:?} in {graph}", summary.nodes);
}

fn latent(folder: &Path, name: &str) -> Vec<f32> {
    let tensors = safetensors::load(folder.join(format!("{name}.safetensors")), &Device::Cpu).unwrap();
    tensors.into_values().next().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The graph of one sampler: a plain sampling, and one under each guidance.
fn graph(steps: &str, name: &str) -> String {
    let nodes = "\
lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
  layout: { type: Layout, boxes: [{ phrase: a red circle, box: [0, 0, 0.5, 0.5] }] }
  first: { type: SDXLSample, model: xl, prompt: moss, steps: 2, seed: 2, width: 64, height: 64 }
  image: { type: Decode, model: xl, latent: first }
  invert: { type: Invert, model: xl, latent: first, prompt: a red circle on sand, STEPS }
  boxdiff: { type: BoxDiff, layout: layout, window: 1 }
  energy: { type: LayoutGuidance, layout: layout, window: 1 }
  low: { type: LowPass, image: image, window: 1 }
";
    let mut nodes = nodes.to_string();
    for guidance in ["", "invert", "boxdiff", "energy", "low"] {
        nodes += &format!(
            "  sample{guidance}: {{ type: GuidedSDXLSample, model: xl, guidance: [{guidance}], prompt: a red circle on \
             sand, STEPS, seed: 1, cfg: 2, width: 64, height: 64 }}\n  save{guidance}: {{ type: SaveLatent, latent: \
             sample{guidance}, path: {name}{guidance}.safetensors }}\n"
        );
    }
    nodes.replace("STEPS", steps)
}

#[test]
fn four_guidances_change_the_image_under_every_sampler() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::in_memory(1 << 30));
    let mut seen = 0;
    for conventions in Conventions::ALL {
        for sampler in SamplerKind::ALL.into_iter().filter(|kind| conventions.has_sampler(*kind)) {
            let sampler = sampler.name();
            let (steps, name) = match conventions {
                Conventions::Diffusers => (format!("steps: 3, sampler: {sampler}"), format!("d_{sampler}")),
                Conventions::Comfyui => (
                    format!("steps: 3, sampler: {sampler}, scheduler: karras, conventions: comfyui"),
                    format!("c_{sampler}"),
                ),
            };
            run(folder.path(), &store, &graph(&steps, &name));
            let plain = latent(folder.path(), &name);
            assert!(plain.iter().all(|x| x.is_finite()), "{name}");
            for guidance in ["invert", "boxdiff", "energy", "low"] {
                let guided = latent(folder.path(), &format!("{name}{guidance}"));
                assert!(guided.iter().all(|x| x.is_finite()), "{name} {guidance}");
                let change: f32 = guided.iter().zip(&plain).map(|(a, b)| (a - b).abs()).sum();
                assert!(change > 0.05, "{guidance} changes {change} under {name}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 4 * (23 + 17));
}

/// Without boxes GLIGENLayout samples as a sampling without guidance, under both conventions: they act in each of its parts.
#[test]
fn a_layout_without_boxes_is_a_plain_sampling() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::in_memory(1 << 30));
    let common =
        "model: gligen, prompt: a red circle, seed: 3, cfg: 3, width: 64, height: 64, steps: 3, scheduler: karras";
    for conventions in ["diffusers", "comfyui"] {
        for sampler in ["euler_ancestral", "dpmpp_2m_sde", "uni_pc"] {
            let name = format!("{conventions}_{sampler}");
            let common = format!("{common}, sampler: {sampler}, conventions: {conventions}");
            let graph = format!(
                "lsregen: 1\nnodes:\n  gligen: {{ type: LoadModel, model: shapes/gligen }}\n  layout: {{ type: GLIGENLayout, \
                 {common}, boxes: [] }}\n  plain: {{ type: GuidedSDSample, {common}, guidance: [] }}\n  save: {{ type: \
                 SaveLatent, latent: layout.latent, path: {name}_layout.safetensors }}\n  save2: {{ type: SaveLatent, \
                 latent: plain, path: {name}.safetensors }}\n"
            );
            run(folder.path(), &store, &graph);
            assert_eq!(latent(folder.path(), &name), latent(folder.path(), &format!("{name}_layout")), "{name}");
        }
    }
    assert_ne!(latent(folder.path(), "diffusers_uni_pc"), latent(folder.path(), "comfyui_uni_pc"));
}

/// A window of classifier-free guidance ends where a second sampling would go on without it.
#[test]
fn a_window_of_guidance_is_a_hand_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::in_memory(1 << 30));
    let common = "type: SDXLSample, model: xl, prompt: a red circle, seed: 3, steps: 4";
    let graph = format!(
        "lsregen: 1\nnodes:\n  xl: {{ type: LoadModel, model: shapes/xl }}\n  windowed: {{ {common}, width: 64, height: 64, \
         cfg: 3, cfg_window: 0.5 }}\n  first: {{ {common}, width: 64, height: 64, cfg: 3, end_step: 2, leftover_noise: true \
         }}\n  second: {{ {common}, latent: first, add_noise: false, cfg: 1, start_step: 2 }}\n  save: {{ type: SaveLatent, \
         latent: windowed, path: windowed.safetensors }}\n  save2: {{ type: SaveLatent, latent: second, path: \
         second.safetensors }}\n"
    );
    run(folder.path(), &store, &graph);
    let (windowed, second) = (latent(folder.path(), "windowed"), latent(folder.path(), "second"));
    let most = windowed.iter().zip(&second).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most < 1e-4, "{most}");
}
