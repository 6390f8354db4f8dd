//! Generates malformed weights files: damaged valid files, pickles of random opcodes, and files that try to exhaust memory.
//!
//! A file depends only on its seed, so that a seed reproduces it.

mod large;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use lsregen_weights::{Checkpoint, Precision, SortedTensors, Weights};

pub use large::LARGE;

/// Opens a weights file like a program that loads a model: its directory, then its networks.
pub fn open(path: &Path) -> Result<SortedTensors, String> {
    let checkpoint = Checkpoint::open(path).map_err(|e| e.to_string())?;
    Ok(SortedTensors::of(&Arc::new(checkpoint)))
}

/// Loads every tensor. Returns how many could be loaded.
pub fn load(sorted: SortedTensors) -> usize {
    let numbers = Precision::new(DType::F32, &Device::Cpu);
    let mut loaded = 0;
    for map in sorted.networks.into_values() {
        let shapes: Vec<_> = map.names().map(|n| (n.to_string(), map.shape(n).unwrap_or_default().to_vec())).collect();
        let weights = Weights::new(map, &numbers);
        loaded += shapes.into_iter().filter(|(name, shape)| weights.get(shape.as_slice(), name).is_ok()).count();
    }
    loaded
}

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

/// The valid files that are damaged: the fixtures of this crate.
pub struct Corpus {
    /// PyTorch's files, in both formats.
    checkpoints: Vec<Vec<u8>>,
    /// The pickles inside the zipped ones.
    pickles: Vec<Vec<u8>>,
    safetensors: Vec<Vec<u8>>,
}

impl Corpus {
    /// Reads the fixtures. `package` is the folder of this crate.
    ///
    /// # Panics
    /// When the fixtures cannot be read.
    pub fn read(package: &Path) -> Corpus {
        let folder = package.join("tests/fixtures/pickles");
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        let mut corpus = Corpus { checkpoints: vec![], pickles: vec![], safetensors: vec![] };
        for path in paths {
            let bytes = fs::read(&path).expect("a fixture");
            if path.extension().is_some_and(|e| e == "safetensors") {
                corpus.safetensors.push(bytes);
                continue;
            }
            // `data.pkl` is the first entry of torch's archives; the record of its sizes follows.
            if let (Some(end), true) = (find(&bytes, b"PK\x07\x08"), bytes.starts_with(b"PK\x03\x04")) {
                let start = 30 + usize::from(bytes[26]) + 256 * usize::from(bytes[29]) + usize::from(bytes[28]);
                corpus.pickles.push(bytes[start..end].to_vec());
            }
            corpus.checkpoints.push(bytes);
        }
        corpus
    }

    /// Writes case `seed` into `folder`. Returns its kind, the file to open, and the bytes of all its files.
    pub fn write(&self, seed: u64, folder: &Path) -> std::io::Result<(&'static str, PathBuf, usize)> {
        let dice = &mut Dice(seed);
        let (way, bytes) = match dice.roll(20) {
            0..3 => ("checkpoint, damaged", damaged(dice, &self.checkpoints)),
            3..6 => ("pickle, damaged and zipped", {
                let mut pickle = dice.pick(&self.pickles).clone();
                if dice.roll(2) == 0 {
                    pickle = damaged(dice, &[pickle]);
                } else {
                    opcodes(dice, &mut pickle);
                }
                zipped(dice, &pickle)
            }),
            6..8 => ("checkpoint, opcodes changed", {
                let mut file = dice.pick(&self.checkpoints).clone();
                opcodes(dice, &mut file);
                file
            }),
            8..10 => ("pickle, grown", {
                let pickle = grown(dice);
                zipped(dice, &pickle)
            }),
            10 => ("pickle in a row, grown", {
                let pickle = grown(dice);
                in_a_row(dice, &pickle)
            }),
            11 => ("zip, damaged", {
                let pickle = dice.pick(&self.pickles).clone();
                let file = zipped(dice, &pickle);
                damaged(dice, &[file])
            }),
            12..14 => ("safetensors, damaged", damaged(dice, &self.safetensors)),
            14..16 => ("safetensors, header damaged", {
                let file = if dice.roll(2) == 0 { dice.pick(&self.safetensors).clone() } else { named(dice) };
                header(dice, &file)
            }),
            16 => ("safetensors, names of models", named(dice)),
            17 | 18 => return self.shards(dice, folder),
            _ => {
                let (way, make) = dice.pick(LARGE);
                (*way, make(1 << (4 + dice.roll(12))))
            }
        };
        let path = folder.join("case.weights");
        fs::write(&path, &bytes)?;
        Ok((way, path, bytes.len()))
    }

