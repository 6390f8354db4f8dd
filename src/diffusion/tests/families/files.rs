//! Models as files: small ones with weights that are computed from their names, and sparse ones of full size.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use lsregen_diffusion::models::{Blueprint, Family, Model, ModelSource};
use lsregen_weights::{ModelFiles, Precision};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::common::{fixture, keys, shapes};

/// Numbers in [-1, 1) that depend on a name, as in families.py.
fn numbers(name: &str, count: usize) -> Vec<f32> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let number = |i: u64| {
        let mut x = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (x >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (1..=count as u64).map(number).collect()
}

/// An input of a network.
pub fn raw(name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(name, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// The tensor of that name in a network.
fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut x = numbers(name, shape.iter().product());
    let ends = ["conv2", "to_out.0", "ff.net.2", "proj_out", "out_proj", "fc2"];
    if name.ends_with("bias") {
        x.iter_mut().for_each(|x| *x *= 0.1);
    } else if shape.len() == 1 {
        x.iter_mut().for_each(|x| *x = *x * 0.1 + 1.0);
    } else if !name.contains("embedding.weight") {
        let gain = if ends.iter().any(|end| name.ends_with(&format!("{end}.weight"))) { 0.5 } else { 1.0 };
        let fan = shape[1..].iter().product::<usize>() as f64;
        let scale = (gain * (3.0 / fan).sqrt()) as f32;
        x.iter_mut().for_each(|x| *x *= scale);
    }
    x
}

/// A tensor of a file in the original layout, and what diffusers makes of it.
#[derive(Clone)]
pub struct Row {
    original: String,
    names: Vec<String>,
    /// `same`, `rows` of several, `convolution` for a matrix, `transposed`; `spare-…` if a folder lacks it.
    how: String,
    /// Of each of the names.
    shape: Vec<usize>,
}

impl Row {
    fn shape_in_file(&self) -> Vec<usize> {
        match self.how.trim_start_matches("spare-") {
            "rows" => [&[self.names.len() * self.shape[0]], &self.shape[1..]].concat(),
            "convolution" => [&self.shape[..], &[1, 1]].concat(),
            "transposed" => vec![self.shape[1], self.shape[0]],
            _ => self.shape.clone(),
        }
    }

    fn is_spare(&self) -> bool {
        self.how.starts_with("spare-")
    }
}

/// Reads a table of families.py.
fn table(name: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(fixture(&format!("families/{name}.tsv"))).unwrap();
    let mut rows = vec![];
    for line in text.lines() {
        let [original, names, how, shape, numbers] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let shape: Vec<usize> = shape.split('x').map(|side| side.parse().unwrap()).collect();
        for numbers in numbers.split(' ') {
            let (theirs, ours) = numbers.split_once('/').unwrap();
            rows.push(Row {
                original: filled(original, theirs),
                names: names.split(' ').map(|name| filled(name, ours)).collect(),
                how: how.into(),
                shape: shape.clone(),
            });
        }
    }
    rows
}

/// Puts numbers in the places of a pattern.
fn filled(pattern: &str, numbers: &str) -> String {
    let mut numbers = numbers.split('.');
    let parts = pattern.split('.').map(|part| if part == "#" { numbers.next().unwrap() } else { part });
    parts.collect::<Vec<_>>().join(".")
}

fn configs() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("families/configs.json")).unwrap()).unwrap()
}

/// The configuration and the tensors of a network of full size.
pub fn full(name: &str) -> (String, Vec<Row>) {
    (configs()["full"][name].to_string(), table(&format!("full/{name}")))
}

/// Name and shape of the tensors in a folder.
pub fn declared(rows: &[Row]) -> BTreeMap<String, Vec<usize>> {
    let rows = rows.iter().filter(|row| !row.is_spare());
    rows.flat_map(|row| row.names.iter().map(|name| (name.clone(), row.shape.clone()))).collect()
}

/// Name, shape and numbers of a tensor.
pub type Saved = (String, Vec<usize>, Vec<f32>);

