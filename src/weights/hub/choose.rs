//! Chooses the files of a model from a repository, by diffusers' file names.

/// The parts of a model that are used.
const PARTS: [&str; 7] = ["scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae"];

/// The names of a part's weights in diffusers and transformers, without variant, shard number and extension.
const STEMS: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];

/// The files of a model in diffusers' layout, or of a part of one (a folder with a `config.json`); none if `files` are
/// neither. The weights of each part are chosen once: safetensors before pickles, then the `fp16` variant if `half`, or else
/// the full one, as far as they exist.
pub fn model_files(files: &[String], half: bool) -> Vec<String> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let parts: Vec<String> = match (has("model_index.json"), has("config.json")) {
        (true, _) => PARTS.iter().map(|part| format!("{part}/")).collect(),
        (false, true) => vec![String::new()],
        _ => return Vec::new(),
    };
    let mut chosen: Vec<_> = files.iter().filter(|file| *file == "model_index.json").cloned().collect();
    for part in parts {
        let inside = files.iter().filter_map(|file| file.strip_prefix(&part)).filter(|name| !name.contains('/'));
        let inside: Vec<&str> = inside.collect();
        let best = inside.iter().filter_map(|name| WeightsForm::of(name)).min_by_key(|form| form.rank(half));
        let needed = |name: &&&str| match WeightsForm::of(name) {
            Some(form) => Some(form) == best,
            None => {
                (name.ends_with(".json") && !name.contains(".index.") || name.ends_with(".txt"))
                    && !name.contains("flax")
            }
        };
        chosen.extend(inside.iter().filter(needed).map(|name| format!("{part}{name}")));
    }
    chosen
}

/// One of the forms in which a repository has a part's weights. All shards and their index have one form.
#[derive(Clone, Copy, PartialEq, Eq)]
struct WeightsForm {
    stem: usize,
    pickle: bool,
    half: bool,
    sharded: bool,
}

impl WeightsForm {
    /// The form of a file; `None` if it is not a weights file, or of another variant.
    fn of(name: &str) -> Option<WeightsForm> {
        let (whole, index) = match name.strip_suffix(".index.json") {
            Some(whole) => (whole, true),
            None => match name.strip_suffix(".index.fp16.json") {
                // diffusers writes `stem.safetensors.index.fp16.json`.
                Some(whole) => return WeightsForm::of(&format!("{}.index.json", varied(whole)?)),
                None => (name, false),
            },
        };
        let (name, pickle) = match (whole.strip_suffix(".safetensors"), whole.strip_suffix(".bin")) {
            (Some(name), _) => (name, false),
            (_, Some(name)) => (name, true),
            _ => return None,
        };
        let (name, shard) = unnumbered(name);
        let (name, half) = name.strip_suffix(".fp16").map_or((name, false), |name| (name, true));
        // Both `stem.fp16-00001-of-00002` and `stem-00001-of-00002.fp16` are in use.
        let (name, early) = unnumbered(name);
        let stem = STEMS.iter().position(|stem| *stem == name)?;
        Some(WeightsForm { stem, pickle, half, sharded: shard || early || index })
    }

    /// The preference: the least rank is best.
    fn rank(self, half: bool) -> (bool, bool, bool, usize) {
        (self.pickle, self.half != half, self.sharded, self.stem)
    }
}

/// `stem.fp16.safetensors` for `stem.safetensors`.
fn varied(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    Some(format!("{stem}.fp16.{extension}"))
}

/// A name without a shard number, and whether it had one.
fn unnumbered(name: &str) -> (&str, bool) {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    match name.rsplit_once("-of-").and_then(|(front, all)| Some((front.rsplit_once('-')?, all))) {
        Some(((name, shard), all)) if number(shard) && number(all) => (name, true),
        _ => (name, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str], half: bool) -> Vec<String> {
        model_files(&files.iter().map(|file| file.to_string()).collect::<Vec<_>>(), half)
    }

    const XL: [&str; 24] = [
        "README.md",
        "01.png",
        "model_index.json",
        "sd_xl_base_1.0.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/flax_model.msgpack",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.onnx",
        "text_encoder/model.safetensors",
        "text_encoder/openvino_model.bin",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "vae_1_0/diffusion_pytorch_model.safetensors",
        "vae_decoder/model.onnx",
        "safety_checker/model.safetensors",
    ];

    #[test]
    fn one_of_each_part() {
        let others = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "tokenizer/merges.txt",
            "tokenizer/vocab.json",
            "unet/config.json",
            "vae/config.json",
        ];
        for (half, variant) in [(false, ""), (true, ".fp16")] {
            let stems = ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"];
            let mut expected: Vec<_> = stems.map(|stem| format!("{stem}{variant}.safetensors")).into();
            expected.extend(others.map(String::from));
            let mut chosen = chosen(&XL, half);
            expected.sort();
            chosen.sort();
            assert_eq!(chosen, expected);
        }
    }

    /// A repository in transformers' layout has its tokenizer beside its weights.
    #[test]
    fn a_clip_includes_its_tokenizer() {
        let files = [
            "README.md",
            "config.json",
            "flax_model.msgpack",
            "merges.txt",
            "model.safetensors",
            "preprocessor_config.json",
            "pytorch_model.bin",
            "special_tokens_map.json",
            "tf_model.h5",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
        ];
        let wanted: Vec<_> = [1, 3, 4, 5, 7, 9, 10, 11].map(|i| files[i].to_string()).into();
        assert_eq!(chosen(&files, false), wanted);
    }

    #[test]
    fn the_only_available_form_is_chosen() {
        let only = |name: &str| {
            for half in [false, true] {
                let files = ["model_index.json".to_string(), format!("unet/{name}")];
                assert_eq!(model_files(&files, half), files, "{name}");
            }
        };
        only("diffusion_pytorch_model.bin");
        only("diffusion_pytorch_model.fp16.bin");
        only("diffusion_pytorch_model.fp16.safetensors");
        let part = ["config.json", "diffusion_pytorch_model.safetensors", "sdxl_vae.safetensors"];
        assert_eq!(chosen(&part, true), part[..2]);
        assert!(chosen(&["README.md", "sd-v1-4.ckpt"], false).is_empty());
    }

    #[test]
    fn shards_come_with_their_index() {
        let full = [
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.json",
        ];
        let half = [
            "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        ];
        let all = [&["model_index.json"][..], &full, &half].concat();
        assert_eq!(chosen(&all, false)[1..], full);
        assert_eq!(chosen(&all, true)[1..], half);
    }
}
