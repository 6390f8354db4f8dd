//! Configurations as others write them, those of `tests/configs` at the root of the repository, and mutated ones.

#[path = "../examples/fuzz_configs/cases.rs"]
#[allow(dead_code)]
mod cases;
#[path = "../examples/fuzz_configs/usage.rs"]
mod usage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cases::{Case, Corpus, MODELS};
use lsregen_diffusion::models::clip::{ClipProcessor, ClipTokenizer};
use lsregen_diffusion::models::config::{ClipConfig, ClipTextConfig, UNetConfig, VaeConfig};
use lsregen_diffusion::models::{Blueprint, ModelSource};
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings};
use lsregen_diffusion::schedule::{NoiseSchedule, SchedulerConfig};
use lsregen_weights::ModelFiles;
use serde_json::{Value, json};
use usage::{Outcome, open_and_use};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn foreign(path: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/configs").join(path)).unwrap()
}

#[test]
fn the_schedulers_of_diffusers_are_read() {
    let expected: Value = serde_json::from_slice(&foreign("scheduler/expected.json")).unwrap();
    let expected = expected.as_object().unwrap();
    assert!(expected.len() > 12);
    for (name, expected) in expected {
        let config = SchedulerConfig::parse(&foreign(&format!("scheduler/{name}.json")), name).unwrap();
        assert_eq!(config.clip_sample, expected["clip_sample"], "{name}");
        let schedule = NoiseSchedule::new(&config).unwrap();
        for (t, key) in [(0.0, "first"), (999.0, "last")] {
            assert!((schedule.alpha_bar(t) - expected[key].as_f64().unwrap()).abs() < 1e-7, "{name}");
        }
    }
}

/// diffusers builds the same network from both.
#[test]
fn lists_of_equal_values_are_one_value() {
    let unet = |name: &str| format!("{:?}", UNetConfig::parse(&foreign(name), name).unwrap());
    assert_eq!(unet("unet/lists.json"), unet("unet/plain.json"));
    let vae = |name: &str| format!("{:?}", VaeConfig::parse(&foreign(name), name).unwrap());
    assert_eq!(vae("vae/swish.json"), vae("vae/plain.json"));
}

#[test]
fn the_configurations_of_transformers_are_read() {
    let text = ClipTextConfig::parse(&foreign("text_encoder/transformers-4.json"), "text", false).unwrap();
    assert_eq!((text.hidden_size, text.num_hidden_layers, text.max_position_embeddings), (32, 2, 32));
    let clip = ClipConfig::parse(&foreign("clip/transformers-4.json"), "clip").unwrap();
    assert_eq!((clip.text.hidden_size, clip.vision.image_size, clip.projection_dim), (32, 224, 512));
    ClipProcessor::parse(&foreign("preprocessor/transformers-4.json"), "preprocessor", 224).unwrap();

    // transformers 5 saves the preparation of images with the tokenizer's settings.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("processor_config.json"), foreign("processor/transformers-5.json")).unwrap();
    let files = ModelFiles::Folder(folder.path().into());
    let processor = format!("{:?}", ClipProcessor::read(&files, 32).unwrap());
    assert!(processor.contains("mean: [0.5, 0.5, 0.5]"), "{processor}");
    assert!(ClipProcessor::read(&files, 64).is_err());
}

