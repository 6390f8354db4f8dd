//! Values for the parameters of a graph.

use clap::Args;
use lsregen_engine::Override;

use super::models::ModelArgs;
use crate::cli::{Exit, terminal};

/// The values that the command line gives to a graph's `params`, and where the models that it names are searched.
#[derive(Args)]
pub struct ParamArgs {
    /// Set a parameter of the graph. A text is written as it is, any other value as in YAML. May be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// Same as `--set seed=SEED`
    #[arg(long)]
    seed: Option<u64>,

    #[command(flatten)]
    pub models: ModelArgs,
}

impl ParamArgs {
    /// The overrides in the order in which they apply.
    ///
    /// # Errors
    /// When one cannot be parsed; its diagnostic is printed.
    pub fn overrides(&self) -> Result<Vec<Override>, Exit> {
        let seed = self.seed.map(|seed| format!("seed={seed}"));
        let parse = |arg: &String| {
            Override::parse(arg).map_err(|error| {
                terminal::report(&[*error]);
                Exit::Usage
            })
        };
        self.set.iter().chain(&seed).map(parse).collect()
    }
}
