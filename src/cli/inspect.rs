//! `lsregen inspect`: what is in a checkpoint.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use lsregen_nodes::Survey;

use super::{Exit, print, usage};

/// Say what a model's files hold: family, networks, dtypes, sizes, what is missing or not used
#[derive(Args)]
pub struct Inspect {
    /// A folder in diffusers' layout, or a weights file
    #[arg(value_name = "FOLDER|FILE")]
    path: PathBuf,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn main(self) -> Result<Exit, Exit> {
        let shown = self.path.display();
        if let Err(error) = std::fs::metadata(&self.path) {
            return Err(usage(format!("{shown}: {error}")));
        }
        let survey = Survey::of(&self.path);
        if self.json {
            print(&format!("{:#}\n", serde_json::json!(survey)));
        } else {
            print(&text(&survey, &shown.to_string()));
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
        lines.push(format!("  not used: `{first}`{more}"));
    }
    lines.extend(survey.problems.iter().map(|problem| format!("  cannot be loaded: {problem}")));
    lines.join("\n") + "\n"
}
