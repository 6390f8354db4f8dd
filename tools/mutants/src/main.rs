//! Plants bugs in lsregen, and reports which of them its tests do not see.
//!
//! All mutants are compiled into one build, each behind a switch that an environment variable turns on. A mutant then costs
//! only the tests that reach it, up to the first that fails. README.md describes the commands.

mod bugs;
mod compile;
mod mutant;
mod report;
mod rewrite;
mod rules;
mod run;
mod sites;
mod suite;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::mutant::Mutant;
use crate::suite::Suite;
use crate::tree::Tree;

/// Plants bugs in lsregen, and reports which of them its tests do not see.
#[derive(Parser)]
struct Cli {
    /// Folder for cargo's build files; by default target/mutants/build.
    #[arg(long, global = true)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Copies the repository to target/mutants/tree and plants mutants that compile.
    Plant {
        /// Plant only the bugs of bugs.toml.
        #[arg(long)]
        bugs_only: bool,
        /// Plant only the mutants of the rules.
        #[arg(long, conflicts_with = "bugs_only")]
        rules_only: bool,
        /// Mutate these files instead of those that mutants.toml names, as globs.
        paths: Vec<String>,
    },
    /// Builds the tests of the planted tree, and runs them against each mutant.
    Run {
        #[command(flatten)]
        choice: Choice,
        /// How many test binaries run at the same time.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Discard earlier verdicts. Without this, `run` continues where it was stopped.
        #[arg(long)]
        again: bool,
    },
    /// Lists mutants.
    List {
        #[command(flatten)]
        choice: Choice,
    },
    /// Prints the report of all runs since the last `plant`.
    Report,
}

/// Selects mutants.
#[derive(Args)]
struct Choice {
    /// `bugs`, `rules`, a number, or a part of a mutant's line in `list`, such as a path or the name of a rule.
    #[arg(long)]
    only: Vec<String>,
    /// Select this many of them at random.
    #[arg(long)]
    sample: Option<usize>,
    /// Seed of the random selection.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The content of `mutants.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    paths: Vec<String>,
    exclude: Vec<String>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let tree = Tree::new(cli.target_dir)?;
    let home = tree.repository.join("tools/mutants");
    let settings: Settings = toml::from_str(&fs::read_to_string(home.join("mutants.toml"))?)?;
    match cli.verb {
        Verb::Plant { bugs_only, rules_only, paths } => {
            let paths = if paths.is_empty() { settings.paths.clone() } else { paths };
            let mut mutants = Vec::new();
            if !rules_only {
                mutants.extend(by_hand(&tree, &home.join("bugs.toml"))?);
            }
            if !bugs_only {
                mutants.extend(by_rule(&tree, &paths, &settings.exclude)?);
            }
            plant(&tree, mutants)
        }
        Verb::Run { choice, jobs, again } => {
            let mutants: Vec<Mutant> = read(&tree.state.join("mutants.json"))?;
            let suite = suite(&tree, jobs)?;
            if again {
                let _ = fs::remove_file(tree.state.join("results.jsonl"));
            }
            let done = run::verdicts(&tree)?;
            let mut chosen = choice.of(&mutants);
            chosen.retain(|mutant| !done.contains_key(&mutant.id));
            run::run(&tree, &suite, &chosen, jobs)?;
            let report = report::report(&mutants, &run::verdicts(&tree)?);
            fs::write(tree.state.join("report.md"), &report)?;
            print!("{report}");
            Ok(())
        }
        Verb::List { choice } => {
            let mutants: Vec<Mutant> = read(&tree.state.join("mutants.json"))?;
            choice.of(&mutants).iter().for_each(|mutant| println!("{} {}", mutant.id, mutant.summary()));
            Ok(())
        }
        Verb::Report => {
            let mutants: Vec<Mutant> = read(&tree.state.join("mutants.json"))?;
            print!("{}", report::report(&mutants, &run::verdicts(&tree)?));
            Ok(())
        }
    }
}

impl Choice {
    fn of<'m>(&self, mutants: &'m [Mutant]) -> Vec<&'m Mutant> {
        let matches = |mutant: &&Mutant| {
            let one = |only: &String| match only.as_str() {
                "bugs" => mutant.is_bug(),
                "rules" => !mutant.is_bug(),
                only => mutant.id.to_string() == only || mutant.summary().contains(only),
            };
            self.only.is_empty() || self.only.iter().any(one)
        };
        let chosen = mutants.iter().filter(matches).collect();
        match self.sample {
            Some(size) => run::sample(chosen, size, self.seed),
            None => chosen,
        }
    }
}

fn by_hand(tree: &Tree, list: &Path) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    let mut errors = Vec::new();
    let files = tree.files()?;
    for bug in bugs::read(list)? {
        let made = bug.locate(&files).and_then(|file| {
            let source = tree.source(file)?;
            bug.mutant(file, &source, &parse(&source, file)?)
        });
        match made {
            Ok(mutant) => mutants.push(mutant),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    ensure!(errors.is_empty(), "bugs that do not fit the sources:\n{}", errors.join("\n"));
    Ok(mutants)
}

fn by_rule(tree: &Tree, paths: &[String], exclude: &[String]) -> Result<Vec<Mutant>> {
    let patterns = |globs: &[String]| globs.iter().map(|glob| glob::Pattern::new(glob)).collect::<Result<Vec<_>, _>>();
    let (paths, exclude) = (patterns(paths)?, patterns(exclude)?);
    let mut mutants = Vec::new();
    for file in tree.files()? {
        let matches = |patterns: &[glob::Pattern]| patterns.iter().any(|pattern| pattern.matches(&file));
        if file.ends_with(".rs") && matches(&paths) && !matches(&exclude) {
            let source = tree.source(&file)?;
            let found = rules::mutants(&source, &parse(&source, &file)?);
            mutants.extend(found.into_iter().map(|mutant| Mutant { file: file.clone(), ..mutant }));
        }
    }
    Ok(mutants)
}

fn parse(source: &str, file: &str) -> Result<syn::File> {
    syn::parse_file(source).with_context(|| format!("{file} is not Rust"))
}

fn plant(tree: &Tree, mut mutants: Vec<Mutant>) -> Result<()> {
    for (index, mutant) in mutants.iter_mut().enumerate() {
        mutant.id = index as u32 + 1;
    }
    let (planted, dropped) = compile::plant(tree, mutants)?;
    for mutant in dropped.iter().filter(|mutant| mutant.is_bug()) {
        println!("does not compile: {}", mutant.summary());
    }
    println!("{} mutants planted, {} do not compile", planted.len(), dropped.len());
    fs::write(tree.state.join("mutants.json"), serde_json::to_string_pretty(&planted)?)?;
    for stale in ["suite.json", "results.jsonl", "report.md"] {
        let _ = fs::remove_file(tree.state.join(stale));
    }
    Ok(())
}

/// Returns the tests of the planted tree, which are measured on the first call.
fn suite(tree: &Tree, jobs: usize) -> Result<Suite> {
    let path = tree.state.join("suite.json");
    if path.exists() {
        return read(&path);
    }
    let suite = Suite::measured(tree, jobs)?;
    fs::write(&path, serde_json::to_string(&suite)?)?;
    Ok(suite)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("{} is missing: run `plant` first", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
}