    /// Two shards and a damaged index.
    fn shards(&self, dice: &mut Dice, folder: &Path) -> std::io::Result<(&'static str, PathBuf, usize)> {
        let (first, second) = (named(dice), dice.pick(&self.safetensors).clone());
        let mut map = serde_json::Map::new();
        for (file, bytes) in [("first.safetensors", &first), ("second.safetensors", &second)] {
            let length = usize::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
            let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
            for name in header.as_object().expect("an object").keys() {
                map.insert(name.clone(), file.into());
            }
        }
        let text = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string();
        let text = match dice.roll(8) {
            0 => text,
            1 => text.replace("second", "../second"),
            2 => text.replace("second.safetensors", "/dev/zero"),
            3 => text.replace("weight_map", "weights"),
            4 => "[".repeat(dice.roll(100_000)),
            _ => String::from_utf8_lossy(&damaged(dice, &[text.into_bytes()])).into_owned(),
        };
        fs::write(folder.join("first.safetensors"), &first)?;
        fs::write(folder.join("second.safetensors"), &second)?;
        let path = folder.join("case.safetensors.index.json");
        fs::write(&path, &text)?;
        Ok(("index of shards", path, text.len() + first.len() + second.len()))
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Extreme values of lengths, counts and offsets.
const EDGES: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    (1 << 62) + 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 7,
    u64::MAX - 1,
    u64::MAX,
];

/// Damages one of `files` in one to three places.
fn damaged(dice: &mut Dice, files: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = dice.pick(files).clone();
    for _ in 0..1 + dice.roll(3) {
        let at = dice.roll(bytes.len() + 1);
        let end = (at + dice.roll(64)).min(bytes.len());
        match dice.roll(9) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            2 if at < bytes.len() => bytes[at] = dice.next() as u8,
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            6 | 7 => {
                let length = [2, 4, 8][dice.roll(3)].min(bytes.len() - at);
                bytes[at..at + length].copy_from_slice(&dice.pick(EDGES).to_le_bytes()[..length]);
            }
            _ => {
                let other = dice.pick(files);
                let from = dice.roll(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
    }
    bytes
}

/// The supported opcodes, and some others.
const OPCODES: &[u8] = b"\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98\
    (.0123BCDFGIJKLMNPQRSTUVX]abcdeghijlopqrstu})";

/// Replaces up to four bytes by opcodes.
fn opcodes(dice: &mut Dice, bytes: &mut [u8]) {
    for _ in 0..dice.roll(5) {
        if !bytes.is_empty() {
            let at = dice.roll(bytes.len());
            bytes[at] = *dice.pick(OPCODES);
        }
    }
}

const CLASSES: &[&str] = &[
    "torch._utils\n_rebuild_tensor_v2\n",
    "torch._utils\n_rebuild_tensor_v3\n",
    "torch._utils\n_rebuild_parameter\n",
    "torch\nFloatStorage\n",
    "torch\nHalfStorage\n",
    "torch.storage\nUntypedStorage\n",
    "torch\nfloat8_e4m3fn\n",
    "collections\nOrderedDict\n",
    "collections\ndefaultdict\n",
    "omegaconf.dictconfig\nDictConfig\n",
    "os\nsystem\n",
    "builtins\neval\n",
    "torch\nSize\n",
];

/// Generates a pickle of random steps, most of which fit the stack.
fn grown(dice: &mut Dice) -> Vec<u8> {
    let mut p = b"\x80\x02}q\x00(".to_vec();
    let (steps, wild, mut keys) = (1 + dice.roll(200), dice.roll(3), BTreeSet::new());
    for _ in 0..steps {
        // Some pickles have no invalid step, some have one or two, and some only such steps.
        match if wild == 2 || wild == 1 && dice.roll(steps) == 0 { dice.roll(24) } else { 24 } {
            0 => p.push(*dice.pick(OPCODES)),
            1 => p.extend([b'h', dice.roll(12) as u8]),
            2 => p.extend([b'q', dice.roll(12) as u8]),
            3 => p.extend(b"K\x01K\x02\x86"),
            4 => p.extend([b'K', dice.roll(6) as u8]),
            5 => {
                p.extend(b"\x8a\x08");
                p.extend(dice.pick(EDGES).to_le_bytes());
            }
            6 => p.extend(b"}"),
            7 => p.extend(b"]"),
            8 => p.extend(b"("),
            9 => p.extend([*dice.pick(b"tuesabR\x81ld")]),
            10 => p.extend(b"N\x89\x88)"),
            11 | 12 => {
                p.push(b'c');
                p.extend(dice.pick(CLASSES).as_bytes());
            }
            13 => p.extend(b"]q\x05h\x05a"),
            14 => p.extend(b"}q\x06U\x01ah\x06s"),
            _ => {
                // A key and a tensor.
                // Mostly names that can be loaded, all different.
                let key = match model_name(dice) {
                    name if keys.insert(name.clone()) => name,
                    _ => format!("{:016x}", dice.next()),
                };
                p.push(b'X');
                p.extend((key.len() as u32).to_le_bytes());
                p.extend(key.as_bytes());
                tensor(dice, &mut p, if wild == 0 { 0 } else { 100 });
            }
        }
    }
    p.extend(b"u.");
    p
}

/// Writes the call that makes a tensor. One number in `wild` is invalid.
fn tensor(dice: &mut Dice, p: &mut Vec<u8>, wild: usize) {
    let storage = [b'0' + dice.roll(3) as u8];
    p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x01");
    p.extend(storage);
    p.extend(b"U\x03cpuK\x04tQ");
    let number = |dice: &mut Dice, p: &mut Vec<u8>| {
        if wild > 0 && dice.roll(wild) == 0 {
            p.extend(b"\x8a\x08");
            p.extend(dice.pick(EDGES).to_le_bytes());
        } else {
            p.extend([b'K', dice.roll(2) as u8]);
        }
    };
    number(dice, p);
    let rank = dice.roll(4);
    for _ in 0..2 {
        p.push(b'(');
        for _ in 0..rank {
            number(dice, p);
        }
        p.push(b't');
    }
    p.extend(b"\x89ccollections\nOrderedDict\n)RtR");
}

/// A zip file of stored entries.
fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut list) = (vec![], vec![]);
    for (name, data) in entries {
        let sizes = [(data.len() as u32).to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        let name_length = (name.len() as u16).to_le_bytes();
        list.extend([b"PK\x01\x02\x14\0\x14\0", &[0; 12][..], &sizes, &name_length, &[0; 12]].concat());
        list.extend([&(file.len() as u32).to_le_bytes(), name.as_bytes()].concat());
        file.extend([b"PK\x03\x04\x14\0", &[0; 12][..], &sizes, &name_length, &[0; 2], name.as_bytes(), data].concat());
    }
    let start = (file.len() as u32).to_le_bytes();
    let count = (entries.len() as u16).to_le_bytes();
    file.extend(&list);
    let length = (list.len() as u32).to_le_bytes();
    file.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &length, &start, &[0, 0]].concat());
    file
}

