//! `lsregen inspect`: the contents of a model.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;
use lsregen_nodes::{OnnxInfo, OnnxNetwork, Survey, bring};
use serde_json::json;

use super::args::ModelArgs;
use super::{Exit, console, terminal, usage};

/// Print what the files of a model contain: family, networks, dtypes, sizes, and tensors that are missing or unused; or the
/// outputs of an ONNX file
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen inspect shapes/xl
  lsregen inspect model.safetensors --json
  lsregen inspect network.onnx")]
pub struct Inspect {
    /// A built-in model such as `shapes/xl`, a folder in diffusers' layout, a weights file, a name in a folder of models,
    /// `hf:owner/name`, which is downloaded first, or an ONNX file
    #[arg(value_name = "MODEL")]
    model: OsString,

    #[command(flatten)]
    models: ModelArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn main(self) -> Result<Exit, Exit> {
        let path = Path::new(&self.model);
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
            return self.network(path);
        }
        let mut progress = console::Fetches::new(false);
        let models = self.models.path(Path::new(""))?;
        let location = match self.model.to_str() {
            Some(name) => bring(name, models, &mut |fetching| progress.show(fetching)).map_err(|error| {
                let help = error.help.map(|help| format!("; {help}")).unwrap_or_default();
                usage(format!("{}{help}", error.message))
            })?,
            // No name is other than Unicode, but a path may be.
            None => PathBuf::from(&self.model).into(),
        };
        let label = location.label();
        let survey = Survey::of(location);
        if self.json {
            terminal::print_json(&serde_json::json!(survey));
        } else {
            terminal::print(&text(&survey, &label));
        }
        Ok(if survey.problems.is_empty() { Exit::Done } else { Exit::Failed })
    }

    fn network(&self, path: &Path) -> Result<Exit, Exit> {
        let info = OnnxNetwork::inspect(path).map_err(|error| {
            terminal::complain(error);
            Exit::Failed
        })?;
        if self.json {
            let shown = |values: &[_]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
            terminal::print_json(&json!({
                "form": "onnx",
                "producer": info.producer,
                "opset": info.opset,
                "parameters": info.parameters,
                "inputs": shown(&info.inputs),
                "outputs": shown(&info.outputs),
                "values": info.values,
                "operators": info.operators,
            }));
        } else {
            terminal::print(&network_text(&info));
        }
        Ok(Exit::Done)
    }
}

fn network_text(info: &OnnxInfo) -> String {
    let by = if info.producer.is_empty() { String::new() } else { format!(", by {}", info.producer) };
    let mut lines = vec![format!("{}: ONNX of opset {}{by}", info.label, info.opset)];
    lines.push(match info.parameters {
        few @ ..100_000 => format!("  {few} parameters"),
        many => format!("  {:.1} M parameters", many as f64 / 1e6),
    });
    lines.extend(info.inputs.iter().map(|input| format!("  input   {input}")));
    lines.extend(info.outputs.iter().map(|output| format!("  output  {output}")));
    let operators: Vec<_> = info.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
    lines.push(format!("  nodes   {}", operators.join(", ")));
    lines.join("\n") + "\n"
}

fn text(survey: &Survey, shown: &str) -> String {
    let family = survey.family.map(|family| format!("{family}, ")).unwrap_or_default();
    let mut lines = vec![format!("{shown}: {family}{}", survey.form)];
    for network in &survey.networks {
        let (size, millions) = (ByteSize(network.bytes as u64), network.parameters as f64 / 1e6);
        lines.push(format!(
            "  {:<20} {millions:>9.1} M parameters in {:>5} tensors, {}, {size}",
            network.name, network.tensors, network.dtype
        ));
    }
    lines.extend(survey.member.iter().map(|member| format!("  {member}, as shown by")));
    lines.extend(survey.told.iter().map(|told| format!("    {told}")));
    lines.extend(survey.limits.iter().map(|limit| format!("  cannot be sampled: {limit}")));
    lines.extend(survey.notes.iter().map(|note| format!("  note: {note}")));
    if let Some(first) = survey.unused.first() {
        let more = survey.unused.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(format!("  unused: `{first}`{more}"));
    }
    lines.extend(survey.problems.iter().map(|problem| format!("  cannot be loaded: {problem}")));
    lines.join("\n") + "\n"
}
