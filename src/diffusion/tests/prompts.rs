//! Compares prompts with transformers' encoders and with an implementation of the same rules in Python
//! (`fixtures/prompts.py`), and parses texts that nobody would write.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, fixture, shapes, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::models::prompt::{Chunk, Group, Prompt, Segment, Sizes, chunks, parse};
use lsregen_diffusion::models::unet::Conditioning;
use lsregen_diffusion::models::{Blueprint, Family, Model};
use lsregen_diffusion::pipeline::{SamplingSettings, sample};
use lsregen_diffusion::sampler::{SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::source::SourceImage;
use lsregen_weights::{ModelFiles, Precision};
use serde::Deserialize;

/// Largest relative error of an encoder in f32.
const ENCODER: f64 = 1e-4;

/// Largest relative error of the latents after a whole run in f32.
const RUN: f64 = 1e-3;

static SMALL: LazyLock<Model> = LazyLock::new(|| load("gligen"));
static LARGE: LazyLock<Model> = LazyLock::new(|| load("xl"));
static REFERENCE: LazyLock<HashMap<String, Tensor>> = LazyLock::new(|| tensors("prompts.safetensors"));
static FIXTURE: LazyLock<Fixture> =
    LazyLock::new(|| serde_json::from_slice(&std::fs::read(fixture("prompts.json")).unwrap()).unwrap());

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    noise: Vec<(String, Vec<(String, f64)>)>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    model: String,
    texts: Vec<String>,
    segments: Vec<(String, f64)>,
    /// The chunks of each encoder.
    chunks: Vec<Vec<Chunk>>,
}

fn load(name: &str) -> Model {
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap();
    Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false)
}

fn assert_parsed(text: &str, expected: &[(String, f64)]) {
    let parsed = parse(text);
    let texts = |segments: &[Segment]| segments.iter().map(|s| s.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&parsed), expected.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>(), "{text:?}");
    for (segment, (_, weight)) in parsed.iter().zip(expected) {
        assert!((segment.weight - weight).abs() < 1e-9 * weight.abs().max(1.0), "{text:?}: {segment:?}, not {weight}");
    }
}

/// Compares contexts, pooled texts and the number of chunks.
#[test]
fn encoded_prompts_equal_the_reference() {
    for case in &FIXTURE.cases {
        let model = if case.model == "xl" { &LARGE } else { &SMALL };
        let prompt = Prompt { text: case.texts[0].clone(), text_2: case.texts.get(1).cloned() };
        let text = model.encode_prompt(&prompt).unwrap();
        assert_close(&case.name, &text.context, &REFERENCE[&format!("{}.context", case.name)], ENCODER);
        let pooled = REFERENCE.get(&format!("{}.pooled", case.name));
        assert_eq!(text.pooled.is_some(), pooled.is_some());
        if let (Some(ours), Some(theirs)) = (&text.pooled, pooled) {
            assert_close(&case.name, ours, theirs, ENCODER);
        }
        let most = case.chunks.iter().map(Vec::len).max().unwrap();
        assert_eq!(text.context.dim(1).unwrap(), 32 * most, "{}", case.name);
    }
}

#[test]
fn segments_equal_the_reference() {
    for case in &FIXTURE.cases {
        assert_parsed(&case.texts[0], &case.segments);
    }
    assert!(FIXTURE.noise.len() >= 400);
    for (text, segments) in &FIXTURE.noise {
        assert_parsed(text, segments);
    }
}

/// A few readable cases; the fixture has hundreds.
#[test]
fn the_syntax_of_weights() {
    for (text, expected) in [
        ("red", vec![("red", 1.0)]),
        ("", vec![]),
        ("(red)", vec![("red", 1.1)]),
        ("((red))", vec![("red", 1.21)]),
        ("(red:1.5)", vec![("red", 1.5)]),
        // A number is the weight itself; without a number the weight is 1.1 times that of the text around it.
        ("((red:1.5) blue:0.5)", vec![("red", 1.5), (" blue", 0.5)]),
        ("((red) blue:0.5)", vec![("red", 0.55), (" blue", 0.5)]),
        ("(a:b:2)", vec![("a:b", 2.0)]),
        (r"\(red\) (a \( b:2)", vec![("(red) ", 1.0), ("a ( b", 2.0)]),
        (r"\red \\(blue\)", vec![(r"\red \(blue)", 1.0)]),
        ("[red]", vec![("[red]", 1.0)]),
        ("(:2)", vec![(":2", 1.1)]),
        (
            "(red:blue) (red:nan) (red:inf)",
            vec![("red:blue", 1.1), (" ", 1.0), ("red:nan", 1.1), (" ", 1.0), ("red:inf", 1.1)],
        ),
        ("red (blue", vec![("red ", 1.0), ("(blue", 1.0)]),
        ("red) (blue:2) star", vec![("red) (blue:2) star", 1.0)]),
        ("red) ((blue:2) star", vec![("red) (", 1.0), ("blue", 2.0), (" star", 1.0)]),
        ("(red (blue)", vec![("red ", 1.1), ("(blue", 1.1)]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(text, weight)| (text.to_string(), weight)).collect();
        assert_parsed(text, &expected);
    }
}