/// Folders as they are published, and as both versions of transformers save them.
#[test]
fn tokenizers_equal_transformers() {
    let mut seen = 0;
    for version in ["4", "5"] {
        let expected: Value = serde_json::from_slice(&foreign(&format!("tokenizer/ids-{version}.json"))).unwrap();
        let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
        for (name, ids) in expected["ids"].as_object().unwrap() {
            let files = ModelFiles::Folder(root().join("tests/configs/tokenizer").join(name));
            let tokenizer = ClipTokenizer::load(&files, "", 32).unwrap();
            for (text, ids) in texts.iter().zip(ids.as_array().unwrap()) {
                assert_eq!(json!(tokenizer.tokens(text).unwrap()), *ids, "{name}: {text:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 200);
}

/// A model whose file at `path` is edited.
fn edited(path: &str, edit: impl FnOnce(&mut Value)) -> Result<Result<Outcome, String>, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    Corpus::read(&root()).write(folder.path());
    let file = folder.path().join("xl").join(path);
    let mut value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(&file, value.to_string()).unwrap();
    open_and_use(&folder.path().join("xl"), path)
}

#[test]
fn sizes_that_no_network_has_are_refused() {
    let scheduler = "scheduler/scheduler_config.json";
    for (path, key, value, words) in [
        ("unet/config.json", "sample_size", json!(i64::MAX), "`sample_size` must be an integer from 0 to 16777216"),
        ("unet/config.json", "sample_size", json!(1 << 20), "is for images of 8388608 pixels along a side"),
        (
            "unet/config.json",
            "addition_time_embed_dim",
            json!(1u64 << 31),
            "`addition_time_embed_dim` must be an integer",
        ),
        ("unet/config.json", "addition_time_embed_dim", json!(1 << 20), "added numbers"),
        (
            "unet/config.json",
            "out_channels",
            json!(8),
            "`in_channels` is 4 and `out_channels` 8, which is not supported",
        ),
        ("unet/config.json", "freq_shift", json!(1e30), "`freq_shift`"),
        ("vae/config.json", "scaling_factor", json!(0), "`scaling_factor` must be between 0.001 and 1000, but is 0"),
        ("vae/config.json", "block_out_channels", json!(vec![32; 70]), "must have 1 to 16 entries, but has 70"),
        ("vae/config.json", "out_channels", json!(8), "`out_channels` is 8, but only 3 is supported"),
        ("text_encoder/config.json", "layer_norm_eps", json!(-1), "`layer_norm_eps` must be above 0, but is -1"),
        (scheduler, "num_train_timesteps", json!(i64::MAX), "`num_train_timesteps` must be an integer from 0 to"),
        (scheduler, "num_train_timesteps", json!(1 << 20), "must be between 2 and 65536, but is 1048576"),
        (scheduler, "trained_betas", json!([]), "`trained_betas` has 0 entries for 1000 timesteps"),
        (scheduler, "beta_end", json!(1.5), "timestep"),
        (
            "tokenizer_2/vocab.json",
            "red</w>",
            json!(1 << 20),
            "the tokenizer has 1048577 tokens, but its text encoder has 586",
        ),
    ] {
        let problems = edited(path, |config| config[key] = value.clone()).unwrap_err();
        assert!(problems.iter().any(|p| p.contains(words)), "{path}: `{key}` {value}: {problems:?}");
    }
}

/// What `DDIMScheduler` and `DDPMScheduler` save unless told otherwise.
#[test]
fn a_scheduler_that_clamps_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    Corpus::read(&root()).write(folder.path());
    let xl = folder.path().join("xl");
    let notes = || Blueprint::open(&ModelSource::from(ModelFiles::Folder(xl.clone()))).unwrap().notes;
    assert_eq!(notes(), [""; 0]);
    std::fs::write(xl.join("scheduler/scheduler_config.json"), foreign("scheduler/DDPM.json")).unwrap();
    assert!(notes()[0].contains("clamps the predicted latent to ±1 (`clip_sample`)"), "{:?}", notes());
}

#[test]
fn a_unet_with_other_added_numbers_is_refused() {
    let problems = edited("unet/config.json", |config| {
        let width = config["addition_time_embed_dim"].as_u64().unwrap();
        config["addition_time_embed_dim"] = json!(width + 2);
    });
    assert!(problems.unwrap_err().iter().any(|p| p.contains("a pooled text of 64 and 6 sizes of 34 numbers")));
}

#[test]
fn timesteps_beyond_the_last_are_refused() {
    let config =
        SchedulerConfig::parse(br#"{"steps_offset": 1, "timestep_spacing": "leading"}"#, "scheduler_config.json")
            .unwrap();
    Sampler::new(&config, &SamplerSettings::new(SamplerKind::Dpmpp2M, 998)).unwrap();
    Sampler::new(&config, &SamplerSettings::new(SamplerKind::Ddim, 999)).unwrap();
    let error = Sampler::new(&config, &SamplerSettings::new(SamplerKind::Dpmpp2M, 999)).unwrap_err().to_string();
    assert!(error.contains("`steps` is 999, but the model has no 999 different timesteps"), "{error}");
}

#[test]
fn a_pointer_of_git_lfs_is_recognised_in_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Corpus::read(&root());
    corpus.write(folder.path());
    let xl = folder.path().join("xl");
    for path in ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json", "tokenizer/vocab.json"] {
        let bytes = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec();
        let case = Case { model: 1, path: path.into(), bytes };
        case.place(folder.path()).unwrap();
        let problems = open_and_use(&xl, path).unwrap_err();
        assert!(problems.iter().any(|p| p.contains(&format!("{path}: a pointer of Git LFS"))), "{problems:?}");
        corpus.restore(&case, folder.path()).unwrap();
    }
}

/// Both files of a tokenizer with a byte order mark, as some editors save them.
#[test]
fn byte_order_marks_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    Corpus::read(&root()).write(folder.path());
    let files = ModelFiles::Folder(folder.path().join("xl"));
    let ids = || ClipTokenizer::load(&files, "tokenizer", 32).unwrap().encode("a red circle on sand").unwrap();
    let before = ids();
    for name in ["vocab.json", "merges.txt"] {
        let file = folder.path().join("xl/tokenizer").join(name);
        let bytes = std::fs::read(&file).unwrap();
        // Without the line of the version, the mark stands before the first merge.
        let bytes = bytes.strip_prefix(b"#version: 0.2\n".as_slice()).unwrap_or(&bytes);
        std::fs::write(&file, [b"\xef\xbb\xbf", bytes].concat()).unwrap();
    }
    assert_eq!(ids(), before);
}