/// A checkpoint of this pickle and a few short storages.
fn zipped(dice: &mut Dice, pickle: &[u8]) -> Vec<u8> {
    let mut entries = vec![("a/data.pkl".to_string(), pickle.to_vec()), ("a/byteorder".into(), b"little".to_vec())];
    for key in 0..24 {
        let length = if dice.roll(100) == 0 { dice.roll(16) } else { 128 };
        entries.push((format!("a/data/{key}"), vec![0x3e; length]));
    }
    zip(&entries)
}

/// The magic number and the version of a checkpoint before PyTorch 1.6, each a pickle.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";

/// A checkpoint in the format before PyTorch 1.6.
fn in_a_row(dice: &mut Dice, pickle: &[u8]) -> Vec<u8> {
    let mut file = [MAGIC, b"\x80\x02}.", pickle, b"\x80\x02](U\x010U\x011U\x012e."].concat();
    for _ in 0..3 {
        let count = if dice.roll(8) == 0 { *dice.pick(EDGES) } else { 4 };
        file.extend(count.to_le_bytes());
        file.extend([0x3e; 16]);
    }
    file
}

/// Names of every supported layout; `#` is a small number.
const NAMES: &[&str] = &[
    "down_blocks.#.attentions.#.transformer_blocks.0.attn1.to_q.weight",
    "down_blocks.#.resnets.#.conv1.weight",
    "up_blocks.#.attentions.#.transformer_blocks.#.fuser.attn.to_k.weight",
    "position_net.linears.#.weight",
    "text_model.encoder.layers.#.self_attn.q_proj.weight",
    "text_model.embeddings.position_ids",
    "model.diffusion_model.input_blocks.#.#.transformer_blocks.#.attn2.to_v.weight",
    "model.diffusion_model.output_blocks.#.#.in_layers.#.weight",
    "model.diffusion_model.label_emb.0.#.weight",
    "first_stage_model.decoder.up.#.block.#.conv1.weight",
    "first_stage_model.encoder.mid.attn_1.q.weight",
    "first_stage_model.decoder.up.#.upsample.conv.bias",
    "decoder.up_blocks.#.resnets.#.conv2.bias",
    "cond_stage_model.transformer.text_model.encoder.layers.#.mlp.fc1.weight",
    "conditioner.embedders.1.model.transformer.resblocks.#.attn.in_proj_weight",
    "conditioner.embedders.1.model.transformer.resblocks.#.attn.in_proj_bias",
    "conditioner.embedders.1.model.text_projection",
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
    "input_blocks.#.1.transformer_blocks.0.fuser.alpha_attn",
    "model_ema.decay",
    "v_pred",
    "#",
    "",
];

