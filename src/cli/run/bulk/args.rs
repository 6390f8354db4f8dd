//! The arguments that make a run a bulk run.

use std::path::{Path, PathBuf};
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

    /// Run once for each of these values, such as `cfg=1,4` or `seed=1..8`; if repeated, for every combination. Writes a
    /// contact sheet at the end, whose columns are the last of the parameters
    #[arg(long, value_name = "NAME=A,B,C", conflicts_with = "inputs")]
    sweep: Vec<String>,

    /// Run only the I-th of N equal shares of the rows, counted from 1
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,

    /// Run only this share of the rows, counted from 0, of `--shard-count`. Without a value, that of the Slurm array
    /// (SLURM_ARRAY_TASK_ID)
    #[arg(long, value_name = "I", num_args = 0..=1, conflicts_with = "shard")]
    shard_index: Option<Option<usize>>,

    /// Number of shares for `--shard-index`; by default the number of tasks of the Slurm array
    #[arg(long, value_name = "N", requires = "shard_index", value_parser = clap::value_parser!(u32).range(1..))]
    shard_count: Option<u32>,

    /// File that records the outcome of each row. Rows that it lists as done are not run again
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// One share of the rows.
#[derive(Clone, Copy)]
pub struct Shard {
    /// From 1.
    number: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parse = |(number, of): (&str, &str)| Some(Shard { number: number.parse().ok()?, of: of.parse().ok()? });
        let shard = text.split_once('/').and_then(parse).filter(|shard| 1 <= shard.number && shard.number <= shard.of);
        let zero = if text.starts_with("0/") { "; `--shard-index` counts from 0" } else { "" };
        shard.ok_or_else(|| format!("write I/N with 1 ≤ I ≤ N, such as 2/4{zero}"))
    }
}

impl Shard {
    /// The share with this index, from 0. What is not given comes from the Slurm array that this process is a task of.
    fn of_index(index: Option<usize>, count: Option<usize>) -> Result<Shard, Exit> {
        let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.trim().parse::<usize>().ok());
        // The identifiers of an array may begin anywhere and leave numbers out.
        let task = || {
            let first = variable("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
            let step = variable("SLURM_ARRAY_TASK_STEP").unwrap_or(1).max(1);
            Some(variable("SLURM_ARRAY_TASK_ID")?.checked_sub(first)? / step)
        };
        let Some(index) = index.or_else(task) else {
            return Err(usage("--shard-index: SLURM_ARRAY_TASK_ID is not set; write the index, from 0"));
        };
        let Some(of) = count.or_else(|| variable("SLURM_ARRAY_TASK_COUNT")) else {
            return Err(usage("--shard-index: give the number of shares with --shard-count"));
        };
        if of == 0 {
            return Err(usage(
                "--shard-index: SLURM_ARRAY_TASK_COUNT is 0; give the number of shares with --shard-count",
            ));
        }
        if index >= of {
            return Err(usage(format!(
                "--shard-index {index}: there are {of} shares, so the index is at most {}",
                of - 1
            )));
        }
        Ok(Shard { number: index + 1, of })
    }
}

impl BulkArgs {
    /// Whether the rows come from stdin.
    pub fn reads_stdin(&self) -> bool {
        self.inputs.as_deref() == Some(Path::new("-"))
    }

    /// Returns the rows that the arguments specify; `None` for a single run.
    ///
    /// # Errors
    /// When they cannot be read, or another argument needs rows and there are none; the reason is printed.
    pub fn rows(&self) -> Result<Option<Rows>, Exit> {
        match &self.inputs {
            Some(path) => Rows::read(path).map(Some),
            None if !self.sweep.is_empty() => Ok(Some(Rows::Sweep(Sweep::parse(&self.sweep)?))),
            None if self.shard.is_some() => Err(usage("--shard needs rows: --inputs or --sweep")),
            None if self.shard_index.is_some() => Err(usage("--shard-index needs rows: --inputs or --sweep")),
            None if self.manifest.is_some() => Err(usage("--manifest needs rows: --inputs or --sweep")),
            None => Ok(None),
        }
    }

    /// The manifest that the user named.
    pub fn manifest(&self) -> Option<PathBuf> {
        self.manifest.clone()
    }

    /// The share of the rows to run; `None` for all.
    ///
    /// # Errors
    /// When it is not one of the shares; the reason is printed.
    pub fn shard(&self) -> Result<Option<Shard>, Exit> {
        match self.shard_index {
            Some(index) => Shard::of_index(index, self.shard_count.map(|count| count as usize)).map(Some),
            None => Ok(self.shard),
        }
    }
}

impl Shard {
    /// `.2-of-4`, for the names of files.
    pub fn suffix(self) -> String {
        format!(".{}-of-{}", self.number, self.of)
    }

    /// Whether the row `index`, from 0, belongs to the share.
    pub fn includes(self, index: usize) -> bool {
        index % self.of == self.number - 1
    }
}
