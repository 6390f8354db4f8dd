//! Nodes compare the declarations of other nodes, never their types: a guidance node of another crate gets the same
//! checks as a built-in one.

use std::path::Path;
use std::sync::Arc;

use lsregen_diffusion::guidance::{BoundGuidance, GuidanceSpec, SamplingRun};
use lsregen_diffusion::models::Family;
use lsregen_diffusion::sampler::{Conventions, SamplerKind};
use lsregen_diffusion::schedule::ScheduleKind;
use lsregen_engine::{
    CheckContext, Context, Declaration, Diagnostic, Host, Links, Node, NodeType, Registry, Source, check, sockets,
};
use lsregen_nodes::values::{Guidance, ImageSize, Layout, Phrases, SamplingNeeds, declared};
use lsregen_nodes::{ALL, GuidanceNode, GuidanceOutputs, GuidanceParams, StepRange, Steps, Strength};
use lsregen_tensor::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug)]
struct Nothing;

impl GuidanceSpec for Nothing {
    fn bind(&self, _: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        Ok(vec![])
    }
}

/// A guidance that follows a layout.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Follow {
    scale: Strength,
    #[serde(flatten)]
    params: GuidanceParams,
}

sockets! {
    struct FollowInputs {
        /// The phrases.
        pub layout: Option<Arc<Layout>>,
    }
}

impl GuidanceNode for Follow {
    const TYPE: &'static str = "Follow";
    const VERSION: u32 = 1;

    type Inputs = FollowInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn needs(&self, links: &Links) -> SamplingNeeds {
        let phrases = links.declaration("layout").map_or(vec![], |Phrases(phrases)| phrases.clone());
        SamplingNeeds { phrases, ..SamplingNeeds::default() }
    }

    fn guidance(&self, _: FollowInputs, _: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(Nothing))
    }
}

/// A guidance that fits only one sampling.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Bespoke {}

impl Node for Bespoke {
    const TYPE: &'static str = "Bespoke";
    const VERSION: u32 = 1;

    type Inputs = ();
    type Outputs = GuidanceOutputs;

    fn declare(&self, _: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let needs = SamplingNeeds {
            steps: Some((
                Steps {
                    steps: 7,
                    sampler: SamplerKind::Euler,
                    scheduler: ScheduleKind::Auto,
                    conventions: Conventions::Diffusers,
                },
                StepRange::default(),
            )),
            size: Some(ImageSize { width: 64, height: 96 }),
            family: Some(Family::Sdxl),
            ..SamplingNeeds::default()
        };
        declared("guidance", Some(needs))
    }

    fn run(&self, (): (), _: &Context) -> anyhow::Result<GuidanceOutputs> {
        Ok(GuidanceOutputs { guidance: Arc::new(Guidance::new(Nothing)) })
    }
}

/// Returns the errors of a graph with these nodes, whose image is saved.
fn errors(nodes: &str) -> Vec<String> {
    found(nodes).into_iter().filter(Diagnostic::is_error).map(|d| d.message).collect()
}

/// Returns the warnings of a graph with these nodes, whose image is saved.
fn warnings(nodes: &str) -> Vec<String> {
    found(nodes).into_iter().filter(|d| ["absent-phrase", "stretched"].contains(&d.code)).map(|d| d.message).collect()
}

fn found(nodes: &str) -> Vec<Diagnostic> {
    let registry = Registry::new(&[ALL, &[Follow::node_type(), NodeType::of::<Bespoke>()]].concat());
    let text = format!(
        "lsregen: 1\nnodes:\n  model: {{ type: LoadModel, model: shapes/xl }}\n  small: {{ type: LoadModel, model: \
         shapes/gligen }}\n{nodes}  image: {{ type: Decode, model: model, latent: sample }}\n  save: {{ type: SaveImage, \
         image: image, path: a.png }}\n"
    );
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graphs");
    check(Source::new("graph.yaml", text), &[], &registry, &Host::new(&here, ".")).diagnostics
}

const LAYOUT: &str = "  layout: { type: Layout, boxes: [{ phrase: a red circle, box: [0, 0, 0.5, 0.5] }] }\n";

fn sample(kind: &str, params: &str) -> String {
    format!("  sample: {{ type: {kind}, model: model, guidance: [follow], {params} }}\n")
}

#[test]
fn phrases_of_an_unknown_guidance_must_be_in_the_prompt() {
    for layout in [LAYOUT, "  layout: { type: Layout, layout_file: layout.json }\n"] {
        let follow = "  follow: { type: Follow, scale: 1, layout: layout }\n";
        let with = |prompt: &str| errors(&[layout, follow, &sample("GuidedSDXLSample", prompt)].concat());
        assert_eq!(with("prompt: \"The RED circle, the blue square\""), [""; 0]);
        let errors = with("prompt: a blue square");
        assert!(
            errors[0].contains("guides the phrase `a red circle`, but the prompt does not contain it"),
            "{errors:?}"
        );
    }
}

