//! The arguments that make a run a bulk run.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::rows::Rows;
use super::sweep::Sweep;
use crate::cli::{Exit, usage};

/// The rows of a bulk run.
#[derive(Args)]
pub struct BulkArgs {
    /// Run once for each row of a .jsonl or .csv file, whose values are parameters of the graph; `-` reads JSON Lines
    /// from stdin
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,

    /// Run once for each of these values; if repeated, for every combination. Writes a contact sheet at the end
    #[arg(long, value_name = "NAME=A,B,C", conflicts_with = "inputs")]
    sweep: Vec<String>,

    /// Run only the I-th of N equal shares of the rows
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,

    /// File that records the outcome of each row. Rows that it lists as done are not run again
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// One share of the rows.
#[derive(Clone, Copy)]
struct Shard {
    /// From 1.
    number: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parse = |(number, of): (&str, &str)| Some(Shard { number: number.parse().ok()?, of: of.parse().ok()? });
        let shard = text.split_once('/').and_then(parse).filter(|shard| 1 <= shard.number && shard.number <= shard.of);
        shard.ok_or_else(|| "write I/N with 1 ≤ I ≤ N, such as 2/4".to_string())
    }
}

impl BulkArgs {
    /// Returns the rows that the arguments specify; `None` for a single run.
    ///
    /// # Errors
    /// When they cannot be read, or another argument needs rows and there are none; the reason is printed.
    pub fn rows(&self) -> Result<Option<Rows>, Exit> {
        match &self.inputs {
            Some(path) => Rows::read(path).map(Some),
            None if !self.sweep.is_empty() => Ok(Some(Rows::Sweep(Sweep::parse(&self.sweep)?))),
            None if self.shard.is_some() => Err(usage("--shard needs rows: --inputs or --sweep")),
            None if self.manifest.is_some() => Err(usage("--manifest needs rows: --inputs or --sweep")),
            None => Ok(None),
        }
    }

    /// The manifest that the user named.
    pub fn manifest(&self) -> Option<PathBuf> {
        self.manifest.clone()
    }

    pub fn is_sharded(&self) -> bool {
        self.shard.is_some()
    }

    /// Returns `.2-of-4` for the names of files; an empty text without `--shard`.
    pub fn shard_suffix(&self) -> String {
        self.shard.map(|Shard { number, of }| format!(".{number}-of-{of}")).unwrap_or_default()
    }

    /// Whether the row `index`, from 0, belongs to the share.
    pub fn includes(&self, index: usize) -> bool {
        self.shard.is_none_or(|shard| index % shard.of == shard.number - 1)
    }
}
