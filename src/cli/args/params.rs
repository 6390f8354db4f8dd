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

    /// Same as `--set seed=SEED`: a number, or `random` for one that is drawn
    #[arg(long, value_parser = seed, allow_hyphen_values = true)]
    seed: Option<String>,

    #[command(flatten)]
    pub models: ModelArgs,
}

/// Accepts a number, `random` and -1.
fn seed(text: &str) -> Result<String, String> {
    match text {
        "random" | "-1" => Ok(text.into()),
        number => number
            .parse()
            .map(|seed: u64| seed.to_string())
            .map_err(|_| "not a number from 0 to 2⁶⁴ − 1; write one, or `random`".into()),
    }
}

impl ParamArgs {
    /// The overrides in the order in which they apply.
    ///
    /// # Errors
    /// When one cannot be parsed; its diagnostic is printed.
    pub fn overrides(&self) -> Result<Vec<Override>, Exit> {
        let seed = self.seed.as_ref().map(|seed| format!("seed={seed}"));
        let parse = |arg: &String| {
            Override::parse(arg).map_err(|error| {
                terminal::report(&[*error]);
                Exit::Usage
            })
        };
        self.set.iter().chain(&seed).map(parse).collect()
    }
}