#[test]
fn strength_by_boxes_requires_boxes() {
    let follow = |link: &str| format!("  follow: {{ type: Follow, scale: auto{link} }}\n");
    let sample = sample("GuidedSDXLSample", "prompt: a red circle");
    assert_eq!(errors(&[LAYOUT, &follow(", layout: layout"), &sample].concat()), [""; 0]);
    let errors = errors(&[&follow(""), &*sample].concat());
    assert!(errors[0].contains("`scale: auto` follows the size of boxes"), "{errors:?}");
}

#[test]
fn a_guidance_for_one_sampling_is_compared_with_it() {
    let follow = "  follow: { type: Bespoke }\n";
    let with = |kind: &str, params: &str| errors(&[follow, &sample(kind, params)].concat());
    let fitting = "prompt: x, steps: 7, sampler: euler";
    for kind in ["GuidedSDXLSample", "MultiDiffusionSample"] {
        let layout = if kind == "MultiDiffusionSample" { ", layout: layout" } else { "" };
        let with = |params: &str| errors(&[LAYOUT, follow, &sample(kind, &format!("{params}{layout}"))].concat());
        let unneeded = |errors: Vec<String>| errors.into_iter().filter(|e| !e.contains("layout")).collect::<Vec<_>>();
        assert_eq!(unneeded(with(fitting)), [""; 0], "{kind}");
        for (params, message) in [
            ("prompt: x, sampler: euler", "is for 7 steps of euler, but this sampling has 20 steps of euler"),
            ("prompt: x, steps: 7", "is for 7 steps of euler, but this sampling has 7 steps of ddim"),
            (
                "prompt: x, steps: 7, sampler: euler, width: 128",
                "is for images of 64×96, but this sampling generates 128×96",
            ),
        ] {
            let errors = with(params);
            assert!(errors.iter().any(|e| e.contains(message)), "{kind} {params}: {errors:?}");
        }
    }
    let errors = with("GuidedSDSample", fitting).join("; ");
    assert!(errors.contains("sdxl"), "{errors}");
    let small =
        "  sample: { type: GuidedSDSample, model: small, guidance: [follow], prompt: x, steps: 7, sampler: euler }\n";
    let errors = self::errors(&[follow, small].concat()).join("; ");
    assert!(errors.contains("is for a model of the family `sdxl`, but this sampling's is `gligen`"), "{errors}");
}

/// Nodes declare sizes to each other: an image that the autoencoder cannot encode is an error before the run.
#[test]
fn sizes_are_known_before_a_run() {
    let encode = |upsample: &str| {
        errors(&format!(
            "  gligen: {{ type: GLIGENLayout, model: small, prompt: x, boxes: [], width: 64, height: 64 }}\n  up: {{ type: \
             Upsample, image: gligen.image, {upsample} }}\n  sample: {{ type: VAEEncode, model: model, image: up }}\n"
        ))
    };
    assert_eq!(encode("factor: 1.5"), [""; 0]);
    assert_eq!(encode("width: 64, height: 32"), [""; 0]);
    for upsample in ["factor: 1.1", "width: 70, height: 64"] {
        let errors = encode(upsample);
        assert!(errors[0].contains("must be multiples of 8, but are 70×"), "{errors:?}");
    }
    // Without a size in the graph, the model's own counts.
    let by_model = "  gligen: { type: GLIGENLayout, model: small, prompt: x, boxes: [] }\n  up: { type: Upsample, image: \
                    gligen.image, factor: 1.5625 }\n  sample: { type: VAEEncode, model: model, image: up }\n";
    assert_eq!(errors(by_model), [""; 0]);
    let errors = errors(&by_model.replace("boxes: []", "boxes: [], width: 1024").replace("1.5625", "20"));
    assert!(errors[0].contains("1024×128 times 20 is 20480×2560"), "{errors:?}");
    for (kind, links) in [
        ("SDXLSample", ""),
        ("GuidedSDXLSample", "guidance: [],"),
        ("MultiDiffusionSample", "guidance: [], layout: layout,"),
    ] {
        let errors = self::errors(&format!(
            "{LAYOUT}  sample: {{ type: {kind}, model: model, {links} prompt: a red circle, width: 130, height: 9 }}\n"
        ));
        let sides =
            ["`width` must be a multiple of 8 pixels, but is 130", "`height` must be a multiple of 8 pixels, but is 9"];
        assert_eq!(errors, sides, "{kind}");
    }
}