/// A xorshift generator, so that every run has the same texts.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Parsing removes only parentheses, weights and escapes, and adds nothing.
#[test]
fn any_text_is_a_prompt() {
    let parts = [
        "(",
        ")",
        "(",
        ")",
        ":",
        "\\",
        "1.2",
        "-1e9",
        "nan",
        "é",
        "漢",
        "👩‍🚀",
        "\u{0}",
        "\u{1}",
        " ",
        "\n",
        "word",
        "_",
    ];
    let mut state = 1;
    for _ in 0..20_000 {
        let length = random(&mut state) % 40;
        let text: String = (0..length).map(|_| parts[(random(&mut state) % parts.len() as u64) as usize]).collect();
        let parsed = parse(&text);
        let mut rest = text.chars();
        for c in parsed.iter().flat_map(|s| s.text.chars()) {
            assert!(rest.any(|r| r == c), "{text:?}: {parsed:?}");
        }
        assert!(parsed.iter().all(|s| !s.text.is_empty()), "{text:?}: {parsed:?}");
        if !text.contains(['(', ')']) {
            assert_eq!(parsed.iter().map(|s| s.text.as_str()).collect::<String>(), text);
        }
    }
}

#[test]
fn deep_and_long_prompts_are_read_in_linear_time_without_recursion() {
    let n = 100_000;
    let texts = [
        format!("{}word{}", "(".repeat(n), ")".repeat(n)),
        format!("{}word", "(".repeat(n)),
        format!("{}word)", "(".repeat(n)),
        format!("{}word{}", "(".repeat(2 * n), ")".repeat(n)),
        format!("word{}", ")".repeat(n)),
        format!("{}word{}", ")".repeat(n), "(".repeat(n)),
        format!("{}:{}{}", "(".repeat(n), "1".repeat(n), ")".repeat(n)),
        format!("{}word{}", "(".repeat(n), ":1.1)".repeat(n)),
        "(a:1.1) ".repeat(n),
        "(a ".repeat(n) + &"b)".repeat(n),
        ":".repeat(n),
        "\\(".repeat(n),
    ];
    // The stack is too small for a recursion of this depth.
    let read = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
        for text in &texts {
            // Each text takes milliseconds. In quadratic time this test would take many minutes.
            assert!(parse(text).len() <= text.len());
        }
    });
    read.unwrap().join().unwrap();
}

#[test]
fn an_infinite_weight_is_an_error() {
    let deep = format!("a {}red{} circle", "(".repeat(10_000), ")".repeat(10_000));
    let message = SMALL.encode_prompt(&deep.as_str().into()).unwrap_err().to_string();
    assert!(message.contains("\"red\" has a weight that is too large"), "{message}");
    let message =
        LARGE.encode_prompt(&"(a red circle and a blue square on sand:3.4e38)".into()).unwrap_err().to_string();
    assert!(message.contains("too large"), "{message}");
}

