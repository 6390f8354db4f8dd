//! Every key that diffusers writes into a scheduler_config.json: the image is diffusers', or the key is reported. The table
//! in docs/models.md says which. `fixtures/scheduler_keys.py` writes the fixtures.
//!
//! `UPDATE_DOCS=1 cargo test --workspace --test scheduler_keys` writes the table.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use common::{fixture, relative, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings, Step};
use lsregen_diffusion::schedule::SchedulerConfig;
use lsregen_diffusion::schedule::classes::named;
use lsregen_tensor::noise::Generator;
use serde_json::Value;

/// Some keys count in fewer than 15 steps only.
const STEPS: [usize; 2] = [20, 6];
const SHAPE: [usize; 4] = [1, 4, 3, 5];

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    /// The result is diffusers'.
    Equal,
    /// There is an image, though diffusers refuses the value.
    Extra,
    /// The check reports it as an error.
    Refused(String),
    /// The check warns that it has no effect.
    Warned,
    /// Neither.
    Silent(f64),
}

fn denoiser(sampler: &Sampler) -> impl Fn(&Tensor, f64) -> Result<Tensor> + Sync {
    let sigma_data = sampler.schedule().parameterisation.sigma_data;
    move |z: &Tensor, t: f64| {
        let variance = (8.0 * t).exp();
        let scale = sigma_data.map_or(1.0, |data| ((variance + 1.0) / (variance + data * data)).sqrt());
        Ok((z * scale)?.affine(0.7, 0.3 * (t / 100.0).sin())?.tanh()?)
    }
}

/// The outcome of all numbers of steps: the worst one.
fn outcome(row: &Value, io: &std::collections::HashMap<String, Tensor>) -> Outcome {
    let mut worst = Outcome::Extra;
    for steps in STEPS {
        match outcome_of(row, io, steps) {
            // diffusers has no result for this number of steps.
            Outcome::Extra => {}
            Outcome::Equal if matches!(worst, Outcome::Extra) => worst = Outcome::Equal,
            Outcome::Equal => {}
            Outcome::Silent(error) => return Outcome::Silent(error),
            other => worst = other,
        }
    }
    worst
}

fn outcome_of(row: &Value, io: &std::collections::HashMap<String, Tensor>, steps: usize) -> Outcome {
    let config = SchedulerConfig::parse(row["config"].to_string().as_bytes(), "scheduler_config.json");
    let settings = SamplerSettings::new(SamplerKind::Auto, steps);
    let sampler = match config.and_then(|config| Sampler::new(&config, &settings)) {
        Ok(sampler) => sampler,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    if sampler.ignored().iter().any(|key| *key == row["key"]) {
        return Outcome::Warned;
    }
    let name = row["name"].as_str().unwrap();
    let Some(expected) = io.get(&format!("{name}/{steps}")) else { return Outcome::Extra };
    let noise = Generator::new(steps as u64).randn(&SHAPE, &Device::Cpu).unwrap();
    let quiet = |_: Step| Ok(());
    let z = sampler.run(&noise, &denoiser(&sampler), &[], &mut Generator::new(99).into(), &quiet).unwrap();
    let error = relative(&z, expected);
    // The reference itself loses digits in Karras's space, x = σ ε, where σ is large, and more of them in longer steps.
    let lost = (sampler.levels()[0].sigma() / 100.0).clamp(1.0, if steps == 20 { 10.0 } else { 20.0 });
    if error / lost < 1e-5 { Outcome::Equal } else { Outcome::Silent(error) }
}

#[test]
fn no_key_of_diffusers_is_silent() {
    let facts: Value = serde_json::from_slice(&std::fs::read(fixture("scheduler_keys.json")).unwrap()).unwrap();
    let io = tensors("scheduler_keys.safetensors");
    // For each class: the keys with the same image, those that are reported, and those that diffusers refuses.
    let mut table: BTreeMap<&str, [Vec<String>; 3]> = BTreeMap::new();
    let mut silent = vec![];
    let (mut equal, mut told) = (0, 0);
    for row in facts["rows"].as_array().unwrap() {
        let (class, key) = (row["cls"].as_str().unwrap(), row["key"].as_str().unwrap());
        let entry = table.entry(class).or_default();
        let value = match &row["value"] {
            Value::Bool(_) | Value::Null | Value::Array(_) => String::new(),
            value => format!(": {value}"),
        };
        let shown = if key.is_empty() { "*the class*".into() } else { format!("`{key}{value}`") };
        let found = outcome(row, &io);
        match &found {
            Outcome::Equal => equal += 1,
            Outcome::Extra => {}
            Outcome::Refused(message) => {
                // Some keys count only beside this one.
                let flow = if row["config"]["use_flow_sigmas"] == true { "use_flow_sigmas" } else { "" };
                let names = [key, class, flow, value.trim_start_matches(": ").trim_matches('"')];
                let is_named = names.iter().any(|name| !name.is_empty() && message.contains(name));
                if !is_named {
                    silent.push(format!("{class} {shown}: refused without its name: {message}"));
                }
                told += 1;
            }
            Outcome::Warned => told += 1,
            Outcome::Silent(error) => silent.push(format!("{class} {shown}: {error:.1e} {}", row["config"])),
        }
        let column = match found {
            Outcome::Equal => 0,
            Outcome::Extra => 2,
            _ => 1,
        };
        entry[column].push(shown);
    }
    assert!(silent.is_empty(), "{} rows:\n{}", silent.len(), silent.join("\n"));
    assert!(equal > 200 && told > 20, "{equal} {told}");
    let mut text = String::from(
        "| class | `sampler: auto` is | the image is diffusers' with | reported by the check | refused by diffusers alone \
         |\n|---|---|---|---|---|\n",
    );
    for (class, columns) in table {
        let sampler = named(class).map_or(String::new(), |own| format!("`{}`", own.sampler.name()));
        text.push_str(&format!("| `{class}` | {sampler} | {} |\n", columns.map(|keys| keys.join(" ")).join(" | ")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let marks = ["<!-- scheduler keys -->\n", "<!-- end of scheduler keys -->"];
    let [start, end] = marks.map(|mark| document.find(mark).unwrap_or_else(|| panic!("docs/models.md lacks {mark}")));
    let start = start + marks[0].len();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{}{text}{}", &document[..start], &document[end..])).unwrap();
        return;
    }
    assert!(
        document[start..end] == text,
        "write the table anew: UPDATE_DOCS=1 cargo test --workspace --test scheduler_keys"
    );
}