/// An image is stretched only by intent.
#[test]
fn a_change_of_proportions_is_a_warning() {
    let up = |upsample: &str| {
        warnings(&format!(
            "  gligen: {{ type: GLIGENLayout, model: small, prompt: x, boxes: [] }}\n  up: {{ type: Upsample, image: \
             gligen.image, {upsample} }}\n  sample: {{ type: VAEEncode, model: model, image: up }}\n"
        ))
    };
    for kept in ["width: 256, height: 256", "width: 1016, height: 1000", "factor: 0.0625"] {
        assert_eq!(up(kept), [""; 0], "{kept}");
    }
    assert_eq!(up("width: 256, height: 192"), ["`image`: the image of 128×128 pixels is stretched to 256×192"]);
}

/// Whatever the method, a phrase of a layout that the prompt does not contain is an error or a warning.
#[test]
fn every_phrase_of_a_layout_should_be_in_the_prompt() {
    let absent = "the prompt does not contain `a red circle`, a phrase of the layout";
    let sample = |prompt: &str| sample("GuidedSDXLSample", &format!("prompt: {prompt}"));
    let gligen = |prompt: &str| {
        format!(
            "  gligen: {{ type: GLIGENLayout, model: small, prompt: {prompt}, boxes: [{{ phrase: a red circle, box: [0, 0, \
             0.5, 0.5] }}] }}\n  up: {{ type: Upsample, image: gligen.image, factor: 2 }}\n  z0: {{ type: VAEEncode, model: \
             model, image: up }}\n"
        )
    };
    let inverted = "  follow: { type: Invert, model: model, latent: z0, prompt: moss }\n";
    let (red, moss) = ("a (red:1.3) circle", "moss");
    assert_eq!(warnings(&[&*gligen(red), inverted, &sample(red)].concat()), [""; 0]);
    assert_eq!(warnings(&[&*gligen(red), inverted, &sample(moss)].concat()), [absent]);
    assert_eq!(warnings(&[&*gligen(moss), inverted, &sample(red)].concat()), [absent]);
    let bands = "  follow: { type: LowPass, image: gligen.image, layout: \
                 gligen.layout }\n";
    assert_eq!(warnings(&[&*gligen(red), bands, &sample(red)].concat()), [""; 0]);
    assert_eq!(warnings(&[&*gligen(red), bands, &sample(moss)].concat()), [absent]);
}

#[test]
fn an_inversion_declares_its_size_and_timesteps() {
    let nodes = |params: &str| {
        format!(
            "  gligen: {{ type: GLIGENLayout, model: small, prompt: x, boxes: [], width: 64, height: 64 }}\n  z0: {{ type: \
             VAEEncode, model: model, image: gligen.image }}\n  follow: {{ type: Invert, model: model, latent: z0, prompt: \
             x }}\n{}",
            sample("GuidedSDXLSample", params)
        )
    };
    assert_eq!(errors(&nodes("prompt: x")), [""; 0]);
    for (params, message) in [
        ("prompt: x, steps: 9", "is for 20 steps of ddim, but this sampling has 9 steps of ddim"),
        ("prompt: x, height: 128", "is for images of 64×64, but this sampling generates 64×128"),
        (
            "prompt: x, prompt_2: y, crop: [8, 8]",
            "was inverted with another `prompt_2` and `crop` than this sampling has",
        ),
    ] {
        let errors = errors(&nodes(params));
        assert!(errors.len() == 1 && errors[0].contains(message), "{params}: {errors:?}");
    }
}

/// DPM-Solver++ spaces one timestep more than it has steps, and the model's offset is 1: its first timestep would be 1000.
#[test]
fn steps_without_timesteps_are_errors() {
    let with = |steps: u32, sampler: &str| {
        errors(&format!(
            "  sample: {{ type: SDXLSample, model: model, prompt: x, steps: {steps}, sampler: {sampler} }}\n"
        ))
    };
    for (steps, sampler) in [(999, "ddim"), (999, "euler"), (998, "dpmpp_2m")] {
        assert_eq!(with(steps, sampler), [""; 0], "{sampler}");
    }
    let errors = with(999, "dpmpp_2m");
    assert!(errors.len() == 1 && errors[0].contains("no 999 different timesteps below 1000"), "{errors:?}");
}

/// What a guidance needs of its boxes is judged in the size of the sampling.
#[test]
fn a_coloured_box_contains_a_pixel() {
    let with = |follow: &str, side: u32| {
        let sample = sample("GuidedSDXLSample", &format!("prompt: a red circle, width: {side}, height: {side}"));
        errors(&[follow, &*sample].concat())
    };
    let follow =
        "  follow: { type: ColourLayout, colours: [{ colour: \"#ff0000\", box: [0.5, 0.5, 0.501, 0.501] }] }\n";
    let errors = with(follow, 64);
    assert!(matches!(&errors[..], [e] if e.contains("contains no pixel of an image of 64×64")), "{errors:?}");
    assert_eq!(with(follow, 1024), [""; 0]);
}