/// Writes safetensors in f32 with this metadata.
pub fn save(path: &Path, tensors: &[Saved], texts: &[(&str, &str)]) {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(.., x)| x.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let texts: HashMap<String, String> = texts.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, safetensors::serialize(views, (!texts.is_empty()).then_some(texts)).unwrap()).unwrap();
}

/// A change of the tensor of that name in the U-Net.
pub type Edit = (&'static str, fn(&mut f32));

/// A small member of a family.
#[derive(Clone)]
pub struct Member {
    pub name: &'static str,
    pub family: Family,
    /// The names of its text encoders in the fixtures.
    pub encoders: &'static [&'static str],
    /// The prefixes of their names in a file.
    prefixes: &'static [&'static str],
    edit: Option<Edit>,
    keys: Vec<(&'static str, Vec<f32>)>,
}

impl Member {
    pub fn of(name: &'static str) -> Member {
        const FIRST: &str = "conditioner.embedders.0.transformer.";
        const SECOND: &str = "conditioner.embedders.1.model.";
        let (family, encoders, prefixes): (_, &[_], &[_]) = match name {
            "refiner" => (Family::SdxlRefiner, &["clip_g"], &["conditioner.embedders.0.model."]),
            "ssd1b" | "vega" | "no_mid" | "sdxl" | "sdxl_inpaint" => {
                (Family::Sdxl, &["clip_l", "clip_g"], &[FIRST, SECOND])
            }
            "sd2" | "sd2_inpaint" => (Family::Sd2, &["clip_h"], &["cond_stage_model.model."]),
            _ => (Family::Sd1, &["clip_l"], &["cond_stage_model.transformer."]),
        };
        Member { name, family, encoders, prefixes, edit: None, keys: vec![] }
    }

    /// Writes the member to a new folder in `folder`, with this scheduler file, and opens it.
    pub fn open(&self, folder: &Path, scheduler: &Value, dtype: DType) -> Model {
        let path = self.write_folder(&folder.join("model"));
        std::fs::write(path.join("scheduler/scheduler_config.json"), scheduler.to_string()).unwrap();
        let blueprint = Blueprint::open(&ModelSource::from(ModelFiles::Folder(path)));
        let blueprint = blueprint.unwrap_or_else(|problems| panic!("{}: {problems:#?}", self.name));
        Model::new(blueprint, Precision::new(dtype, &Device::Cpu), false)
    }

    /// The same with a changed tensor.
    pub fn edited(self, edit: Edit) -> Member {
        Member { edit: Some(edit), ..self }
    }

