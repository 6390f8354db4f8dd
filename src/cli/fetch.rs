//! `lsregen fetch`: downloads models from the Hugging Face hub before a run needs them.

use std::path::Path;

use clap::Args;
use lsregen_nodes::hub::HubRef;
use lsregen_nodes::{builtin_models, fetch_model};

use super::args::{HostArgs, ParamArgs};
use super::{Exit, console, open, terminal, usage};

/// Download models from the Hugging Face hub; files that are already on this machine are not downloaded again
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen fetch hf:owner/name
  lsregen fetch graph.yaml")]
pub struct Fetch {
    /// hf:owner/name, hf:owner/name:file or hf:owner/name@revision:file; or a graph file, for all models that it names
    #[arg(required = true, value_name = "MODEL|GRAPH")]
    what: Vec<String>,

    /// Print only the paths of the downloaded models
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    params: ParamArgs,

    #[command(flatten)]
    host: HostArgs,
}

impl Fetch {
    pub fn main(self) -> Result<Exit, Exit> {
        for what in &self.what {
            if builtin_models().any(|(name, _)| name == what) {
                terminal::say(&format!("{what} is built in: there is nothing to download\n"));
                continue;
            }
            let is_model = HubRef::parse(what).map_err(usage)?.is_some();
            if let (false, false, Some(meant)) = (is_model, Path::new(what).exists(), HubRef::meant_by(what)) {
                return Err(usage(format!(
                    "there is no file `{what}`; for a model on the Hugging Face hub write {meant}"
                )));
            }
            if is_model { self.model(what)? } else { self.graph(Path::new(what))? }
        }
        Ok(Exit::Done)
    }

    fn model(&self, name: &str) -> Result<(), Exit> {
        let mut progress = console::Fetches::new(self.quiet);
        let path = fetch_model("model", name, self.host.accepts_half(), &mut |fetching| progress.show(fetching));
        drop(progress);
        let path = path.map_err(|error| {
            terminal::complain(error.message);
            Exit::Failed
        })?;
        terminal::print_paths([&*path]);
        Ok(())
    }

    fn graph(&self, path: &Path) -> Result<(), Exit> {
        let host = self.host.host(path, &self.params.models)?;
        let graph = open::open(path, &self.params, &host)?;
        let mut progress = console::Fetches::new(self.quiet);
        let fetched = open::fetch(&graph, &host, &mut |fetching| progress.show(fetching));
        drop(progress);
        fetched.map(drop).map_err(|error| {
            terminal::report(&[*error]);
            Exit::Failed
        })
    }
}
