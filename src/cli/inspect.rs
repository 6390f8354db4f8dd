//! `lsregen inspect`: the contents of a model.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;
use lsregen_nodes::{Survey, bring};

use super::args::ModelArgs;
use super::{Exit, console, terminal, usage};

/// Print what the files of a model contain: family, networks, dtypes, sizes, and tensors that are missing or unused
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen inspect shapes/xl
  lsregen inspect model.safetensors --json")]
pub struct Inspect {
    /// A built-in model such as `shapes/xl`, a folder in diffusers' layout, a weights file, a name in a folder of models, or
    /// `hf:owner/name`, which is downloaded first
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
    lines.extend(survey.prediction.map(|prediction| format!("  predicts {prediction}")));
    lines.extend(survey.notes.iter().map(|note| format!("  note: {note}")));
    if let Some(first) = survey.unused.first() {
        let more = survey.unused.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(format!("  unused: `{first}`{more}"));
    }
    lines.extend(survey.problems.iter().map(|problem| format!("  cannot be loaded: {problem}")));
    lines.join("\n") + "\n"
}