#[test]
fn a_folder_with_tokenizer_json_alone_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    Corpus::read(&root()).write(folder.path());
    let tokenizer = folder.path().join("xl/tokenizer");
    for name in ["vocab.json", "merges.txt", "special_tokens_map.json"] {
        std::fs::remove_file(tokenizer.join(name)).unwrap();
    }
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::write(tokenizer.join(name), foreign(&format!("tokenizer/first-5/{name}"))).unwrap();
    }
    let blueprint = Blueprint::open(&ModelSource::from(ModelFiles::Folder(folder.path().join("xl")))).unwrap();
    assert!(blueprint.files().any(|file| file.ends_with("tokenizer/tokenizer.json")));
}

/// `examples/fuzz_configs` does the same for any number of files, and measures memory.
#[test]
fn no_configuration_makes_a_model_panic() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Corpus::read(&root());
    corpus.write(folder.path());
    let (mut used, mut refused) = (0, 0);
    for seed in 0..400 {
        let case = corpus.case(seed);
        let model = folder.path().join(MODELS[case.model]);
        case.place(folder.path()).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| open_and_use(&model, &case.path)));
        match result.unwrap_or_else(|_| panic!("seed {seed} ({}) panicked", case.path)) {
            Ok(Ok(Outcome::Finite)) => used += 1,
            Ok(other) => panic!("seed {seed} ({}): opened, but {other:?}", case.path),
            Err(problems) => {
                refused += 1;
                assert!(problems.iter().all(|p| !p.is_empty()), "seed {seed}");
            }
        }
        corpus.restore(&case, folder.path()).unwrap();
    }
    // The test would say little if most files, or none, were still valid.
    assert!(used > 50 && refused > 50, "{used} were used, {refused} refused");
}
