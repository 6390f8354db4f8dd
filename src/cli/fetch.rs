//! `lsregen fetch`: models from the Hugging Face hub, before a graph needs them.

use std::io::IsTerminal;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lsregen_nodes::hub::{Hub, HubRef, Progress, model_files};

use super::{Exit, console, print, usage};

/// Download models from the Hugging Face hub; what is there already is left alone
#[derive(Args)]
pub struct Fetch {
    /// hf:owner/name, hf:owner/name:file or hf:owner/name@revision:file
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,

    /// Of a folder model, the weights of half the size (`fp16`) where there are such
    #[arg(long)]
    half: bool,

    /// Print nothing but the places of what was downloaded
    #[arg(long, short)]
    quiet: bool,
}

impl Fetch {
    pub fn main(self) -> Result<Exit, Exit> {
        let parse = |text: &String| match HubRef::parse(text) {
            Ok(Some(of)) => Ok(of),
            Ok(None) => Err(usage(format!("`{text}` is not on the hub: write hf:owner/name"))),
            Err(error) => Err(usage(error)),
        };
        let models = self.models.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let hub = Hub::from_env().map_err(usage)?;
        for of in models {
            let place = download(&hub, &of, self.half, self.quiet)?;
            print(&format!("{}\n", place.display()));
        }
        Ok(Exit::Done)
    }
}

/// Downloads what is missing of a model, shown on stderr: a bar on a terminal, a line a file elsewhere.
pub fn download(hub: &Hub, of: &HubRef, half: bool, quiet: bool) -> Result<PathBuf, Exit> {
    let bar = if quiet || !std::io::stderr().is_terminal() { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let style = "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut last = String::new();
    let mut progress = |at: Progress| {
        if last != at.file {
            last = at.file.into();
            bar.set_message(last.clone());
            if bar.is_hidden() && !quiet {
                console::say(&format!("{of}: {} ({})\n", at.file, ByteSize(at.size)));
            }
        }
        bar.set_length(at.all_size);
        bar.set_position(at.all_done);
        Ok(())
    };
    let fetched = hub.fetch(of, &|files| model_files(files, half), &mut progress);
    bar.finish_and_clear();
    fetched.map_err(|error| {
        console::complain(error);
        Exit::Failed
    })
}
