//! `lsregen fetch`: downloads models from the Hugging Face hub before a run needs them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use lsregen_engine::{FetchProgress, Host};
use lsregen_nodes::hub::HubRef;
use lsregen_nodes::{FetchMode, builtin_models};

use super::args::{HostArgs, ParamArgs};
use super::{Exit, console, open, terminal, usage};

/// Download models from the Hugging Face hub; files that are already on this machine are not downloaded again
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen fetch hf:owner/name --dry-run
  lsregen fetch graph.yaml")]
pub struct Fetch {
    /// hf:owner/name, hf:owner/name:file or hf:owner/name@revision:file; or a graph file, for all models that it names
    #[arg(required = true, value_name = "MODEL|GRAPH")]
    what: Vec<String>,

    /// Print only the paths of the downloaded models
    #[arg(long, short)]
    quiet: bool,

    /// Download nothing; list the files that are not on this machine, with their sizes as the hub states them
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    params: ParamArgs,

    #[command(flatten)]
    host: HostArgs,
}

impl Fetch {
    pub fn main(self) -> Result<Exit, Exit> {
        let mut report = match self.dry_run {
            true => Report::Missing(BTreeMap::new()),
            false => Report::Progress(console::Fetches::new(self.quiet)),
        };
        for what in &self.what {
            if builtin_models().any(|(name, _)| name == what) {
                terminal::say(&format!("{what} is built in: there is nothing to download\n"));
                continue;
            }
            let is_model = HubRef::parse(what).map_err(usage)?.is_some();
            if !is_model && !Path::new(what).exists() {
                let meant = HubRef::meant_by(what).map_or("hf:owner/name".into(), |meant| meant.to_string());
                return Err(usage(format!(
                    "there is no graph `{what}`; for a model on the Hugging Face hub write {meant}"
                )));
            }
            if is_model { self.model(what, &mut report)? } else { self.graph(Path::new(what), &mut report)? }
        }
        report.end();
        Ok(Exit::Done)
    }

    fn mode(&self) -> FetchMode {
        if self.dry_run { FetchMode::List } else { FetchMode::Download }
    }

    fn model(&self, name: &str, report: &mut Report) -> Result<(), Exit> {
        let path = self.mode().fetch("model", name, self.host.accepts_half(), &mut |file| report.show(file));
        report.clear();
        let path = path.map_err(|error| {
            terminal::complain(match error.help {
                Some(help) => format!("{}; {help}", error.message),
                None => error.message,
            });
            Exit::Failed
        })?;
        terminal::print_paths(path.as_deref());
        Ok(())
    }

    fn graph(&self, path: &Path, report: &mut Report) -> Result<(), Exit> {
        let host = Arc::new(Host::clone(&*self.host.host(path, &self.params.models)?).with_service(self.mode()));
        let graph = open::open(path, &self.params, &host)?;
        let fetched = open::fetch(&graph, &host, &mut |file| report.show(file));
        report.clear();
        fetched.map(drop).map_err(|error| {
            terminal::report(&[*error]);
            Exit::Failed
        })
    }
}

/// What is told of the files that are not on this machine.
enum Report {
    /// The progress of their download.
    Progress(console::Fetches),
    /// Their names and sizes in bytes, without a download.
    Missing(BTreeMap<String, u64>),
}

impl Report {
    fn show(&mut self, fetching: FetchProgress) {
        match self {
            Report::Progress(progress) => progress.show(fetching),
            Report::Missing(files) => drop(files.insert(fetching.file.to_string(), fetching.of)),
        }
    }

    /// Makes room for other messages.
    fn clear(&mut self) {
        if let Report::Progress(progress) = self {
            progress.clear();
        }
    }

    fn end(&self) {
        let Report::Missing(files) = self else { return };
        for (file, size) in files {
            terminal::print(&format!("{:>10}  {file}\n", ByteSize(*size).to_string()));
        }
        let all = ByteSize(files.values().sum());
        terminal::say(&match files.len() {
            0 => "nothing is missing\n".to_string(),
            1 => format!("{all} to download, in 1 file\n"),
            n => format!("{all} to download, in {n} files\n"),
        });
    }
}