    /// The same with a key that belongs to no network.
    pub fn with_key(mut self, (key, numbers): (&'static str, &[f32])) -> Member {
        self.keys.push((key, numbers.to_vec()));
        self
    }

    fn weight(&self, part: &str, name: &str, shape: &[usize]) -> Vec<f32> {
        let mut x = weight(&format!("{part}/{name}"), shape);
        if let Some((edited, change)) = self.edit
            && edited == name
        {
            x.iter_mut().for_each(change);
        }
        x
    }

    /// The name of the U-Net's weights.
    fn unet(&self) -> String {
        format!("{}/unet", self.name)
    }

    /// Writes a folder in diffusers' layout.
    pub fn write_folder(&self, path: &Path) -> PathBuf {
        let configs = configs();
        let json = |file: &str, value: &Value| {
            let file = path.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, value.to_string()).unwrap();
        };
        let component = |folder: &str, config: &Value, part: &str, rows: &[Row]| {
            let stem = if folder.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
            let rows = rows.iter().filter(|row| !row.is_spare());
            let tensors = rows.flat_map(|row| row.names.iter().map(|name| (name, &row.shape)));
            let tensors: Vec<_> =
                tensors.map(|(name, shape)| (name.clone(), shape.clone(), self.weight(part, name, shape))).collect();
            save(&path.join(folder).join(format!("{stem}.safetensors")), &tensors, &[]);
            json(&format!("{folder}/config.json"), config);
        };
        component("unet", &configs["unet"][self.name], &self.unet(), &table(self.name));
        let mut vae = configs["vae"].clone();
        vae["scaling_factor"] = if self.family.is_xl() { json!(0.13025) } else { json!(0.18215) };
        component("vae", &vae, "vae", &table("vae"));
        for part in self.encoders {
            let (folder, tokenizer) = match *part {
                "clip_g" => ("text_encoder_2", "tokenizer_2"),
                _ => ("text_encoder", "tokenizer"),
            };
            component(folder, &configs["text"][part], part, &table(part));
            std::fs::create_dir_all(path.join(tokenizer)).unwrap();
            for entry in std::fs::read_dir(shapes("xl").join(tokenizer)).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), path.join(tokenizer).join(entry.file_name())).unwrap();
            }
        }
        json(
            "scheduler/scheduler_config.json",
            &json!({ "beta_schedule": "scaled_linear", "prediction_type": "epsilon" }),
        );
        json("model_index.json", &json!({ "_class_name": "StableDiffusionPipeline" }));
        path.into()
    }

    /// Writes a file in the original layout with this metadata.
    pub fn write_file(&self, path: &Path, texts: &[(&str, &str)]) -> PathBuf {
        let mut tensors: Vec<Saved> = vec![];
        let mut add = |part: &str, prefix: Option<&str>, rows: &[Row]| {
            for row in rows {
                let parts: Vec<_> = row.names.iter().map(|name| self.weight(part, name, &row.shape)).collect();
                let x = match row.how.trim_start_matches("spare-") {
                    "transposed" => transposed(&parts[0], &row.shape),
                    _ => parts.concat(),
                };
                let name = match prefix {
                    Some(prefix) => row.original.replace("TEXT.", prefix),
                    None => row.original.clone(),
                };
                tensors.push((name, row.shape_in_file(), x));
            }
        };
        add(&self.unet(), None, &table(self.name));
        add("vae", None, &table("vae"));
        for (part, prefix) in self.encoders.iter().zip(self.prefixes) {
            add(part, Some(prefix), &table(part));
        }
        tensors.extend(self.keys.iter().map(|(key, x)| (key.to_string(), vec![x.len()], x.clone())));
        save(path, &tensors, texts);
        path.into()
    }
}

fn transposed(x: &[f32], shape: &[usize]) -> Vec<f32> {
    let (rows, columns) = (shape[0], shape[1]);
    (0..columns).flat_map(|j| (0..rows).map(move |i| x[i * columns + j])).collect()
}

/// Writes a file of a whole model of full size, of f16 zeros that take no space. Its autoencoder and its text encoders are
/// those of the public files.
pub fn sparse_model(path: &Path, name: &str) -> PathBuf {
    let mut tensors: Vec<(String, Vec<usize>)> =
        full(name).1.iter().map(|row| (row.original.clone(), row.shape_in_file())).collect();
    let base = if name == "sd2" { "sd1" } else { "sdxl" };
    let public = std::fs::read_to_string(keys("original.tsv")).unwrap();
    for line in public.lines() {
        let [file, original, _, shape] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let vae = original.starts_with("first_stage_model.");
        let second = original.starts_with("conditioner.embedders.1.");
        let kept = match name {
            "sd2" => vae,
            "refiner" => vae || second,
            _ => !original.starts_with("model."),
        };
        if file == base && kept {
            let original =
                if name == "refiner" { original.replace("embedders.1.", "embedders.0.") } else { original.into() };
            tensors.push((original, serde_json::from_str(shape).unwrap()));
        }
    }
    if name == "sd2" {
        tensors.extend(full("clip_h").1.iter().map(|row| (row.original.clone(), row.shape_in_file())));
    }
    let mut at = 0;
    let entries = tensors.iter().map(|(name, shape)| {
        let (from, bytes) = (at, 2 * shape.iter().product::<usize>());
        at += bytes;
        (name.clone(), json!({ "dtype": "F16", "shape": shape, "data_offsets": [from, from + bytes] }))
    });
    let header = Value::Object(entries.collect()).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len((bytes.len() + at) as u64).unwrap();
    path.into()
}