fn model_name(dice: &mut Dice) -> String {
    let mut name = String::new();
    for c in dice.pick(NAMES).chars() {
        match c {
            '#' if dice.roll(16) == 0 => name += &dice.pick(EDGES).to_string(),
            '#' => name += &dice.roll(13).to_string(),
            c => name.push(c),
        }
    }
    name
}

/// Generates safetensors with names of models and small shapes.
fn named(dice: &mut Dice) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for _ in 0..dice.roll(20) {
        let name = model_name(dice);
        if header.contains_key(&name) {
            continue;
        }
        let shape: Vec<usize> = (0..dice.roll(5)).map(|_| dice.roll(7)).collect();
        let start = end;
        let (dtype, size) = *dice.pick(&[("F32", 4), ("F16", 2), ("BF16", 2), ("I64", 8), ("F8_E4M3", 1), ("BOOL", 1)]);
        end += size * shape.iter().product::<usize>();
        header.insert(name, serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
    }
    let data = vec![0; end];
    safetensors(serde_json::Value::from(header), &data)
}

fn safetensors(header: impl Display, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Changes a number, dtype or text of a safetensors header; the length before it is mostly correct.
fn header(dice: &mut Dice, file: &[u8]) -> Vec<u8> {
    let length = usize::from_le_bytes(file[..8].try_into().expect("eight bytes"));
    let mut text = String::from_utf8_lossy(&file[8..8 + length]).into_owned();
    for _ in 0..1 + dice.roll(3) {
        let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
        match dice.roll(6) {
            0 => {
                text = text.replacen(
                    *dice.pick(&["F32", "F16", "I64"]),
                    dice.pick::<&str>(&["F4", "F64", "BF16", "C64", "F6_E2M3", "X"]),
                    1,
                )
            }
            1 => text = text.replacen("[", "[0,", 1 + dice.roll(2)),
            2 => {
                text = text.replacen(
                    "]",
                    dice.pick::<&str>(&[",18446744073709551615]", ",1]", ",-1]", ",1e3]", "", "]]"]),
                    1 + dice.roll(3),
                )
            }
            3 => {
                text = text.replacen(
                    "\"shape\"",
                    dice.pick::<&str>(&["\"dtype\"", "\"__metadata__\"", "1", "\"\\ud800\""]),
                    1,
                )
            }
            _ if !digits.is_empty() => {
                let at = *dice.pick(&digits);
                text.replace_range(at..at + 1, &dice.pick(EDGES).to_string());
            }
            _ => {}
        }
    }
    let mut whole = safetensors(&text, &file[8 + length..]);
    if dice.roll(8) == 0 {
        whole[..8].copy_from_slice(&dice.pick(EDGES).to_le_bytes());
    }
    whole
}
