//! The verbs of the command, one file each, and what they share: arguments, exit codes.
//!
//! Data goes to stdout, everything said to a person to stderr.

mod bulk;
mod cache;
mod cache_args;
mod check;
mod console;
mod events;
mod fetch;
mod graph;
mod inspect;
mod manifest;
mod memory;
mod nodes;
mod open;
mod picture;
mod plan;
mod previews;
mod rows;
mod run;
mod schema;
mod session;
mod show;
mod sweep;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Pictures at large scale that follow a layout of boxes: runs node graphs written in YAML.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Run),
    Watch(watch::Watch),
    Check(check::Check),
    Plan(plan::Plan),
    Nodes(nodes::Nodes),
    Graph(graph::Graph),
    Cache(cache::Cache),
    Fetch(fetch::Fetch),
    Inspect(inspect::Inspect),
    Schema(schema::Schema),
    Show(show::Show),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// The graph was good, but a run of it failed or was cancelled.
    Failed = 1,
    /// The command line asks for what is not there. (clap's own code for unknown arguments too.)
    Usage = 2,
    /// The graph has faults: EX_CONFIG of sysexits.h.
    BadGraph = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Reads the arguments and does what they say.
pub fn main() -> Exit {
    let done = match Arguments::parse().verb {
        Verb::Run(verb) => verb.main(),
        Verb::Watch(verb) => verb.main(),
        Verb::Check(verb) => verb.main(),
        Verb::Plan(verb) => verb.main(),
        Verb::Nodes(verb) => verb.main(),
        Verb::Graph(verb) => verb.main(),
        Verb::Cache(verb) => verb.main(),
        Verb::Fetch(verb) => verb.main(),
        Verb::Inspect(verb) => verb.main(),
        Verb::Schema(verb) => verb.main(),
        Verb::Show(verb) => verb.main(),
    };
    done.unwrap_or_else(|exit| exit)
}

/// Says what is wrong with the command line.
fn usage(message: impl std::fmt::Display) -> Exit {
    console::complain(message);
    Exit::Usage
}

/// Writes to stdout. A reader that has gone away, as `head` does, is no fault.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