#[test]
fn chunks_keep_small_groups_whole_and_divide_large_ones() {
    let group = |n: u32| Group { ids: (0..n).collect(), weight: 1.0 };
    let laid = |sizes: &[u32], room| {
        let groups: Vec<_> = sizes.iter().map(|n| group(*n)).collect();
        chunks(&groups, room).iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(laid(&[], 75), [0]);
    assert_eq!(laid(&[75], 75), [75]);
    assert_eq!(laid(&[76], 75), [75, 1]);
    assert_eq!(laid(&[151], 75), [75, 75, 1]);
    assert_eq!(laid(&[70, 5], 75), [75]);
    assert_eq!(laid(&[70, 7], 75), [70, 7], "seven tokens stay together");
    assert_eq!(laid(&[70, 8], 75), [75, 3], "eight are divided");
    assert_eq!(laid(&[75, 8], 75), [75, 8]);
    assert_eq!(laid(&[70, 7, 70], 75), [70, 75, 2]);
    assert_eq!(laid(&[5, 5, 0, 2], 3), [3, 3, 3, 3], "a group larger than a chunk is divided");
    assert_eq!(laid(&[2, 2], 0), [1, 1, 1, 1]);
    let tokens: Vec<u32> = chunks(&[group(200)], 75).iter().flatten().map(|(id, _)| *id).collect();
    assert_eq!(tokens, (0..200).collect::<Vec<_>>());
}

/// A short prompt without weights is one chunk, and its encoding is exactly the encoder's output.
#[test]
fn weights_of_one_change_no_bit() {
    let bits = |prompt: &str| {
        let context = LARGE.encode_prompt(&prompt.into()).unwrap().context;
        context.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(bits("a red circle on sand"), bits("a (red:1.0) circle on (sand:1)"));
    let weighed = bits("a (red:1.3) circle on sand");
    let width = LARGE.blueprint().unet.0.cross_attention_dim;
    assert_eq!(weighed[..2 * width], bits("a red circle on sand")[..2 * width], "begin of text and `a`");
    assert_ne!(weighed[2 * width..3 * width], bits("a red circle on sand")[2 * width..3 * width]);
}

#[test]
fn halves_of_different_lengths_are_repeated_to_one() {
    let half = |rows: &[f32]| Conditioning {
        context: Tensor::from_slice(rows, (1, rows.len(), 1), &Device::Cpu).unwrap(),
        added: None,
        objs: None,
        guidance: None,
        channels: None,
    };
    let both = |a: &[f32], b: &[f32]| half(a).stack(&half(b)).unwrap().context.squeeze(2).unwrap().to_vec2::<f32>();
    assert_eq!(both(&[1., 2.], &[3.]).unwrap(), [[1., 2.], [3., 3.]]);
    assert_eq!(both(&[1., 2.], &[3., 4., 5.]).unwrap(), [[1., 2., 1., 2., 1., 2.], [3., 4., 5., 3., 4., 5.]]);
    assert_eq!(both(&[1., 2.], &[3., 4.]).unwrap(), [[1., 2.], [3., 4.]]);
}

#[test]
fn a_run_with_long_weighted_prompts_and_sizes_equals_the_pipeline() {
    let case = |name: &str| FIXTURE.cases.iter().find(|c| c.name == name).unwrap();
    let long = case("xl.long").texts[0].clone();
    let settings = SamplingSettings {
        prompt: Prompt { text: long, text_2: Some("a (blue square:1.3) on sand".into()) },
        negative: None,
        width: 256,
        height: 192,
        seed: 7,
        cfg: 4.0,
        sampler: SamplerSettings::new(SamplerKind::Ddim, 3),
        sizes: Sizes { original: Some((300, 200)), target: Some((240, 280)), crop: (8, 24) },
        from: None,
        options: Default::default(),
        source: SourceImage::default(),
    };
    let quiet = |_: Step| -> Result<()> { Ok(()) };
    let z = sample(&LARGE, &settings, &[], &quiet).unwrap();
    assert_close("run", &z, &REFERENCE["run"], RUN);
    let negative = SamplingSettings { negative: Some("a (green star:1.2)".into()), ..settings.clone() };
    let z = sample(&LARGE, &negative, &[], &quiet).unwrap();
    assert_close("run.negative", &z, &REFERENCE["run.negative"], RUN);
    // The result depends on each of the sizes.
    for sizes in [
        Sizes { original: None, ..settings.sizes },
        Sizes { target: None, ..settings.sizes },
        Sizes { crop: (24, 8), ..settings.sizes },
    ] {
        let other = sample(&LARGE, &SamplingSettings { sizes, ..settings.clone() }, &[], &quiet).unwrap();
        assert!(common::relative(&other, &REFERENCE["run"]) > RUN, "{sizes:?}");
    }
}

#[test]
fn the_tokens_of_each_chunk_equal_the_reference() {
    use lsregen_diffusion::models::clip::ClipTokenizer;
    assert_eq!((SMALL.info.family, LARGE.info.family), (Family::Gligen, Family::Sdxl));
    for case in &FIXTURE.cases {
        let files = ModelFiles::Folder(shapes(&case.model));
        for (i, expected) in case.chunks.iter().enumerate() {
            let tokenizer = ClipTokenizer::load(&files, ["tokenizer", "tokenizer_2"][i], 32).unwrap();
            let text = case.texts.get(i).unwrap_or(&case.texts[0]);
            let groups = parse(text)
                .into_iter()
                .map(|s| Group { ids: tokenizer.tokens(&s.text).unwrap(), weight: s.weight as f32 });
            let laid = chunks(&groups.collect::<Vec<_>>(), tokenizer.room());
            assert_eq!(&laid, expected, "{}", case.name);
        }
    }
}
