//! Malformed configurations of a model: the built-in ones and those of `tests/configs`, mutated.
//!
//! A case depends only on its seed, so that a seed reproduces it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lsregen_weights::{BUILTIN, BUILTIN_CLIP, ModelFiles};
use serde_json::{Map, Value, json};

/// A small random number generator (SplitMix64), the same on every machine.
pub struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`, which is at least 1.
    fn roll(&mut self, sides: usize) -> usize {
        (self.next() % sides.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.roll(list.len())]
    }
}

/// One mutated file.
pub struct Case {
    /// The model: an index of [`MODELS`].
    pub model: usize,
    /// The path of the file inside the model.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Case {
    /// Puts the file into its model below `folder`, in place of those that would be read instead.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn place(&self, folder: &Path) -> std::io::Result<()> {
        let file = folder.join(MODELS[self.model]).join(&self.path);
        if file.ends_with("tokenizer.json") {
            fs::remove_file(file.with_file_name("vocab.json"))?;
        }
        fs::write(file, &self.bytes)
    }
}

/// The models of which one file at a time is replaced.
pub const MODELS: [&str; 3] = ["gligen", "xl", "clip"];

/// The configurations that are mutated.
pub struct Corpus {
    /// The files of each model.
    models: Vec<Vec<(String, Vec<u8>)>>,
    /// Contents that were written for such a path, by model and path.
    donors: BTreeMap<(usize, String), Vec<Vec<u8>>>,
}

fn embedded(files: &ModelFiles) -> Vec<(String, Vec<u8>)> {
    let ModelFiles::Embedded { files, .. } = files else { unreachable!("the built-in models are embedded") };
    files.iter().map(|(path, bytes)| (path.to_string(), bytes.to_vec())).collect()
}

/// The files below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

/// Where a file of `tests/configs` belongs: paths inside the models.
fn places(path: &Path) -> Vec<(usize, String)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.starts_with("ids-") || name == "expected.json" {
        return vec![];
    }
    let kind = path.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    match kind.as_deref() {
        Some("scheduler") => {
            vec![(0, "scheduler/scheduler_config.json".into()), (1, "scheduler/scheduler_config.json".into())]
        }
        Some("unet") => vec![(0, "unet/config.json".into()), (1, "unet/config.json".into())],
        Some("vae") => vec![(0, "vae/config.json".into()), (1, "vae/config.json".into())],
        Some("text_encoder") => vec![(0, "text_encoder/config.json".into()), (1, "text_encoder_2/config.json".into())],
        Some("clip") => vec![(2, "config.json".into())],
        Some("preprocessor") => vec![(2, "preprocessor_config.json".into())],
        Some("tokenizer") => vec![(0, format!("tokenizer/{name}")), (1, format!("tokenizer_2/{name}")), (2, name)],
        _ => vec![],
    }
}

impl Corpus {
    /// Reads the corpus. `root` is the folder of the repository.
    ///
    /// # Panics
    /// When a file cannot be read.
    pub fn read(root: &Path) -> Corpus {
        let models = vec![embedded(&BUILTIN[0]), embedded(&BUILTIN[1]), embedded(&BUILTIN_CLIP)];
        let mut donors: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
        for (model, files) in models.iter().enumerate() {
            for (path, bytes) in files.iter().filter(|(path, _)| !path.ends_with(".safetensors")) {
                donors.entry((model, path.clone())).or_default().push(bytes.clone());
            }
        }
        let folder = root.join("tests/configs");
        for path in below(&folder) {
            let bytes = fs::read(&path).expect("a file");
            for place in places(path.strip_prefix(&folder).expect("a path below")) {
                donors.entry(place).or_default().push(bytes.clone());
            }
        }
        Corpus { models, donors }
    }

    /// Writes the models below `folder`, one folder for each.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) {
        for (model, files) in MODELS.iter().zip(&self.models) {
            for (path, bytes) in files {
                let to = folder.join(model).join(path);
                fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
                fs::write(to, bytes).expect("a file");
            }
        }
    }

    /// The content of a model's file, if it has one of this path.
    fn original(&self, model: usize, path: &str) -> Option<&[u8]> {
        self.models[model].iter().find(|(own, _)| own == path).map(|(_, bytes)| bytes.as_slice())
    }

    /// Undoes [`Case::place`].
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn restore(&self, case: &Case, folder: &Path) -> std::io::Result<()> {
        let model = folder.join(MODELS[case.model]);
        match self.original(case.model, &case.path) {
            Some(bytes) => fs::write(model.join(&case.path), bytes)?,
            None => fs::remove_file(model.join(&case.path))?,
        }
        if let Some(folder) = case.path.strip_suffix("tokenizer.json") {
            let vocab = format!("{folder}vocab.json");
            fs::write(model.join(&vocab), self.original(case.model, &vocab).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Makes case `seed`.
    pub fn case(&self, seed: u64) -> Case {
        let dice = &mut Dice(seed);
        let places: Vec<_> = self.donors.keys().collect();
        let (model, path) = *dice.pick(&places);
        let donors = &self.donors[&(*model, path.clone())];
        // The model's own file is changed as often as all others.
        let mut bytes = if dice.roll(2) == 0 { donors[0].clone() } else { dice.pick(donors).clone() };
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(mut value) if dice.roll(4) > 0 => {
                for _ in 0..=dice.roll(3) {
                    mutate(dice, &mut value);
                }
                bytes = constants(&value.to_string());
            }
            _ => damage(dice, &mut bytes),
        }
        Case { model: *model, path: path.clone(), bytes }
    }
}

/// Numbers at which arithmetic goes wrong.
const EDGES: [i64; 24] = [
    0,
    1,
    -1,
    2,
    3,
    5,
    7,
    8,
    16,
    31,
    63,
    64,
    255,
    256,
    1000,
    1 << 16,
    1 << 24,
    (1 << 24) + 1,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 62,
    i64::MAX,
    i64::MIN,
];

/// Texts that stand for a constant of Python until the file is written.
const CONSTANTS: [(&str, &str); 3] = [("\"@nan\"", "NaN"), ("\"@inf\"", "Infinity"), ("\"@-inf\"", "-Infinity")];

fn constants(text: &str) -> Vec<u8> {
    CONSTANTS.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to)).into_bytes()
}

fn strange(dice: &mut Dice) -> Value {
    match dice.roll(16) {
        0..5 => json!(dice.pick(&EDGES)),
        5 => json!(u64::MAX),
        6 => json!(*dice.pick(&EDGES) as f64),
        7 => json!(dice.pick(&[1e300, -1e300, 5e-324, 0.5, 1e-30, -0.0, 1.0])),
        8 => json!(dice.pick(&["@nan", "@inf", "@-inf"])),
        9 => Value::Null,
        10 => json!(dice.roll(2) == 0),
        11 => json!(dice.pick(&[
            "",
            "silu",
            "swish",
            "linear",
            "!",
            "\u{202e}",
            "<|endoftext|>",
            "gelu",
            "CrossAttnDownBlock2D"
        ])),
        12 => json!("x".repeat(dice.roll(5000))),
        13 => Value::Array(vec![strange_number(dice); dice.roll(40)]),
        14 => (0..dice.roll(100)).fold(json!([]), |inner, _| json!([inner])),
        _ => json!({ "content": dice.pick(&["", "a", "!"]), "id": dice.pick(&EDGES) }),
    }
}

fn strange_number(dice: &mut Dice) -> Value {
    json!(dice.pick(&EDGES))
}

/// Changes one value of a tree: another value, a missing key, a further key, a doubled or halved number.
fn mutate(dice: &mut Dice, value: &mut Value) {
    match value {
        Value::Object(object) if !object.is_empty() && dice.roll(12) > 0 => {
            let keys: Vec<String> = object.keys().cloned().collect();
            let key = dice.pick(&keys).clone();
            change(dice, object, &key);
        }
        Value::Array(items) if !items.is_empty() && dice.roll(4) > 0 => {
            let at = dice.roll(items.len());
            match dice.roll(4) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                _ => mutate(dice, &mut items[at]),
            }
        }
        Value::Number(number) if dice.roll(3) == 0 => {
            let number = number.as_f64().unwrap_or_default();
            *value = json!(number * dice.pick(&[2.0, 0.5, -1.0, 1.0 + 1e-9, 1e9]));
        }
        other => *other = strange(dice),
    }
}

fn change(dice: &mut Dice, object: &mut Map<String, Value>, key: &str) {
    match dice.roll(10) {
        0 => drop(object.remove(key)),
        1 => drop(object.insert("text_projection".into(), strange(dice))),
        2 => {
            let to = if dice.roll(2) == 0 { "added_tokens_decoder" } else { "trained_betas" };
            let value = object[key].clone();
            object.insert(to.into(), value);
        }
        3 => object[key] = json!([object[key], object[key]]),
        _ => mutate(dice, &mut object[key]),
    }
}

/// Changes bytes of a text.
fn damage(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(9) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            2 => drop(bytes.splice(at..at, b"\xef\xbb\xbf".iter().copied())),
            3 => drop(
                bytes.splice(at..at, dice.pick(&["NaN", "-Infinity", "[[", "{", "\"", "\\", "\n", "1e9999"]).bytes()),
            ),
            4 => *bytes = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
            5 => *bytes = "[".repeat(1 << dice.roll(16)).into_bytes(),
            6 => bytes.clear(),
            7 if at < bytes.len() => {
                let end = (at + dice.roll(64)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            _ => {
                let end = (at + dice.roll(200)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = dice.roll(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
        }
    }
}