/// A window without steps is a warning, by timesteps or by shares of the steps.
#[test]
fn a_guidance_without_steps_is_noted() {
    let warned = |window: &str| {
        let follow = format!("  follow: {{ type: LowPass, image: photo, {window} }}\n");
        let photo = "  photo: { type: LoadImage, path: ../docs/a.png }\n";
        let graph = [photo, &*follow, &*sample("GuidedSDXLSample", "prompt: \"\", steps: 2")].concat();
        found(&graph).iter().filter(|found| found.code == "no-effect").count()
    };
    let windows = ["from_timestep: 900", "to_timestep: 0", "window: 0", "from_timestep: 400", "window: 0.01"];
    assert_eq!(windows.map(warned), [1, 1, 0, 0, 0]);
}

/// The steps of an inversion are those of its model and sampler.
#[test]
fn an_inversion_has_a_step_above_its_lowest_timestep() {
    let nodes = |low: u32| {
        format!(
            "  photo: {{ type: LoadImage, path: ../docs/a.png }}\n  z: {{ type: VAEEncode, model: model, image: photo }}\n  \
             follow: {{ type: Invert, model: model, latent: z, steps: 2, from_timestep: {low} }}\n{}",
            sample("GuidedSDXLSample", "prompt: \"\", steps: 2")
        )
    };
    let none = |low| errors(&nodes(low)).into_iter().filter(|e| e.contains("none of the 2 steps")).count();
    assert_eq!((none(500), none(900)), (0, 1));
}

/// A sampling that goes on has the steps of the one before, and other nodes take latents without noise.
#[test]
fn leftover_noise_is_handed_to_the_step_that_follows() {
    let warned = |first: &str, second: &str| {
        let sample = |name: &str, more: &str| {
            format!("  {name}: {{ type: GuidedSDXLSample, model: model, guidance: [], prompt: \"\", {more} }}\n")
        };
        let save = "  save: { type: SaveLatent, latent: sample, path: z.safetensors }\n";
        let xl = "  model: { type: LoadModel, model: shapes/xl }\n";
        let nodes =
            [xl.into(), sample("first", first), sample("sample", &format!("latent: first, {second}")), save.into()];
        let graph = format!("lsregen: 1\nnodes:\n{}", nodes.concat());
        let host = Host::new(Path::new("."), Path::new("."));
        let checked = check(Source::new("graph.yaml", graph), &[], &lsregen_nodes::registry(), &host);
        checked.diagnostics.iter().map(|d| d.message.clone()).collect::<Vec<_>>().join("\n")
    };
    let first = "steps: 4, end_step: 2, leftover_noise: true, scheduler: karras";
    assert_eq!(warned(first, "steps: 4, start_step: 2, add_noise: false, scheduler: karras"), "");
    for (first, second, words) in [
        (first, "steps: 4, start_step: 2, scheduler: karras", "has the noise of step 2, and more is added"),
        (first, "steps: 4, start_step: 1, add_noise: false, scheduler: karras", "starts at step 1"),
        (first, "steps: 5, start_step: 2, add_noise: false, scheduler: karras", "has 5 steps of ddim"),
        (first, "steps: 4, start_step: 2, add_noise: false, scheduler: normal", "has 4 steps of ddim (normal)"),
        (first, "steps: 4, start_step: 2, add_noise: false, scheduler: karras, conventions: comfyui", "as in ComfyUI"),
        (first, "steps: 4, denoise: 0.5, start_step: 2, add_noise: false, scheduler: karras", "`latent` has the noise"),
        ("steps: 4", "steps: 4, start_step: 2, add_noise: false", "has no noise, and `add_noise: false` adds none"),
        ("steps: 4, leftover_noise: true", "steps: 4, denoise: 0.5", "`leftover_noise` has no effect"),
        ("steps: 4, end_step: 9", "steps: 4, denoise: 0.5", "`end_step` has no effect: 9 is not below"),
    ] {
        let found = warned(first, second);
        assert!(found.contains(words), "{second}: {found}");
    }
    let decoded = "lsregen: 1\nnodes:\n  model: { type: LoadModel, model: shapes/xl }\n  z: { type: SDXLSample, model: model, \
                   prompt: x, steps: 4, end_step: 2, leftover_noise: true }\n  image: { type: Decode, model: model, latent: z \
                   }\n  save: { type: SaveImage, image: image, path: x.png }\n";
    let host = Host::new(Path::new("."), Path::new("."));
    let checked = check(Source::new("graph.yaml", decoded), &[], &lsregen_nodes::registry(), &host);
    let codes: Vec<_> = checked.diagnostics.iter().map(|d| d.code.to_string()).collect();
    assert_eq!(codes, ["leftover-noise"]);
}
